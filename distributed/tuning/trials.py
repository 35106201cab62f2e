"""The trials of a study: asked for one by one, and ended in their true state.

The study is all that a search remembers: the same command goes on from it. A trial ends

    COMPLETE  with its score
    PRUNED    stopped by the scheduler; what it reached is an intermediate value
    FAIL      its user attribute "reason" says why: an error, a score that is no number, a process that died

and one whose driver died or was interrupted is given back: FAIL, and its parameters are enqueued again. What was given
back does not count among the trials that were asked for.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from distributed.tuning.drivers import DEAD_SECONDS, living
from search_spaces.space import Space

Report = Mapping[str, Any]
"""What a trial tells: "value", "round"; on its way the "step" and how many rounds may be "left"; at its end "finished"
or, after an error, "failed"; and what it cost up to now."""
COSTS = ("seconds", "cpu_seconds", "made", "cached", "cost", "memory", "looked", "waited")
"""Numbers of a last report that become the trial's user attributes."""
AS_IT_IS, AGAIN, REASON, DRIVER, VALUES = "as it is", "given back", "reason", "driver", "values"
"""User attributes of trials: the recipe itself; does not count; why it failed; who ran it; its values by recipe key."""
GOES_ON = "goes on with"
"""User attribute: the number of the stopped trial that this one brings to its end."""
COUNTED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.RUNNING)


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those that were asked for."""
    return trial.state in COUNTED and not trial.user_attrs.get(AGAIN)


def asked(trial: FrozenTrial) -> bool:
    """Whether a trial is one of those whose number `--trials` sets; those that go on with a stopped one come on top."""
    return counts(trial) and GOES_ON not in trial.user_attrs


def recipe_trial(study: optuna.Study) -> FrozenTrial | None:
    """The trial of the recipe as it is; None while it has no score."""
    found = [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get(AS_IT_IS) and t.state.name == "COMPLETE"]
    return found[0] if found else None


@dataclass
class Trials:
    """Asks a study for trials and ends them; Tune's searcher and the loop without Ray are thin shells around it.

    Attributes:
        space: for the study's recipe.
        total: how many trials count, over all drivers.
        until: no trial is asked for after this; seconds since 1970.
        driver: this process (drivers.py).
        began, ended: told of each trial.
    """

    study: optuna.Study
    space: Space
    total: int
    driver: str
    until: float = math.inf
    began: Callable[[FrozenTrial], None] = lambda trial: None
    ended: Callable[[FrozenTrial], None] = lambda trial: None
    sampler: Callable[[int], optuna.samplers.BaseSampler] | None = None
    """Made anew for each suggestion, by how many went before: so a killed search goes on as it would have."""
    running: dict[int, optuna.Trial] = field(default_factory=dict)
    broken: str | None = None
    """Why the recipe as it is failed: then every trial would."""

    def prepare(self, defaults: Mapping[str, Any], first: list[dict[str, Any]]) -> None:
        """Gives back what dead drivers left; enqueues the recipe itself, then, in a new study, `first`."""
        alive = living(self.study)
        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            driver = trial.user_attrs.get(DRIVER)
            # One that was asked for a moment ago has no driver yet.
            if driver in alive or (driver is None and len(alive) > 1 and _age(trial) < DEAD_SECONDS):
                continue
            self._give_back(trial, "driver died")
        trials = self.study.get_trials(deepcopy=False)
        mine = [t for t in trials if t.user_attrs.get(AS_IT_IS)]
        if not any(t.state in (TrialState.WAITING, TrialState.RUNNING) or counts(t) for t in mine):
            self.study.enqueue_trial(dict(defaults), {AS_IT_IS: True})
        if not trials:
            for params in first:
                self.study.enqueue_trial(params)

    def resume(self, most: int) -> int:
        """Enqueues the best of the stopped trials once more, to their end: training goes on from their checkpoints.

        Returns:
            How many; none that another trial goes on with already.
        """
        trials = self.study.get_trials(deepcopy=False)
        taken = {t.user_attrs.get(GOES_ON) for t in trials if not t.user_attrs.get(AGAIN)}
        stopped = [t for t in trials if t.state == TrialState.PRUNED and t.number not in taken and t.values]
        stopped.sort(key=lambda t: (-t.values[0], t.number))
        for trial in stopped[:most]:
            self.study.enqueue_trial(trial.params, {GOES_ON: trial.number})
        return len(stopped[:most])

    def ask(self) -> optuna.Trial | None:
        """The next trial with its values suggested; None if there is nothing left to ask for."""
        while True:
            trials = self.study.get_trials(deepcopy=False)
            if self.broken is not None or time.time() >= self.until:
                return None
            more = any(t.state == TrialState.WAITING and GOES_ON in t.user_attrs for t in trials)
            if sum(map(asked, trials)) >= self.total and not more:
                return None
            if self.sampler is not None:
                self.study.sampler = self.sampler(sum(_stands(t) for t in trials))
            trial = self.study.ask()
            trial.set_user_attr(DRIVER, self.driver)
            # Several drivers may have asked for the last one, or enqueued the recipe, at the same moment.
            before = [
                t
                for t in self.study.get_trials(deepcopy=False)[: trial.number]
                if asked(t) or (t.state == TrialState.WAITING and GOES_ON not in t.user_attrs)
            ]
            twin = trial.user_attrs.get(AS_IT_IS) and any(t.user_attrs.get(AS_IT_IS) for t in before)
            if GOES_ON in trial.user_attrs or (len(before) < self.total and not twin):
                break
            self._end(trial.number, TrialState.FAIL, reason="one too many", given_back=True)
        self.running[trial.number] = trial
        values = self.space.suggest(trial)
        trial.set_user_attr(VALUES, values)
        self.began(self._frozen(trial.number))
        return trial

    def report(self, number: int, report: Report) -> bool:
        """A trial's score on its way, as an intermediate value; whether the study's pruner stops the trial there.

        Never stopped are the recipe itself, what goes on with a stopped trial, and what has come to its last round.
        """
        value, trial = report.get("value"), self.running.get(number)
        if trial is None or "left" not in report or not _is_number(value) or len(self.study.directions) > 1:
            return False
        # It is there already if the trial's process died and another began anew.
        if report["step"] not in self._frozen(number).intermediate_values:
            trial.report(float(value), report["step"])  # type: ignore[arg-type]
        stays = AS_IT_IS in trial.user_attrs or GOES_ON in trial.user_attrs
        return bool(report["left"] and not stays and trial.should_prune())

    def end(self, number: int, report: Report | None, died: bool = False) -> FrozenTrial | None:
        """Ends a trial in its true state, by its last report; None: it had none.

        Args:
            died: the trial's process died, and so did those that tried again.
        """
        trial = self.running.pop(number, None)
        if trial is None:
            return None
        report = report or {}
        for name in COSTS:
            if name in report:
                self._note(trial.number, name, report[name])
        state, reason, value = TrialState.FAIL, None, report.get("value")
        if died:
            reason = "the trial's process died or could not begin, again and again: out of memory?"
        elif "failed" in report:
            reason = str(report["failed"])
        elif report.get("finished"):
            state = TrialState.COMPLETE if _is_number(value) else state
            reason = None if _is_number(value) else f"the score is {value}"
        elif "left" in report:
            state = TrialState.PRUNED
        else:
            return self._give_back(self._frozen(trial.number), "stopped before its first report")
        is_recipe = bool(trial.user_attrs.get(AS_IT_IS))
        if is_recipe and "failed" in report:
            self.broken = reason
        costs = [float(report["cost"])] if len(self.study.directions) > 1 and state == TrialState.COMPLETE else []
        return self._end(
            trial.number,
            state,
            [float(value), *costs] if state == TrialState.COMPLETE else None,  # type: ignore[arg-type]
            reason,
            given_back=is_recipe and "failed" in report,
        )

    def give_back(self, reason: str) -> None:
        """All trials that this driver still runs: it is about to end."""
        for number in list(self.running):
            self._give_back(self._frozen(number), reason)
        self.running.clear()

    def _give_back(self, trial: FrozenTrial, reason: str) -> FrozenTrial | None:
        """FAIL, and the same parameters once more; nothing if another driver did so just now."""
        ended = self._end(trial.number, TrialState.FAIL, None, reason, given_back=True)
        if ended is not None:
            params = {**trial.system_attrs.get("fixed_params", {}), **trial.params}
            kept = {name: trial.user_attrs[name] for name in (AS_IT_IS, GOES_ON) if name in trial.user_attrs}
            self.study.enqueue_trial(params, kept or None)
        return ended

    def _end(
        self,
        number: int,
        state: TrialState,
        values: list[float] | None = None,
        reason: str | None = None,
        given_back: bool = False,
    ) -> FrozenTrial | None:
        try:
            if reason is not None:
                self._note(number, REASON, reason[:1000])
            if given_back:
                self._note(number, AGAIN, True)
            self.study.tell(number, values, state)
        except (ValueError, RuntimeError):
            return None  # ended by another driver, which took this one for dead
        ended = self._frozen(number)
        self.ended(ended)
        return ended

    def _note(self, number: int, name: str, value: Any) -> None:
        """A user attribute; of another driver's trial, too, for which Optuna has no call that does not sample."""
        self.study._storage.set_trial_user_attr(self._frozen(number)._trial_id, name, value)

    def _frozen(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _age(trial: FrozenTrial) -> float:
    return (datetime.now() - trial.datetime_start).total_seconds() if trial.datetime_start else math.inf


def _stands(trial: FrozenTrial) -> bool:
    """Whether a trial was asked for with new values, and not given back."""
    return trial.state != TrialState.WAITING and not any(map(trial.user_attrs.get, (AGAIN, GOES_ON)))
