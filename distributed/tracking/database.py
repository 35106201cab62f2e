"""An MLflow store that can be written: how it is opened, and which runs it has of a record.

Local: one SQLite file, with the artifacts in the folder `mlartifacts` beside it. Remote: an MLflow server.
"""

from __future__ import annotations

from typing import Any

from filelock import FileLock

from distributed.tracking.address import INSTEAD, check_file, mlflow, reach, sqlite_path
from tad.errors import RunError

TOKEN_TAG = "tad.run"
ALL = 3
"""MLflow's number for runs that were deleted, too."""


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

    def runs(self, record: str) -> dict[str, Any]:
        """The runs of a record by their tokens, also those that were deleted on MLflow's page.

        A run whose creation was carried out although its answer got lost was made twice; the emptier one is deleted.
        """
        found: dict[str, Any] = {}
        page, tokens = None, f"tags.`{TOKEN_TAG}` LIKE '{record}%'"
        while page is None or page.token:
            last = page.token if page is not None else None
            page = self.client.search_runs([self.experiment_id], tokens, run_view_type=ALL, page_token=last)
            for run in page:
                token = run.data.tags[TOKEN_TAG]
                twin, found[token] = sorted((found.get(token, run), run), key=_filled)
                if twin is not found[token] and twin.info.lifecycle_stage == "active":
                    self.client.delete_run(twin.info.run_id)
        return found


def _filled(run: Any) -> tuple[bool, bool, int]:
    data, info = run.data, run.info
    held = len(data.metrics) + len(data.params) + len(data.tags)
    return info.lifecycle_stage == "active", info.status != "RUNNING", held


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
