"""Removes from a store what no run needs: nothing that a run names, that is being made, or that is not the store's."""

from __future__ import annotations

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from distributed.disk import writing
from distributed.inventory import Entry, caches, entries, locks_held, needed
from distributed.partial import SUFFIX
from distributed.store import KEY, Store
from tad.errors import RunError

YOUNG_S = 3600.0
"""What changed within an hour stays: a run that began just now may need it."""
YOUNG_IN_BUCKET_S = 24 * 3600.0
"""Locks of other machines are not seen in a bucket."""
CACHE_S = 30 * 24 * 3600.0


class Rubbish(NamedTuple):
    """Something that nobody needs."""

    path: str
    """In the store, or of a cache."""
    why: str
    bytes: int
    entry: Entry | None


def find_rubbish(store: Store, runs: list[Path]) -> list[Rubbish]:
    """What may go.

    Raises:
        RunError: there is no run below the folders, so that all would go.
    """
    wanted = needed(store, runs)
    if not wanted:
        raise RunError(
            f"no run below {', '.join(map(str, runs))} names an artifact, so everything in {store.uri} would go; name "
            "the folders of your runs and searches with --runs"
        )
    found, every = [], entries(store)
    finished = {(e.key, e.local) for e in every if e.kind == "artifact"}
    remain = {e.key for e in every if e.kind in ("artifact", "in progress") and e.key in wanted}
    for entry in every:
        if entry.age < (YOUNG_S if entry.local else YOUNG_IN_BUCKET_S):
            continue
        why = None
        if entry.kind == "artifact" and entry.key not in wanted:
            why = "no run names it"
        elif entry.kind == "in progress":
            if (entry.key, entry.local) in finished:
                why = "its artifact is finished"
            elif entry.key not in wanted:
                why = "no run names it"
        elif entry.kind == "set aside":
            why = "set aside as damaged"
        elif entry.kind == "left over":
            why = "left by a killed process"
        elif entry.kind == "lock" and entry.key not in remain:
            why = "of no artifact"
        if why is not None:
            found.append(Rubbish(entry.name, why, entry.bytes, entry))
    return found + [Rubbish(str(path), "a copy not read for 30 days", n, None) for path, n in caches(store, CACHE_S)]


def remove(store: Store, rubbish: list[Rubbish]) -> int:
    """Removes it; the bytes that went. What somebody begins to make meanwhile stays.

    Raises:
        RunError: an artifact is being made in this store, or the store cannot be written.
    """
    if held := locks_held(store):
        key, holder = next(iter(held.items()))
        raise RunError(f"{store.uri}: {holder} makes {key}; nothing is removed while a stage runs on this store")
    gone = 0
    with writing(store.root):
        for item in rubbish:
            if item.entry is None:
                shutil.rmtree(item.path)
            elif not item.entry.local:
                assert store.bucket is not None
                store.bucket.delete(item.entry.name)
            elif not _remove_here(store.root, item.entry):
                continue
            gone += item.bytes
    return gone


def _remove_here(root: Path, entry: Entry) -> bool:
    """Under the artifact's lock, so that nobody makes it meanwhile; renamed first, so that nobody reads half of it."""
    path, lock = root / entry.name, FileLock(root / f"{entry.key}.lock")
    if not KEY.fullmatch(entry.key):
        _delete(path)
        return True
    try:
        with lock.acquire(blocking=False):
            if entry.kind == "lock":
                path.unlink(missing_ok=True)
            else:
                aside = root / f".gone-{entry.key}-{uuid.uuid4().hex[:8]}"
                with suppress(FileNotFoundError):
                    os.rename(path, aside)
                    _delete(aside)
            if not os.path.lexists(root / entry.key) and not os.path.lexists(root / f"{entry.key}{SUFFIX}"):
                for suffix in ("lock", "lock.holder", "fetch", "fetch.holder"):
                    (root / f"{entry.key}.{suffix}").unlink(missing_ok=True)
    except Timeout:
        return False
    return True


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
