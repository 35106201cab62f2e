"""Which runs need which artifacts of a store, noted in the store: who tidies it need not know everybody's folders.

STORE/.runs/ID   the lines of one run: where its folder is and whose, as JSON, and each artifact that it asked for
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import stat
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed.engine.record import Record, opened_here
from distributed.engine.store import KEY, Store
from distributed.engine.unfinished import make_folder
from tad.errors import DataError, RunError
from tad.files import read_text, write_text

RUNS = ".runs"
ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Use:
    """What a store knows of a run. The run may be on another machine, moved, or gone.

    Attributes:
        id: of its record, the first line of its events.jsonl.
        places: where its folder was each time it ran, and who ran it. Texts to be shown and compared, not opened.
        keys: the artifacts that it asked for.
    """

    id: str
    places: tuple[tuple[str, str], ...]
    keys: frozenset[str]

    def lies_in(self, folders: Collection[str]) -> bool:
        """Whether it never was anywhere but in these folders, or below them; a run may also be named by its id."""
        if self.id in folders:
            return True
        tops = tuple(f"{folder.rstrip('/')}/" for folder in folders)
        return bool(self.places) and all(f"{place}/".startswith(tops) for place, _ in self.places)

    def __str__(self) -> str:
        return " and ".join(f"{place} ({owner})" for place, owner in self.places) or f"a run of id {self.id}"


class Notes:
    """Notes the artifacts that one run asks for, before it looks for them: what is tidied meanwhile is then seen.

    A store that cannot be written, as that of another user, has no notes.
    """

    def __init__(self, store: Store, record: Record) -> None:
        self._store, self._record = store, record
        self._lines: list[str] | None = None

    def add(self, key: str) -> None:
        with suppress(OSError, RunError, DataError):
            if self._lines is None:
                self._lines = (_text(self._store, self._record.id) or "").splitlines()
            earlier = _parsed(self._record.id, self._lines)
            here = str(self._record.folder.resolve())
            more = [] if here in dict(earlier.places) else [json.dumps({"folder": here, "owner": _owner()})]
            more += [] if key in earlier.keys else [key]
            if more:
                self._write(more)
                self._lines += more

    def _write(self, more: list[str]) -> None:
        path = self._store.root / RUNS / self._record.id
        if path.parent.is_symlink():
            return
        make_folder(path.parent)
        if self._store.bucket is not None:  # another machine may have written what is not here
            write_text(path, "".join(f"{line}\n" for line in [*(self._lines or []), *more]))
            self._store.bucket.upload(path.parent, RUNS, [path.name])
            return
        new = not path.exists()
        with open(path, "a", encoding="utf-8", opener=opened_here) as file:
            if new and path.parent.stat().st_mode & stat.S_IWGRP:  # another of the group may go on with the run
                os.fchmod(file.fileno(), 0o664)
            file.write("".join(f"\n{line}\n" for line in more))  # the last line may be half a one of a killed process


def noted(store: Store) -> list[Use]:
    """The runs of a store.

    Raises:
        RunError: it is not known which artifacts one of them needs: its notes cannot be read.
    """
    names = store.bucket.listed(RUNS) if store.bucket is not None else _names(store.root / RUNS)
    found = []
    for name in sorted(names):
        if ID.fullmatch(name):
            try:
                text = _text(store, name)
            except DataError as error:
                raise RunError(f"{error}; it is not known which artifacts a run needs") from error
            found.append(_parsed(name, (text or "").splitlines()))
    return found


def forget(store: Store, uses: Iterable[Use]) -> None:
    """Removes what is noted of runs.

    Raises:
        OSError: they cannot be removed.
    """
    for use in uses:
        (store.root / RUNS / use.id).unlink(missing_ok=True)
        if store.bucket is not None:
            store.bucket.remove([f"{RUNS}/{use.id}"])


def _names(folder: Path) -> list[str]:
    try:
        return [] if folder.is_symlink() else os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{folder}: cannot be read; it is not known which artifacts runs need") from error


def _text(store: Store, name: str) -> str | None:
    """The notes of one run; with a bucket, those that all machines see."""
    if store.bucket is not None:
        content = store.bucket.read(f"{RUNS}/{name}")
        return content.decode(errors="replace") if content is not None else None
    path = store.root / RUNS / name
    return read_text(path) if os.path.lexists(path) else None


def _parsed(name: str, lines: Iterable[str]) -> Use:
    places: dict[str, str] = {}
    keys = set()
    for line in lines:
        if KEY.fullmatch(line):
            keys.add(line)
        elif line.startswith("{"):
            with suppress(ValueError, KeyError, TypeError, RecursionError):  # half a line of a killed process
                place: dict[str, Any] = json.loads(line)
                places[str(place["folder"])] = str(place["owner"])
    return Use(name, tuple(places.items()), frozenset(keys))


def _owner() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"
