"""Files of detections and pseudo-labels, in the forms that the field's tools write them.

| form | what it is |
|---|---|
| ActivityNet results | `{"results": {video: [{"segment": [start, end], "label", "score"}]}}` |
| the same by ActionFormer | `{"database": {video: [{"segment": [start, end], "label_id", "scores"}]}}` |
| lists by video | `{video: {"segments": [[start, end]], "scores": [...], "labels" or "label_id": [...]}}` |
| ActionFormer's columns | `{"video-id": [...], "t-start": [...], "t-end": [...], "label": [...], "score": [...]}` |
| EPIC-KITCHENS challenge | ActivityNet results whose rows have `verb`, `noun` and `action` in place of a label |
| table | CSV or Parquet with the columns video_id, start, end, label, score (or ActionFormer's names) |
| THUMOS toolkit | lines `video start end class-id score` in a .txt file |

All times are seconds. A label is a class name or a class id; tad.data.columns checks the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tad.data.columns import REQUIRED, SCHEMA, Columns
from tad.data.csv_table import KNOWN, read_csv, with_point
from tad.errors import DataError, listing, shortened
from tad.files import cause, parse_json, read_text, regular
from tad.wrong_file import FRONT, wrong_file

Task = Literal["verb", "noun", "action"]

SCORES = ("score", "scores", "confidence", "conf", "probability", "prob")
PICKLES = (".pkl", ".pickle", ".npy", ".npz", ".pt", ".pth")
HOLDS = dict.fromkeys(("start", "end", "score", "point"), "numbers")
HOLDS |= {"video_id": "text", "source": "text", "label": "class names or class ids"}
"""What a column must hold."""
MOST_PACKED = 10_000_000
"""Rows of a Parquet file that may take less than a byte each; real times take more."""
MOST_TEXT = 8 << 30
"""Bytes of a column of texts, each counted as long as the longest."""
STAND_IN: dict[str, Any] = {"segment": [0.0, 1.0], "label": "", "score": 1.0}
"""In place of a row that is none."""
EXPECTED = (
    'expected {"results": {video: [{"segment": [start, end], "label", "score"}]}}, ActionFormer\'s columns, lists by '
    "video, or the EPIC-KITCHENS challenge's JSON (docs/evaluation.md has all forms)"
)


def read_columns(path: Path, task: Task | None = None) -> Columns:
    """The rows of a file, unchecked.

    Args:
        path: .parquet, .csv, .tsv or .txt (THUMOS toolkit); anything else is read as JSON.
        task: which label of the EPIC-KITCHENS challenge's rows counts.

    Raises:
        DataError: the file is missing, cannot be read or is of none of the forms; malformed rows are all listed.
    """
    kind = path.suffix.lower()
    if kind == ".parquet":
        return parquet_columns(path)
    if kind in (".csv", ".tsv"):
        return _csv(path)
    if kind == ".txt":
        return _thumos(path)
    if kind in PICKLES:
        raise DataError(
            f"{regular(path)}: {kind} files are not read: unpickling runs whatever code they hold; write JSON or "
            "Parquet where the file was made (for ActionFormer's eval_results.pkl see docs/evaluation.md)"
        )
    return json_columns(parse_json(read_text(path), str(path)), str(path), task)


def json_columns(document: Any, name: str, task: Task | None = None) -> Columns:
    """The rows of a JSON document; `name` is what errors call it."""
    if isinstance(document, dict) and {"video-id", "t-start", "t-end"} <= document.keys():
        return _action_former(document, name)
    results = document
    for key in ("results", "database"):
        if isinstance(document, dict) and key in document:
            results = document[key]
            break
    if not isinstance(results, dict):
        raise DataError(f"{name}: {EXPECTED}")
    if results and all(isinstance(entry, dict) for entry in results.values()):
        if all("segments" in entry for entry in results.values()):
            return _by_video(results, name)
        if any("annotations" in entry for entry in results.values()):
            raise DataError(f"{name}: is an annotation file, not a file of detections or pseudo-labels; {EXPECTED}")
    return _results(results, name, task)


def _results(results: Mapping[str, Any], name: str, task: Task | None) -> Columns:
    problems = [
        f"video {video}: expected a list of segments, found {type(rows).__name__}"
        for video, rows in results.items()
        if not isinstance(rows, list)
    ]
    lists = {video: rows for video, rows in results.items() if isinstance(rows, list)}
    videos = [video for video, rows in lists.items() for _ in rows]
    items = [item for rows in lists.values() for item in rows]
    faults: list[tuple[int, str]] = []
    segments: list[Any] = []
    for i, item in enumerate(items):
        if type(item) is not dict:
            faults.append((i, f"expected an object, found {shortened(item)}"))
            item = items[i] = STAND_IN
        segment = item.get("segment")
        if type(segment) is not list or len(segment) != 2:
            what = f"has no segment, but {', '.join(item) or 'nothing'}"[:100]
            faults.append((i, f"segment {shortened(segment)} is not [start, end]" if "segment" in item else what))
            segment = STAND_IN["segment"]
        segments.append(segment)
    key: str = "label"
    form = "ActivityNet results"
    if items and {"verb", "noun"} <= items[0].keys() and "label" not in items[0]:
        if task is None:
            raise DataError(
                f"{name}: rows of the EPIC-KITCHENS challenge have a verb, a noun and an action; choose by --task"
            )
        key, form = task, f"EPIC-KITCHENS challenge, {task}"
    columns = {
        "video_id": videos,
        "start": [segment[0] for segment in segments],
        "end": [segment[1] for segment in segments],
        "label": [item.get(key, item.get("label_id")) for item in items],
    }
    if any("score" in item or "scores" in item for item in items):  # then each row must have one
        columns["score"] = [item.get("score", item.get("scores")) for item in items]
    if any("point" in item for item in items):
        columns["point"] = [item.get("point") for item in items]
    return Columns(form, columns, faults=faults, problems=problems)


def _by_video(results: Mapping[str, Mapping[str, Any]], name: str) -> Columns:
    columns: dict[str, list[Any]] = {key: [] for key in ("video_id", "start", "end", "label", "score")}
    problems: list[str] = []
    for video, entry in results.items():
        segments, scores = entry["segments"], entry.get("scores")
        labels = next((entry[key] for key in ("labels", "label", "label_id") if key in entry), None)
        if not all(isinstance(values, list) for values in (segments, scores, labels)):
            problems.append(f"video {video}: expected the lists segments, scores and labels (or label_id)")
        elif not len(segments) == len(scores) == len(labels):  # type: ignore[arg-type]
            sizes = f"{len(segments)} segments, {len(scores)} scores, {len(labels)} labels"  # type: ignore[arg-type]
            problems.append(f"video {video}: {sizes}; there must be one of each a row")
        elif not all(isinstance(s, list) and len(s) == 2 for s in segments):
            problems.append(f"video {video}: each of segments must be [start, end]")
        else:
            columns["video_id"] += [video] * len(segments)
            columns["start"] += [segment[0] for segment in segments]
            columns["end"] += [segment[1] for segment in segments]
            columns["label"] += labels  # type: ignore[arg-type]
            columns["score"] += scores  # type: ignore[arg-type]
    if problems:
        raise DataError(f"{name}: " + listing(problems))
    return Columns("lists by video", columns)


def _action_former(document: Mapping[str, Any], name: str) -> Columns:
    if "label" not in document:
        raise DataError(f"{name}: ActionFormer's columns lack label; found {', '.join(document)}")
    columns = {
        _key(key): document[key] for key in ("video-id", "t-start", "t-end", "label", "score") if key in document
    }
    sizes = {key: len(values) if isinstance(values, list) else None for key, values in columns.items()}
    if None in sizes.values() or len(set(sizes.values())) > 1:
        found = ", ".join(f"{key} {'no list' if size is None else size}" for key, size in sizes.items())
        raise DataError(f"{name}: ActionFormer's columns must be lists of one length; found {found}")
    return Columns("ActionFormer's columns", columns, line=0)


def _csv(path: Path) -> Columns:
    table = read_csv(path, guess=True)
    names, rows = _named(table.header, path), table.rows
    columns = {key: [row[column] or None for _, row in rows] for key, column in names.items()}
    if table.delimiter == ";":  # where a comma stands before the decimals
        times = {key: columns[key] for key in ("start", "end", "score", "point") if key in columns}
        columns |= {key: [with_point(v) if v else v for v in values] for key, values in times.items()}
    return Columns("CSV", columns, line=[line for line, _ in rows])


def _key(column: str) -> str:
    """The name in SCHEMA of a column that is called so, or in a usual other way; its own if it is none of SCHEMA."""
    if column in SCHEMA.names:
        return column
    plain = "_".join(word for word in re.split(r"[^a-z0-9]+", column.lower()) if word)
    if plain in SCORES:
        return "score"
    key = {"video": "video_id", "time": "point"}.get(KNOWN.get(plain, plain), KNOWN.get(plain, plain))
    return key if key in ("video_id", "start", "end", "label") else column


def _named(header: Sequence[str], path: Path) -> dict[str, str]:
    """The file's name of each column of SCHEMA that it has."""
    names: dict[str, str] = {}
    for column in header:
        key = _key(column)
        if key in SCHEMA.names and key in names:
            raise DataError(f"{path}: the columns {names[key]} and {column} are both {key}")
        if key in SCHEMA.names:
            names[key] = column
    missing = [key for key in REQUIRED if key not in names]
    if missing:
        raise DataError(f"{path}: lacks the columns {', '.join(missing)}; found {', '.join(header) or 'none'}")
    return names


