"""CSV files, and a user's own table of videos and labels: with any usual names of columns and units of time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from tad.errors import DataError, cut, listing
from tad.files import number, read_text

MOST_FIELD = 128 << 10
"""Characters of a CSV field."""
SEP_LINE = re.compile(r"(?i)\"?sep=([,;\t|])\"?[ \t]*(?:\r\n|\r|\n)")
"""The line by which a CSV file tells Excel what separates its columns."""
Unit = Literal["seconds", "frames", "ms"]
UNITS: tuple[Unit, ...] = ("seconds", "frames", "ms")

NAMES = {
    "video": "video video_id videoid vid video_name video_file video_path file filename file_name file_path clip "
    "media media_file media_file_path media_file_name",
    "label": "label class class_name label_name action activity category event event_type behavior behaviour",
    "start": "start begin onset from t_start start_time time_start begin_time start_timestamp",
    "end": "end stop to t_end end_time time_end stop_time finish stop_timestamp end_timestamp",
    "time": "time point timestamp t position click",
    "subset": "subset split set role partition",
    "duration": "video_duration video_length total_length media_duration",
    "length": "duration length",
    "fps": "fps frame_rate framerate",
}
"""What columns are called, in small letters with _ for blanks and hyphens; a unit may stand before or after."""
KNOWN = {name: key for key, names in NAMES.items() for name in names.split()}
WORDS: dict[str, Unit] = {
    **dict.fromkeys(["s", "sec", "secs", "second", "seconds"], "seconds"),
    **dict.fromkeys(["ms", "msec", "millis", "millisecond", "milliseconds"], "ms"),
    **dict.fromkeys(["frame", "frames"], "frames"),
}
TIMES = ("start", "end", "time")
NUMBERS = (*TIMES, "duration", "length", "fps")
DECIMAL_COMMA = re.compile(r"[-+]?(\d+:)*\d+,\d+")
FILES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v", ".mts", ".wmv", ".flv", ".ogv", ".3gp"} | {
    *(".wav", ".mp3", ".flac", ".npy", ".npz", ".pt", ".pth", ".csv")
}
"""Ends of the names of files, which are no part of a video's id."""


class Table(NamedTuple):
    """Rows by the keys of NAMES.

    Attributes:
        rows: line number and fields; columns that are none of NAMES are left out.
        columns: name in the file of each key.
        units: of times and durations whose column names one.
    """

    path: Path
    rows: list[tuple[int, dict[str, str]]]
    columns: dict[str, str]
    units: dict[str, Unit]


class Csv(NamedTuple):
    """A CSV file.

    Attributes:
        header: names of the columns.
        rows: line number and fields by column; blanks around fields are cut off, empty lines left out.
        delimiter: what separates the columns.
    """

    header: list[str]
    rows: list[tuple[int, dict[str, str]]]
    delimiter: str


