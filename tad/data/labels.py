"""The label files of a dataset folder: what training may know about a video, from cheap to dear.

labels.csv       video_id,label             classes that a video holds, all of them
points.csv       video_id,label,time        one point for each action, time in seconds
full_labels.csv  video_id,label,start,end   all actions of a video, in seconds; a row with only a video: it holds none

full_labels.csv is the one file with boundaries that training reads. It holds training videos only. `tad labels`,
`tad split --labelled` and `tad import csv --as full` alone write it; boundaries of annotations.json stay in
tad.evaluation.ground_truth.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tad.errors import DataError, listing, shortened
from tad.files import number, read_rows

Supervision = Literal["full", "points", "classes", "none"]
"""The strongest label of a video."""
SUPERVISION: tuple[Supervision, ...] = ("full", "points", "classes", "none")

POINTS = "points.csv"
CLASSES = "labels.csv"
FULL = "full_labels.csv"
HEADERS = {
    POINTS: ("video_id", "label", "time"),
    CLASSES: ("video_id", "label"),
    FULL: ("video_id", "label", "start", "end"),
}


class Points(NamedTuple):
    """The points of one video, ascending in time."""

    time: np.ndarray
    """[G] float64 seconds."""
    label: np.ndarray
    """[G] int64 class indices."""


NO_POINTS = Points(np.zeros(0), np.zeros(0, dtype=np.int64))


class FullLabels(NamedTuple):
    """All actions of one video, by start, end and class; none twice."""

    spans: np.ndarray
    """[G, 2] float64 seconds."""
    label: np.ndarray
    """[G] int64 class indices."""


def read_points(path: Path, classes: Sequence[str], durations: Mapping[str, float]) -> dict[str, Points]:
    """points.csv by video; no file means no points. Extra columns are refused: they may hold boundaries.

    Args:
        classes: names, in the order of dataset.yaml.
        durations: seconds of each video that may have points.

    Raises:
        DataError: lists every bad row (unknown video or class, time outside the video).
    """
    index = {c: i for i, c in enumerate(classes)}
    found: dict[str, list[tuple[float, int]]] = {}
    problems: list[str] = []
    for line, row in _good_rows(path, POINTS, problems):
        video_id, label = row["video_id"], row["label"]
        time = time_of(row["time"])
        if time is None:
            problems.append(f"line {line} (video {video_id}): time {shortened(row['time'])} is not a number")
        elif (problem := _unknown(line, video_id, label, durations, index)) is not None:
            problems.append(problem)
        elif not (math.isfinite(time) and 0 <= time <= durations[video_id]):
            problems.append(f"line {line} (video {video_id}): time {time} s is outside 0..{durations[video_id]} s")
        else:
            found.setdefault(video_id, []).append((time, index[label]))
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    points = {}
    for video_id, entries in found.items():
        times, labels = zip(*sorted(entries), strict=True)
        points[video_id] = Points(np.array(times, dtype=np.float64), np.array(labels, dtype=np.int64))
    return points


def read_held_out(
    path: Path,
    classes: Sequence[str],
    durations: Mapping[str, float],
    training: Collection[str],
    points: Mapping[str, Points],
) -> dict[str, Points]:
    """The file that dataset.yaml names under `held_out`, read as points.csv is.

    Args:
        training: the videos that train.
        points: those of points.csv.

    Raises:
        DataError: the file is malformed, or lists points of points.csv or of videos that do not train.
    """
    found = read_points(path, classes, durations)
    problems = [f"video {v} does not train" for v in found if v not in training]
    for video, (time, label) in found.items():
        seen = set(zip(*(column.tolist() for column in points.get(video, NO_POINTS)), strict=True))
        both = [t for t, c in zip(time.tolist(), label.tolist(), strict=True) if (t, c) in seen]
        problems += [f"video {video}: the point at {t:g} s is in points.csv, too" for t in both]
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    return found


def read_video_classes(path: Path, classes: Sequence[str], videos: Collection[str]) -> dict[str, np.ndarray]:
    """labels.csv: [K] int64 class indices, ascending, by video; no file means no video-level labels.

    Raises:
        DataError: lists every row of an unknown video or class.
    """
    index = {c: i for i, c in enumerate(classes)}
    found: dict[str, set[int]] = {}
    problems: list[str] = []
    for line, row in _good_rows(path, CLASSES, problems):
        video_id, label = row["video_id"], row["label"]
        if (problem := _unknown(line, video_id, label, videos, index)) is not None:
            problems.append(problem)
        else:
            found.setdefault(video_id, set()).add(index[label])
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    return {video_id: np.array(sorted(own), dtype=np.int64) for video_id, own in found.items()}


def read_full_labels(
    path: Path, classes: Sequence[str], durations: Mapping[str, float], training: Collection[str]
) -> dict[str, FullLabels]:
    """full_labels.csv by video; no file means no full labels. A row twice counts once.

    Raises:
        DataError: lists every bad row: a video that is unknown or does not train, an unknown class, times that are no
            interval in the video, or a video that is said to hold no action and has one.
    """
    index = {c: i for i, c in enumerate(classes)}
    found: dict[str, set[tuple[float, float, int]]] = {}
    empty: set[str] = set()
    problems: list[str] = []
    for line, row in _good_rows(path, FULL, problems):
        video_id, label = row["video_id"], row["label"]
        if is_empty(row):
            problem = _unknown(line, video_id, None, durations, index)
        else:
            problem = _unknown(line, video_id, label, durations, index) or _no_interval(line, row, durations)
        if problem is None and video_id not in training:
            problem = f"line {line}: video {video_id} does not train; nothing may read its boundaries"
        if problem is not None:
            problems.append(problem)
            continue
        own = found.setdefault(video_id, set())
        if is_empty(row):
            empty.add(video_id)
        else:
            own.add((float(row["start"]), float(row["end"]), index[label]))
    for video_id in sorted(empty):
        if found[video_id]:
            problems.append(
                f"video {video_id}: a row says that it holds no action, {len(found[video_id])} that it does"
            )
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    full = {}
    for video_id, own in found.items():
        ordered = np.array(sorted(own), dtype=np.float64).reshape(-1, 3)
        full[video_id] = FullLabels(ordered[:, :2].copy(), ordered[:, 2].astype(np.int64))
    return full


def rows(path: Path, header: Sequence[str], uneven: list[tuple[int, str]]) -> Iterator[tuple[int, dict[str, str]]]:
    """Line number and row of a label file; nothing if there is no file.

    Args:
        uneven: takes line number and problem of rows with more or fewer fields than the header.

    Raises:
        DataError: it cannot be read, or the header is another one.
    """
    return read_rows(path, header, uneven) if path.exists() or path.is_symlink() else iter(())


def _good_rows(path: Path, name: str, problems: list[str]) -> Iterator[tuple[int, dict[str, str]]]:
    uneven: list[tuple[int, str]] = []
    found = rows(path, HEADERS[name], uneven)
    problems += [f"line {line}: {problem}" for line, problem in uneven]
    return found


def time_of(text: str) -> float | None:
    """Seconds; None if it is no number."""
    try:
        return number(text)
    except ValueError:
        return None


def is_empty(row: Mapping[str, str]) -> bool:
    """Whether a row of full_labels.csv says that its video holds no action."""
    return not any(row[key] for key in ("label", "start", "end"))


def _unknown(
    line: int, video_id: str, label: str | None, videos: Collection[str], index: Mapping[str, int]
) -> str | None:
    if video_id not in videos:
        return f"line {line}: video {shortened(video_id)} is not in annotations.json"
    if label is not None and label not in index:
        return f"line {line} (video {video_id}): unknown class {unlike(label, index)}"
    return None


def unlike(label: str, classes: Collection[str]) -> str:
    """A class name that is none of `classes`, and the one that it may stand for."""
    alike = next((name for name in classes if _plain(name) == _plain(label)), None)
    return shortened(label) + (f" (but there is {alike!r}: case, blanks or Unicode form differ)" if alike else "")


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())


def _no_interval(line: int, row: Mapping[str, str], durations: Mapping[str, float]) -> str | None:
    start, end, duration = time_of(row["start"]), time_of(row["end"]), durations[row["video_id"]]
    if start is not None and end is not None and 0 <= start < end <= duration:
        return None
    where, what = f"line {line} (video {row['video_id']})", f"[{row['start']}, {row['end']}]"
    return f"{where}: {what} is no interval of seconds in 0..{duration}"
