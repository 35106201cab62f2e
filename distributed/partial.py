"""An artifact while it is made: a folder here and, with a store in a bucket, what its makers have sent there."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pyarrow import fs

from tad.data.remote import fetch, reason
from tad.errors import RunError

if TYPE_CHECKING:
    from distributed.store import Store

CHECKPOINT = "checkpoint.pt"
"""Of a training in one process; all other files are written once."""
WORKERS = "workers"
"""Ray Train's folder; with a bucket it reads and writes there itself."""
SUFFIX = ".partial"
THREADS = 16


@dataclass(frozen=True)
class Partial:
    """Where an artifact is made. Travels to the processes that make it; machines need share nothing but the bucket.

    Attributes:
        folder: for files, on this machine.
    """

    store: Store
    key: str
    folder: Path

    @contextmanager
    def aside(self) -> Iterator[Partial]:
        """Itself; with a bucket, one with a passing folder: what a node makes is sent, and not kept there."""
        if self.store.bucket is None:
            yield self
        else:
            with tempfile.TemporaryDirectory(dir=self.store.root) as folder:
                yield replace(self, folder=Path(folder))

    def send(self, names: Iterable[str]) -> None:
        """Uploads files of the folder, if there is a bucket; the last one when all the others are there.

        Raises:
            RunError: the bucket cannot be written.
        """
        self.store.upload(self.folder, self.key + SUFFIX, list(names))

    def receive(self) -> None:
        """Downloads what others sent and is missing here, and always the checkpoint: theirs may be of a later epoch.

        Raises:
            RunError: the bucket cannot be read.
        """
        bucket = self.store.bucket
        if bucket is None:
            return

        def copy(name: str) -> None:
            fetch(bucket, found[name].path, self.folder / name, found[name].mtime_ns or 0)

        try:
            there = bucket.get_file_info(fs.FileSelector(self._there(), allow_not_found=True, recursive=True))
            found = {info.path.removeprefix(f"{self._there()}/"): info for info in there if info.is_file}
            todo = [
                name
                for name in found
                if not name.startswith(f"{WORKERS}/") and (name == CHECKPOINT or not (self.folder / name).exists())
            ]
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(copy, todo))
        except OSError as error:
            raise RunError(f"{self.store.uri}: cannot be read: {reason(error)}") from error

    def forget(self, names: Iterable[str]) -> None:
        """Removes files that were sent, so that they are made again."""
        if self.store.bucket is not None:
            for name in names:
                with suppress(FileNotFoundError):
                    self.store.bucket.delete_file(f"{self._there()}/{name}")

    def clear(self) -> None:
        """Removes all that was sent: the artifact is finished."""
        if self.store.bucket is not None:
            with suppress(OSError):  # what is left does no harm
                self.store.bucket.delete_dir(self._there())

    def for_train(self) -> tuple[str, fs.FileSystem | None]:
        """Ray Train's `storage_path` and `storage_filesystem`."""
        return (str(self.folder), None) if self.store.bucket is None else (self._there(), self.store.bucket)

    def _there(self) -> str:
        return f"{self.store.prefix}/{self.key}{SUFFIX}"