def read_csv(
    path: Path,
    header: Sequence[str] | None = None,
    uneven: list[tuple[int, str]] | None = None,
    *,
    columns: Sequence[str] | None = None,
    guess: bool = False,
) -> Csv:
    """A CSV file with a header.

    Args:
        header: the columns that the file must have, in this order; None takes any.
        uneven: takes line number and problem of rows with more or fewer fields than the header, which are left out; by
            default they are an error. Empty fields beyond the header do not count.
        columns: what the file's columns are, if it has no header.
        guess: columns may be separated by semicolons or tabs; a line `sep=` for Excel is always obeyed.

    Raises:
        DataError: as `read_text`; the header is another one or holds a name twice; a row has more or fewer fields
            than the header (all such rows are listed).
    """
    text, delimiter = read_text(path), ","
    if (told := SEP_LINE.match(text)) is not None:
        text, delimiter = "\n" + text[told.end() :], told[1]
    elif guess:
        head = next((line for line in text.splitlines() if line.strip()), "")
        delimiter = max(",;\t", key=head.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    csv.field_size_limit(MOST_FIELD)
    try:
        first = (row for row in reader if any(field.strip() for field in row))
        names = [name.strip() for name in (next(first, []) if columns is None else columns)]
        while len(names) > 1 and not names[-1]:  # spreadsheets add empty columns
            names.pop()
        lines = [(reader.line_num, [field.strip() for field in row]) for row in reader if any(f.strip() for f in row)]
    except csv.Error as error:
        raise DataError(f"{path}: line {reader.line_num}: {error}") from None
    found = cut(delimiter.join(names)) or "nothing"
    if header is not None and names != list(header):
        raise DataError(f"{path}: the header must be {','.join(header)}; found {found}")
    if len(set(names)) < len(names):
        raise DataError(f"{path}: the header holds a name twice: {found}")
    for _, row in lines:
        while len(row) > len(names) and not row[-1]:
            row.pop()
    odd = [(n, f"{len(row)} fields, but the header has {len(names)}") for n, row in lines if len(row) != len(names)]
    if uneven is not None:
        uneven += odd
    elif odd:
        raise DataError(f"{path}: " + listing([f"line {line}: {problem}" for line, problem in odd]))
    rows = [(line, dict(zip(names, row, strict=True))) for line, row in lines if len(row) == len(names)]
    return Csv(names, rows, delimiter)


def read_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """A CSV file, separated by commas, semicolons or tabs.

    Args:
        columns: what the columns are, if the file has no header.

    Raises:
        DataError: it cannot be read, has no column of videos, or two columns are the same thing.
    """
    table = read_csv(path, columns=columns, guess=True)
    rows, header = table.rows, table.header
    found: dict[str, str] = {}
    units: dict[str, Unit] = {}
    for column in header:
        key, unit = _meaning(column)
        if key is None:
            continue
        if key in found:
            raise DataError(f"{path}: the columns {found[key]} and {column} are both a {key}; remove one")
        found[key] = column
        if unit is not None:
            units[key] = unit
    if "video" not in found:
        raise DataError(
            f"{path}: no column of videos among {', '.join(header) or 'nothing'}; name it video or, if the file has no "
            "header, say what its columns are with --columns, for instance video,time,label"
        )
    kept = [(line, {key: row[column] for key, column in found.items()}) for line, row in rows]
    if table.delimiter == ";":  # where a comma stands before the decimals, columns are separated by semicolons
        kept = [(line, {key: with_point(v) if key in NUMBERS else v for key, v in row.items()}) for line, row in kept]
    if "length" in found and "duration" not in found and not _of_segments(kept):
        found["duration"] = found.pop("length")
        units |= {"duration": units.pop("length")} if "length" in units else {}
        kept = [(line, row | {"duration": row["length"]}) for line, row in kept]
    return Table(path, kept, found, units)


def with_point(text: str) -> str:
    """A number with a decimal comma, with a point; anything else as it is."""
    return text.replace(",", ".") if DECIMAL_COMMA.fullmatch(text) else text


def _of_segments(rows: Sequence[tuple[int, dict[str, str]]]) -> bool:
    """Whether the length in each row is that of its segment, not of its video."""
    try:
        return all(abs(clock(r["end"]) - clock(r["start"]) - clock(r["length"])) < 0.01 for _, r in rows)
    except (KeyError, ValueError):
        return False


def _meaning(column: str) -> tuple[str | None, Unit | None]:
    """The key of NAMES that a column's name means, and the unit that it tells."""
    words = [word for word in re.split(r"[^a-z0-9]+", column.lower()) if word]
    if "_".join(words) in KNOWN:
        return KNOWN["_".join(words)], None
    units = [word for word in words if word in WORDS]
    rest = "_".join(word for word in words if word not in WORDS)
    if len(units) != 1 or (rest and KNOWN.get(rest) not in (*TIMES, "duration", "length")):
        return None, None
    return KNOWN[rest] if rest else "time", WORDS[units[0]]


def video_id(name: str) -> str:
    """The id of a video that is given by its id, its file or its path."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.stem if path.suffix.lower() in FILES else path.name


def clock(text: str) -> float:
    """A number, or H:M:S or M:S as seconds.

    Raises:
        ValueError: it is neither.
    """
    if ":" not in text:
        return number(text)
    text = with_point(text)  # 0:00:01,500, as subtitles have it
    parts = [number(part) for part in text.split(":")]
    if len(parts) > 3 or any(part < 0 for part in parts) or any(part >= 60 for part in parts[1:]):
        raise ValueError(f"{text!r} is no time of the form H:M:S")
    return sum(part * 60**i for i, part in enumerate(reversed(parts)))
