"""Signals that end a run or a search: SIGINT (Ctrl-C), SIGTERM (job stopped, spot notice), SIGHUP (terminal closed)."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(KeyboardInterrupt):
    """Raised in the main thread by the first signal.

    Attributes:
        number: of the signal; the exit status is 128 + number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def in_order(told: Callable[[str], None]) -> Iterator[None]:
    """Within, the first signal calls `told` with its name and raises `Interrupted`; a second one ends the process.

    `told` runs at once, so it is the place to write down that the run was interrupted: what follows may take long, and
    a second signal cuts it off.
    """
    first: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if first:
            os._exit(128 + number)
        first.append(number)
        signal.alarm(0)  # that of Ray's core, which would abort the process after 3 s
        with suppress(Exception):  # a full disk must not keep the signal from ending the run
            told(signal.Signals(number).name)
        if number == signal.SIGHUP:
            _leave_terminal()
        raise Interrupted(number)

    with _handled(SIGNALS, handle):
        try:
            yield
        except KeyboardInterrupt as error:
            if first and not isinstance(error, Interrupted):  # Ray raises one of its own in place of ours
                raise Interrupted(first[0]) from error
            raise


@contextmanager
def as_interrupts() -> Iterator[list[int]]:
    """Within, SIGTERM and SIGHUP do what Ctrl-C does, whoever handles that one; gives the numbers of those that came.

    For a search: Ray Tune has its own way to end in order, and it begins with SIGINT.
    """
    came: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(number)
        signal.alarm(0)
        if number == signal.SIGHUP:
            _leave_terminal()
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a job in the background
            raise Interrupted(number)
        signal.raise_signal(signal.SIGINT)

    with _handled((signal.SIGTERM, signal.SIGHUP), handle):
        yield came


def heard_again() -> None:
    """To be called once Ray is connected: its core puts a handler below Python's that prints its stack at SIGTERM."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if (handler := signal.getsignal(number)) is not None:
                signal.signal(number, handler)


@contextmanager
def _handled(numbers: tuple[int, ...], handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """A handler of signals, in the main thread only. One that is ignored (nohup) stays ignored.

    Ray sets handlers of its own: `ray.init` that of SIGTERM, Ray Train that of SIGINT, which it never gives back and
    which exits with 0. Within, such calls set ours once more.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    change = signal.signal
    before = {number: signal.getsignal(number) for number in numbers}
    ours = {number for number in numbers if before[number] is not signal.SIG_IGN}

    def guarded(number: int, handler: Any) -> Any:
        return change(number, handle if number in ours else handler)

    for number in ours:
        change(number, handle)
    signal.signal = guarded  # type: ignore[assignment]
    try:
        yield
    finally:
        signal.signal = change
        for number in ours:
            # None: it was not set from Python, and cannot be set again.
            change(number, before[number] if before[number] is not None else signal.SIG_DFL)


def _leave_terminal() -> None:
    """What is said from now on goes nowhere: writing to a terminal that is closed fails."""
    for handle in (1, 2):
        with suppress(OSError):
            if _is_terminal(handle):
                os.dup2(os.open(os.devnull, os.O_WRONLY), handle)


def _is_terminal(handle: int) -> bool:
    """Also one that is closed, of which os.isatty says no more than of a file."""
    return os.readlink(f"/proc/self/fd/{handle}").startswith(("/dev/pts/", "/dev/tty", "/dev/console"))
