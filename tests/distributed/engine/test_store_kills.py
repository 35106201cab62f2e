"""A process that ends before any file operation leaves the artifact, or what the same command resumes from.

An audit hook ends the work before its N-th change of the store, and refuses every change after it, as a killed process
makes none: what is tidied in `finally` stays, too.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from distributed.engine.uses import RUNS
from tests.support.artifacts import STAGES, contents
from tests.support.tiny import TinyEngine, tiny_dataset

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Killed(BaseException):
    pass


class Killer:
    """Counts changes below a folder while it is armed; from the N-th on all of them are refused."""

    folder: str = ""
    count = 0
    last: int | None = None
    lock = threading.Lock()

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.folder:
            return
        if event == "open":
            name, _, flags = arguments
            if not isinstance(name, str) or not name.startswith(self.folder) or not flags & WRITES:
                return
        elif event not in CHANGES:
            return
        elif os.path.isabs(name := os.fspath(arguments[0])) and not str(name).startswith(self.folder):
            return  # of the cache, for instance, which remembers digests of files once they are some seconds old
        with self.lock:
            self.count += 1
            if self.last is not None and self.count >= self.last:
                raise Killed(f"{event} {arguments}")

    def arm(self, folder: Path, last: int | None) -> None:
        self.folder, self.count, self.last = str(folder), 0, last

    def disarm(self) -> int:
        self.folder = ""
        return self.count


KILLER = Killer()
sys.addaudithook(KILLER)  # stays for the life of the process, and does nothing unless armed


def attempt(stage: str, data: Any, folder: Path, last: int | None = None) -> tuple[Any, int]:
    """One process' try to make an artifact; the artifact, or None if it was killed, and the changes that it made."""
    engine = TinyEngine(data, 0, folder)
    KILLER.arm(folder / "store", last)
    try:
        made = STAGES[stage](engine)
    except Killed:
        made = None
    finally:
        count = KILLER.disarm()
    return made, count


def epochs(folder: Path) -> list[int]:
    events = [json.loads(line) for line in (folder / "run" / "events.jsonl").read_text().splitlines()]
    return [event["epoch"] for event in events if event["kind"] == "epoch"]


def check(stage: str, data: Any, tmp_path: Path, step: int) -> None:
    attempt(stage, data, tmp_path / "warm")  # what PyTorch makes once in a process is no change of the store
    whole, count = attempt(stage, data, tmp_path / "whole")
    assert count > 15, "it counts"
    for last in range(1, count + 1, step):
        folder = tmp_path / str(last)
        killed, _ = attempt(stage, data, folder, last)
        assert killed is None, last
        partial = next((folder / "store").glob("*.partial"), None)
        saved = partial is not None and (partial / "checkpoint.pt").exists()
        before = epochs(folder)
        assert not before or saved or (folder / "store" / whole.fingerprint).is_dir(), f"{last}: the checkpoint is gone"
        made, _ = attempt(stage, data, folder)
        assert made is not None and contents(made.path) == contents(whole.path), last
        every = epochs(folder)
        assert len(set(every)) == len(every), f"{last}: an epoch was made twice: {every}"
        names = {path.name.removeprefix(".") for path in (folder / "store").iterdir() if path.name != RUNS}
        assert {name.partition(".")[0] for name in names} == {made.fingerprint}, names
        assert not list(made.path.rglob(".*")), "half-written files of the killed process"


@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_before_a_change_of_the_store(data, tmp_path, stage):
    check(stage, data, tmp_path, step=4)


@pytest.mark.slow
@pytest.mark.parametrize("stage", list(STAGES))
def test_killed_before_every_change_of_the_store(data, tmp_path, stage):
    check(stage, data, tmp_path, step=1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("kills") / "data", videos=4)
