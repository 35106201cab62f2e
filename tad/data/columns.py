"""The columns of segment files, as files have them, and the one place where their values are checked."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tad.errors import DataError, listing, shortened
from tad.files import number

SCHEMA = pa.schema(
    [
        ("video_id", pa.string()),
        ("start", pa.float64()),
        ("end", pa.float64()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("point", pa.float64()),
        ("source", pa.string()),
    ]
)
REQUIRED = ("video_id", "start", "end", "label")

Values = Any
"""A list with one value of any type a row, None where the file has none; or a pyarrow.ChunkedArray."""


@dataclass(frozen=True)
class Columns:
    """N rows as a file has them, unchecked.

    Attributes:
        form: what the file is, in words.
        values: by name of SCHEMA: video_id, start, end, label, and where the file has them score, point and source.
        line: of the first row, where rows are lines of a file; None where they are counted from 0 within a video.
        faults: rows whose shape is wrong, and why; their values are stand-ins. problems: what is wrong beside rows.
    """

    form: str
    values: Mapping[str, Values]
    line: int | Sequence[int] | None = None
    faults: Sequence[tuple[int, str]] = ()
    problems: Sequence[str] = ()

    def places(self) -> list[str]:
        """[N] where each row stands, for messages."""
        ids = _listed(self.values["video_id"])
        if isinstance(self.line, int):
            return [f"row {self.line + i} (video {v})" for i, v in enumerate(ids)]
        if self.line is not None:
            return [f"line {line} (video {v})" for line, v in zip(self.line, ids, strict=True)]
        count: Counter[Any] = Counter()
        found = []
        for video in ids:
            found.append(f"video {video}, row {count[video]}")
            count[video] += 1
        return found


def checked(
    columns: Columns, name: str, classes: Mapping[int, str] | None, ordered: bool, source: str = ""
) -> pa.Table:
    """The rows as a table of SCHEMA: numbers are finite, labels are class names.

    Args:
        name: what errors call the file.
        classes: name of each class id; without it, ids are refused.
        ordered: whether 0 <= start < end must hold.
        source: where the file has none.

    Raises:
        DataError: lists every bad value with its row; nothing is left out silently.
    """
    try:
        return _checked(columns, classes, ordered, source)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None


def _checked(columns: Columns, classes: Mapping[int, str] | None, ordered: bool, source: str) -> pa.Table:
    faults = list(columns.faults)
    ids = _texts(columns.values["video_id"], "video", faults)
    labels = _labels(columns.values["label"], classes, faults)
    start, end = (_numbers(columns.values[key], key, faults) for key in ("start", "end"))
    score = _numbers(columns.values["score"], "score", faults) if "score" in columns.values else np.ones(len(start))
    point = np.full(len(start), math.nan)
    if "point" in columns.values:
        point = _numbers(columns.values["point"], "point", faults, optional=True)
    if ordered:
        bad = np.flatnonzero(np.isfinite(start) & np.isfinite(end) & ~((start >= 0) & (start < end)))
        faults += [(int(i), f"segment [{start[i]}, {end[i]}]; a segment needs 0 <= start < end") for i in bad]
    if faults or columns.problems:
        places = columns.places()
        rows = sorted(faults, key=lambda fault: fault[0])
        raise DataError(listing([*(f"{places[i]}: {text}" for i, text in rows), *columns.problems]))
    made = columns.values.get("source")
    if isinstance(made, pa.ChunkedArray) and _is_text(made.type) and not made.null_count:
        sources = _texts(made, "source", faults)
    else:
        sources = pa.repeat(pa.scalar(source, pa.string()), len(start))
    return pa.table([ids, start, end, labels, score, point, sources], schema=SCHEMA)


def _is_id(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _numbers(values: Values, key: str, faults: list[tuple[int, str]], optional: bool = False) -> np.ndarray:
    """[N] float64. None and NaN mean that there is none where `optional`; else every value must be finite."""
    bad: list[tuple[int, str]] = []
    if isinstance(values, pa.ChunkedArray) and _is_text(values.type):
        values = values.to_pylist()
    if isinstance(values, pa.ChunkedArray):
        kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, *([pa.types.is_null] * optional))
        if not any(is_kind(values.type) for is_kind in kinds):
            raise DataError(f"column {key} is of type {values.type}; it must hold numbers")
        missing = np.flatnonzero(values.is_null().to_numpy()).tolist() if values.null_count else []
        found = values.cast(pa.float64(), safe=False).to_numpy()
    else:
        missing = [i for i, value in enumerate(values) if value is None]
        if set(map(type, values)) <= {int, float}:
            found = np.array(values, dtype=np.float64)
        else:
            found, bad = _each(values, key)
    if not optional:
        bad += [(i, f"{key} is missing") for i in missing]
    odd = np.isinf(found) if optional else ~np.isfinite(found)
    odd[[i for i, _ in bad]] = False
    faults += [*bad, *((int(i), f"{key} {found[i]} is not finite") for i in np.flatnonzero(odd))]
    return found


def _each(values: Sequence[Any], key: str) -> tuple[np.ndarray, list[tuple[int, str]]]:
    """[N] float64 of values of any type, NaN for None and for what is no number; and the faults."""
    found = np.full(len(values), math.nan)
    faults: list[tuple[int, str]] = []
    for i, value in enumerate(values):
        if value is None:
            continue
        try:
            found[i] = number(value)
        except ValueError as error:
            faults.append((i, f"{key} {error}"))
    return found, faults


def _labels(values: Values, classes: Mapping[int, str] | None, faults: list[tuple[int, str]]) -> pa.Array:
    """[N] class names; ids are looked up."""
    if isinstance(values, pa.ChunkedArray):
        if not (_is_text(values.type) or pa.types.is_integer(values.type)):
            raise DataError(f"column label is of type {values.type}; it must hold class names or class ids")
        if _is_text(values.type) and classes is None:
            return _texts(values, "label", faults)
    given = _listed(values)
    if set(map(type, given)) <= {str} and (classes is None or not set(given).isdisjoint(classes.values())):
        return _texts(given, "label", faults)
    names: Mapping[Any, str] = classes or {}
    texts = {value for value in given if isinstance(value, str)}
    if classes and all(text.strip().isdecimal() for text in texts) and texts.isdisjoint(classes.values()):
        given = [int(v) if isinstance(v, str) else v for v in given]  # ids as text, as CSV has them
    ids = [i for i, value in enumerate(given) if _is_id(value)]
    if ids and classes is None:
        raise DataError(
            f"{len(ids)} rows name their class by an id, the first label {given[ids[0]]}, but there is no class list; "
            "give one with --classes FILE"
        )
    found = list(given)
    for i in ids:
        found[i] = names.get(int(given[i]), "")
        if int(given[i]) not in names:
            faults.append((i, f"label {given[i]} is not an id of the class list ({_span(names)})"))
    return _texts(found, "label", faults)


def _span(names: Mapping[int, str]) -> str:
    return f"{len(names)} classes, {min(names)} to {max(names)}" if names else "it is empty"


def _texts(values: Values, key: str, faults: list[tuple[int, str]]) -> pa.Array:
    """[N] texts of valid characters, without blanks around them."""
    if isinstance(values, pa.ChunkedArray):
        if not _is_text(values.type):
            name = "video_id" if key == "video" else key
            raise DataError(f"column {name} is of type {values.type}; it must hold text")
        if not values.null_count:
            try:
                found = values.cast(pa.string())
                found.validate(full=True)
                return pc.utf8_trim_whitespace(found)
            except pa.ArrowInvalid:
                raise DataError(f"column {key} holds text that is not UTF-8") from None
        values = values.to_pylist()
    try:
        if set(map(type, values)) <= {str}:
            return pc.utf8_trim_whitespace(pa.array(values, pa.string()))
    except UnicodeEncodeError:  # half a character
        pass
    faults += _bad_texts(values, key)
    return pa.repeat(pa.scalar("", pa.string()), len(values))


def _bad_texts(values: Sequence[Any], key: str) -> Iterator[tuple[int, str]]:
    for i, value in enumerate(values):
        if value is None:
            yield i, f"{key} is missing"
        elif not isinstance(value, str):
            yield i, f"{key} {shortened(value)} is not text"
        elif not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            yield i, f"{key} {shortened(value)} holds half a character (a lone surrogate)"


def _listed(values: Values) -> list[Any]:
    return values.to_pylist() if isinstance(values, pa.ChunkedArray) else list(values)


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
