"""MLflow as a mirror of a run: a parent run for the self-training, below it the rounds, below them the stages.

Only the driver writes. A store that cannot be reached stops the command before training begins; one that goes away
later does not stop it (distributed/tracking/outbox.py).
"""

from __future__ import annotations

import getpass
import json
import math
import posixpath
import re
import shlex
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from distributed.engine.locks import note
from distributed.tracking.address import address, mlflow
from distributed.tracking.database import TOKEN_TAG, TrackingStore
from distributed.tracking.outbox import Outbox, Spool
from tad.data.remote import redacted
from tad.errors import RunError

PARAM_LENGTH = 6000
TAG_LENGTH = 5000
KEY_LENGTH = 250


def connect(
    uri: str | None,
    experiment: str,
    run_name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    run_folder: Path,
    resume_run_id: str | None = None,
    warn: Callable[[str], None] | None = None,
) -> MlflowTracker:
    """Opens the parent run of a self-training.

    Args:
        uri: `sqlite:///FILE` or `http://HOST:PORT`; None: MLFLOW_TRACKING_URI, or mlflow.db in the current folder.
        experiment: name; made where it is missing.
        run_name: shown on the MLflow page.
        params: nested settings; logged with dots.
        tags: short facts to search by.
        run_folder: the run's folder; holds the spool while the store is away.
        resume_run_id: the parent run of an earlier, killed process. It goes on, and those of its runs that the kill
            left open are marked KILLED. One that the store does not know is replaced by a new one.
        warn: told when the store goes away, comes back, or refuses something; default: standard error.

    Raises:
        RunError: the store cannot be reached or used, or an old spool waits for another store.
    """
    warn = warn or (lambda text: note(f"warning: {text}"))
    full = address(uri)
    run_folder.mkdir(parents=True, exist_ok=True)
    waiting = Spool(run_folder)
    if waiting.store is not None and waiting.store["uri"] != full:
        raise RunError(
            f"{waiting.path}: {len(waiting)} operations of an earlier run wait for {redacted(waiting.store['uri'])}; "
            f"send them with `{replay_command(run_folder, waiting.store['uri'])}`, or delete the file to give them up"
        )
    store = TrackingStore(full, experiment)
    outbox = Outbox(store, run_folder, warn)
    outbox.drain()
    try:
        token = _reopen(store, resume_run_id, params) if resume_run_id else None
        if token is None:
            token = uuid.uuid4().hex
            if resume_run_id:
                tags = {**tags, "resumed_from": resume_run_id}
            store.apply(_creation(token, None, run_name, {"tad.kind": "self-training", **tags}))
            store.apply({"op": "batch", "run": token, "params": flatten(params)})
    except RunError:
        raise
    except Exception as error:
        raise RunError(f"{full}: the MLflow run cannot be opened: {error}") from error
    return MlflowTracker(outbox, token)


