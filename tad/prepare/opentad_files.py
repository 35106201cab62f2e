"""The small files of OpenTAD, ActionFormer and MMAction2: annotations, class list, block list."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tad.data.class_list import label_ids, read_classes
from tad.data.dataset import Role
from tad.errors import DataError
from tad.files import name_of, read_json, read_text

CLASS_LISTS = ("category_idx.txt", "classes.txt", "anet_activity_indexes_val.txt")
BLOCK_LISTS = ("missing_files.txt", "block_list.txt", "blocked.json")
SUBSETS = {"train": "training", "val": "validation", "test": "testing"}
"""Subset of MMAction2's files, by a word of their name."""


def annotation_files(src: Path, chosen: Sequence[str]) -> list[Path]:
    """The annotation files: those that are named, else the only one there, else MMAction2's, one for each subset.

    Raises:
        DataError: a named one is missing, there is none, or it is not clear which one is meant.
    """
    for name in chosen:
        if not (src / name).exists():
            raise DataError(f"{src / name}: no such annotation file")
    if chosen:
        return [src / name for name in chosen]
    files = [p for folder in (src, src / "annotations") for p in sorted(folder.glob("*.json")) if p.is_file()]
    texts = {path: path.read_bytes() for path in files}
    found = [path for path in files if b'"database"' in texts[path]]
    if len(found) == 1:
        return found
    parts = [p for p in files if b'"duration_second"' in texts[p] and _subset_of(p) is not None]
    if not found and parts and len({_subset_of(path) for path in parts}) == len(parts):
        return parts
    if not found and not parts and len(files) == 1:
        return files  # reading it says what is wrong with it
    names = ", ".join(str(p.relative_to(src)) for p in found or parts) or "none"
    raise DataError(f"{src}: expected one annotation file, found {names}; choose it with --annotations")


def _subset_of(path: Path) -> str | None:
    """The subset that a file's name tells; None for the file of all subsets."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((subset for word, subset in SUBSETS.items() if any(w.startswith(word) for w in words)), None)


def read_database(paths: Sequence[Path], problems: list[str]) -> dict[str, Any]:
    """Entries by video, of one or several files, in the layout of ActivityNet."""
    database: dict[str, Any] = {}
    for path in paths:
        for key, entry in _entries(path).items():
            video_id = key.strip()
            if video_id in database:
                problems.append(f"{path.name}: video {video_id} appears twice, or in another file, too")
            database[video_id] = entry
    return database


def _entries(path: Path) -> Mapping[str, Any]:
    document = read_json(path)
    database = document.get("database") if isinstance(document, dict) else None
    if isinstance(database, dict) and database:
        return database
    if isinstance(document, dict) and document and all(_is_mmaction(entry) for entry in document.values()):
        subset = _subset_of(path)
        if subset is None:
            raise DataError(
                f"{path}: its name tells no subset; name the files of train, val and test with --annotations"
            )
        return {video_id: _of_mmaction(entry, subset) for video_id, entry in document.items()}
    raise DataError(f'{path}: expected {{"database": {{video: ...}}}}, or videos with duration_second')


def _is_mmaction(entry: Any) -> bool:
    return isinstance(entry, dict) and "duration_second" in entry


def _of_mmaction(entry: Mapping[str, Any], subset: str) -> dict[str, Any]:
    """MMAction2's keys under the names of the others; its fps is rounded, so frames over seconds give the rate."""
    names = {"duration": "duration_second", "frame": "duration_frame", "feature_frame": "feature_frame"}
    kept = {ours: entry[theirs] for ours, theirs in names.items() if theirs in entry}
    return {"subset": subset, "annotations": entry.get("annotations"), **kept}


