"""Removes from a store what no run needs: nothing that a run names, that is being made, or that is not the store's."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from distributed.engine.disk import writing
from distributed.engine.inventory import Entry, caches, entries, locks_held
from distributed.engine.store import KEY, Store
from distributed.engine.unfinished import LEFT_S, SUFFIX
from distributed.engine.uses import noted
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


def find_rubbish(store: Store, wanted: Collection[str]) -> list[Rubbish]:
    """What may go.

    Args:
        wanted: artifacts that are needed (`needs.needed`).

    Raises:
        RunError: none is, so that all would go.
    """
    if not wanted:
        raise RunError(
            f"no run is known that needs an artifact, so everything in {store.uri} would go; name the folders of your "
            "runs and searches with --runs"
        )
    found, every = [], entries(store)
    finished = {(e.key, e.local) for e in every if e.kind == "artifact"}
    remain = {e.key for e in every if e.kind in ("artifact", "in progress") and e.key in wanted}
    for entry in every:
        if entry.age < (YOUNG_S if entry.local else YOUNG_IN_BUCKET_S):
            continue
        why = None
        if entry.kind == "artifact" and entry.key not in wanted:
            why = "no run needs it"
        elif entry.kind == "in progress":
            if (entry.key, entry.local) in finished:
                why = "its artifact is finished"
            elif entry.key not in wanted:
                why = "no run needs it"
        elif entry.kind == "set aside":
            why = "set aside as damaged"
        elif entry.kind == "left over" and (entry.age > LEFT_S or not entry.name.startswith(".node-")):
            why = "left by a killed process"
        elif entry.kind == "lock" and entry.key not in remain:
            why = "of no artifact"
        if why is not None:
            found.append(Rubbish(entry.name, why, entry.bytes, entry))
    return found + [Rubbish(str(path), "a copy not read for 30 days", n, None) for path, n in caches(store, CACHE_S)]


def remove(store: Store, rubbish: list[Rubbish]) -> int:
    """Removes it; the bytes that went. What somebody begins to make or to need meanwhile stays.

    Raises:
        RunError: an artifact is being made in this store, or the store cannot be written.
    """
    if held := locks_held(store):
        key, holder = next(iter(held.items()))
        raise RunError(f"{store.uri}: {holder} makes {key}; nothing is removed while a stage runs on this store")
    before, gone = _noted(store), 0
    with writing(store.root):
        here = [item for item in rubbish if item.entry is None or item.entry.local]
        aside = [(item, place) for item in here if (place := _set_aside(store.root, item))]
        # Whoever needs an artifact notes it, then looks for it: it was noted by now, or will not be found.
        wanted = {key for _, key in _noted(store) - before}
        for item, place in aside:
            path = store.root / item.path
            if item.entry is not None and item.entry.key in wanted and not os.path.lexists(path):
                os.rename(place, path)
                continue
            if item.entry is None or item.entry.kind != "lock" or item.path.endswith(".holder"):
                _delete(place)
            gone += item.bytes
            if item.entry is not None:
                _clear_locks(store.root, item.entry.key)
        for item in rubbish:
            if item.entry is not None and not item.entry.local and item.entry.key not in wanted:
                assert store.bucket is not None
                store.bucket.delete(item.entry.name)
                gone += item.bytes
    return gone


def _noted(store: Store) -> set[tuple[str, str]]:
    """Runs and the artifacts that they need."""
    return {(use.id, key) for use in noted(store) for key in use.keys}


def _set_aside(root: Path, item: Rubbish) -> Path | None:
    """Renames what is to go, so that nobody reads half of it, under its lock; None if somebody makes it now."""
    path, entry = root / item.path, item.entry
    if entry is None or not KEY.fullmatch(entry.key) or entry.kind == "lock":
        return path
    aside = root / f".gone-{entry.key}-{uuid.uuid4().hex[:8]}"
    try:
        with FileLock(root / f"{entry.key}.lock").acquire(blocking=False):
            os.rename(path, aside)
    except (Timeout, FileNotFoundError):
        return None
    return aside


def _clear_locks(root: Path, key: str) -> None:
    """Removes the lock files of what is gone, unless somebody holds them now."""
    if not KEY.fullmatch(key):
        return
    for name in (f"{key}.lock", f"{key}.fetch"):
        if (root / name).is_symlink() or not (root / name).is_file():
            continue
        with suppress(Timeout), FileLock(root / name).acquire(blocking=False):
            if not os.path.lexists(root / key) and not os.path.lexists(root / f"{key}{SUFFIX}"):
                for path in (root / name, root / f"{name}.holder"):
                    path.unlink(missing_ok=True)


def _delete(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
