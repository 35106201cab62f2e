"""What a run tells: an append-only record in the run's folder, the console, and MLflow as a mirror of both.

RUN/run.json        settings, dataset, state, best round
RUN/events.jsonl    one line for each stage, epoch, round and warning
RUN/rounds.json     the rounds table
RUN/round-N/        that round's labels and detections
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from tad.data.remote import redacted
from tad.errors import RunError, printable
from tad.files import write_json

FIRST = 200
"""Bytes of events.jsonl in which its first event lies."""
_BEGAN = re.compile(rb'\{"time": [\d.]+, "kind": "began", "id": "([0-9a-f]{32})"\}\n')


class Tracker(Protocol):
    """Mirrors the record elsewhere (distributed/tracking/mlflow_tracker.py: MLflow)."""

    def run_id(self) -> str | None:
        """The innermost open run."""

    def open(self, kind: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> None:
        """Opens a nested run (kind: round or stage)."""

    def close(self, status: str = "FINISHED") -> None:
        """Closes the innermost run."""

    def metrics(self, values: dict[str, float], step: int) -> None: ...
    def artifact(self, path: Path, folder: str) -> None: ...


class Record:
    """The one place where a run reports; only the driver holds it.

    Args:
        quiet: nothing on the console; for one of many runs at once.

    Attributes:
        id: of the run, wherever its folder is moved; the first event has it.

    Raises:
        OSError: the folder cannot be written, or its events.jsonl is a link or a pipe.
    """

    def __init__(self, folder: Path, tracker: Tracker | None = None, quiet: bool = False) -> None:
        self.folder = folder
        self.tracker = tracker
        folder.mkdir(parents=True, exist_ok=True)
        handle = opened_here(str(folder / "events.jsonl"), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._events = os.fdopen(handle, "a+", buffering=1, encoding="utf-8")
        self._epochs = 0
        self._bar: tqdm[Any] | None = None
        self._quiet = quiet
        self._attended = sys.stderr.isatty() and not quiet
        self._place = _which(folder)
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":  # half a line of an attempt that was killed
            self._events.write("\n")
        earlier = id_in(os.pread(handle, FIRST, 0))
        self.id = earlier or uuid.uuid4().hex
        if earlier is None:
            self.event("began", id=self.id)

    def event(self, kind: str, **values: Any) -> None:
        """One line of events.jsonl."""
        self._events.write(json.dumps(hidden({"time": round(time.time(), 3), "kind": kind, **values})) + "\n")

    def say(self, text: str) -> None:
        """A line on the console, above a progress bar if one is open; a console that is gone stops nothing."""
        if self._quiet:
            return
        try:
            tqdm.write(printable(redacted(text)), file=sys.stderr)
        except (OSError, ValueError):  # a closed terminal, the end of a pipe, a closed file
            self._quiet = True

    def warn(self, text: str) -> None:
        self.event("warning", text=text)
        self.say(f"warning: {text}")

    def check(self) -> None:
        """To be called before something is written into the folder: what is written must not be torn in two.

        Raises:
            RunError: it was moved or removed.
        """
        if _which(self.folder) != self._place:
            raise RunError(
                f"{self.folder}: was moved or removed while this run works in it; move it back and give the same "
                "command again: what is finished is in the store"
            )

    def save(self, name: str, document: Any) -> None:
        """A JSON file of the run's folder, written whole; passwords in addresses are left out.

        Raises:
            RunError: as `check`.
        """
        self.check()
        write_json(self.folder / name, hidden(document))

    @contextmanager
    def round(self, number: int) -> Iterator[None]:
        """A self-training round; round 0 is the proposer's."""
        with self._nested("round", f"round {number}", {"round": number}, {}):
            yield

    @contextmanager
    def stage(
        self, name: str, config: dict[str, Any], tags: dict[str, str], total: int | None, unit: str
    ) -> Iterator[None]:
        """A stage that is being run: `total` epochs or videos; None: its first epoch tells."""
        start = time.perf_counter()
        self.check()
        self._epochs = 0
        self.event("stage", name=name, **tags)
        with self._nested("stage", name, config, tags):
            if self._attended:
                self._bar = tqdm(total=total, desc=printable(name), unit=unit, file=sys.stderr, dynamic_ncols=True)
            try:
                yield
            finally:
                if self._bar is not None:
                    self._bar.close()
                    self._bar = None
        seconds = time.perf_counter() - start
        self.event("stage-done", name=name, seconds=round(seconds, 2), **tags)
        total = self._epochs if total is None else total
        self.say(f"{name}: {total} {unit}{'s' if total != 1 else ''} in {seconds:.1f} s")

    def cached(self, name: str, tags: dict[str, str]) -> None:
        """A stage whose artifact was already there."""
        self.event("stage-cached", name=name, **tags)
        made_by = f" (made by MLflow run {tags['mlflow_run']})" if tags.get("mlflow_run") else ""
        self.say(f"{name}: already there{made_by}")
        with self._nested("stage", f"{name} (cached)", {}, tags):
            pass

    def epoch(self, name: str, epoch: int, metrics: dict[str, float], epochs: int) -> None:
        self._epochs = epochs
        self.event("epoch", name=name, epoch=epoch, metrics=metrics)
        if self.tracker is not None:
            self.tracker.metrics(metrics, epoch)
        if self._bar is not None:
            self._bar.total = epochs
            self._bar.update(epoch + 1 - self._bar.n)
            self._bar.set_postfix({k: f"{v:.3g}" for k, v in metrics.items()})

    def progress(self, videos: int) -> None:
        if self._bar is not None:
            self._bar.update(videos)

    def metrics(self, values: dict[str, float], step: int) -> None:
        """Numbers of the innermost open run (a round, or the whole)."""
        self.event("metrics", step=step, metrics=values)
        if self.tracker is not None:
            self.tracker.metrics(values, step)

    def artifact(self, path: Path, folder: str = "") -> None:
        if self.tracker is not None:
            self.tracker.artifact(path, folder)

    def run_id(self) -> str | None:
        """The MLflow run that is open, if the run is tracked."""
        return self.tracker.run_id() if self.tracker is not None else None

    @contextmanager
    def _nested(self, kind: str, name: str, params: dict[str, Any], tags: dict[str, str]) -> Iterator[None]:
        if self.tracker is None:
            yield
            return
        self.tracker.open(kind, name, params, tags)
        try:
            yield
        except BaseException as error:
            self.tracker.close("KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED")
            raise
        self.tracker.close()


def _which(folder: Path) -> tuple[int, int] | None:
    """Device and inode of a folder; None if there is none."""
    try:
        found = folder.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def opened_here(path: str, flags: int) -> int:
    """Opens a regular file; a link is not followed, and a named pipe not waited for."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "is no regular file", path)
    return handle


def id_in(first: bytes) -> str | None:
    """The id of a run by the first bytes of its events.jsonl; None if they have none, as in those of older runs."""
    found = _BEGAN.match(first[:FIRST])
    return found[1].decode() if found is not None else None


def hidden(document: Any) -> Any:
    """Plain values in which the users, passwords and query strings of all addresses are left out."""
    if isinstance(document, str):
        return redacted(document)
    if isinstance(document, dict):
        return {hidden(key): hidden(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [hidden(value) for value in document]
    return document
