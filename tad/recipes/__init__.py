"""The recipes: one YAML file each, validated by tad.recipe.recipe."""
