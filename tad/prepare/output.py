"""A command's output folder: written beside its place, and put there by one rename at the end.

`--force` replaces nothing but an earlier output of the same command. The file `.tad-made-by` in each output lists what
the command wrote; a folder that holds anything else, or a file that was changed since, is the user's and stays.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tad.errors import DataError, TadError, listing
from tad.files import cause, lack_of_room, read_json, sync, write_json

MARKER = ".tad-made-by"
"""JSON: command, version of tad, and once it is finished `files`: stamp by path (see `_stamps`)."""

Stamp = list[str] | str | None
"""Size and mtime in ns of a file (as text: JSON has no integers of 19 digits), target of a link, None for a folder."""


@contextmanager
def output_folder(
    out: Path, command: str, *, force: bool = False, sources: Iterable[Path] = (), links: bool = False
) -> Iterator[Path]:
    """A new, empty folder beside `out` to write into. At the end it takes the place of `out`; if the block raises, it
    is removed and `out` stays what it was.

    Args:
        command: as the user types it after `tad`: "split".
        force: replace an earlier output of the same command.
        sources: folders and files that the command reads; `out` may neither hold nor lie in one of them.
        links: replace links, too, whoever made them; what they lead to stays.

    Raises:
        DataError: `out` is a link, a file, in use, or holds something that this command did not write; or the operating
            system refuses to write.
    """
    place = _place(out)
    _check_place(out, place)
    _check_sources(out, place, sources)
    _check_contents(out, place, command, force, links)
    fresh, lock, absent = _hidden(place), None, list[Path]()
    try:
        absent = [p for p in place.parents if not p.exists()]
        place.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(place)
        fresh.mkdir()
        lock = _locked(fresh)
        record = {"command": command, "version": _version()}
        write_json(fresh / MARKER, record)
        yield fresh
        stamps = _stamps(fresh)
        for name, stamp in stamps.items():
            if isinstance(stamp, list):
                sync(fresh / name)
        write_json(fresh / MARKER, record | {"files": stamps})
        _put(out, fresh, place, command, force, links)
    except BaseException as error:
        with suppress(OSError):  # once exchanged, it is the old folder
            if _removable(fresh):
                _remove(fresh)
        for parent in absent:
            with suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            named = Path(str(error.filename)) if error.filename else fresh
            ours = fresh in (named, *named.parents) or named in place.parents
            raise DataError(f"{f'{out}: cannot be written' if ours else named}: {cause(error)}") from None
        if isinstance(error, TadError):  # the hidden name says nothing to the user
            error.args = (str(error).replace(str(fresh), str(out)),)
        raise
    finally:
        if lock is not None:
            os.close(lock)


def check_room(folder: Path, count: float) -> None:
    """Raises DataError if the file system of a folder has less room than `count` bytes."""
    if (lack := lack_of_room(folder, count)) is not None:
        raise DataError(f"{folder}: {lack}")


def strangers(folder: Path) -> list[str]:
    """Paths of what a folder holds besides the unchanged files of its marker; a subfolder with a marker of its own
    answers for itself."""
    known, found = _marker(folder).get("files") or {}, _stamps(folder)
    own = [name for name, stamp in found.items() if not (name in known and known[name] == stamp)]
    marked = [name for name, stamp in found.items() if stamp is None and _marker(folder / name)]
    return own + [name + more for name in marked for more in strangers(folder / name)]


def rewritten(folder: Path, name: str, before: Stamp) -> None:
    """Tells the marker of a folder, if it has one, that tad itself has written a file anew.

    Args:
        before: the `stamp` of the old file, None for a new one; a file that the user had changed stays the user's.
    """
    marker = _marker(folder)
    if "files" in marker and (before is None or marker["files"].get(name) == before):
        marker["files"][name] = stamp(folder / name)
        write_json(folder / MARKER, marker)


def stamp(path: Path) -> Stamp:
    """What tells a file from another one of its name."""
    if path.is_symlink():
        return os.readlink(path)
    found = path.stat()
    return None if path.is_dir() else [str(found.st_size), str(found.st_mtime_ns)]


def _place(out: Path) -> Path:
    """`out` without links in its parents."""
    if out.parts[:1] and out.parts[0].startswith("~"):
        raise DataError(f"{out}: write the home folder in full")
    try:
        return out.parent.resolve() / out.name if out.name not in ("", "..") else out.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, NUL
        raise DataError(f"{out}: cannot be written: {cause(error)}") from None


def _check_place(out: Path, place: Path) -> None:
    """Refuses what is no folder, and folders that are in use."""
    try:
        if place.is_symlink():
            raise DataError(f"{out}: is a link to {os.readlink(place)}; choose another folder or name its target")
        if not os.path.lexists(place):
            return
        if not place.is_dir():
            raise DataError(f"{out}: is a file; choose another name")
        for what, find in (("current", Path.cwd), ("home", Path.home)):
            with suppress(OSError, RuntimeError):  # it was removed; containers may have no home
                own = find().resolve()
                if place in (own, *own.parents):
                    raise DataError(f"{out}: is the {what} folder or holds it; choose another folder")
        if os.path.ismount(place):
            raise DataError(f"{out}: is a mount; choose a folder in it")
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{out}: cannot be written: {cause(error)}") from None


def _check_sources(out: Path, place: Path, sources: Iterable[Path]) -> None:
    for source in sources:
        own = source.resolve()
        if place == own:
            raise DataError(f"{out}: is the source; choose another folder")
        if place in own.parents:
            raise DataError(f"{out}: holds what is read, {own}; choose another folder")
        if own in place.parents:
            raise DataError(f"{out}: lies in the source, {own}; choose another folder")


def _check_contents(out: Path, place: Path, command: str, force: bool, links: bool) -> None:
    """Refuses to replace anything but an output of `command`."""
    try:
        if not place.is_dir() or not any(place.iterdir()):
            return
        if not force:
            raise DataError(f"{out}: is not empty; choose another folder, or replace an earlier output with --force")
        marker, foreign = _marker(place), strangers(place)
        foreign = [name for name in foreign if not (links and (place / name).is_symlink())]
        mounts = [name for name, found in _stamps(place).items() if found is None and os.path.ismount(place / name)]
    except OSError as error:
        raise DataError(f"{out}: cannot be replaced: {cause(error)}") from None
    remedy = "choose another folder, or remove it yourself"
    if mounts:
        raise DataError(f"{out}: something is mounted in it, at {', '.join(mounts)}; {remedy}")
    if foreign and "files" not in marker:
        raise DataError(f"{out}: was not written by `tad {command}`, its file {MARKER} is missing; {remedy}")
    if marker and marker["command"] != command:
        raise DataError(f"{out}: was written by `tad {marker['command']}`, not by `tad {command}`; {remedy}")
    if foreign:
        problems = [f"{name}: {'was changed' if name in marker['files'] else 'was added'}" for name in foreign]
        raise DataError(f"{out}: is no longer what `tad {command}` wrote: {listing(problems)}\n{remedy}")


def _put(out: Path, fresh: Path, place: Path, command: str, force: bool, links: bool) -> None:
    """Renames the finished folder; what it replaces is looked at once more where nobody writes into it any more."""
    if not os.path.lexists(place) or not any(place.iterdir()):
        if place.is_dir():
            shutil.copymode(place, fresh)
        fresh.rename(place)  # fails if something has come to be there
        sync(place.parent)
        return
    _check_contents(out, place, command, force, links)
    old = _exchange(fresh, place)
    sync(place.parent)
    try:
        _check_contents(out, old, command, force, links)
    except DataError:
        _exchange(old, place)
        raise
    with suppress(OSError):  # what cannot be removed stays beside, under its hidden name
        if (old / MARKER).is_symlink():  # replaced like the other links
            (old / MARKER).unlink()
        write_json(old / MARKER, {"command": command, "version": _version()})
        _remove(old)


def _exchange(fresh: Path, place: Path) -> Path:
    """Puts `fresh` to `place` and says where the old folder is now; in one step where the file system can."""
    both = os.fsencode(fresh), os.fsencode(place)
    with suppress(AttributeError):  # no Linux
        if ctypes.CDLL(None, use_errno=True).renameat2(-100, both[0], -100, both[1], 2) == 0:  # AT_FDCWD, EXCHANGE
            return fresh
        if ctypes.get_errno() not in (errno.EINVAL, errno.ENOSYS):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(place))
    aside = _hidden(place)
    place.rename(aside)
    try:
        fresh.rename(place)
    except BaseException:
        aside.rename(place)
        raise
    return aside


def _hidden(place: Path) -> Path:
    """A new name beside `place`, for a folder that is not finished or not needed any more."""
    return place.with_name(_prefix(place) + uuid.uuid4().hex[:8])


def _prefix(place: Path) -> str:
    name = os.fsencode(place.name)
    return f".{os.fsdecode(name[:60])}.tad-{hashlib.sha256(name).hexdigest()[:8]}-"


def _remove_leftovers(place: Path) -> None:
    """Unfinished and replaced folders of runs that were killed; those of living runs are locked."""
    for old in place.parent.iterdir():
        if not old.name.startswith(_prefix(place)) or old.is_symlink() or not old.is_dir():
            continue
        lock = _locked(old)
        if lock is None:
            continue
        try:
            if _removable(old) and ("files" not in _marker(old) or os.path.lexists(place)):
                _remove(old)
        except (OSError, DataError):
            pass  # left where it is
        finally:
            os.close(lock)


def _locked(folder: Path) -> int | None:
    """A handle that holds a lock on the folder; None if another process has it, or nobody can."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def _removable(folder: Path) -> bool:
    """Whether a folder under a hidden name is unfinished, or holds only what its marker lists."""
    marker = _marker(folder)
    return not _stamps(folder) or (bool(marker) and ("files" not in marker or not strangers(folder)))


