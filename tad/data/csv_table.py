"""A user's own table of videos and labels: CSV with any usual names of columns and units of time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple

from tad.errors import DataError
from tad.files import SEP_LINE, number, read_rows, read_text

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


def read_table(path: Path, columns: Sequence[str] | None = None) -> Table:
    """A CSV file, separated by commas, semicolons or tabs.

    Args:
        columns: what the columns are, if the file has no header.

    Raises:
        DataError: it cannot be read, has no column of videos, or two columns are the same thing.
    """
    head, delimiter = head_of(path)
    rows = list(read_rows(path, columns=columns, delimiter=delimiter))
    header = list(rows[0][1]) if rows else [name.strip() for name in columns or head.split(delimiter)]
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
    if delimiter == ";":  # where a comma stands before the decimals, columns are separated by semicolons
        kept = [(line, {key: with_point(v) if key in NUMBERS else v for key, v in row.items()}) for line, row in kept]
    if "length" in found and "duration" not in found and not _of_segments(kept):
        found["duration"] = found.pop("length")
        units |= {"duration": units.pop("length")} if "length" in units else {}
        kept = [(line, row | {"duration": row["length"]}) for line, row in kept]
    return Table(path, kept, found, units)


def head_of(path: Path) -> tuple[str, str]:
    """The header line of a CSV file, and what separates its columns: a comma, a semicolon or a tab.

    Raises:
        DataError: it cannot be read.
    """
    text = read_text(path)
    told = SEP_LINE.match(text)
    lines = text[told.end() if told is not None else 0 :].splitlines()
    head = next((line for line in lines if line.strip()), "")
    return head, told[1] if told is not None else max(",;\t", key=head.count)


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
