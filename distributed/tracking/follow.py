"""A live run sends its record to MLflow, in a thread of its own."""

from __future__ import annotations

import shlex
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from distributed.engine.record import Record
from distributed.tracking.address import address, reason
from distributed.tracking.database import TrackingStore
from distributed.tracking.mirror import TRIES, Mirror
from tad.data.remote import redacted
from tad.errors import RunError

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


def replay_command(folder: Path, uri: str) -> str:
    """What sends the rest of a record."""
    return shlex.join(["tad", "ui", "--tracking", redacted(uri), "--replay", str(folder)])
