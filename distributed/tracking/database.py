"""An MLflow store that can be written: how it is opened, and the four things that are written.

Local: one SQLite file, with the artifacts in the folder `mlartifacts` beside it. Remote: an MLflow server.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from filelock import FileLock

from distributed.tracking.address import INSTEAD, check_file, mlflow, reach, sqlite_path
from tad.errors import RunError

TOKEN_TAG = "tad.run"
"""Every run carries a token made by the driver, so that it is found again whatever became of the answer to its
creation."""
PARENT_TAG = "mlflow.parentRunId"

# What the store says about the operation itself; anything else may pass when it is tried again later.
REFUSALS = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "NOT_FOUND",
    "INVALID_STATE",
}


class TrackingStore:
    """An open store and one of its experiments.

    Args:
        uri: what `address` returned.
        experiment: a name; the experiment is made where it is missing.

    Raises:
        RunError: the server does not answer, the file cannot be used, or the experiment was deleted.
    """

    def __init__(self, uri: str, experiment: str) -> None:
        self.uri = uri
        self.ids: dict[str, str] = {}
        path = sqlite_path(uri)
        if path is None:
            reach(uri)
            self._open(experiment, None)
            return
        check_file(path)
        # Two processes that create the database at once leave it broken.
        try:
            with FileLock(path.with_name(f".{path.name}.lock")):
                self._open(experiment, (path.parent / "mlartifacts").as_uri())
        except OSError as error:
            raise RunError(f"{path.parent}: MLflow must be able to write in this folder: {error}") from error

    def _open(self, experiment: str, artifacts: str | None) -> None:
        package = mlflow()
        try:
            self.client = package.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            found = self.client.get_experiment_by_name(experiment)
            if found is None:
                try:
                    self.client.create_experiment(experiment, artifact_location=artifacts)
                except package.MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":  # another driver was quicker
                        raise
                found = self.client.get_experiment_by_name(experiment)
        except Exception as error:
            raise RunError(_cannot_use(self.uri, error, package.__version__)) from error
        if found.lifecycle_stage == "deleted":
            raise RunError(
                f"{self.uri}: the experiment {experiment!r} was deleted; bring it back with `mlflow experiments "
                f"restore --experiment-id {found.experiment_id}` (MLFLOW_TRACKING_URI={self.uri}), or use another store"
            )
        self.experiment: str = experiment
        self.experiment_id: str = found.experiment_id

    def alive(self) -> bool:
        """Whether the store answers, and a server's database with it; takes a few seconds at most."""
        try:
            if sqlite_path(self.uri) is None:
                reach(self.uri)  # first, as it gives up sooner
            self.client.get_experiment(self.experiment_id)
        except Exception:
            return False
        return True

    def apply(self, operation: dict[str, Any]) -> None:
        """Carries out an operation (distributed/tracking/outbox.py lists them). Doing it twice is as good as once.

        Raises:
            LookupError: its run was never created.
            Exception: whatever MLflow raises; `refused` tells the hopeless from the passing.
        """
        if operation["op"] == "create":
            self._create(operation)
            return
        run = self.id(operation["run"])
        if operation["op"] == "batch":
            self._log(run, operation)
        elif operation["op"] == "artifact":
            path = Path(operation["path"])
            log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
            log(run, str(path), operation["folder"] or None)
        elif operation["op"] == "end":
            self.client.set_terminated(run, operation["status"], operation["time"])
        else:
            raise LookupError(f"unknown operation {operation['op']!r}")

    def id(self, token: str) -> str:
        """The MLflow run of a token.

        Raises:
            LookupError: there is none.
        """
        if token not in self.ids:
            runs = self._runs(TOKEN_TAG, token)
            if not runs:
                raise LookupError(f"no MLflow run has the tag {TOKEN_TAG} = {token}")
            self.ids[token] = min(runs, key=lambda run: (run.info.start_time, run.info.run_id)).info.run_id
        return self.ids[token]

    def drop_twins(self, token: str) -> None:
        """Deletes what a creation left that was carried out although its answer never came."""
        for run in self._runs(TOKEN_TAG, token):
            if run.info.run_id != self.id(token):
                self.client.delete_run(run.info.run_id)

    def children(self, run_id: str) -> Iterator[Any]:
        """All runs below a run, each before its own children."""
        for run in self._runs(PARENT_TAG, run_id):
            yield run
            yield from self.children(run.info.run_id)

    def _runs(self, tag: str, value: str) -> list[Any]:
        found: list[Any] = []
        page = None
        while page is None or page.token:
            page = self.client.search_runs(
                [self.experiment_id], f"tags.`{tag}` = '{value}'", page_token=page.token if page else None
            )
            found += page
        return found

    def _create(self, operation: dict[str, Any]) -> None:
        token = operation["run"]
        if operation.get("tries"):
            try:
                self.id(token)
                return
            except LookupError:
                pass
        tags = {TOKEN_TAG: token, **operation["tags"]}
        if operation["parent"] is not None:
            tags[PARENT_TAG] = self.id(operation["parent"])
        run = self.client.create_run(self.experiment_id, operation["time"], tags, operation["name"])
        self.ids[token] = run.info.run_id

    def _log(self, run: str, operation: dict[str, Any]) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # The limits of one request: 1000 metrics, 100 params, 100 tags.
        for metrics in _chunks(operation.get("metrics", []), 1000):
            self.client.log_batch(run, metrics=[Metric(*metric) for metric in metrics])
        for params in _chunks(operation.get("params", {}).items(), 100):
            self.client.log_batch(run, params=[Param(*param) for param in params])
        for tags in _chunks(operation.get("tags", {}).items(), 100):
            self.client.log_batch(run, tags=[RunTag(*tag) for tag in tags])


def refused(error: Exception) -> bool:
    """Whether trying the same operation again is hopeless."""
    return isinstance(error, (LookupError, FileNotFoundError)) or getattr(error, "error_code", None) in REFUSALS


def _chunks(items: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(items)
    while chunk := list(islice(rest, size)):
        yield chunk


def _cannot_use(uri: str, error: Exception, version: str) -> str:
    reason = (str(error).splitlines() or [type(error).__name__])[0][:300]
    if sqlite_path(uri) is None:
        return f"{uri}: something answers there, but not as an MLflow server should: {reason}; {INSTEAD}"
    if "schema" in reason or "revision" in reason:
        return (
            f"{uri}: this database was made by another version of MLflow (this is {version}): {reason} Copy the file, "
            f"then upgrade it with `python -m mlflow db upgrade '{uri}'`, or give another file"
        )
    return f"{uri}: MLflow {version} cannot use this database: {reason}"
