"""What lies in a store. Nothing is changed here."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distributed.engine.locks import is_held
from distributed.engine.store import KEY, Store
from distributed.engine.unfinished import SUFFIX
from distributed.engine.uses import RUNS
from tad.data.digests import CACHE_REMEDY, cache_folder
from tad.errors import DataError
from tad.files import cause

Kind = Literal["artifact", "in progress", "set aside", "left over", "lock", "not the store's"]

_SET_ASIDE = re.compile(r"[0-9a-f]{24}(\..+)?\.damaged-\d+")
_LOCK = re.compile(r"[0-9a-f]{24}\.(lock|fetch)(\.holder)?")
_LEFT_OVER = re.compile(r"\.((fetch|gone)-[0-9a-f]{24}-.+|node-.+|[0-9a-f]{24}\.(lock|fetch)\.holder\..+)")
_CACHE = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Entry:
    """One name at the top of a store.

    Attributes:
        key: the fingerprint that it belongs to, or "".
        age: seconds since anything of it changed.
        local: whether it lies here; with a store in a bucket, its folder of this machine has entries, too.
    """

    name: str
    kind: Kind
    key: str
    stage: str
    bytes: int
    age: float
    local: bool = True


def entries(store: Store) -> list[Entry]:
    """All that lies in a store, by name; with a bucket, first what lies there."""
    found = []
    if store.bucket is not None:
        for name in store.bucket.folders():
            if name == RUNS:
                continue
            files = store.bucket.listed(name).values()
            changed = max(((info.mtime_ns or 0) / 1e9 for info in files), default=time.time())
            kind, key, stage = _kind(store, name, folder=True)
            found.append(Entry(name, kind, key, stage, sum(i.size for i in files), time.time() - changed, local=False))
    for path in sorted(store.root.iterdir()):
        if path.name == RUNS:
            continue
        size, changed = _measure(path)
        is_folder = path.is_dir() and not path.is_symlink()
        kind, key, stage = _kind(store, path.name, is_folder) if not path.is_symlink() else _foreign()
        found.append(Entry(path.name, kind, key, stage, size, time.time() - changed))
    return found


def locks_held(store: Store) -> dict[str, str]:
    """The artifacts that are being made now on this machine or file system, and by whom."""
    found = {}
    for path in store.root.glob("*.lock"):
        if KEY.fullmatch(path.stem) and (holder := is_held(path)) is not None:
            found[path.stem] = holder
    return found


def caches(store: Store, unused_s: float) -> list[tuple[Path, int]]:
    """Copies of remote datasets and stores on this machine that were not read for so long, and their bytes."""
    found = []
    folder = cache_folder()
    try:
        there = sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise DataError(f"{folder}: the cache cannot be read: {cause(error)}; {CACHE_REMEDY}") from None
    for path in there:
        if not _CACHE.fullmatch(path.name) or path.is_symlink() or not path.is_dir() or path == store.root:
            continue
        kinds = {_kind(None, below.name, below.is_dir())[0] for below in path.iterdir()}
        ours = (path / "dataset.yaml").is_file() or "not the store's" not in kinds
        read = [s.st_atime for s in _stats(path) if stat.S_ISREG(s.st_mode)]  # walking a folder reads it, too
        used = max([*read, _measure(path)[1]])
        if ours and time.time() - used > unused_s:
            found.append((path, _measure(path)[0]))
    return found


def _kind(store: Store | None, name: str, folder: bool) -> tuple[Kind, str, str]:
    """What a name at the top stands for, its fingerprint, and the stage; an artifact is one by its meta.json, too."""
    key = name[:24]
    if KEY.fullmatch(name) and folder:
        meta = store.meta(key) if store is not None else {"fingerprint": key}
        return ("artifact", key, str(meta.get("stage", ""))) if meta.get("fingerprint") == key else _foreign()
    if name == f"{key}{SUFFIX}" and KEY.fullmatch(key) and folder:
        return "in progress", key, ""
    if _SET_ASIDE.fullmatch(name):
        return "set aside", key, ""
    if _LOCK.fullmatch(name) and not folder:
        return "lock", key, ""
    if _LEFT_OVER.fullmatch(name):
        return "left over", "", ""
    return _foreign()


def _foreign() -> tuple[Kind, str, str]:
    return "not the store's", "", ""


def _stats(path: Path) -> Iterable[os.stat_result]:
    """Of a path and all below it; links are not followed, and what vanishes meanwhile is left out."""
    try:
        yield os.lstat(path)
        if path.is_dir() and not path.is_symlink():
            for above, below, names in os.walk(path):
                for name in (*below, *names):
                    yield os.lstat(os.path.join(above, name))
    except FileNotFoundError:
        return


def _measure(path: Path) -> tuple[int, float]:
    """Bytes, and when anything last changed."""
    size, changed = 0, 0.0
    for found in _stats(path):
        size += found.st_size
        changed = max(changed, found.st_mtime)
    return size, changed
