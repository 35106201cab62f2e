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

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Unpack

from tad.data.class_list import read_classes
from tad.data.csv_table import Csv, read_csv
from tad.data.dataset import Role
from tad.errors import DataError, few
from tad.files import number
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.published import positive, told_duration, unusable

Task = Literal["verb", "noun"]
FILES = {"train": ("EPIC_100_train.csv", "training.csv"), "test": ("EPIC_100_validation.csv", "validation.csv")}
"""Role of each annotation file; the challenge's test annotations are not public, so validation tests."""
SUBSETS: dict[str, Role] = {"training": "train", "validation": "test"}
INFO = "EPIC_100_video_info.csv"
RATE = 30.0
"""Frames a second that the layout without timestamps counts."""
DIM = 2304
"""Width of the published SlowFast features."""


class _Row(NamedTuple):
    """A row of an annotation file, seconds; no segment if it has no length."""

    where: str
    video: str
    segment: list[float] | None
    label: str


def import_epic(
    src: Path,
    out: Path,
    *,
    task: Task,
    train: str | None = None,
    test: str | None = None,
    classes: str | None = None,
    **options: Unpack[Options],
) -> Imported:
    """Writes the dataset folder `out` for one of the tasks from the CSV files in `src`.

    Args:
        task: verbs and nouns are detected apart; a segment of both is a segment of each.
        train, test: annotation files in `src`; those above by default, the first layout if both are there.
        classes: file of names in `src`; that above by default.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    options.setdefault("fps", 30.0)
    options.setdefault("window", 32)
    job = Import("epic", src, out, **options)
    listed = _file(src, classes, (f"EPIC_100_{task}_classes.csv",))
    names = _names(listed)
    videos = _videos(src, job.problems)
    for subset, chosen in zip(SUBSETS, (train, test), strict=True):
        path = _file(src, chosen, FILES[SUBSETS[subset]])
        before = set(job.database)
        rows = _segments(path, task, names, job)
        if not rows and not job.problems:
            job.problems.append(f"{path.name}: holds no row")
        for row in rows:
            if row.video not in videos:
                job.problems.append(f"{row.where} is not in {INFO}")
            elif row.video in before:
                job.problems.append(f"{row.where} is in the other file, too")
            elif (told := videos[row.video]) == {}:
                job.untimed[row.video] = subset
            elif told is not None:
                entry = {"subset": subset, **told, "annotations": []}
                found = [] if row.segment is None else [{"segment": row.segment, "label": row.label}]
                job.database.setdefault(row.video, entry)["annotations"] += found
    job.tell_untimed()
    return job.write(names, listed.name, SUBSETS, job.find(job.folder()), name=f"epic100-{task}", usual_dim=DIM)


def _file(src: Path, chosen: str | None, usual: Sequence[str]) -> Path:
    wanted = [chosen] if chosen is not None else usual
    found = [src / name for name in wanted if (src / name).is_file()]
    if not found:
        raise DataError(f"{src}: expected {' or '.join(wanted)}; no such file")
    return found[0]


def _names(path: Path) -> list[str]:
    """The class names in the order of their ids, which are 0, 1, 2, ..."""
    names = read_classes(path)
    if list(names) != list(range(len(names))):
        raise DataError(f"{path}: the ids must be 0, 1, 2, ... in this order; found {few([str(i) for i in names])}")
    return list(names.values())


def _videos(src: Path, problems: list[str]) -> dict[str, dict[str, float] | None]:
    """Duration in seconds and own frame rate of each video; nothing of one without a duration, None of one that cannot
    be used, which is a problem."""
    path = _file(src, None, (INFO,))
    videos: dict[str, dict[str, float] | None] = {}
    for line, row in _checked(path, read_csv(path), ("video_id", "duration", "fps")):
        video, wrong, told = row["video_id"], None, dict[str, float]()
        try:
            if (duration := told_duration(row)) is not None:
                told = {"duration": duration, "fps": positive(row, "fps")}
                wrong = unusable(video, {"subset": "any", **told})
        except ValueError as error:
            wrong = f"video {video}: {error}"
        if video in videos:
            wrong = f"video {video} appears twice"
        if wrong is not None:
            problems.append(f"{path.name}, line {line}: {wrong}")
        videos[video] = told if wrong is None else None
    return videos


def _segments(path: Path, task: Task, names: list[str], job: Import) -> list[_Row]:
    """Every good row."""
    table = read_csv(path)
    stamped = "start_timestamp" in table.header
    video, first, last = ("video_id", "start_timestamp", "stop_timestamp") if stamped else ("video", "start", "stop")
    column = f"{task}_class" if f"{task}_class" in table.header else task
    found: list[_Row] = []
    for line, row in _checked(path, table, (video, first, last, column)):
        where = f"{path.name}, line {line}: video {row[video]}"
        try:
            start, end = (_seconds(row[key]) if stamped else _of_frame(row[key]) for key in (first, last))
            whole = job.keeps(where, start, end)
        except ValueError:
            job.problems.append(f"{where}: {row[first]!r} to {row[last]!r} is no interval")
            continue
        if not (row[column].isdecimal() and int(row[column]) < len(names)):
            job.problems.append(f"{where}: {column} {row[column]!r} is not in the list of {len(names)} classes")
        else:
            found.append(_Row(where, row[video], [start, end] if whole else None, names[int(row[column])]))
    return found


def _checked(path: Path, table: Csv, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """The rows of a table that must have these columns."""
    missing = [c for c in columns if c not in table.header]
    if missing:
        raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(table.header)}")
    return table.rows


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
