"""Imports EPIC-KITCHENS-100, its verbs or its nouns.

SRC/EPIC_100_{train,validation}.csv   video_id,start_timestamp,stop_timestamp,verb_class,noun_class,...: H:M:S
SRC/{training,validation}.csv         where those are absent: video,start,stop,verb,noun,...: frames at 30 a second
SRC/EPIC_100_{verb,noun}_classes.csv  id,key,...: the names of classes
SRC/EPIC_100_video_info.csv           video_id,duration,fps,...
SRC/features/                         optional: by default ActionFormer's SlowFast features (ID.npz): 32 frames every 16

The second layout is that of action anticipation (RULSTM). Its frames are not the video's: they are the timestamps times
30, rounded down, but 1 for 0. Where a published file has both, they agree to a thirtieth of a second; the frame columns
of the first layout count the video's own frames and are not read. Boundaries only: narrations are no points of actions.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from tad.data.class_list import read_classes
from tad.errors import DataError, few, listing
from tad.files import number, read_rows, read_text
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.imported import (
    Dropped,
    Imported,
    Told,
    Untimed,
    expected_rows,
    feature_folder,
    fitted,
    not_seconds,
    order_note,
    positive,
    unusable,
    write,
)
from tad.prepare.write import LabelRows, Transfer, feature_grid

Task = Literal["verb", "noun"]
FILES = {"train": ("EPIC_100_train.csv", "training.csv"), "test": ("EPIC_100_validation.csv", "validation.csv")}
"""Role of each annotation file; the challenge's test annotations are not public, so validation tests."""
SUBSETS = {"train": "training", "test": "validation"}
RATE = 30.0
"""Frames a second that the layout without timestamps counts."""
DIM = 2304
"""Width of the published SlowFast features."""


