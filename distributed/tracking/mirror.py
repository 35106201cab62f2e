"""MLflow as a replay of a record: what stands in events.jsonl after the cursor is sent, and the cursor moved.

MLflow itself holds the cursor: the tag `tad.cursor` of the whole run says before which byte all was sent. So a live
run, one that goes on after a kill, a server that comes late and `tad ui --replay` need the one function `catch_up`. An
event that is sent twice changes nothing: MLflow keeps equal metrics, params and tags once, and a run is found by its
token, the tag `tad.run`: the record's id, and the byte of the event that began a round, stage or trial.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from distributed.engine.record import Record, events_of
from distributed.tracking.database import TOKEN_TAG, TrackingStore
from distributed.tracking.names import distinct, flatten, tags_of
from tad.errors import first_line

CURSOR_TAG = "tad.cursor"
NO_FACTS = ("time", "kind", "run", "name", "config", "seconds", "status")
STATUSES = ("FINISHED", "FAILED", "KILLED")
AT_ONCE = 1000
"""Events between two moves of the cursor."""
TRIES = 3
"""While the store answers: of its first request after a restart, and of a file, which would hold up all the rest."""
REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST", "RESOURCE_DOES_NOT_EXIST", "NOT_FOUND", "INVALID_STATE")
"""What the store says about a request itself; anything else may pass when it is sent again later."""


class Unsent(Exception):
    """The store does not take anything now; the cause says why."""


class Mirror:
    """One record in one store.

    Attributes:
        refused: how many things the store refused; it is not asked again, and the record keeps them.
    """

    def __init__(self, store: TrackingStore, record: Record) -> None:
        self.store, self.record = store, record
        self.refused = self._cursor = 0
        self._user = ""
        self._ids: dict[str, str] = {}
        self._metrics: dict[str, list[Any]] = {}
        self._tries: Counter[str] = Counter()

    def catch_up(self, tries: int = TRIES) -> int:
        """Sends the events after the cursor; how many there were.

        Raises:
            Exception: the store does not take them, or not while it was asked so often; the next call sends the rest.
        """
        while True:
            try:
                return self._send()
            except BaseException as error:
                self._ids.clear()  # what the store has is asked for once more
                self._metrics.clear()
                tries -= 1
                if tries < 1 or not isinstance(error, Exception) or not self.store.alive():
                    raise

    def run_id(self, byte: int = 0) -> str | None:
        """The MLflow run of a round, stage or trial, by the byte of its event; 0: of the whole."""
        return self._ids.get(self._token(byte))

    def left(self) -> int:
        """How many events wait."""
        return sum(1 for _ in events_of(self.record.path, self._cursor))

    def _token(self, byte: int) -> str:
        return f"{self.record.id}-{byte}" if byte else self.record.id

    def _send(self) -> int:
        if not self._ids:
            whole = self._runs().get(self._token(0))
            tags = whole.data.tags if whole is not None else {}
            self._cursor, self._user = int(tags.get(CURSOR_TAG, 0)), tags.get("mlflow.user", "")
        count = 0
        for count, (byte, end, event) in enumerate(events_of(self.record.path, self._cursor), 1):
            with suppress(LookupError, TypeError, ValueError, AttributeError, OverflowError):  # written by others
                self._tell(byte, event, event["kind"], int(event["time"] * 1000))
            if count % AT_ONCE == 0:
                self._move(end)
        if count:
            self._move(end)
        return count

    def _move(self, end: int) -> None:
        for token, metrics in self._metrics.items():
            self._do("log_batch", token, metrics=metrics)
        self._metrics.clear()
        self._do("set_tag", self._token(0), CURSOR_TAG, str(end))
        self._cursor = end

    def _tell(self, byte: int, event: dict[str, Any], kind: str, now: int) -> None:
        token, status = self._token(event.get("run", 0)), event.get("status", "FINISHED")
        facts = {name: value for name, value in event.items() if name not in NO_FACTS}
        if status not in STATUSES:
            return
        if kind == "start":
            self._start(byte, event, now)
        elif kind == "end":
            self._close(byte, status, now)
            self._do("set_terminated", token, status, now)
        elif kind in ("round", "stage", "stage-cached", "trial"):
            new, cached = self._token(byte), " (cached)" * (kind == "stage-cached")
            tags = {"tad.kind": kind.partition("-")[0], "mlflow.parentRunId": self._ids[token]} | facts
            self._make(new, event["name"] + cached, tags, event.get("config", {}), now)
            if cached:
                self._do("set_terminated", new, status, now)
        elif kind.endswith(("-done", "-failed")):
            self._log(token, tags=facts)
            self._do("set_terminated", token, status, now)
        elif kind in ("epoch", "metrics"):
            self._numbers(token, event["metrics"], int(event["epoch" if kind == "epoch" else "step"]), now)
        elif kind == "artifact":
            self._upload(token, event["path"], event["folder"])

    def _start(self, byte: int, event: dict[str, Any], now: int) -> None:
        """The beginning of the whole, or of another attempt: then what the earlier one left open was killed."""
        whole = self._token(0)
        if whole not in self._ids:
            self._user = event["user"]
            self._make(whole, event["name"], {"tad.kind": "self-training"} | event["tags"], event["config"], now)
            return
        self._do("restore_run", whole)  # it may have been deleted on MLflow's page
        self._do("update_run", whole, "RUNNING")
        self._close(byte, "KILLED", now)
        # MLflow never changes a param that was logged.
        params, logged = flatten(event["config"]), self._runs()[whole].data.params
        changed = {f"changed.{key}": value for key, value in params.items() if logged.get(key, value) != value}
        self._log(whole, {key: value for key, value in params.items() if key not in logged}, changed)

    def _close(self, byte: int, status: str, now: int) -> None:
        """Ends what is open of all that began before an event, but not the whole."""
        for token, run in self._runs().items():
            if run.info.status == "RUNNING" and int(token.partition("-")[2] or byte) < byte:
                self._do("set_terminated", token, status, now)

    def _make(self, token: str, name: str, tags: Mapping[str, Any], config: Mapping[str, Any], now: int) -> None:
        if token not in self._ids:
            own = {TOKEN_TAG: token, "mlflow.source.name": "tad", "mlflow.user": self._user}
            run = self._ask(self.store.client.create_run, self.store.experiment_id, now, tags_of(tags) | own, name)
            self._ids |= {token: run.info.run_id} if run is not None else {}
        self._log(token, flatten(config))

    def _log(self, token: str, params: Mapping[str, str] = {}, tags: Mapping[str, Any] = {}) -> None:
        from mlflow.entities import Param, RunTag

        given = {"params": [Param(*p) for p in params.items()], "tags": [RunTag(*t) for t in tags_of(tags).items()]}
        self._do("log_batch", token, **given)

    def _numbers(self, token: str, values: Mapping[str, float], step: int, now: int) -> None:
        """Not-a-number and infinity are no metrics: they go into the tag `not finite`."""
        from mlflow.entities import Metric

        bad = [f"{name} = {value} at step {step}" for name, value in values.items() if not math.isfinite(value)]
        known = {new: values[name] for name, new in distinct(values).items() if math.isfinite(values[name])}
        self._metrics.setdefault(token, []).extend(Metric(name, value, now, step) for name, value in known.items())
        if bad:
            self._log(token, tags={"not finite": "; ".join(bad)})

    def _upload(self, token: str, name: str, folder: str) -> None:
        top = self.record.folder.resolve()
        path = (top / name).resolve()
        if not path.is_relative_to(top) or not path.is_file():
            self._refuse(f"{top / name} is no file of this folder")
            return
        try:
            self._do("log_artifact", token, str(path), folder or None)
        except Unsent as error:
            self._tries[name] += 1
            if self._tries[name] < TRIES or not self.store.alive():
                raise
            self._refuse(f"{path}: {error}")

    def _runs(self) -> dict[str, Any]:
        found: dict[str, Any] = self._ask(self.store.runs, self.record.id) or {}
        self._ids = {token: run.info.run_id for token, run in found.items()}
        return found

    def _do(self, what: str, token: str, *given: Any, **named: Any) -> None:
        """Something with a run, if there is one: the store may have refused to make it."""
        if (run := self._ids.get(token)) is not None:
            self._ask(getattr(self.store.client, what), run, *given, **named)

    def _ask(self, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        try:
            return call(*given, **named)
        except Exception as error:  # MLflow lets out its own, requests', SQLAlchemy's and cloud clients' errors
            if getattr(error, "error_code", None) not in REFUSALS or not self.store.alive():
                raise Unsent(first_line(error)) from error
            return self._refuse(first_line(error))

    def _refuse(self, why: str) -> None:
        self.refused += 1
        if self.refused == 1:
            self.record.warn(f"MLflow at {self.store.uri} does not take all that it is sent: {why}")
