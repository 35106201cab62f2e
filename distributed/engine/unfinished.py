"""An artifact while it is made: a folder here and, with a store in a bucket, what its makers have sent there.

FINGERPRINT.partial/output/        the artifact's own files; renamed to FINGERPRINT when it is whole
FINGERPRINT.partial/checkpoint.pt  of a training
FINGERPRINT.partial/chunks/        of a map: what each chunk of videos gave
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from distributed.engine.store import Store

CHECKPOINT = "checkpoint.pt"
"""All other files are written once."""
OUTPUT = "output"
SUFFIX = ".partial"
CACHED_S = 90.0
"""A network file system may answer for so long from what it knew of a folder; 30 or 60 s are usual."""
LEFT_S = 24 * 3600.0
"""A passing folder that nobody wrote to for so long is a killed process'."""

Found = TypeVar("Found")


@dataclass(frozen=True)
class Partial:
    """Where an artifact is made. Travels to the processes that make it; machines need share nothing but the bucket.

    Attributes:
        folder: for files, on this machine.
    """

    store: Store
    key: str
    folder: Path

    @property
    def output(self) -> Path:
        return self.folder / OUTPUT

    @contextmanager
    def aside(self) -> Iterator[Partial]:
        """Itself; with a bucket, one with a passing folder: what a node makes is sent, and not kept there."""
        if self.store.bucket is None:
            yield self
        else:
            for old in self.store.root.glob(".node-*"):
                with suppress(OSError):
                    if time.time() - old.lstat().st_mtime > LEFT_S:
                        shutil.rmtree(old)
            with tempfile.TemporaryDirectory(prefix=".node-", dir=self.store.root) as folder:
                yield replace(self, folder=Path(folder))

    def send(self, names: Iterable[str]) -> None:
        """Uploads files of the folder, if there is a bucket; the last one when all the others are there.

        Raises:
            RunError: the bucket cannot be written.
        """
        if self.store.bucket is not None:
            self.store.bucket.upload(self.folder, self.key + SUFFIX, list(names))

    def receive(self, only: str | None = None) -> None:
        """Downloads what others sent and is missing here, and always the checkpoint: theirs may be of a later epoch.

        Raises:
            RunError: the bucket cannot be read, or lists names that are no files of an artifact.
        """
        if self.store.bucket is not None:
            there = self.store.bucket.listed(self.key + SUFFIX)
            wanted = {
                name: info
                for name, info in there.items()
                if (name == CHECKPOINT or not (self.folder / name).exists()) and only in (None, name)
            }
            self.store.bucket.download(wanted, self.folder)

    def forget(self, names: Iterable[str]) -> None:
        """Removes files that were sent, so that they are made again."""
        if self.store.bucket is not None:
            self.store.bucket.remove(f"{self.key}{SUFFIX}/{name}" for name in names)

    def clear(self) -> None:
        """Removes all that was sent: the artifact is finished."""
        if self.store.bucket is not None:
            self.store.bucket.clear(self.key + SUFFIX)

    def patiently(self, look: Callable[[], Found | None]) -> Found | None:
        """What `look` finds in the folder or the bucket, where another machine has written it.

        A network file system may not show it at once, so this looks for a while, and lists the folders each time.
        """
        end = time.monotonic() + CACHED_S
        while True:
            self.receive()
            for folder in (self.folder, self.folder / "chunks"):
                with suppress(OSError):
                    os.listdir(folder)
            if (found := look()) is not None or time.monotonic() > end:
                return found
            time.sleep(1)


def make_folder(path: Path) -> Path:
    """Makes a folder if there is none. In a folder that a group may write, the group may write this one, too."""
    if not path.is_dir():
        path.mkdir(exist_ok=True)
        mode = path.parent.stat().st_mode
        if mode & stat.S_IWGRP:
            path.chmod(stat.S_IMODE(mode))
    return path
