"""Keeps what a tracking store cannot take at the moment, and hands it over in order once it can.

An operation is a dict of plain values; `run` and `parent` are tokens, because a run that could not be created yet has
no MLflow id:

    {"op": "create",   "run", "parent": token or null, "name", "tags", "time": ms}
    {"op": "batch",    "run", "metrics": [[name, value, ms, step], ...], "params": {...}, "tags": {...}}
    {"op": "artifact", "run", "path", "folder"}
    {"op": "end",      "run", "status", "time": ms}

RUN/spool.jsonl          the store's address, then the waiting operations; absent when none wait
RUN/spool/               copies of the artifacts that wait
RUN/spool-refused.jsonl  operations that the store will never take, with its reason
"""

from __future__ import annotations

import json
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed.tracking_address import reason
from distributed.tracking_store import TrackingStore, refused
from tad.errors import RunError

Operation = dict[str, Any]
RETRY_SECONDS = 30.0
PATIENCE = 20.0
"""A look at a dead store that takes t seconds is followed by PATIENCE * t without one: at most 5 % of a run is lost."""
TRIES = 5
"""An operation that fails so often while the store answers is refused: it would hold up all others."""
FINISH_SECONDS = 60.0


class Spool:
    """The waiting operations, in memory and in the run's folder, so that a killed process loses none.

    Raises:
        RunError: spool.jsonl cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spool.jsonl"
        self.copies = folder / "spool"
        self.store: dict[str, str] | None = None
        self.waiting: deque[Operation] = deque()
        if self.path.is_file():
            self._read()

    def __len__(self) -> int:
        return len(self.waiting)

    def add(self, operation: Operation, store: dict[str, str]) -> None:
        """Appends an operation; an artifact is copied, for its file may change or go before it is sent.

        Raises:
            OSError: the run's folder cannot be written; the operation still waits in memory.
        """
        operation = dict(operation)
        self.waiting.append(operation)
        if operation["op"] == "artifact":
            source = Path(operation["path"])
            copy = self.copies / str(time.monotonic_ns()) / source.name
            copy.parent.mkdir(parents=True)
            shutil.copytree(source, copy) if source.is_dir() else shutil.copy2(source, copy)
            operation["path"] = str(copy)
        new = not self.path.is_file()
        with self.path.open("a") as lines:
            if new:
                lines.write(json.dumps(store) + "\n")
            lines.write(json.dumps(operation) + "\n")

    def save(self, store: dict[str, str]) -> None:
        """Writes anew what still waits."""
        if not self.waiting:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.copies, ignore_errors=True)
            return
        temporary = self.path.with_name(f".{self.path.name}")
        temporary.write_text("".join(json.dumps(line) + "\n" for line in (store, *self.waiting)))
        temporary.replace(self.path)

    def _read(self) -> None:
        lines = self.path.read_text().split("\n")
        # A killed process may have left half a last line: its operation was not yet part of the record.
        complete, half = lines[:-1], lines[-1]
        if not complete:
            self.path.unlink()
            return
        try:
            documents = [json.loads(line) for line in complete]
            self.store = {"uri": str(documents[0]["uri"]), "experiment": str(documents[0]["experiment"])}
            for operation in documents[1:]:
                operation["tries"] = 1  # may have been carried out before the process was killed
                self.waiting.append(operation)
        except (ValueError, LookupError, TypeError) as error:
            raise RunError(f"{self.path}: not a spool of MLflow operations ({error}); move the file away") from error
        if half:
            self.save(self.store)


class Outbox:
    """Sends operations to a store, in order, and never raises: what cannot be sent waits in the spool.

    Args:
        store: where they go.
        folder: the run's folder, for the spool.
        warn: told when the store goes away and when it is back.
    """

    def __init__(self, store: TrackingStore, folder: Path, warn: Callable[[str], None]) -> None:
        self.store = store
        self.warn = warn
        self.spool = Spool(folder)
        self.refused = 0
        self._refusals = folder / "spool-refused.jsonl"
        self._header = {"uri": store.uri, "experiment": store.experiment}
        self._doubtful: set[str] = {op["run"] for op in self.spool.waiting if op["op"] == "create"}
        self._problem = ""
        self._retry_at = 0.0

    def send(self, operation: Operation) -> None:
        """Carries out an operation, now or, after all that already wait, later."""
        if not self.spool:
            start = time.monotonic()
            # The second try is for a connection that broke; a store that is gone is not asked twice.
            if self._sent(operation) or (self.store.alive() and self._sent(operation)):
                return
            self._postpone(start)
            self.warn(
                f"MLflow at {self.store.uri} does not answer ({self._problem}); the run goes on, and what MLflow "
                f"would be told waits in {self.spool.path}"
            )
        try:
            self.spool.add(operation, self._header)
        except OSError as error:
            self.warn(f"{self.spool.path}: {error}; an operation for MLflow waits in memory only")
        if time.monotonic() >= self._retry_at:
            self.drain()

    def drain(self) -> bool:
        """Sends what waits, if the store is back; whether nothing is left."""
        count = len(self.spool)
        if not count:
            return True
        start = time.monotonic()
        if self.store.alive():
            while self.spool and self._sent(self.spool.waiting[0]):
                self.spool.waiting.popleft()
            try:
                self.spool.save(self._header)
            except OSError as error:
                self.warn(f"{self.spool.path}: {error}")
        self._postpone(start)
        if self.spool:
            return False
        self.warn(f"MLflow is back: {count} waiting operations were sent to {self.store.uri}")
        return True

    def _postpone(self, start: float) -> None:
        now = time.monotonic()
        self._retry_at = now + max(RETRY_SECONDS, PATIENCE * (now - start))

    def finish(self) -> int:
        """Sends all that can be sent; how many operations still wait."""
        deadline = time.monotonic() + FINISH_SECONDS
        while not self.drain() and time.monotonic() < deadline and self.store.alive():
            pass
        if not self.spool and self._doubtful:
            try:
                for token in self._doubtful:
                    self.store.drop_twins(token)
            except Exception as error:
                self.warn(f"MLflow may show runs twice that were created while it was away: {error}")
        return len(self.spool)

    def _sent(self, operation: Operation) -> bool:
        """Whether an operation is dealt with: carried out, or refused for good."""
        try:
            self.store.apply(operation)
        except Exception as error:  # MLflow lets out its own, requests', SQLAlchemy's and cloud clients' errors
            operation["tries"] = operation.get("tries", 0) + 1
            if operation["op"] == "create":
                self._doubtful.add(operation["run"])
            if refused(error) or (operation["tries"] >= TRIES and self.store.alive()):
                self._refuse(operation, error)
                return True
            self._problem = reason(error)
            return False
        return True

    def _refuse(self, operation: Operation, error: Exception) -> None:
        self.refused += 1
        if self.refused == 1:
            self.warn(f"MLflow refuses an operation ({_short(error)}); it is kept in {self._refusals}")
        try:
            with self._refusals.open("a") as lines:
                lines.write(json.dumps({"reason": str(error)[:2000], **operation}) + "\n")
        except OSError as problem:
            self.warn(f"{self._refusals}: {problem}")


def _short(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
