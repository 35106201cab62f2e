"""The folder of a run: whose it is, that one driver alone works in it, and what an earlier attempt left.

RUN/.lock   locked by the living driver; the system unlocks it when that process ends, however it ends
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from distributed.run.identity import Identity
from tad.errors import RunError
from tad.evaluation.operating_point import POINT_FILE
from tad.files import cause, read_json
from tad.recipe.recipe import Recipe
from tad.report.run import RunInfo, read_info

LOCK = ".lock"
FILES = ("run.json", "rounds.json", "events.jsonl", "report.html", POINT_FILE)
FOLDERS = ("round-*",)
SAME = ("recipe", "dataset", "seed")
"""What makes two attempts the same run."""


@contextmanager
def claimed(out: Path, document: dict[str, Any]) -> Iterator[RunInfo | None]:
    """A run's folder for this driver alone; what the earlier attempt wrote into run.json, if there was one.

    Args:
        out: made if it is missing.
        document: of run.json, as it is about to be written.

    Raises:
        RunError: the folder cannot be made or written, holds something else or another run, or another driver works
            in it.
        DataError: its run.json is malformed.
    """
    make(out)
    if not (out / "run.json").exists() and any(path.name != LOCK for path in out.iterdir()):
        raise RunError(f"{out}: not empty and not a run's folder; choose another with --out")
    with locked(out):
        refuse_links(out)
        if not (out / "run.json").exists():
            yield None
            return
        earlier, info = read_json(out / "run.json"), read_info(out)
        differ = [key for key in SAME if not _same(key, earlier.get(key), document[key])]
        if differ:
            verb = "differs" if len(differ) == 1 else "differ"
            raise RunError(
                f"{out}: holds another run (its {' and '.join(differ)} {verb}); choose another folder with --out, "
                "or remove this one. Finished stages are in the store and are not run again either way"
            )
        yield info


def _same(key: str, earlier: Any, now: Any) -> bool:
    """Whether two runs agree; a recipe may have been written before options were added that change nothing, and an
    operating point may be asked for later."""
    if key != "recipe" or earlier == now:
        return bool(earlier == now)
    try:
        then, today = (Recipe.model_validate(recipe).identity() for recipe in (earlier, now))
    except ValidationError:
        return False
    return all(then.get(key) == today.get(key) for key in {*then, *today} - {"operating_point"})


def make(out: Path) -> None:
    """Makes a folder that can be written.

    Raises:
        RunError: it cannot be made or written; says why.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        file = next((path for path in (out, *out.parents) if os.path.lexists(path) and not path.is_dir()), None)
        why = f"{file} is a file" if file is not None else cause(error)
        raise RunError(f"{out}: cannot be made: {why}; choose another folder with --out") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise RunError(f"{out}: cannot be written; choose another folder with --out")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Held by the one process that may write in a run's folder.

    Raises:
        RunError: another one does; the message names it.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise RunError(f"{folder / LOCK}: cannot be opened: {cause(error)}") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(_busy(folder)) from None
        except OSError:  # a file system without locks; then the process that run.json names has to tell
            driver = _driver(folder)
            if driver is not None and driver != Identity.me() and driver.state() == "alive":
                raise RunError(_busy(folder)) from None
        yield
    finally:
        os.close(handle)


def refuse_links(folder: Path, files: Iterable[str] = FILES, folders: Iterable[str] = FOLDERS) -> None:
    """A run's folder holds no links: what is written below it stays below it.

    Args:
        files: names in it that are written.
        folders: patterns of names of folders in it, in which anything may be written.

    Raises:
        RunError: it holds some, or something else that is neither file nor folder.
    """
    ours = [folder / name for name in files]
    for pattern in folders:
        for top in folder.glob(pattern):
            ours += [top, *top.rglob("*")] if not top.is_symlink() else [top]
    for path in ours:
        if path.is_symlink() or (path.exists() and not path.is_file() and not path.is_dir()):
            what = "a link" if path.is_symlink() else "neither a file nor a folder"
            raise RunError(f"{path}: is {what}, which tad never makes; choose another folder with --out, or remove it")


def died(info: RunInfo) -> str | None:
    """What to say of an earlier attempt that was killed, or whose machine went down."""
    if info.state != "running":
        return None
    who = f"process {info.driver.pid} on {info.driver.host}" if info.driver is not None else "its process"
    return f"the attempt of {info.started or 'earlier'} did not end in order ({who} was killed); going on from there"


def _driver(folder: Path) -> Identity | None:
    """The process that run.json names as running it."""
    try:
        info = read_info(folder)
    except Exception:  # missing, or malformed: another reader says so
        return None
    return Identity(*info.driver.model_dump().values()) if info.driver and info.state == "running" else None


def _busy(folder: Path) -> str:
    driver, since = _driver(folder), ""
    if driver is not None:
        since = f": process {driver.pid} on {driver.host}, since {read_info(folder).started}"
    return f"{folder}: another process works in this folder{since}; wait until it ends, or choose another with --out"