def _thumos(path: Path) -> Columns:
    lines = [(n, line.split()) for n, line in enumerate(read_text(path).splitlines(), start=1) if line.strip()]
    bad = [f"line {n}: {len(fields)} fields" for n, fields in lines if len(fields) != 5]
    if bad:
        raise DataError(f"{path}: expected lines `video start end class-id score`: " + listing(bad))
    columns = {
        key: [row[i] for _, row in lines] for i, key in enumerate(("video_id", "start", "end", "label", "score"))
    }
    columns["video_id"] = [video.removesuffix(".mp4").removesuffix(".mpeg") for video in columns["video_id"]]
    return Columns("lines of the THUMOS toolkit", columns, line=[n for n, _ in lines])


def parquet_columns(path: Path) -> Columns:
    """The rows of a Parquet file, unchecked."""
    try:
        with opened_parquet(path) as file:
            flat = [field.name for field in file.schema_arrow if not pa.types.is_nested(field.type)]
            return plain_columns(file.read(flat), path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {cause(error)}") from None


def opened_parquet(path: Path) -> pq.ParquetFile:
    """A Parquet file of segments, from which texts come as dictionaries: `plain_columns` makes texts of them.

    Raises:
        DataError: it is something else, or its bytes cannot be as many rows as it says.
    """
    with regular(path).open("rb") as file:
        front = file.read(FRONT)
    if not front.startswith(b"PAR1") and (what := wrong_file(front)) is not None:
        raise DataError(f"{path}: is not a Parquet file but {what}")
    schema, size = pq.read_schema(path), path.stat().st_size
    for field in schema:
        key = _key(field.name)
        if key in HOLDS and pa.types.is_nested(field.type):
            raise DataError(f"{path}: column {field.name} is of type {field.type}; it must hold {HOLDS[key]}")
    texts = [field.name for field in schema if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)]
    opened = pq.ParquetFile(path, read_dictionary=texts)
    if (rows := opened.metadata.num_rows) > max(MOST_PACKED, size):
        raise DataError(f"{path}: {size:,} bytes cannot be {rows:,} rows of segments")
    return opened


def plain_columns(table: pa.Table, path: Path, first: int = 0) -> Columns:
    """Rows that were read from a Parquet file, unchecked, with texts in place of dictionaries.

    Args:
        first: the number of the first row in the file.

    Raises:
        DataError: some bytes of it stand for more than a file of segments has; they may be made to fill the memory.
    """
    for i, (name, column) in enumerate(zip(table.column_names, table.columns, strict=True)):
        if not pa.types.is_dictionary(column.type) or pa.types.is_primitive(column.type.value_type):
            continue
        lengths = [pc.max(pc.binary_length(chunk.dictionary.cast(pa.binary()))).as_py() for chunk in column.chunks]
        longest = max((n for n in lengths if n is not None), default=0)
        if len(column) * longest > MOST_TEXT:
            raise DataError(f"{path}: {name}: {len(column):,} texts of up to {longest:,} bytes are too many")
        table = table.set_column(i, name, column.cast(column.type.value_type))
    names = _named(table.column_names, path)
    return Columns("Parquet", {key: table.column(column) for key, column in names.items()}, line=first)