def default_roles(database: Mapping[str, Any], where: Path) -> dict[str, Role]:
    """The usual meaning of subset names; subsets without any annotation have no role.

    "train..." trains. Beside it, "val..." is the test set (THUMOS14 in OpenTAD, ActivityNet), or the development set
    where an annotated "test..." exists. Without a "train...", "val..." trains (THUMOS14 in ActionFormer).

    Raises:
        DataError: the names do not tell a training subset; `where` is what it calls the file.
    """
    named = [e for e in database.values() if isinstance(e, dict) and e.get("subset") is not None]
    annotated = {str(e["subset"]).strip() for e in named if e.get("annotations")}
    kinds = {s: kind for s in annotated for kind in ("train", "val", "test") if s.lower().startswith(kind)}
    has = set(kinds.values())
    meaning: dict[str, Role] = {"train": "train", "test": "test", "val": "test"}
    if "train" not in has:
        meaning["val"] = "train"
    elif "test" in has:
        meaning["val"] = "dev"
    roles = {subset: meaning[kind] for subset, kind in sorted(kinds.items())}
    if "train" not in roles.values():
        if not named:
            raise DataError(f'{where}: no training subset: no video has a "subset"')
        if not annotated:
            raise DataError(f"{where}: no training subset: no video has annotations; name it with --train-subset")
        raise DataError(
            f"{where}: no training subset among {', '.join(sorted(annotated))}, by names that begin with train or val; "
            "name it with --train-subset"
        )
    return roles


class ClassList(NamedTuple):
    """The ordered class names, and where the order comes from."""

    names: list[str]
    source: str


def class_list(src: Path, chosen: str | None, folders: Sequence[Path], database: Mapping[str, Any]) -> ClassList:
    """The classes: of a class list (named, or in one of the folders), else by label_id, else alphabetical.

    Raises:
        DataError: a named list is missing, or a list cannot be read.
    """
    path = src / chosen if chosen is not None else _first(folders, CLASS_LISTS)
    by_id, alphabet = _by_annotations(database)
    if path is None:
        return ClassList(by_id, "label_id in the annotations") if by_id else ClassList(alphabet, "the alphabet")
    if chosen is not None and not path.exists():
        raise DataError(f"{path}: no such class list")
    return ClassList([name for _, name in sorted(read_classes(path, by_line=False).items())], _within(path, src))


def _by_annotations(database: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Names by label_id (empty unless each name has one of its own), and by the alphabet."""
    lists = [e.get("annotations") for e in database.values() if isinstance(e, dict)]
    items = [a for found in lists if isinstance(found, list) for a in found if isinstance(a, dict)]
    # Other labels are reported as rows.
    labels = {name_of(a["label"]) for a in items if type(a.get("label")) in (str, int)}
    by_id = [name_of(label) for _, label in sorted(label_ids({"database": database}).items())]
    return by_id if len(by_id) == len(labels) == len(set(by_id)) else [], sorted(labels)


class BlockList(NamedTuple):
    """Videos to ignore, as they are listed, and the files that list them."""

    names: list[str]
    sources: list[str]

    def notes(self, ignored: Collection[str]) -> list[str]:
        """What the user is told of the videos that are ignored."""
        return [f"ignored videos: {len(ignored)}, listed in {', '.join(self.sources)}"] if ignored else []


def block_list(src: Path, chosen: str | None, folders: Sequence[Path]) -> BlockList:
    """The videos of the named list, or of all lists that lie in the folders.

    Raises:
        DataError: a named list is missing, or a list cannot be read.
    """
    if chosen is not None and not (src / chosen).exists():
        raise DataError(f"{src / chosen}: no such block list")
    paths = [src / chosen] if chosen is not None else [f / n for f in folders for n in BLOCK_LISTS if (f / n).exists()]
    listed = [_blocked(path) for path in paths]
    names = list(dict.fromkeys(name for names in listed for name in names))
    return BlockList(names, [_within(path, src) for path, own in zip(paths, listed, strict=True) if own])


def _blocked(path: Path) -> list[str]:
    if path.suffix.lower() != ".json":
        return read_text(path).split()
    document = read_json(path)
    if not isinstance(document, list | dict) or not all(isinstance(name, str) for name in document):
        raise DataError(f"{path}: expected a list of videos")
    return [name.strip() for name in document]


def _first(folders: Collection[Path], names: Sequence[str]) -> Path | None:
    return next((folder / name for folder in folders for name in names if (folder / name).exists()), None)


def _within(path: Path, src: Path) -> str:
    return str(path.relative_to(src)) if path.is_relative_to(src) else str(path)
