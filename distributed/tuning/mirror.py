"""A search in MLflow: the study is a run, each trial a run below it, linked to the runs that made its stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from distributed.engine.store import Store
from distributed.tracking.mlflow_tracker import MlflowTracker
from distributed.tuning.trial import Work, folder_of, stages_of
from distributed.tuning.trials import AS_IT_IS, COSTS, REASON, VALUES

STATUS = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}


class Mirror:
    """Told of every trial of this driver; only the driver writes to MLflow."""

    def __init__(self, tracker: MlflowTracker, work: Work) -> None:
        self.tracker, self._work, self._store = tracker, work, Store(work.store)
        self._runs: dict[int, str] = {}

    def began(self, trial: FrozenTrial) -> None:
        values: dict[str, Any] = trial.user_attrs.get(VALUES, {})
        kind = {"recipe": "as it is"} if trial.user_attrs.get(AS_IT_IS) else {}
        name = f"trial {trial.number}"
        self._runs[trial.number] = self.tracker.begin("trial", name, values, {"trial": str(trial.number), **kind})

    def run_id(self, number: int) -> str | None:
        """The trial's MLflow run."""
        return self.tracker.id_of(self._runs[number]) if number in self._runs else None

    def ended(self, trial: FrozenTrial) -> None:
        token = self._runs.pop(trial.number, None)
        if token is None:
            return  # another driver's
        metrics = {f"round {step} value": (value, step) for step, value in trial.intermediate_values.items()}
        if trial.state == TrialState.COMPLETE:
            metrics |= {name: (value, 0) for name, value in zip(("value", "cost"), trial.values, strict=False)}
        metrics |= {name: (float(trial.user_attrs[name]), 0) for name in COSTS if name in trial.user_attrs}
        tags = {"state": trial.state.name}
        if REASON in trial.user_attrs:
            tags["reason"] = trial.user_attrs[REASON]
        self.tracker.end(token, STATUS[trial.state], metrics, tags | self._stages(trial.number))

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

    def finish(self, state: str, numbers: dict[str, float], files: list[Path]) -> None:
        """The study's own numbers, figures and best recipe, and the end of its run."""
        self.tracker.metrics(numbers, 0)
        for path in files:
            self.tracker.artifact(path, "figures" if path.suffix == ".png" else "")
        self.tracker.finish(state)