def import_epic(
    src: Path,
    out: Path,
    *,
    task: Task,
    name: str | None = None,
    train: str | None = None,
    test: str | None = None,
    classes: str | None = None,
    features: Transfer = "link",
    files: Lookup | None = None,
    fps: float | Literal["native"] = 30.0,
    stride: float = 16,
    window: float = 32,
    offset: float = 0,
    length: int | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` for one of the tasks from the CSV files in `src`.

    Args:
        task: verbs and nouns are detected apart; a segment of both is a segment of each.
        train, test: annotation files in `src`; those above by default, the first layout if both are there.
        classes: file of names in `src`; that above by default.
        features: link or copy the plain feature files, or take none.
        files: where and how the feature files are named; found by itself by default.
        fps, stride, window, offset, length: the feature grid. Length is for features resized in time.
        dim: width of the features; by default that of the files, or 2304 where there are none.
        force: replace an earlier output of `tad import epic`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped, untimed = Dropped(), Untimed()
    listed = _file(src, classes, (f"EPIC_100_{task}_classes.csv",))
    names = _names(listed)
    videos = _videos(src, problems, untimed)
    left_out: dict[str, str] = {}
    database: dict[str, dict[str, Any]] = {}
    for role, chosen in (("train", train), ("test", test)):
        path = _file(src, chosen, FILES[role])
        before = set(database)
        rows = _segments(path, task, names, problems, dropped)
        if not rows and not problems:
            problems.append(f"{path.name}: holds no row")
        for line, video, start, end, label in rows:
            if video not in videos:
                problems.append(f"{path.name}, line {line}: video {video!r} is not in EPIC_100_video_info.csv")
            elif video in before:
                problems.append(f"{path.name}, line {line}: video {video} is in the other file, too")
            elif (known := videos[video]) is not None:
                entry = {"subset": SUBSETS[role], **known, "annotations": []}
                found = [] if start is None else [{"segment": [start, end], "label": label}]
                database.setdefault(video, entry)["annotations"] += found
            elif video in untimed.videos:
                left_out[video] = SUBSETS[role]
    warnings += Untimed(list(left_out)).warnings()
    problems += Untimed(list(left_out)).empty(left_out, database)
    grid = feature_grid(fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or 1)
    lookup = files or Lookup()
    folder = feature_folder(src, lookup) if features != "none" else None
    stored = Features()
    if folder is not None:
        expected = expected_rows(grid, database)
        stored = find(dict.fromkeys(database, folder), lookup, expected, problems, warnings)
    grid = fitted(grid, dim, DIM, stored, problems)
    problems += not_seconds(database)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    described = {
        "name": name or f"epic100-{task}",
        "classes": names,
        "subsets": {SUBSETS["train"]: "train", SUBSETS["test"]: "test"},
        "grid": grid,
    }
    notes = [order_note(names, listed.name), *stored.notes, *dropped.notes()]
    return write(out, "epic", described, database, LabelRows(), stored, features, [src], force, Told(warnings, notes))


def _file(src: Path, chosen: str | None, usual: Sequence[str]) -> Path:
    found = [src / n for n in ((chosen,) if chosen is not None else usual) if (src / n).is_file()]
    if not found:
        raise DataError(f"{src}: expected {' or '.join([chosen] if chosen is not None else usual)}; no such file")
    return found[0]


def _names(path: Path) -> list[str]:
    """The class names in the order of their ids, which are 0, 1, 2, ..."""
    names = read_classes(path)
    if list(names) != list(range(len(names))):
        raise DataError(f"{path}: the ids must be 0, 1, 2, ... in this order; found {few([str(i) for i in names])}")
    return list(names.values())


def _header(path: Path) -> list[str]:
    return [name.strip() for name in next(csv.reader(read_text(path).splitlines()[:1]), [])]


def _videos(src: Path, problems: list[str], untimed: Untimed) -> dict[str, dict[str, float] | None]:
    """Duration in seconds and own frame rate of each video; None of one without a duration, and of one that cannot be
    used, which is a problem."""
    path = _file(src, None, ("EPIC_100_video_info.csv",))
    videos: dict[str, dict[str, float] | None] = {}
    for line, row in _rows(path, ("video_id", "duration", "fps")):
        video_id, found, wrong = row["video_id"], None, None
        try:
            if (duration := untimed.duration(video_id, row)) is not None:
                found = {"duration": duration, "fps": positive(row, "fps")}
                wrong = unusable(video_id, {"subset": "any", **found})
        except ValueError as error:
            wrong = f"video {video_id}: {error}"
        if video_id in videos:
            wrong = f"video {video_id} appears twice"
        if wrong is not None:
            problems.append(f"{path.name}, line {line}: {wrong}")
        videos[video_id] = found if wrong is None else None
    return videos


def _segments(
    path: Path, task: Task, names: list[str], problems: list[str], dropped: Dropped
) -> list[tuple[int, str, float | None, float | None, str]]:
    """Line, video, start and end in seconds and class of every good row; no times if it holds nothing."""
    header = _header(path)
    stamped = "start_timestamp" in header
    video = "video_id" if stamped else "video"
    first, last = ("start_timestamp", "stop_timestamp") if stamped else ("start", "stop")
    column = f"{task}_class" if f"{task}_class" in header else task
    found: list[tuple[int, str, float | None, float | None, str]] = []
    for line, row in _rows(path, (video, first, last, column)):
        where = f"{path.name}, line {line} (video {row[video]})"
        try:
            start, end = (_seconds(row[key]) if stamped else _of_frame(row[key]) for key in (first, last))
            whole = dropped.keep(where, start, end)
        except ValueError:
            problems.append(f"{where}: {row[first]!r} to {row[last]!r} is no interval")
            continue
        if not (row[column].isdecimal() and int(row[column]) < len(names)):
            problems.append(f"{where}: {column} {row[column]!r} is not in the list of {len(names)} classes")
        else:
            times = (start, end) if whole else (None, None)
            found.append((line, row[video], *times, names[int(row[column])]))
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and these columns of every row."""
    header = _header(path)
    missing = [c for c in columns if c not in header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(header)}")
    return [(line, {c: row[c] for c in columns}) for line, row in read_rows(path)]


def _seconds(text: str) -> float:
    """H:M:S, the seconds with decimals.

    Raises:
        ValueError: it is none.
    """
    hours, minutes, seconds = (number(part) for part in text.split(":"))
    if "-" in text or not (min(hours, minutes, seconds) >= 0 and max(hours, minutes, seconds) < math.inf):
        raise ValueError(text)
    return round(3600 * hours + 60 * minutes + seconds, 3)


def _of_frame(text: str) -> float:
    frame = number(text)
    if not 0 <= frame < math.inf:
        raise ValueError(text)
    return frame / RATE
