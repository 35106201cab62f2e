"""What each file of an artifact must be: its size and SHA-256, written in meta.json and checked before it is used."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tad.data.artifact import META
from tad.data.reading import in_threads
from tad.errors import DataError, RunError
from tad.files import cause, is_path_below, read_json, sync

_seen: dict[Path, int] = {}
"""Artifacts whose content was right when this process read it, and a hash of their files' sizes, times and inodes."""


def sealed(folder: Path) -> dict[str, str]:
    """Size and digest of each file below a folder, once all of it is on the disk."""
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())

    def seal(name: str) -> str:
        sync(folder / name)
        return digest_of(folder / name)

    found = dict(zip(names, in_threads(seal, names), strict=True))
    for below in {(folder / name).parent for name in names}:
        sync(below)
    return found


def read_meta(folder: Path) -> dict[str, Any]:
    """meta.json of an artifact.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    return checked_meta(read_json(folder / META), str(folder / META))


def checked_meta(document: Any, name: str) -> dict[str, Any]:
    """A meta.json, if it is one.

    Raises:
        DataError: it holds something else.
    """
    if not isinstance(document, dict) or not all(isinstance(document.get(k, {}), dict) for k in ("files", "inputs")):
        raise DataError(f"{name}: not the description of an artifact")
    return document


def odd(folder: Path) -> str | None:
    """What there is below a folder that no stage makes: a link, a named pipe, a device; or None.

    Whoever reads or writes below a folder that holds none stays below it, and waits for nobody.
    """
    if folder.is_symlink():
        return "is a link"
    for above, below, names in os.walk(folder):
        for name in (*below, *names):
            path = os.path.join(above, name)
            if not stat.S_ISDIR(mode := os.lstat(path).st_mode) and not stat.S_ISREG(mode):
                what = "a link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
                return f"{os.path.relpath(path, folder)} is {what}"
    return None


def problem(folder: Path, again: bool = False) -> str | None:
    """Why a folder is no whole artifact, or None; its content is read once by each process, unless it changes.

    Of artifacts that were made before there were digests, contents are not looked at. Links are not followed.

    Args:
        again: reads the content in any case.

    Raises:
        RunError: this user may not read it.
    """
    try:
        if folder.is_symlink() or (folder / META).is_symlink():
            return "it is a link, which is not followed" if folder.is_symlink() else f"{META} is a link"
        meta = read_meta(folder)
        files: dict[str, str] = meta.get("files", {})
        for name in files:
            check_name(name, str(folder / META))
        if "files" not in meta and (strange := odd(folder)) is not None:
            return strange
        state = _state(folder, files)
        if not again and _seen.get(folder) == state:
            return None
        between = {parent for name in files if "/" in name for parent in Path(name).parents}
        if linked := sorted(str(path) for path in between if (folder / path).is_symlink()):
            return f"{linked[0]} is a link"
        found = [text for text in in_threads(lambda item: wrong(folder, *item), files.items()) if text]
        if found:
            return "; ".join(found[:3]) + (f" and {len(found) - 3} more files" if len(found) > 3 else "")
    except DataError as error:
        if isinstance(error.__context__, PermissionError):
            raise RunError(f"{error}; its owner must let others read it, for instance with chmod -R g+rX") from error
        return str(error).removeprefix(f"{folder}/")
    except PermissionError as error:
        raise RunError(f"{folder}: cannot be read: {cause(error)}; its owner must let others read it") from error
    except RunError as error:
        return str(error)
    _seen[folder] = state
    return None


def remember(folder: Path) -> None:
    """An artifact that this process has just sealed need not be read again."""
    _seen[folder] = _state(folder, read_meta(folder).get("files", {}))


def check_name(name: str, where: str) -> None:
    """Raises RunError if a name would leave an artifact's folder, or no file can have it."""
    if not is_path_below(name):
        raise RunError(f"{where}: holds the name {name!r}, which is no file of an artifact; nothing was copied from it")


def digest_of(path: Path) -> str:
    """Size and SHA-256 of a file, as meta.json has them."""
    with path.open("rb") as file:
        return f"{os.fstat(file.fileno()).st_size} {hashlib.file_digest(file, 'sha256').hexdigest()}"


def _state(folder: Path, files: Iterable[str]) -> int:
    """Of the sizes, times and inodes of an artifact's files."""

    def one(name: str) -> tuple[int, ...]:
        try:
            found = (folder / name).lstat()
        except FileNotFoundError:
            return ()
        return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino

    return hash(tuple(one(name) for name in (META, *files)))


def wrong(folder: Path, name: str, wanted: str) -> str | None:
    """Why a file is not what was written, or None.

    Args:
        wanted: its size and SHA-256, or its size alone.
    """
    path, (wanted_size, _, wanted_hash) = folder / name, str(wanted).partition(" ")
    try:
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            return f"{name} is no file"
        if wanted_size != str(found.st_size):
            return f"{name} has {found.st_size} bytes, not {wanted_size}"
        right = not wanted_hash or digest_of(path) == wanted
        return None if right else f"{name} is not what was written (its SHA-256 differs)"
    except PermissionError:
        raise
    except FileNotFoundError:
        return f"{name} is missing"
    except OSError as error:
        return f"{name} cannot be read ({cause(error)})"
