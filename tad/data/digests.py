"""Digests of the whole content of files, remembered while the files stay as they are.

What is remembered lies in `cache_folder()/digests`, one file for each folder of files, and is only ever a shortcut: if
it is lost, damaged or cannot be written, files are read again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tad.data.features import Unreadable, opened
from tad.data.reading import in_threads
from tad.errors import DataError
from tad.files import cause, read_json, write_text

RECENT_NS = 3 * 10**9
"""A file that changed so shortly before it was read may change again and look the same: clocks of file systems tick
in up to two seconds. It is not remembered."""


CACHE_REMEDY = "let TAD_CACHE name a folder that can be written"


class Stamp(NamedTuple):
    """What changes when a file does."""

    text: str
    """Size and times and, of a file here, its inode."""
    changed_ns: int
    """When, in nanoseconds since 1970."""


def cache_folder() -> Path:
    """TAD_CACHE, or ~/.cache/tad-selftrain: what this machine keeps of remote files, and digests.

    Raises:
        DataError: there is no home folder to keep it in.
    """
    try:
        return Path(os.environ.get("TAD_CACHE") or "~/.cache/tad-selftrain").expanduser().resolve()
    except (RuntimeError, OSError) as error:
        raise DataError(f"there is no place for the cache: {cause(error)}; {CACHE_REMEDY}") from None


def digests_here(paths: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of each file by name; "" where there is none. Links count as the file that they lead to.

    Raises:
        DataError: a file cannot be read, or is none.
    """
    folders: dict[str, dict[str, str]] = {}
    for name, path in paths.items():
        real = os.path.realpath(path)
        folders.setdefault(os.path.dirname(real), {})[name] = real
    found = dict.fromkeys(paths, "")
    for folder, files in folders.items():
        given = {real: paths[name] for name, real in files.items()}
        stamps = {real: stamp for real, path in given.items() if (stamp := _stamp(path)) is not None}
        own = digests(folder, stamps, lambda real, given=given: _digest(given[real]))  # type: ignore[misc]
        found |= {name: own[real] for name, real in files.items() if real in own}
    return found


def digests(place: str, stamps: Mapping[str, Stamp], read: Callable[[str], str]) -> dict[str, str]:
    """Digests of the files of one folder by name, those remembered and those read now.

    Args:
        place: the folder, or its URI.
        read: the digest of one file.
    """
    known = _remembered(place)
    same = {name: known[name][1] for name, stamp in stamps.items() if known.get(name, ("", ""))[0] == stamp.text}
    missing = [name for name in stamps if name not in same]
    if not missing:
        return same
    began = time.time_ns()
    fresh = dict(zip(missing, in_threads(read, missing, "digest of features"), strict=True))
    old = {v: (stamps[v].text, digest) for v, digest in fresh.items() if stamps[v].changed_ns < began - RECENT_NS}
    if old:
        with suppress(OSError, DataError):  # of another process, what both lose is read again
            write_text(_memory(place), json.dumps(_remembered(place) | old))
    return same | fresh


def _memory(place: str) -> Path:
    return cache_folder() / "digests" / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"


def _remembered(place: str) -> dict[str, tuple[str, str]]:
    """Stamp and digest by name."""
    try:
        document = read_json(_memory(place))
    except DataError:
        return {}
    found = {}
    for name, entry in document.items() if isinstance(document, dict) else ():
        if isinstance(entry, list) and [type(x) for x in entry] == [str, str] and len(entry[1]) == 64:
            found[name] = (entry[0], entry[1])
    return found


def _stamp(path: Path) -> Stamp | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {cause(problem)}") from None
    text = f"{found.st_size} bytes, inode {found.st_ino}, modified {found.st_mtime_ns}, changed {found.st_ctime_ns}"
    return Stamp(text, found.st_ctime_ns)


def _digest(path: Path) -> str:
    try:
        with opened(path) as (file, _):
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
    except FileNotFoundError:
        raise DataError(f"{path}: went away while it was read") from None
    except Unreadable as problem:
        raise DataError(f"{path}: {problem}") from None
    except OSError as problem:
        raise DataError(f"{path}: cannot be read: {cause(problem)}") from None
