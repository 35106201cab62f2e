"""One process makes an artifact, others wait and say for whom.

STORE/FINGERPRINT.lock          locked by the process that makes it; the kernel lets go when that ends
STORE/FINGERPRINT.lock.holder   who that is, for those who wait
"""

from __future__ import annotations

import datetime
import errno
import os
import socket
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout
from tqdm import tqdm

from tad.data.artifact import set_aside
from tad.errors import DataError, RunError, printable
from tad.files import cause, read_json, write_json
from tad.words import duration

PATIENCE = 2.0
"""Seconds of waiting that are not told."""
EVERY = 60.0
"""Seconds between two lines of who waits on."""

Tell = Callable[[str], None]


def note(text: str) -> None:
    """A line on the console, control characters as escapes, above a progress bar if one is open."""
    tqdm.write(printable(text), file=sys.stderr)


@contextmanager
def held(path: Path, what: str, tell: Tell = note) -> Iterator[None]:
    """Holds a lock file; who waits for another process says so after PATIENCE, and again and again.

    Args:
        path: of the lock file.
        what: is made meanwhile, for those who wait.

    Raises:
        RunError: the lock file cannot be made or opened.
    """
    clear_way(path, tell)
    lock = _lock(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said below, in words that help
            _acquire(lock, path, what, tell)
    except OSError as error:
        raise RunError(_refused(path, error)) from error
    holder = _note_of(path)
    try:
        if isinstance(lock, SoftFileLock):
            tell(
                f"{path.parent}: its file system has no locks (flock), so {path.name} stands for one; if a process is "
                "killed here, remove that file by hand"
            )
        with suppress(OSError):  # those who wait then know less
            write_json(holder, {"host": socket.gethostname(), "pid": os.getpid(), "since": time.time(), "makes": what})
        try:
            yield
        finally:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
    finally:
        lock.release()


def is_held(path: Path) -> str | None:
    """Who holds a lock, or None if nobody does. Makes no lock file."""
    if path.is_symlink() or not path.is_file():
        return None
    try:
        with _lock(path).acquire(blocking=False):
            return None
    except Timeout:
        return holder_of(path)
    except OSError as error:
        return f"somebody, perhaps ({path.name}: {cause(error)})"


def holder_of(path: Path) -> str:
    """The process that holds a lock, in words."""
    try:
        found = read_json(_note_of(path))
        since = datetime.datetime.fromtimestamp(float(found["since"])).isoformat(" ", "seconds")
        return f"process {int(found['pid'])} on {found['host']}, since {since}"
    except (DataError, KeyError, TypeError, ValueError, OverflowError, OSError):
        return "another process"


def clear_way(path: Path, tell: Tell) -> None:
    """Sets aside what is no file where a lock file should be: a folder, or a link to somewhere."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            tell(f"{path}: is not a lock file; it was moved to {set_aside(path).name}")


def _note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.holder")


def _lock(path: Path) -> FileLock:
    """For all who may write the folder: in a folder of a group, the group may lock, too."""
    try:
        mode = path.parent.stat().st_mode
    except OSError:
        mode = 0
    return FileLock(path, mode=0o644 | mode & 0o022) if mode & stat.S_IWGRP else FileLock(path)


def _acquire(lock: FileLock, path: Path, what: str, tell: Tell) -> None:
    start, patience = time.monotonic(), PATIENCE
    while True:
        try:
            lock.acquire(timeout=patience, poll_interval=0.1)
            return
        except Timeout:
            waited = time.monotonic() - start
            tell(f"waiting for {what}: {holder_of(path)} makes it; {duration(waited)} so far, Ctrl-C gives up")
            patience = EVERY


def _refused(path: Path, error: OSError) -> str:
    if error.errno in (errno.EACCES, errno.EPERM) and path.exists():
        return (
            f"{path}: cannot be locked: {cause(error)}; another user made it. Where several users share a store, its "
            "folder needs `chmod g+ws`, and the lock files that are there `chmod g+w`"
        )
    return f"{path.parent}: the artifact store cannot be written: {cause(error)}"
