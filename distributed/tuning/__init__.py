"""Search for a better recipe: Ray Tune drives, Optuna suggests, trials share stages through the artifact store.

study.py      the Optuna study: storage, joining, what another study found
folder.py     STUDY/: whose it is, its data, what makes two studies the same
trials.py     trials that are asked for and ended
drivers.py    which processes search in it, and which of them died
searcher.py   Ray Tune's view of the study
trial.py      what one trial does
search.py     `tad tune`: checks, plan, the search itself
summary.py    what a search found; figures.py, mirror.py: in pictures, in MLflow
"""
