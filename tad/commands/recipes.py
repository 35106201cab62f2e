"""`tad recipes`."""

from __future__ import annotations

import click

from tad.commands.say import say


@click.group(invoke_without_command=True)
@click.pass_context
def recipes(context: click.Context) -> None:
    """List the recipes that come with the package."""
    if context.invoked_subcommand is None:
        from tad.recipe.auto import AUTO, DESCRIPTION
        from tad.recipe.recipe import load_recipe, recipe_names

        say(f"{AUTO:<16} {DESCRIPTION}")
        for name in recipe_names():
            say(f"{name:<16} {load_recipe(name).description}")


@recipes.command()
@click.argument("name")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override an option; may be repeated.")
@click.option("--explain", "with_words", is_flag=True, help="Say what each option means and what is worth trying.")
def show(name: str, overrides: tuple[str, ...], with_words: bool) -> None:
    """Print the whole config of recipe NAME (or a .yaml file), every default included."""
    from tad.recipe.explain import explain
    from tad.recipe.recipe import dump, load_recipe

    recipe = load_recipe(name, overrides)
    say((explain(recipe) if with_words else dump(recipe)).rstrip("\n"))
