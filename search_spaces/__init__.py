"""What may be tuned and over which range: one file per family, each with a list SPACE of parameters.

space = load("perturbation,postprocess").for_recipe(recipe)
study.optimize(lambda trial: score(changed(recipe, space.suggest(trial))), n_trials=50)
"""
