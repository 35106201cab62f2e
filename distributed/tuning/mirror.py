"""A search in MLflow: the study is a run, each trial a run below it, linked to the runs that made its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.tracking.follow import Follower
from distributed.tuning.trial import Work, folder_of, stages_of
from distributed.tuning.trials import AS_IT_IS, COSTS, REASON, VALUES

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


class Mirror:
    """The record of a study: told of every trial of this driver, and sent to MLflow as that of a run is.

    Args:
        file: of the record, in the study's folder; no other driver may write to it.
        tracking: MLflow's address, as `Follower` takes it.
        beginning: as `Follower` takes it.

    Raises:
        RunError: MLflow cannot be reached or used.
    """

    def __init__(self, work: Work, file: str, tracking: str | None, **beginning: Any) -> None:
        self._record = Record(work.folder.parent, name=file)
        self._follower = Follower(self._record, tracking, **beginning)
        self._work, self._store = work, Store(work.store)
        self._bytes: dict[int, int] = {}

    def began(self, trial: FrozenTrial) -> None:
        values: dict[str, Any] = trial.user_attrs.get(VALUES, {})
        kind = {"recipe": "as it is"} if trial.user_attrs.get(AS_IT_IS) else {}
        name, number = f"trial {trial.number}", str(trial.number)
        self._bytes[trial.number] = self._record.event("trial", name=name, config=values, trial=number, **kind)

    def run_id(self, number: int | None = None) -> str | None:
        """The MLflow run of a trial of this driver, or of the study."""
        return self._follower.run_id(self._bytes[number] if number is not None else 0)

    def ended(self, trial: FrozenTrial) -> None:
        byte = self._bytes.pop(trial.number, None)
        if byte is None:
            return  # another driver's
        for step, value in trial.intermediate_values.items():
            self._record.event("metrics", run=byte, step=step, metrics={f"round {step} value": value})
        values = dict(zip(("value", "cost"), trial.values, strict=False)) if trial.state == TrialState.COMPLETE else {}
        values |= {name: float(trial.user_attrs[name]) for name in COSTS if name in trial.user_attrs}
        self._record.event("metrics", run=byte, step=0, metrics=values)
        tags = {"state": trial.state.name} | self._stages(trial.number)
        if REASON in trial.user_attrs:
            tags["reason"] = trial.user_attrs[REASON]
        self._record.event("trial-done", run=byte, status=STATUS[trial.state], **tags)

    def _stages(self, number: int) -> dict[str, str]:
        """Each stage that the trial used: its fingerprint, and the MLflow run that made it."""
        found: dict[str, str] = {}
        for use in stages_of(folder_of(self._work, number)):
            run = self._store.meta(use.fingerprint).get("mlflow_run")
            how = "made" if use.made else "cached"
            key = f"stage/{use.round}/{use.name}/{use.role}"
            key += f" {n}" if (n := sum(k.startswith(key) for k in found)) else ""
            found[key] = f"{use.fingerprint} {how} by run {run or 'untracked'}"
        return found

    def finish(self, status: str, numbers: dict[str, float], files: list[Path]) -> None:
        """The study's own numbers, figures and best recipe, and the end of its run."""
        self._record.metrics(numbers, 0)
        for path in files:
            self._record.artifact(path, "figures" if path.suffix == ".png" else "")
        self._record.event("end", status=status)
        self._follower.finish()
