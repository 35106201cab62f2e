"""What may be tuned: families of the ranges that stand on the options, and spaces of the user's own.

space = load("perturbation,postprocess").for_recipe(recipe)
study.optimize(lambda trial: score(changed(recipe, space.suggest(trial))), n_trials=50)
"""
