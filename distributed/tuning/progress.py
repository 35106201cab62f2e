"""What a search shows while it runs."""

from __future__ import annotations

import sys
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from tqdm import tqdm

from distributed.engine.locks import note
from distributed.tuning.drivers import living
from distributed.tuning.trials import REASON, asked


class Progress:
    """One bar over the trials with the best so far; on no terminal a line for each trial."""

    def __init__(self, study: optuna.Study, total: int, objective: str) -> None:
        self._study, self._total, self._objective = study, total, objective
        self._attended = sys.stderr.isatty()
        self._bar: tqdm[Any] | None = None

    def greet(self, name: str, how: str) -> None:
        """Says which study goes on, and how (sampler, trials at a time)."""
        trials = self._study.get_trials(deepcopy=False)
        done = sum(asked(t) and t.state.is_finished() for t in trials)
        others = len(living(self._study)) - 1
        joined = f"; {others} other driver{'s' if others > 1 else ''} in this study" if others else ""
        note(f"study {name}: {done} of {self._total} trials are done; {how}{joined}")
        if self._attended:
            self._bar = tqdm(total=self._total, initial=done, desc="trials", unit="trial", file=sys.stderr)

    def ended(self, trial: FrozenTrial) -> None:
        best = max(
            (t.values[0] for t in self._study.get_trials(deepcopy=False) if t.state.name == "COMPLETE"), default=None
        )
        shown = f"best {best:.4f}" if best is not None else ""
        if self._bar is not None:
            self._bar.update(asked(trial))
            self._bar.set_postfix_str(shown)
        if self._bar is None or trial.state.name == "FAIL":
            value = f" {trial.values[0]:.4f}" if trial.values else ""
            reason = f": {trial.user_attrs[REASON]}" if REASON in trial.user_attrs else ""
            note(f"trial {trial.number}: {trial.state.name.lower()}{value}{reason}; {shown}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
