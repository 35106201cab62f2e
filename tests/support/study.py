"""A study of one number, x, without runs."""

from __future__ import annotations

import optuna

from distributed.run.identity import Identity
from distributed.tuning.study import join, open_storage
from distributed.tuning.trials import Trials
from search_spaces.space import Float, Parameter, Space

optuna.logging.set_verbosity(optuna.logging.ERROR)

SPACE = Space((Parameter("x", Float(0.0, 8.0), "for tests", "labels"),))
IDENTITY = {"recipe": "r", "data": "d", "seed": "0"}
DONE = {"round": 2, "finished": True, "seconds": 1.5}


def a_study(url, name="one", directions=("maximize",)):
    study = join(open_storage(url), name, IDENTITY, list(directions))
    study.sampler = optuna.samplers.RandomSampler(seed=len(study.trials))
    return study


def trials_of(study, total=100, driver=None, **more) -> Trials:
    found = Trials(study, SPACE, total, driver or str(Identity.me()), **more)
    found.prepare({"x": 4.0}, [])
    return found


def states(study):
    return [t.state.name for t in study.trials]
