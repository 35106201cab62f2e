"""Class lists of other tools: which class an id stands for."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tad.data.csv_table import read_csv
from tad.errors import DataError, listing
from tad.files import name_of, read_json, read_text

NUMBERED = re.compile(r"(\d{1,9})\s+(\S.*)")


def read_classes(path: Path, *, by_line: bool = True) -> dict[int, str]:
    """Name of each class id.

    .csv: the columns id and key, as EPIC-KITCHENS has them. .json: a list of names, or an annotation file whose
    segments have label and label_id. Anything else is text: a name a line, counted from 0, or lines `ID NAME` as the
    THUMOS toolkit has them.

    Args:
        by_line: whether ids matter, and not only the order of the classes: text without ids may then have no empty
            lines, since ids are counted by lines.

    Raises:
        DataError: the file cannot be read, holds no class, or a class or an id twice.
    """
    kind = path.suffix.lower()
    if kind == ".csv":
        pairs = _rows(path)
    elif kind == ".json":
        pairs = _document(read_json(path), path)
    else:
        pairs = _lines(read_text(path), path, by_line)
    problems = [f"id {n} appears {count} times" for n, count in Counter(n for n, _ in pairs).items() if count > 1]
    problems += [f"class {c!r} appears {count} times" for c, count in Counter(c for _, c in pairs).items() if count > 1]
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    if not pairs:
        raise DataError(f"{path}: holds no class")
    return {number: name_of(name) for number, name in pairs}


def label_ids(document: Any) -> dict[int, str]:
    """Name of each label_id of an ActivityNet-style annotation document; empty if there is none, or they contradict."""
    found: dict[int, str] = {}
    database = document.get("database") if isinstance(document, dict) else None
    for entry in database.values() if isinstance(database, dict) else ():
        rows = entry.get("annotations") if isinstance(entry, dict) else None
        for row in rows if isinstance(rows, list) else ():
            label, number = (row.get("label"), row.get("label_id")) if isinstance(row, Mapping) else (None, None)
            if (
                isinstance(label, str)
                and type(number) is int
                and found.setdefault(number, label.strip()) != label.strip()
            ):
                return {}
    return found


def _rows(path: Path) -> list[tuple[int, str]]:
    pairs = []
    for line, row in read_csv(path).rows:
        if not {"id", "key"} <= row.keys():
            raise DataError(f"{path}: expected the columns id and key; found {', '.join(row)}")
        if not re.fullmatch(r"\d{1,9}", row["id"]) or not row["key"]:
            raise DataError(
                f"{path}: line {line}: id {row['id']!r}, key {row['key']!r}: expected a whole number and a name"
            )
        pairs.append((int(row["id"]), row["key"]))
    return pairs


def _document(document: Any, path: Path) -> list[tuple[int, str]]:
    if isinstance(document, list) and all(isinstance(name, str) for name in document):
        return [(i, name.strip()) for i, name in enumerate(document)]
    pairs = list(label_ids(document).items())
    if not pairs:
        raise DataError(f"{path}: expected a list of names, or annotations with one label_id for each label")
    return pairs


def _lines(text: str, path: Path, by_line: bool) -> list[tuple[int, str]]:
    lines = [line.strip() for line in text.rstrip().split("\n")]
    empty = [f"line {n} is empty" for n, line in enumerate(lines, start=1) if not line]
    numbered = [NUMBERED.fullmatch(line) for line in lines if line]
    if all(numbered):
        return [(int(m[1]), m[2]) for m in numbered if m]
    if empty and by_line:
        raise DataError(f"{path}: ids are counted by lines: " + listing(empty))
    return [(i, line) for i, line in enumerate(lines) if line]
