"""`Segments`: the one type of proposals, pseudo-labels, ground truth and detections.

An Arrow table with a fixed schema (design: "The one thing that flows"). Times are seconds, labels are class names.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tad.data.columns import SCHEMA, checked
from tad.data.result_files import json_columns, parquet_columns, read_columns
from tad.errors import DataError
from tad.files import whole, write_text

GROUP_ROWS = 4096
"""Rows of a row group at least; they take half a millisecond to read."""
MOST_GROUPS = 1000
"""Of a file; each takes 7 kB of memory in every process that reads it."""


class Segments:
    """A table of scored intervals.

    Columns: video_id (string), start and end (float64 seconds, 0 <= start < end), label (class name), score
    (float64; 1 for ground truth), point (float64 seconds or NaN: the annotated point the segment answers to), source
    (what made it: stage name and round).

    Raises:
        DataError: a row breaks an invariant; the message names the first offending rows.
    """

    __slots__ = ("table",)

    def __init__(self, table: pa.Table) -> None:
        self.table = table if table.schema.equals(SCHEMA) else table.select(SCHEMA.names).cast(SCHEMA)
        self._check()

    # -- construction ------------------------------------------------------------------------------------------

    @classmethod
    def of(
        cls,
        video_id: str | Sequence[str] | pa.Array,
        start: Any,
        end: Any,
        label: str | Sequence[str] | pa.Array,
        score: Any = 1.0,
        point: Any = None,
        source: str | Sequence[str] = "",
    ) -> Segments:
        """From columns; scalars are repeated, `point` may hold NaN or be None."""
        start = np.asarray(start, dtype=np.float64).reshape(-1)
        n = len(start)

        def text(value: Any) -> pa.Array:
            if isinstance(value, str):
                return pa.repeat(pa.scalar(value, pa.string()), n)
            if isinstance(value, (pa.Array, pa.ChunkedArray)):
                return value if value.type == pa.string() else value.cast(pa.string())
            return pa.array([str(v) for v in value], pa.string())

        def number(value: Any, kind: Any) -> pa.Array:
            value = np.asarray(value, dtype=kind)
            return pa.array(value if value.shape == (n,) else np.full(n, value))

        point = np.nan if point is None else point
        columns = [
            text(video_id),
            pa.array(start),
            number(end, np.float64),
            text(label),
            number(score, np.float64),
            number(point, np.float64),
            text(source),
        ]
        return cls(pa.table(columns, schema=SCHEMA))

    @classmethod
    def clipped(
        cls,
        video_id: str,
        spans: np.ndarray,
        label_index: np.ndarray,
        classes: Sequence[str],
        score: np.ndarray,
        duration: float,
        source: str = "",
    ) -> Segments:
        """Of one video, cut to it; those of which nothing is left are dropped.

        Args:
            video_id: its id.
            spans: [N, 2] seconds.
            label_index: [N] indices in `classes`.
            classes: all names.
            score: [N].
            duration: seconds of the video.
            source: of all.
        """
        start, end = np.clip(spans, 0.0, duration).T
        left = start < end
        names = pa.array(classes, pa.string()).take(pa.array(np.asarray(label_index)[left]))
        return cls.of(video_id, start[left], end[left], names, score[left], source=source)

    @classmethod
    def _checked(cls, table: pa.Table) -> Segments:
        """Some rows of a table that has already passed the checks."""
        segments = cls.__new__(cls)
        segments.table = table
        return segments

    @classmethod
    def empty(cls) -> Segments:
        return cls(SCHEMA.empty_table())

    @classmethod
    def concat(cls, parts: Iterable[Segments]) -> Segments:
        """All rows of all parts, in order."""
        tables = [p.table for p in parts]
        return cls._checked(pa.concat_tables(tables)) if tables else cls.empty()

    # -- columns -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.table.num_rows

    def __repr__(self) -> str:
        return f"Segments({len(self)} rows)"

    def _numpy(self, name: str) -> np.ndarray:
        return self.table.column(name).to_numpy()

    @property
    def start(self) -> np.ndarray:
        return self._numpy("start")

    @property
    def end(self) -> np.ndarray:
        return self._numpy("end")

    @property
    def score(self) -> np.ndarray:
        return self._numpy("score")

    @property
    def point(self) -> np.ndarray:
        """Seconds; NaN where the segment answers to no point."""
        return self._numpy("point")

    @property
    def spans(self) -> np.ndarray:
        """[N, 2] float64 seconds: start and end."""
        return np.stack([self.start, self.end], axis=1)

    @property
    def labels(self) -> list[str]:
        return self.table.column("label").to_pylist()

    @property
    def video_ids(self) -> list[str]:
        return self.table.column("video_id").to_pylist()

    def codes(self, name: str) -> tuple[np.ndarray, list[str]]:
        """A string column as int64 codes and its distinct values in order of first appearance."""
        return codes(self.table.column(name))

    def label_index(self, classes: Sequence[str]) -> np.ndarray:
        """[N] int64 index of each label in `classes`; -1 where the label is not among them."""
        return index_of(self.table.column("label"), classes)

    # -- rows --------------------------------------------------------------------------------------------------

    def take(self, index: np.ndarray) -> Segments:
        return Segments._checked(self.table.take(pa.array(np.asarray(index, dtype=np.int64))))

    def filter(self, mask: np.ndarray) -> Segments:
        return Segments._checked(self.table.filter(pa.array(np.asarray(mask, dtype=bool))))

    def without(self, other: Segments) -> Segments:
        """The rows that have no equal in `other` in video, times, class and score."""
        theirs = set(other._facts())
        return self.filter(np.array([facts not in theirs for facts in self._facts()], dtype=bool))

    def _facts(self) -> Iterator[tuple[str, float, float, str, float]]:
        columns = (self.start.tolist(), self.end.tolist(), self.labels, self.score.tolist())
        return zip(self.video_ids, *columns, strict=True)

    def replace(self, **columns: Any) -> Segments:
        """The same rows with some columns replaced (names as in `of`)."""
        current: dict[str, Any] = {name: self.table.column(name) for name in SCHEMA.names}
        for name in ("start", "end", "score", "point"):
            current[name] = self._numpy(name)
        return Segments.of(**(current | columns))

    def grouped(self) -> Segments:
        """The same rows, those of a video side by side, videos in order of first appearance."""
        return self.take(np.argsort(self.codes("video_id")[0], kind="stable"))

    def by_video(self) -> dict[str, Segments]:
        """One table for each video, in order of first appearance; rows keep their order."""
        codes, names = self.codes("video_id")
        bounds = np.searchsorted(np.sort(codes), np.arange(len(names) + 1)).tolist()
        table = self.grouped().table.combine_chunks()
        return {n: Segments._checked(table.slice(i, j - i)) for n, i, j in zip(names, bounds, bounds[1:], strict=False)}

    def rows(self) -> Iterator[dict[str, Any]]:
        yield from self.table.to_pylist()

    def digest(self) -> str:
        """Hash of the content; equal tables have equal digests."""
        digest = hashlib.sha256()
        for name in SCHEMA.names:
            column = self.table.column(name)
            values = column.to_numpy().tobytes() if pa.types.is_floating(column.type) else "\0".join(column.to_pylist())
            digest.update(values if isinstance(values, bytes) else values.encode())
        return digest.hexdigest()

    # -- files -------------------------------------------------------------------------------------------------

    def to_parquet(self, path: Path | str) -> None:
        """Written whole: no reader sees half a file, and a full disk leaves what was there."""
        with whole(Path(path)) as temporary:
            pq.write_table(self.table, temporary, row_group_size=group_size(len(self)))

    @classmethod
    def from_parquet(cls, path: Path | str) -> Segments:
        """From a Parquet file with the columns video_id, start, end and label; score, point and source may be absent.

        Raises:
            DataError: it cannot be read, lacks a column, or holds bad rows.
        """
        return cls(checked(parquet_columns(Path(path)), str(path), None, ordered=True))

    def to_results_json(self) -> dict[str, Any]:
        """ActivityNet results: {"results": {video: [{"segment": [s, e], "label", "score"[, "point"]}]}}."""
        results: dict[str, list[dict[str, Any]]] = {}
        columns = [self.table.column(n).to_pylist() for n in ("video_id", "start", "end", "label", "score")]
        for video_id, start, end, label, score, point in zip(*columns, self.point.tolist(), strict=True):
            item = {"segment": [start, end], "label": label, "score": score}
            if not math.isnan(point):
                item["point"] = point
            results.setdefault(video_id, []).append(item)
        return {"version": "VERSION 1.3", "results": results, "external_data": {}}

    @classmethod
    def from_results_json(cls, document: Mapping[str, Any], source: str = "", name: str = "results") -> Segments:
        """From an ActivityNet results document (with or without its "results" key).

        Raises:
            DataError: lists every malformed row (video, row number, value); nothing is dropped silently.
        """
        return cls(checked(json_columns(document, name), name, None, ordered=True, source=source))

    def to_json_file(self, path: Path | str) -> None:
        """Written whole, as `to_parquet`."""
        write_text(Path(path), json.dumps(self.to_results_json()))

    @classmethod
    def from_file(cls, path: Path | str, classes: Mapping[int, str] | None = None) -> Segments:
        """From any form of tad.data.result_files: Parquet, CSV, ActivityNet results and more.

        Args:
            classes: name of each class id, for files that name classes by ids.

        Raises:
            DataError: the file is missing, not of these forms, or holds bad rows (all are listed).
        """
        path = Path(path)
        return cls(checked(read_columns(path), str(path), classes, ordered=True, source=path.stem))

    # -- invariants --------------------------------------------------------------------------------------------

    def _check(self) -> None:
        columns = dict(zip(SCHEMA.names, self.table.columns, strict=True))
        for name, column in columns.items():
            if column.null_count and name != "point":
                row = column.is_null().to_pylist().index(True)
                raise DataError(f"row {row}: {name} is missing")
        start, end, score = (columns[name].to_numpy() for name in ("start", "end", "score"))
        good = (start >= 0) & (start < end) & np.isfinite(end) & np.isfinite(score)
        if not good.all():
            rows = np.flatnonzero(~good)
            ids = self.table.column("video_id")
            problems = [
                f"row {i} (video {ids[int(i)].as_py()}): segment [{start[i]:g}, {end[i]:g}] with score {score[i]:g}"
                for i in rows[:5]
            ]
            raise DataError(
                f"{len(rows)} of {len(self)} segments are not finite with 0 <= start < end: "
                + "; ".join(problems)
                + ("; ..." if len(rows) > 5 else "")
            )


def group_size(rows: int, parts: int = 1) -> int:
    """Rows of a row group of a Parquet file: few, as one video's are read with its group, but of many groups the
    description alone fills the memory.

    Args:
        rows: of one part of the file.
        parts: so many of about this size make the file.
    """
    groups = max(1, min(rows // GROUP_ROWS, MOST_GROUPS // parts))
    return max(1, math.ceil(rows / groups))


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A string column as int64 codes and its distinct values in order of first appearance."""
    encoded = column.combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # an empty column stays chunked
        encoded = pa.concat_arrays(encoded.chunks) if encoded.num_chunks else pa.array([], pa.string())
    encoded = encoded.dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int64), encoded.dictionary.to_pylist()


def index_of(labels: pa.ChunkedArray, classes: Sequence[str]) -> np.ndarray:
    """[N] int64 index of each label in `classes`; -1 where the label is not among them."""
    found, names = codes(labels)
    lookup = {c: i for i, c in enumerate(classes)}
    return np.array([lookup.get(n, -1) for n in names], dtype=np.int64)[found] if len(found) else found
