"""Who sends a record to MLflow: a live run, in a thread of its own, and `tad ui --replay`."""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed.run.record import Record, events_of
from distributed.run.run_folder import locked
from distributed.tracking.address import address, reason
from distributed.tracking.database import TrackingStore
from distributed.tracking.mirror import TRIES, Mirror
from tad.data.remote import redacted
from tad.errors import RunError
from tad.files import cause

POLL_SECONDS, RETRY_SECONDS, FINISH_SECONDS = 2.0, 30.0, 60.0
PATIENCE_SECONDS = 5.0
"""So long a run waits for the thread at most, where it wants something of MLflow."""


class Follower:
    """Sends what is new in a record every few seconds: the run neither waits for MLflow nor fails by it.

    Args:
        uri: `sqlite:///FILE` or `http://HOST:PORT`; None: MLFLOW_TRACKING_URI, or mlflow.db in the current folder.
        beginning: of the attempt, as `Record.start` takes it.

    Raises:
        RunError: the store cannot be reached or used.
    """

    def __init__(self, record: Record, uri: str | None, **beginning: Any) -> None:
        self._away, self._busy, self._over = False, threading.Lock(), threading.Event()
        self._mirror = Mirror(TrackingStore(address(uri), beginning["experiment"]), record)
        self.uri, self._record = self._mirror.store.uri, record
        record.start(tracking=self.uri, **beginning)
        try:
            self._mirror.catch_up()
        except Exception as error:
            raise RunError(f"{self.uri}: the MLflow run cannot be opened: {reason(error)}") from error
        record.mlflow_run = self.run_id
        threading.Thread(target=self._follow, name="mlflow", daemon=True).start()

    def run_id(self, byte: int = 0) -> str | None:
        """The MLflow run of a round, stage or trial, by the byte of its event; None: the store does not answer."""
        return self._mirror.run_id(byte) if not self._away and self.catch_up() else None

    def catch_up(self, tries: int = 1, seconds: float = PATIENCE_SECONDS) -> bool:
        """Whether all that was told so far is sent."""
        if not self._busy.acquire(timeout=seconds):
            return False
        text = ""
        try:
            count = self._mirror.catch_up(tries)
            text = f"MLflow is back: {count} events were sent to {self.uri}" if self._away else ""
            self._away = False
        except Exception as error:
            if not self._away:
                text = f"MLflow at {self.uri} does not answer ({reason(error)}); the run goes on, and is sent later"
            self._away = True
        finally:
            self._busy.release()
        self._warn(text)
        return not self._away

    def finish(self) -> None:
        """Sends what is left, or says how to send it later."""
        self._over.set()
        if not self.catch_up(TRIES, FINISH_SECONDS):
            left, command = self._mirror.left(), replay_command(self._record.folder, self.uri)
            self._warn(f"{left} events wait for MLflow; once {self.uri} answers again, send them with `{command}`")
        if self._mirror.refused > 1:
            self._warn(f"MLflow did not take {self._mirror.refused} things in all")

    def _follow(self) -> None:
        while not self._over.wait(RETRY_SECONDS if self._away else POLL_SECONDS):
            self.catch_up()

    def _warn(self, text: str) -> None:
        with suppress(OSError):  # the disk may be full
            if text:
                self._record.warn(text)


def replay(folder: Path, uri: str | None) -> int:
    """Sends what MLflow does not know yet of a run or a study, and closes what a killed run left open.

    The folder may be somebody else's: it cannot choose the server, and only files below it are sent.

    Args:
        uri: where to; None: MLFLOW_TRACKING_URI, or mlflow.db in the current folder.

    Returns:
        How many events were sent.

    Raises:
        RunError: there is no record, or it was tracked elsewhere and `uri` is None; the store is away; the run is still
            going on.
    """
    full, sent = address(uri), 0
    paths = sorted(folder.glob("events*.jsonl"))  # each driver of a study has its own
    if not paths:
        raise RunError(f"{folder / 'events.jsonl'}: no such file; nothing waits to be sent to MLflow")
    for path in paths:
        try:
            told = [event for _, _, event in events_of(path) if event.get("kind") in ("start", "end")]
        except OSError as error:
            raise RunError(f"{path}: cannot be read: {cause(error)}") from error
        starts = [event for event in told if isinstance(event.get("experiment"), str)]
        if not starts:
            raise RunError(f"{path}: tells nothing for MLflow; a run of an earlier version wrote it")
        theirs = [str(event["tracking"]) for event in starts if event.get("tracking")][-1:]
        if uri is None and theirs and theirs != [full]:
            raise RunError(
                f"{path}: was tracked in {redacted(theirs[0])}, and without --tracking it would go to {full}. If you "
                f"trust that store, send it there with `{replay_command(folder, theirs[0])}`"
            )
        with locked(folder):
            store, record = TrackingStore(full, starts[0]["experiment"]), Record(folder, name=path.name)
            if told[-1]["kind"] == "start" and (folder / "run.json").exists():  # a study may go on elsewhere
                record.event("end", status="KILLED")
            mirror = Mirror(store, record)
            try:
                sent += mirror.catch_up()
            except Exception as error:
                raise RunError(f"{path}: {mirror.left()} events still wait ({reason(error)}); is {full} up?") from error
    return sent


def replay_command(folder: Path, uri: str) -> str:
    """What sends the rest of a record."""
    return shlex.join(["tad", "ui", "--tracking", redacted(uri), "--replay", str(folder)])