def _remove(folder: Path) -> None:
    """Removes a folder of ours, its marker last; never follows a link, and leaves all where something is mounted."""
    if not folder.is_dir() or any(os.path.ismount(folder / name) for name, s in _stamps(folder).items() if s is None):
        return
    for path in folder.iterdir():
        if path.name != MARKER:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(folder)


def _version() -> str | None:
    try:
        return version("tad-selftrain")
    except PackageNotFoundError:  # uploaded source, on machines with the dependencies only
        return None


def _marker(folder: Path) -> dict[str, Any]:
    """The marker of a folder; empty if it has none, or one that is not ours."""
    path = folder / MARKER
    if path.is_symlink() or not path.is_file():
        return {}
    try:
        marker = read_json(path)
    except DataError:
        return {}
    sound = isinstance(marker, dict) and isinstance(marker.get("command"), str)
    return marker if sound and isinstance(marker.get("files", {}), dict) else {}


def _stamps(folder: Path, above: str = "") -> dict[str, Stamp]:
    """The stamp of each file, link and folder below a folder, without its marker and without what is in marked
    subfolders. A folder ends with a slash."""
    found: dict[str, Stamp] = {}
    for path in sorted((folder / above).iterdir()):
        name = f"{above}{path.name}"
        if path.is_dir() and not path.is_symlink():
            found[name + "/"] = None
            found |= {} if _marker(path) else _stamps(folder, name + "/")
        elif name != MARKER and not name.startswith(f".{MARKER}."):  # a new marker that `whole` did not finish
            found[name] = stamp(path)
    return found
