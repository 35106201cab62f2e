"""Imports EPIC-KITCHENS-100, its verbs or its nouns.

SRC/EPIC_100_{train,validation}.csv   video_id,start_timestamp,stop_timestamp,verb_class,noun_class,...: H:M:S
SRC/{training,validation}.csv         where those are absent: video,start,stop,verb,noun,...: frames at 30 a second
SRC/EPIC_100_{verb,noun}_classes.csv  id,key,...: the names of classes
SRC/EPIC_100_video_info.csv           video_id,duration,fps,...
SRC/features/                         optional: ID.npy, by default SlowFast features of ActionFormer: 32 frames every 16

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

from tad.data.dataset import SAFE_ID, Manifest
from tad.data.folder import LabelRows, Transfer, feature_grid, transfer_features, write_dataset
from tad.data.import_hrpro import Imported, known_features
from tad.data.labels import number
from tad.data.output import output_folder
from tad.errors import DataError, listing

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
    fps: float = 30.0,
    stride: float = 16,
    window: float = 32,
    offset: float = 0,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` for one of the tasks from the CSV files in `src`.

    Args:
        task: verbs and nouns are detected apart; a segment of both is a segment of each.
        train, test: annotation files in `src`; those above by default, the first layout if both are there.
        classes: file of names in `src`; that above by default.
        fps, stride, window, offset: the feature grid.
        dim: width of the features; by default that of the files, or 2304 where there are none.
        force: replace an earlier output of `tad import epic`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    names = _names(src, task, classes, problems)
    videos = _videos(src, problems)
    database: dict[str, dict[str, Any]] = {}
    for role, chosen in (("train", train), ("test", test)):
        path = _file(src, chosen, FILES[role])
        before = set(database)
        for line, video, start, end, label in _segments(path, task, names, problems):
            if video not in videos:
                problems.append(f"{path.name}, line {line}: video {video!r} is not in EPIC_100_video_info.csv")
            elif video in before:
                problems.append(f"{path.name}, line {line}: video {video} is in the other file, too")
            else:
                entry = {"subset": SUBSETS[role], **videos[video], "annotations": []}
                found = {"segment": [start, end], "label": label}
                database.setdefault(video, entry)["annotations"].append(found)
    paths = {v: src / "features" / f"{v}.npy" for v in database} if features != "none" else {}
    files, width = known_features(paths if (src / "features").is_dir() else {}, problems, warnings)
    if dim is not None and width is not None and dim != width:
        problems.append(f"the feature files are {width} wide, not {dim}; leave --dim away")
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    manifest = Manifest(
        name=name or f"epic100-{task}",
        classes=names,
        subsets={SUBSETS["train"]: "train", SUBSETS["test"]: "test"},
        grid=feature_grid(fps=fps, stride=stride, window=window, offset=offset, dim=dim or width or DIM),
    )
    with output_folder(out, "import epic", force=force, sources=[src, *files.values()]) as fresh:
        write_dataset(fresh, manifest, database, LabelRows())
        transfer_features(files, fresh, features)
    count = {role: sum(e["subset"] == subset for e in database.values()) for role, subset in SUBSETS.items()}
    return Imported(count, 0, len(files), warnings)


def _file(src: Path, chosen: str | None, usual: Sequence[str]) -> Path:
    found = [src / n for n in ((chosen,) if chosen is not None else usual) if (src / n).is_file()]
    if not found:
        raise DataError(f"{src}: expected {' or '.join([chosen] if chosen is not None else usual)}; no such file")
    return found[0]


def _names(src: Path, task: Task, chosen: str | None, problems: list[str]) -> list[str]:
    """The class names in the order of their ids, which are 0, 1, 2, ..."""
    path = _file(src, chosen, (f"EPIC_100_{task}_classes.csv",))
    names: list[str] = []
    for line, row in _rows(path, ("id", "key")):
        if row["id"] != str(len(names)) or not row["key"] or row["key"] in names:
            problems.append(f"{path.name}, line {line}: expected id {len(names)} and a new key, found {row}")
        names.append(row["key"])
    return names


def _videos(src: Path, problems: list[str]) -> dict[str, dict[str, float]]:
    """Duration in seconds and own frame rate of each video."""
    path = _file(src, None, ("EPIC_100_video_info.csv",))
    videos = {}
    for line, row in _rows(path, ("video_id", "duration", "fps")):
        duration, fps = number(row["duration"]), number(row["fps"])
        if not SAFE_ID.fullmatch(row["video_id"]):
            problems.append(f"{path.name}, line {line}: video {row['video_id']!r} is unsafe as a file name")
        elif not (_positive(duration) and _positive(fps)):
            problems.append(f"{path.name}, line {line}: video {row['video_id']}: duration and fps must be positive")
        else:
            videos[row["video_id"]] = {"duration": float(row["duration"]), "fps": float(row["fps"])}
    return videos


def _segments(
    path: Path, task: Task, names: list[str], problems: list[str]
) -> list[tuple[int, str, float, float, str]]:  # fmt: skip
    """Line, video, start and end in seconds and class of every good row."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        header = next(csv.reader(file), [])
    stamped = "start_timestamp" in header
    video = "video_id" if stamped else "video"
    start, end = ("start_timestamp", "stop_timestamp") if stamped else ("start", "stop")
    column = f"{task}_class" if f"{task}_class" in header else task
    found = []
    for line, row in _rows(path, (video, start, end, column)):
        times = [_seconds(row[key]) if stamped else _of_frame(row[key]) for key in (start, end)]
        where = f"{path.name}, line {line} (video {row[video]})"
        if times[0] is None or times[1] is None or not times[0] < times[1]:
            problems.append(f"{where}: {row[start]!r} to {row[end]!r} is no interval")
        elif not (row[column].isdecimal() and int(row[column]) < len(names)):
            problems.append(f"{where}: {column} {row[column]!r} is not in the list of {len(names)} classes")
        else:
            found.append((line, row[video], times[0], times[1], names[int(row[column])]))
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Line number and these columns of every row."""
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        missing = [c for c in columns if c not in (reader.fieldnames or ())]
        if missing:
            raise DataError(f"{path}: no column {', '.join(missing)}; found {', '.join(reader.fieldnames or ())}")
        return [(line, {c: row[c] or "" for c in columns}) for line, row in enumerate(reader, start=2)]


def _seconds(text: str) -> float | None:
    """H:M:S, the seconds with decimals."""
    parts = [number(part) for part in text.split(":")]
    if len(parts) != 3 or not all(part is not None and 0 <= part < math.inf for part in parts):
        return None
    hours, minutes, seconds = (float(part or 0) for part in parts)
    return round(3600 * hours + 60 * minutes + seconds, 3)


def _of_frame(text: str) -> float | None:
    frame = number(text)
    return frame / RATE if frame is not None and 0 <= frame < math.inf else None


def _positive(value: float | None) -> bool:
    return value is not None and 0 < value < math.inf
