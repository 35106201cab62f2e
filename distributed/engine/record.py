"""What a run tells: an append-only record in the run's folder, which MLflow mirrors, and the console.

RUN/run.json        settings, dataset, state, best round
RUN/events.jsonl    one line for each event, in their order; MLflow is a replay of it (distributed/tracking/mirror.py)
RUN/rounds.json     the rounds table
RUN/round-N/        that round's labels and detections

Each event has its time, its kind and, as `run`, what it is about: the byte of the file at which the event of a round,
stage or trial begins; without, it is about the whole.

    began                      the record's id; its first line
    start, end                 of an attempt: name, settings and tags; status
    round, stage, trial        one that begins: name, config and short facts; its `run` is what it belongs to
    ...-done, ...-failed       its end
    derived                    options of a stage that were derived from the data: values and reasons
    stage-cached               a stage whose artifact was already there
    epoch, metrics, artifact   numbers, and files of the folder
    warning, failures          texts
"""

from __future__ import annotations

import errno
import getpass
import json
import os
import re
import stat
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tad.data.remote import redacted
from tad.errors import RunError, printable
from tad.files import write_json

FIRST = 200
"""Bytes of events.jsonl in which its first event lies."""
_BEGAN = re.compile(rb'\{"time": [\d.]+, "kind": "began", "id": "([0-9a-f]{32})"\}\n')


class Record:
    """The one place where a run reports; only the driver holds it.

    Args:
        quiet: nothing on the console; for one of many runs at once.
        name: of the file of events.

    Attributes:
        id: of the run, wherever its folder is moved; the first event has it.
        mlflow_run: gives the MLflow run of a round or stage (by the byte of its event), None where there is none.

    Raises:
        OSError: the folder cannot be written, or its events.jsonl is a link or a pipe.
    """

    def __init__(self, folder: Path, quiet: bool = False, name: str = "events.jsonl") -> None:
        self.folder, self.path = folder, folder / name
        self.mlflow_run: Callable[[int], str | None] = lambda byte: None
        folder.mkdir(parents=True, exist_ok=True)
        handle = opened_here(str(self.path), os.O_RDWR | os.O_CREAT | os.O_APPEND)
        self._events = os.fdopen(handle, "ab", buffering=0)
        self._writing = threading.Lock()
        self._open = [0]
        self._epochs = 0
        self._bar: tqdm[Any] | None = None
        self._quiet = quiet
        self._attended = sys.stderr.isatty() and not quiet
        self._place = _which(folder)
        earlier = id_in(os.pread(handle, FIRST, 0))
        self.id = earlier or uuid.uuid4().hex
        if earlier is None:
            self.event("began", id=self.id)

    def event(self, kind: str, **values: Any) -> int:
        """One line of events.jsonl, about the innermost round or stage that is open unless it names its `run`.

        Returns:
            The byte at which it begins.
        """
        values = {"run": self._open[-1]} | values
        if not values["run"]:
            del values["run"]
        document = hidden({"time": round(time.time(), 3), "kind": kind, **values})
        line = json.dumps(document, default=lambda value: redacted(str(value))).encode() + b"\n"
        with self._writing:
            handle = self._events.fileno()
            byte = os.fstat(handle).st_size
            if byte and os.pread(handle, 1, byte - 1) != b"\n":  # half a line, of a killed attempt or a full disk
                byte, line = byte + 1, b"\n" + line
            while line:
                line = line[self._events.write(line) :]
        return byte

    def start(
        self, experiment: str, name: str, config: dict[str, Any], tags: dict[str, str], tracking: str | None = None
    ) -> None:
        """Begins an attempt.

        Args:
            experiment: of MLflow, where it is tracked, now or later.
            config: nested settings.
            tags: short facts to search by.
            tracking: the full address of MLflow.
        """
        values = {"experiment": experiment, "name": name, "config": config, "tags": tags}
        self.event("start", **values, tracking=tracking, user=_user())

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
        with self._nested("stage", name, config, tags):
            if self._attended:
                self._bar = tqdm(total=total, desc=printable(name), unit=unit, file=sys.stderr, dynamic_ncols=True)
            try:
                yield
            finally:
                if self._bar is not None:
                    self._bar.close()
                    self._bar = None
        total = self._epochs if total is None else total
        self.say(f"{name}: {total} {unit}{'s' if total != 1 else ''} in {time.perf_counter() - start:.1f} s")

    def derived(self, name: str, options: dict[str, tuple[Any, str]], tags: dict[str, str]) -> None:
        """Options of a stage that were derived from the data: of each the value and the reason."""
        self.event("derived", name=name, options=options, **tags)
        self.say(f"{name}, derived from the data:")
        for option, (value, reason) in options.items():
            self.say(f"  {option} {f'{value:.4g}' if isinstance(value, float) else value}: {reason}")

    def cached(self, name: str, tags: dict[str, str]) -> None:
        """A stage whose artifact was already there."""
        self.event("stage-cached", name=name, **tags)
        made_by = f" (made by MLflow run {tags['mlflow_run']})" if tags.get("mlflow_run") else ""
        self.say(f"{name}: already there{made_by}")

    def epoch(self, name: str, epoch: int, metrics: dict[str, float], epochs: int) -> None:
        self._epochs = epochs
        self.event("epoch", name=name, epoch=epoch, metrics=metrics)
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

    def artifact(self, path: Path, folder: str = "") -> None:
        """A file of the run's folder that belongs to the innermost open run; kept in MLflow under `folder`."""
        self.event("artifact", path=str(path.resolve().relative_to(self.folder.resolve())), folder=folder)

    def run_id(self) -> str | None:
        """The MLflow run of the innermost open round or stage; None: not tracked, or MLflow does not answer."""
        return self.mlflow_run(self._open[-1])

    @contextmanager
    def _nested(self, kind: str, name: str, config: dict[str, Any], tags: dict[str, str]) -> Iterator[None]:
        start = time.perf_counter()
        self._open.append(self.event(kind, name=name, config=config, **tags))
        try:
            yield
        except BaseException as error:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            with suppress(OSError):  # a full disk may be why it failed
                self.event(f"{kind}-failed", name=name, status=status)
            raise
        else:
            self.event(f"{kind}-done", name=name, seconds=round(time.perf_counter() - start, 2), **tags)
        finally:
            self._open.pop()


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


def events_of(path: Path, byte: int = 0) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The events of a record from a byte on, each with the bytes at which its line begins and ends. They are on the
    disk for good. Lines that are no events are left out, and a last one that is half written.

    Raises:
        OSError: the file cannot be read, or is a link, a pipe or a folder.
    """
    with os.fdopen(opened_here(str(path), os.O_RDONLY), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if byte < size:
            os.fsync(file.fileno())
        file.seek(byte)
        while byte < size and (line := file.readline()).endswith(b"\n"):
            start, byte = byte, byte + len(line)
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):  # half a line of a killed process
                continue
            if isinstance(event, dict):
                yield start, byte, event


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


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "unknown"
