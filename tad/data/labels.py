"""The label files of a dataset folder: what training may know about a video, from cheap to dear.

labels.csv       video_id,label             classes that a video holds, all of them
points.csv       video_id,label,time        one point for each action, time in seconds
full_labels.csv  video_id,label,start,end   all actions of a video, in seconds; a row with only a video: it holds none

A type of label is an entry of `TYPES`; `read_labels` reads them all. `Dataset.open` refuses the errors that it finds,
and `tad check` lists them beside the warnings.

full_labels.csv is the one file with boundaries that training reads. It holds training videos only. `tad labels`,
`tad split --labelled` and `tad import csv --as full` alone write it; boundaries of annotations.json stay in
tad.evaluation.ground_truth.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tad.data.csv_table import read_csv
from tad.data.findings import Finding, error, refuse, warning
from tad.data.manifest import SUPERVISION as SUPERVISION
from tad.data.manifest import Manifest
from tad.data.manifest import Supervision as Supervision
from tad.data.videos import Video
from tad.errors import DataError, shortened
from tad.files import number


class Points(NamedTuple):
    """The points of one video, ascending in time."""

    time: np.ndarray
    """[G] float64 seconds."""
    label: np.ndarray
    """[G] int64 class indices."""


class Classes(NamedTuple):
    """The classes that a video holds, ascending."""

    label: np.ndarray
    """[K] int64 class indices."""


class FullLabels(NamedTuple):
    """All actions of one video, by start, end and class; none twice."""

    spans: np.ndarray
    """[G, 2] float64 seconds."""
    label: np.ndarray
    """[G] int64 class indices."""


NO_POINTS = Points(np.zeros(0), np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class LabelType:
    """One type of label.

    Attributes:
        name: what a video is supervised by that has it.
        file: its file. word: what one row of it is called.
        times: columns of the file behind video_id and label, in seconds.
        of: a video's labels, from times [G, len(times)] float64 and class indices [G] int64, sorted by both.
        once: a row that stands twice counts once.
        whole: the file holds all actions of a video, and training videos alone; a row with only a video says that the
            video holds none.
    """

    name: Supervision
    file: str
    word: str
    times: tuple[str, ...]
    of: Callable[[np.ndarray, np.ndarray], Any]
    once: bool = True
    whole: bool = False

    @property
    def header(self) -> tuple[str, ...]:
        return ("video_id", "label", *self.times)


POINTS = LabelType("points", "points.csv", "point", ("time",), lambda times, label: Points(times[:, 0], label), False)
CLASSES = LabelType("classes", "labels.csv", "label", (), lambda _, label: Classes(label))
FULL = LabelType("full", "full_labels.csv", "full label", ("start", "end"), FullLabels, whole=True)
TYPES = (POINTS, CLASSES, FULL)
"""In the order in which they enter `Dataset.fingerprint`: a new type comes last."""


class Row(NamedTuple):
    """A row of a label file; `label` is empty and `times` are none where it says that its video holds no action."""

    video: str
    label: str
    times: tuple[float, ...]
    """Seconds."""


def read_labels(
    path: Path, kind: LabelType, manifest: Manifest | None, videos: Mapping[str, Video], findings: list[Finding]
) -> list[Row]:
    """The rows of a label file whose video is known; no file means no rows. What is wrong becomes findings.

    Extra columns are refused: they may hold boundaries.

    Args:
        manifest: knows the classes and which videos train; None where it could not be read.
        videos: those of annotations.json that can be used and have a role.
    """
    name, found = path.name, dict[Row, None]()
    if not (path.exists() or path.is_symlink()):
        return []
    uneven: list[tuple[int, str]] = []
    try:
        table = read_csv(path, kind.header, uneven).rows
    except DataError as problem:
        text = str(problem).removeprefix(f"{path}: ")
        what = f"{kind.word}s header" if text.startswith("the header") else f"unreadable {kind.word}s"
        findings.append(error(what, name, text))
        return []
    findings += [error(f"malformed {kind.word}", f"{name} line {line}", problem) for line, problem in uneven]
    rows: list[Row] = []
    for line, fields in table:
        where = f"{name} line {line}, video {fields['video_id']}"
        row = _row(fields, kind, where, findings)
        if row is None:
            continue
        if row.video not in videos:
            what = "is not in annotations.json, or in no subset with a role"
            findings.append(error(f"{kind.word} of unknown video", where, what))
            continue
        findings += [error(what, where, detail) for what, detail in _problems(row, kind, manifest, videos[row.video])]
        if row in found:
            at = f" at {', '.join(f'{t:g}' for t in row.times)} s" if row.times else ""
            findings.append(warning(f"duplicate {kind.word}", where, f"{row.label}{at} appears twice"))
        found[row] = None
        rows.append(row)
    empty = {row.video for row in found if not row.times} if kind.whole else set()
    for video in sorted(empty & {row.video for row in found if row.times}):
        findings.append(error(f"{kind.word}s contradict", f"video {video}", "holds no action, and holds some"))
    return rows


def _row(fields: Mapping[str, str], kind: LabelType, where: str, findings: list[Finding]) -> Row | None:
    """The row; None if its times are no finite numbers."""
    video, label, *texts = (fields[column] for column in kind.header)
    if kind.whole and not any((label, *texts)):
        return Row(video, "", ())
    try:
        times = tuple(map(number, texts))
        if all(map(math.isfinite, times)):
            return Row(video, label, times)
    except ValueError:
        pass
    told = ", ".join(f"{key} {shortened(fields[key])}" for key in kind.times)
    findings.append(error(f"malformed {kind.word}", where, f"{told} is not a number"))
    return None


def _problems(row: Row, kind: LabelType, manifest: Manifest | None, video: Video) -> Iterator[tuple[str, str]]:
    """What is wrong with a row: kind and detail."""
    empty = kind.whole and not row.times
    if manifest is not None and not empty and row.label not in manifest.classes:
        yield "unknown class", f"class not in dataset.yaml: {unlike(row.label, manifest.classes)}"
    if kind.whole and manifest is not None and manifest.subsets.get(video.subset) != "train":
        yield f"{kind.word} outside training", "does not train: nothing may read its boundaries"
    told = ", ".join(f"{time:.10g}" for time in row.times)
    if any(start >= end for start, end in zip(row.times, row.times[1:], strict=False)):
        yield f"reversed {kind.word}", f"[{told}] s; start must be before end"
    elif any(not 0 <= time <= video.duration for time in row.times):
        yield f"{kind.word} outside video", f"{told} s is outside 0..{video.duration:.10g} s"


def by_video(rows: Sequence[Row], kind: LabelType, classes: Sequence[str]) -> dict[str, Any]:
    """What each video has of a type, from rows without errors."""
    index = {name: i for i, name in enumerate(classes)}
    found: dict[str, list[tuple[float, ...]]] = {}
    for row in dict.fromkeys(rows) if kind.once else rows:
        own = found.setdefault(row.video, [])
        if row.label:
            own.append((*row.times, index[row.label]))
    tables = {v: np.array(sorted(own), dtype=np.float64).reshape(-1, len(kind.times) + 1) for v, own in found.items()}
    return {v: kind.of(table[:, :-1].copy(), table[:, -1].astype(np.int64)) for v, table in tables.items()}


def open_labels(path: Path, kind: LabelType, manifest: Manifest, videos: Mapping[str, Video]) -> dict[str, Any]:
    """What each video has of a type; no file means nothing.

    Raises:
        DataError: lists every problem of the file.
    """
    findings: list[Finding] = []
    rows = read_labels(path, kind, manifest, videos, findings)
    refuse(path, findings)
    return by_video(rows, kind, manifest.classes)


def open_held_out(
    path: Path, manifest: Manifest, videos: Mapping[str, Video], points: Mapping[str, Points]
) -> dict[str, Points]:
    """The points that dataset.yaml names under `held_out`; `points` are those of points.csv.

    Raises:
        DataError: as `open_labels`, or it lists points of points.csv or of videos that do not train.
    """
    found: dict[str, Points] = open_labels(path, POINTS, manifest, videos)
    train = {v for v in found if manifest.subsets[videos[v].subset] == "train"}
    problems = [error("held-out points", f"video {v}", "does not train") for v in found if v not in train]
    for video, held in found.items():
        seen = set(zip(*(column.tolist() for column in points.get(video, NO_POINTS)), strict=True))
        both = [t for t, c in zip(held.time.tolist(), held.label.tolist(), strict=True) if (t, c) in seen]
        what = "the point at {:g} s is in points.csv, too"
        problems += [error("held-out points", f"video {video}", what.format(t)) for t in both]
    refuse(path, problems)
    return found


def rows_of(video: str, labels: Any, kind: LabelType, classes: Sequence[str]) -> list[tuple[Any, ...]]:
    """The rows of its file from what a video has of a type: the inverse of `by_video`."""
    *times, label = labels
    if not len(label):
        return [(video, "", *("" for _ in kind.times))] if kind.whole else []
    columns = np.column_stack([np.zeros((len(label), 0)), *times]).tolist()
    return [(video, classes[c], *row) for c, row in zip(label, columns, strict=True)]


def unlike(label: str, classes: Collection[str]) -> str:
    """A class name that is none of `classes`, and the one that it may stand for."""
    alike = next((name for name in classes if _plain(name) == _plain(label)), None)
    return shortened(label) + (f" (but there is {alike!r}: case, blanks or Unicode form differ)" if alike else "")


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
