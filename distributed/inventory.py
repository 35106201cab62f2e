"""What lies in a store, and which runs need it. Nothing is changed here."""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from distributed.locks import is_held
from distributed.partial import SUFFIX
from distributed.record import id_in
from distributed.store import KEY, Store
from distributed.uses import RUNS, Use, noted
from tad.data.digests import CACHE_REMEDY, cache_folder
from tad.errors import DataError, RunError
from tad.files import cause, regular

Kind = Literal["artifact", "in progress", "set aside", "left over", "lock", "not the store's"]

NAMED_IN = ("run.json", "rounds.json", "events.jsonl")
"""Files of a run's folder that name artifacts; a search's trials have them, too."""
_KEY_IN_TEXT = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-f]{24}(?![0-9a-zA-Z])")
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


@dataclass(frozen=True)
class Needed:
    """Which artifacts of a store are needed.

    Attributes:
        by: artifact to the runs that need it, itself or as an input of another.
        here: those that runs below the folders need.
        elsewhere: other runs that are noted in the store.
        forgotten: runs that were noted, and count no more.
    """

    by: dict[str, list[str]]
    here: set[str]
    elsewhere: list[Use]
    forgotten: list[Use]


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


def needed(store: Store, folders: Iterable[Path], forgotten: Collection[str] = ()) -> Needed:
    """What runs need: those below the folders by what lies there, too, all others by what is noted in the store.

    Args:
        forgotten: folders; what is noted of runs that lay there counts no more.

    Raises:
        RunError: a run's file, or what is noted of a run, cannot be read.
    """
    found: dict[str, set[str]] = {}
    ids: dict[str | None, str] = {}
    for run in _runs(store, folders):
        for name in NAMED_IN:
            if os.path.lexists(path := run / name):
                try:
                    text = regular(path).read_bytes()
                except (OSError, DataError) as error:
                    raise RunError(f"{_unread(path, error)}; it is not known which artifacts it names") from error
                ids[id_in(text)] = str(run)
                for key in _KEY_IN_TEXT.findall(text):
                    found.setdefault(key.decode(), set()).add(str(run))
    uses = noted(store)
    for use in uses:
        for key in use.keys if use.id in ids else ():
            found.setdefault(key, set()).add(ids[use.id])
    inputs: dict[str, list[str]] = {}
    here = set(_with_inputs(store, found, inputs))
    elsewhere = [use for use in uses if use.id not in ids]
    kept = [use for use in elsewhere if not use.lies_in(forgotten)]
    for use in kept:
        for key in use.keys:
            found.setdefault(key, set()).add(str(use))
    by = {key: sorted(runs) for key, runs in _with_inputs(store, found, inputs).items()}
    return Needed(by, here, kept, [use for use in elsewhere if use not in kept])


def _runs(store: Store, folders: Iterable[Path]) -> Iterator[Path]:
    """The folders of runs below some folders; a run may lie elsewhere, with a link to it here."""
    seen = {store.root}
    for folder in folders:
        for above, below, names in os.walk(folder, onerror=_unreadable, followlinks=True):
            if Path(above).resolve() in seen:
                below.clear()
                continue
            seen.add(Path(above).resolve())
            if {*NAMED_IN, "study.json"} & {*names, *below}:
                below[:] = [name for name in below if not os.path.islink(os.path.join(above, name))]
                yield Path(above)


def _with_inputs(store: Store, found: Mapping[str, set[str]], inputs: dict[str, list[str]]) -> dict[str, set[str]]:
    """Artifacts and those who need them, with all that was an input; `inputs` remembers those of each."""
    every = {key: set(runs) for key, runs in found.items()}
    todo = list(every)
    while todo:
        key = todo.pop()
        if key not in inputs:
            inputs[key] = [str(k) for k in store.meta(key).get("inputs", {}).values() if KEY.fullmatch(str(k))]
        for other in inputs[key]:
            before = every.setdefault(other, set())
            if not every[key] <= before:
                before |= every[key]
                todo.append(other)
    return every


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


def _unreadable(error: OSError) -> None:
    raise RunError(f"{_unread(error.filename, error)}; it is not known which artifacts it names")


def _unread(path: Path | str, error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{path}: cannot be read: {cause(error)}"
