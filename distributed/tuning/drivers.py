"""Who searches in a study: every driver registers in it and writes its heartbeat, so that the others know it lives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distributed.engine.locks import note
from distributed.run.identity import Identity

if TYPE_CHECKING:
    import optuna

BEAT_SECONDS = 10.0
DEAD_SECONDS = 120.0
"""Without a heartbeat for so long, a driver of another machine or container is watched: is it dead, or do clocks
differ?"""
WATCH_SECONDS = 30.0
"""A watched driver that does not beat for so long is dead, whatever the clocks say."""
PREFIX = "driver "


def living(study: optuna.Study) -> set[str]:
    """The drivers of a study that still run: each by the text of its `Identity`.

    On this machine and in this container the process itself tells, elsewhere its heartbeat alone. One that is found
    dead by its heartbeat is noted as gone, so that nobody has to watch it again; should it live, its next beat says so.
    """
    found, silent, now = set(), {}, time.time()
    for name, beat in _beats(study).items():
        state = Identity.parse(name).state()
        if state == "alive" or (state == "unknown" and abs(now - beat) < DEAD_SECONDS):
            found.add(name)
        elif state == "unknown":
            silent[name] = beat
    if silent:
        hosts = ", ".join(sorted({Identity.parse(name).host for name in silent}))
        note(f"waiting {WATCH_SECONDS:.0f} s for a heartbeat of other drivers of this study ({hosts})")
        time.sleep(WATCH_SECONDS)
        beats = _beats(study)
        for name, beat in silent.items():
            if name in beats and beats[name] != beat:
                found.add(name)
            elif name in beats:
                study.set_user_attr(PREFIX + name, 0)
    return found


def _beats(study: optuna.Study) -> dict[str, float]:
    """The last heartbeat of each driver that did not leave in order, seconds since 1970 by its own clock."""
    texts = {k.removeprefix(PREFIX): v for k, v in study.user_attrs.items() if k.startswith(PREFIX)}
    return {name: float(beat) for name, beat in texts.items() if isinstance(beat, (int, float)) and beat}


@contextmanager
def registered(study: optuna.Study) -> Iterator[str]:
    """This process as a driver of the study, with a heartbeat of its own thread; the text of its `Identity`."""
    me, stop = str(Identity.me()), threading.Event()

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
