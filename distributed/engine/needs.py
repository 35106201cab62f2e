"""Which artifacts of a store runs need, by their folders and by what is noted in the store. Nothing is changed here."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from distributed.engine.record import id_in
from distributed.engine.store import KEY, Store
from distributed.engine.uses import Use, noted
from tad.errors import DataError, RunError
from tad.files import cause, regular

NAMED_IN = ("run.json", "rounds.json", "events.jsonl")
"""Files of a run's folder that name artifacts; a search's trials have them, too."""
_KEY_IN_TEXT = re.compile(rb"(?<![0-9a-zA-Z])[0-9a-f]{24}(?![0-9a-zA-Z])")


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


def _unreadable(error: OSError) -> None:
    raise RunError(f"{_unread(error.filename, error)}; it is not known which artifacts it names")


def _unread(path: Path | str, error: Exception) -> str:
    return str(error) if isinstance(error, DataError) else f"{path}: cannot be read: {cause(error)}"
