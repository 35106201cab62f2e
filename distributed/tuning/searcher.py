"""Ray Tune's view of a study: it is asked for trials and told how they end; all else is in trials.py.

Tune's own OptunaSearch is not used. It ends stopped trials as complete, leaves those whose score is not a number
running for ever, and unpickles its state from a folder; this one keeps none outside the study.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from distributed.tuning.trials import Report, Trials
from tad.errors import RunError


class _Unsaved:
    """Tune writes its searcher and scheduler beside its own files, to restore them. Nothing is restored from there, and
    a study, a record and their locks cannot be written."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudySearcher(_Unsaved, Searcher):
    """Suggests the trials of a study, at most `concurrency` at a time.

    Args:
        config: what Tune hands to the trial's process.
    """

    def __init__(self, trials: Trials, concurrency: int, config: Callable[[optuna.Trial], dict[str, Any]]) -> None:
        super().__init__()
        self.trials, self.concurrency, self._config = trials, concurrency, config
        self._numbers: dict[str, int] = {}
        self._asked: dict[str, float] = {}
        self.asked_all = False
        """Whether the study had nothing left to ask for."""

    def suggest(self, trial_id: str) -> Any:
        if len(self._numbers) >= self.concurrency:
            return None
        trial = self.trials.ask()
        if trial is None:
            self.asked_all = True
            return Searcher.FINISHED
        self._numbers[trial_id], self._asked[trial_id] = trial.number, time.time()
        return self._config(trial)

    def on_trial_complete(self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False) -> None:
        number, asked = self._numbers.pop(trial_id, None), self._asked.pop(trial_id, 0.0)
        if number is None:
            return
        if result is not None and "over" in result:
            # What Ray takes to begin a trial, and to hear of its end.
            waited = max(0.0, result["begun"] - asked) + max(0.0, time.time() - result["over"])
            result = {**result, "waited": round(waited, 3)}
        self.trials.end(number, result, died=error)

    def save(self, checkpoint_path: str) -> None:
        raise RunError("a search is not saved by Ray Tune: the study is its state, and nothing is pickled")

    def restore(self, checkpoint_path: str) -> None:
        raise RunError("a search is not restored by Ray Tune: run the same command again, it goes on from the study")

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Tune saves searchers every few seconds; there is nothing to save."""


class StudyScheduler(_Unsaved, FIFOScheduler):
    """Stops trials by the study's pruner, which knows all trials: other drivers' and those before a restart, too."""

    def __init__(self, trials: Trials) -> None:
        super().__init__()
        self.trials = trials

    def on_trial_result(self, tune_controller: Any, trial: Any, result: Report) -> str:
        stops = self.trials.report(trial.config["number"], result)
        return str(TrialScheduler.STOP if stops else TrialScheduler.CONTINUE)
