"""What may be tuned, and over which range: one function per family, from an Optuna trial to recipe overrides.

    study.optimize(lambda trial: score(load_recipe("pser", pser.labels(trial))), n_trials=50)
"""
