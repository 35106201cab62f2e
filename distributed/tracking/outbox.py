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
import os
import shutil
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from distributed.tracking.address import reason
from distributed.tracking.database import TrackingStore, refused
from tad.errors import DataError, RunError, first_line
from tad.files import parse_json, read_text, write_text
from tad.report.run import inside

Operation = dict[str, Any]
Token = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Header(BaseModel):
    uri: str
    experiment: str


class _Create(BaseModel):
    op: Literal["create"]
    run: Token
    parent: Token | None
    name: str
    tags: dict[str, str]
    time: int


class _Batch(BaseModel):
    op: Literal["batch"]
    run: Token
    metrics: list[tuple[str, float, int, int]] = []
    params: dict[str, str] = {}
    tags: dict[str, str] = {}


class _Artifact(BaseModel):
    op: Literal["artifact"]
    run: Token
    path: str
    folder: str


class _End(BaseModel):
    op: Literal["end"]
    run: Token
    status: Literal["FINISHED", "FAILED", "KILLED"]
    time: int


_HEADER = TypeAdapter(_Header)
_OPERATION: TypeAdapter[Any] = TypeAdapter(Annotated[_Create | _Batch | _Artifact | _End, Field(discriminator="op")])
RETRY_SECONDS = 30.0
PATIENCE = 20.0
"""A look at a dead store that takes t seconds is followed by PATIENCE * t without one: at most 5 % of a run is lost."""
TRIES = 5
"""An operation that fails so often while the store answers is refused: it would hold up all others."""
FINISH_SECONDS = 60.0


class Spool:
    """The waiting operations, in memory and in the run's folder, so that a killed process loses none.

    Raises:
        RunError: spool.jsonl is malformed, or names files that are not below RUN/spool.
        DataError: it cannot be read, or a link leads out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "spool.jsonl"
        self.copies = folder / "spool"
        self.store: dict[str, str] | None = None
        self.waiting: deque[Operation] = deque()
        if os.path.lexists(self.path):
            inside(folder, self.path.name)
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
        with self.path.open("a", encoding="utf-8") as lines:
            if new:
                lines.write(json.dumps(store) + "\n")
            lines.write(json.dumps(operation) + "\n")

    def save(self, store: dict[str, str]) -> None:
        """Writes anew what still waits."""
        if not self.waiting:
            self.path.unlink(missing_ok=True)
            shutil.rmtree(self.copies, ignore_errors=True)
            return
        write_text(self.path, "".join(json.dumps(line) + "\n" for line in (store, *self.waiting)))

    def _read(self) -> None:
        lines = read_text(self.path).split("\n")
        # A killed process may have left half a last line: its operation was not yet part of the record.
        complete, half = lines[:-1], lines[-1]
        if not complete:
            self.path.unlink()
            return
        try:
            self.store = _HEADER.validate_python(parse_json(complete[0], "line 1")).model_dump()
            for number, line in enumerate(complete[1:], 2):
                self.waiting.append(self._known(parse_json(line, f"line {number}"), number))
        except (DataError, ValidationError) as error:
            problem = error.errors()[0] if isinstance(error, ValidationError) else None
            what = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" if problem is not None else str(error)
            raise RunError(f"{self.path}: not a spool of MLflow operations ({what}); move the file away") from error
        if half:
            self.save(self.store)

    def _known(self, document: Any, number: int) -> Operation:
        """An operation of the file, which somebody else may have written: its artifact must lie in the spool.

        Raises:
            DataError: it does not, or holds links.
            ValidationError: it is no operation.
        """
        checked, operation = _OPERATION.validate_python(document), dict(document)
        if isinstance(checked, _Artifact):
            # Its place within RUN/spool, which may have been moved with the run's folder.
            path = self.copies.joinpath(*Path(checked.path).parts[-2:])
            if not path.resolve().is_relative_to(self.copies.resolve()) or not path.exists():
                raise DataError(f"line {number}: {checked.path} is not below {self.copies}, so it is not sent")
            for inner in (path, *path.rglob("*")):
                if inner.is_symlink() or not (inner.is_file() or inner.is_dir()):
                    raise DataError(f"line {number}: {inner} is a link or no file, so it is not sent")
            operation["path"] = str(path)
        operation["tries"] = 1  # may have been carried out before the process was killed
        return operation


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
            self.warn(f"MLflow refuses an operation ({first_line(error)}); it is kept in {self._refusals}")
        try:
            with self._refusals.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"reason": str(error)[:2000], **operation}) + "\n")
        except OSError as problem:
            self.warn(f"{self._refusals}: {problem}")
