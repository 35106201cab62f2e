"""Who searches in a study: every driver registers in it and writes its heartbeat, so that the others know it lives."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import psutil

if TYPE_CHECKING:
    import optuna

BEAT_SECONDS = 10.0
DEAD_SECONDS = 120.0
"""Without a heartbeat for so long, a driver of another machine is dead: their clocks must agree better than this."""
PREFIX = "driver "


class Driver(NamedTuple):
    """A process that searches, on this machine or another."""

    host: str
    pid: int
    born: float
    """Seconds since 1970; a later process may have the same number."""

    @classmethod
    def me(cls) -> Driver:
        process = psutil.Process()
        return cls(socket.gethostname(), process.pid, round(process.create_time(), 2))

    def __str__(self) -> str:
        return f"{self.host} {self.pid} {self.born}"

    @classmethod
    def parse(cls, text: str) -> Driver:
        host, pid, born = text.rsplit(" ", 2)
        return cls(host, int(pid), float(born))

    def alive(self, beat: float) -> bool:
        """Whether it still runs; `beat`: its last heartbeat, seconds since 1970.

        On this machine the process itself tells, elsewhere the heartbeat.
        """
        if self.host != socket.gethostname():
            return time.time() - beat < DEAD_SECONDS
        try:
            process = psutil.Process(self.pid)
            return abs(process.create_time() - self.born) < 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def living(study: optuna.Study) -> set[str]:
    """The drivers of a study that still run, as text."""
    beats = {k.removeprefix(PREFIX): v for k, v in study.user_attrs.items() if k.startswith(PREFIX)}
    return {name for name, beat in beats.items() if beat and Driver.parse(name).alive(beat)}


@contextmanager
def registered(study: optuna.Study) -> Iterator[str]:
    """This process as a driver of the study, with a heartbeat of its own thread; its text."""
    me, stop = str(Driver.me()), threading.Event()

    def beat() -> None:
        while not stop.wait(BEAT_SECONDS):
            try:
                study.set_user_attr(PREFIX + me, time.time())
            except Exception:  # the storage may be away for a moment; the search itself will say so if it stays away
                continue

    study.set_user_attr(PREFIX + me, time.time())
    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield me
    finally:
        stop.set()
        thread.join()
        study.set_user_attr(PREFIX + me, 0)  # gone, in order