class MlflowTracker:
    """Implements distributed.run.record.Tracker; made by `connect`.

    Attributes:
        uri: full address of the store; goes into run.json.
    """

    def __init__(self, outbox: Outbox, parent: str) -> None:
        self.uri = outbox.store.uri
        self._outbox = outbox
        self._open = [parent]

    def run_id(self) -> str:
        """The innermost open run. While the store is away, of a run that it does not know yet, its token: the tag
        tad.run of the later run."""
        return self.id_of(self._open[-1])

    def open(self, kind: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Opens a run below the innermost one."""
        self._open.append(self.begin(kind, name, params, tags))

    def close(self, status: str = "FINISHED") -> None:
        """Closes the innermost run, never the parent; status FINISHED, FAILED or KILLED."""
        if len(self._open) == 1:
            raise ValueError("no nested run is open; finish() closes the parent")
        self.end(self._open.pop(), status)

    def begin(self, kind: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> str:
        """Begins a run below the innermost one, beside others that go on at the same time; its token, for `end`."""
        token = uuid.uuid4().hex
        self._outbox.send(_creation(token, self._open[-1], name, {"tad.kind": kind, **tags}))
        if params:
            self._outbox.send({"op": "batch", "run": token, "params": flatten(params)})
        return token

    def end(
        self,
        token: str,
        status: str = "FINISHED",
        metrics: Mapping[str, tuple[float, int]] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Ends a run that `begin` began, with its numbers (value and step) and more tags."""
        now = _now()
        operation: dict[str, Any] = {"op": "batch", "run": token}
        if metrics:
            operation["metrics"] = [[clean(name), float(value), now, step] for name, (value, step) in metrics.items()]
        if tags:
            operation["tags"] = _tags(tags)
        if len(operation) > 2:
            self._outbox.send(operation)
        self._outbox.send({"op": "end", "run": token, "status": status, "time": now})

    def id_of(self, token: str) -> str:
        """The MLflow run of a token; the token itself while the store is away and does not know it yet."""
        return self._outbox.store.ids.get(token, token)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers of the innermost run. Not-a-number and infinity are no metrics: they go into the tag
        `not finite`."""
        now, good, bad = _now(), [], []
        for name, known in distinct(values).items():
            value = values[name]
            if math.isfinite(value):
                good.append([known, float(value), now, int(step)])
            else:
                bad.append(f"{name} = {value} at step {step}")
        operation: dict[str, Any] = {"op": "batch", "run": self._open[-1], "metrics": good}
        if bad:
            operation["tags"] = {"not finite": "; ".join(bad)[:TAG_LENGTH]}
        if good or bad:
            self._outbox.send(operation)

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file or folder of the innermost run, kept under `folder`."""
        if not path.exists():
            self._outbox.warn(f"{path}: no such file to keep in MLflow")
            return
        self._outbox.send({"op": "artifact", "run": self._open[-1], "path": str(path.resolve()), "folder": folder})

    def end_all(self, status: str) -> None:
        """Closes all open runs. Artifacts of the parent may still come."""
        while len(self._open) > 1:
            self.close(status)
        self._outbox.send({"op": "end", "run": self._open[0], "status": status, "time": _now()})

    def finish(self, status: str = "FINISHED") -> None:
        """Closes all open runs and sends what still waits; says so if the store is still away."""
        self.end_all(status)
        left = self._outbox.finish()
        if left:
            spool = self._outbox.spool.path
            self._outbox.warn(
                f"{left} operations for MLflow wait in {spool}; once {self.uri} answers again, send them with "
                f"`{replay_command(spool.parent, self.uri)}`"
            )
        if self._outbox.refused:
            self._outbox.warn(f"MLflow refused {self._outbox.refused} operations; see spool-refused.jsonl in the run")


def replay_command(run_folder: Path, uri: str) -> str:
    """What sends the operations that wait in a run's folder."""
    return shlex.join(["tad", "ui", "--tracking", redacted(uri), "--replay", str(run_folder)])


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow's flat strings: names joined by dots, lists as JSON, long values cut."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{key}.")
        else:
            text = json.dumps(value, default=str) if isinstance(value, (list, tuple, dict)) else str(value)
            flat[clean(key)] = redacted(text)[:PARAM_LENGTH]
    return flat


def clean(name: str) -> str:
    """A name that MLflow takes: `mAP@0.5` becomes `mAP_0.5`."""
    name = posixpath.normpath(re.sub(r"[^\w./: -]", "_", name).strip("/") or "_")
    return "_" if name == "." else name.replace("..", "_")[:KEY_LENGTH]


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Each name as MLflow takes it; of names that it would take for one (classes `a?b` and `a*b`), the later ones are
    numbered."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        known, number = clean(name), 1
        while known in taken:
            number += 1
            known = f"{clean(name)[: KEY_LENGTH - 8]} {number}"
        taken.add(known)
        found[name] = known
    return found


def _creation(token: str, parent: str | None, name: str, tags: Mapping[str, str]) -> dict[str, Any]:
    own = {"mlflow.user": _user(), "mlflow.source.name": "tad"}
    return {"op": "create", "run": token, "parent": parent, "name": name, "tags": _tags(tags) | own, "time": _now()}


def _tags(tags: Mapping[str, Any]) -> dict[str, str]:
    return {clean(key): redacted(str(value))[:TAG_LENGTH] for key, value in tags.items()}


def found_run(store: TrackingStore, run_id: str) -> Any:
    """An MLflow run of the store's experiment; None if there is none, or it was deleted."""
    try:
        run = store.client.get_run(run_id)
    except mlflow().MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    return None if run.info.lifecycle_stage == "deleted" or run.info.experiment_id != store.experiment_id else run


def _reopen(store: TrackingStore, run_id: str, params: Mapping[str, Any]) -> str | None:
    """The token of an earlier parent run, now open again; None if the store does not have it."""
    run = found_run(store, run_id)
    if run is None:
        return None
    token: str = run.data.tags.get(TOKEN_TAG) or uuid.uuid4().hex
    store.ids[token] = run_id
    store.client.update_run(run_id, status="RUNNING")
    for child in store.children(run_id):
        if child.info.status == "RUNNING":
            store.client.set_terminated(child.info.run_id, "KILLED")
    # MLflow never changes a param that was logged.
    given, logged = flatten(params), run.data.params
    changed = {
        clean(f"changed.{key}"): value[:TAG_LENGTH] for key, value in given.items() if logged.get(key, value) != value
    }
    new = {key: value for key, value in given.items() if key not in logged}
    store.apply({"op": "batch", "run": token, "params": new, "tags": {TOKEN_TAG: token, **changed}})
    return token


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"


def _now() -> int:
    return int(time.time() * 1000)
