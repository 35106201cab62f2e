"""Boundaries: the only reader of the segments in annotations.json. Training code never imports this module.

Published annotation files have defects. Five are repaired, and `tad check` lists each:

* a segment that reaches beyond its video (before 0 or after its duration) is clipped to it;
* a segment that lies entirely beyond its video is dropped;
* an exact duplicate (same video, class, start and end) is dropped;
* a segment of zero length is dropped;
* a segment that ends before it starts by at most `ROUNDING` is dropped: rounding can do that to a short one.

Everything else (otherwise reversed or non-finite segments, unknown classes) is an error that lists every such row.
`raw_ground_truth` repairs nothing: published evaluators score the files as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from tad.data.csv_table import read_csv
from tad.data.dataset import Dataset, Role
from tad.data.labels import unlike
from tad.data.manifest import beside
from tad.data.segments import Segments
from tad.data.videos import database_of, subset_of, subsets_in
from tad.errors import DataError, listing, shortened
from tad.files import number, read_json

ROUNDING = 0.1 + 1e-9
"""Seconds, and a hair more, since 0.3 - 0.2 is not 0.1. Published times are rounded to a tenth of a second or finer; an
end that lies further before its start is no matter of rounding."""
SOURCE = "ground-truth"


class RawGroundTruth(NamedTuple):
    """Annotated rows as the file has them: unsorted, unclipped, duplicates and zero lengths kept."""

    videos: list[str]
    """Every video of the subsets, also those without a segment, in file order."""
    video_id: np.ndarray
    """[N] str."""
    start: np.ndarray
    """[N] float64 seconds."""
    end: np.ndarray
    """[N] float64 seconds."""
    label: np.ndarray
    """[N] str class names."""
    durations: Mapping[str, float] = {}
    """Seconds of the videos that tell them."""


def ground_truth(dataset: Dataset, role: Role) -> Segments:
    """The annotated segments of a role's videos, repaired; score 1, source "ground-truth", no points.

    Raises:
        DataError: lists every reversed (by more than `ROUNDING`), non-finite or unknown-class segment.
    """
    return segments_of(dataset, dataset.videos(role))


def segments_of(dataset: Dataset, video_ids: Sequence[str]) -> Segments:
    """`ground_truth` of some videos, in this order; rows in file order."""
    path = dataset.root / "annotations.json"
    database = database_of(read_json(path), str(path))
    classes = set(dataset.classes)
    problems: list[str] = []
    rows: list[tuple[str, float, float, str]] = []
    states: Counter[State] = Counter()
    for video_id in video_ids:
        duration = dataset.duration(video_id)
        for row, state in judged(annotated(video_id, database.get(video_id), problems), duration):
            where = f"video {video_id}, row {row.number}: {row}"
            states[state] += 1
            if row.label not in classes:
                problems.append(f"{where}: class not in dataset.yaml: {unlike(row.label, classes)}")
            elif state == "malformed":
                problems.append(f"{where}: start must be before end, both finite")
            elif state in ("good", "exceeds"):
                rows.append((video_id, max(row.start, 0.0), min(row.end, duration), row.label))
    if (wrong := wrong_unit(states["beyond"], states.total())) is not None:
        problems.append(wrong)
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    if not rows:
        return Segments.empty()
    ids, starts, ends, labels = zip(*rows, strict=True)
    return Segments.of(ids, starts, ends, labels, source=SOURCE)


def wrong_unit(beyond: int, total: int) -> str | None:
    """What to say where most segments lie entirely beyond the end of their video; None if it is not so."""
    if 2 * beyond <= total:
        return None
    return (
        f"{beyond} of {total} segments lie beyond the end of their video: times and durations must be seconds; "
        "are these frames or milliseconds?"
    )


def raw_ground_truth(path: Path | str, subsets: Collection[str]) -> RawGroundTruth:
    """The rows of some subsets of an annotation file, unrepaired.

    Args:
        path: an ActivityNet-style annotation file, or a dataset folder that holds annotations.json.
        subsets: subset names as they stand in the file; empty takes all.

    Raises:
        DataError: no video is in one of the subsets (the message names those found), or a row is not numbers.
    """
    path = Path(path)
    path = path / "annotations.json" if path.is_dir() else path
    database = database_of(read_json(path), str(path))
    found = subsets_in(database)
    missing = sorted(set(subsets) - set(found))
    if missing:
        raise DataError(f"{path}: no video in subset {', '.join(missing)}; found {', '.join(found) or 'none'}")
    problems: list[str] = []
    videos: list[str] = []
    rows: list[tuple[str, float, float, str]] = []
    durations: dict[str, float] = {}
    for video_id, entry in database.items():
        if subsets and subset_of(entry) not in subsets:
            continue
        videos.append(video_id)
        with suppress(AttributeError, ValueError):  # evaluation needs no durations
            durations[video_id] = number(entry.get("duration"))
        for row in annotated(video_id, entry, problems):
            if math.isfinite(row.start) and math.isfinite(row.end):
                rows.append((video_id, row.start, row.end, row.label))
            else:
                problems.append(f"video {video_id}, row {row.number}: {row} is not finite")
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    ids, starts, ends, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    times = np.array([starts, ends], dtype=np.float64).reshape(2, -1)
    return RawGroundTruth(videos, np.array(ids, dtype=str), times[0], times[1], np.array(labels, dtype=str), durations)


def ambiguous(dataset: Dataset) -> dict[str, list[tuple[float, float]]]:
    """Intervals (seconds) per video in which a detection is neither right nor wrong; empty if there is no file.

    Raises:
        DataError: the file that dataset.yaml names is missing, or rows are malformed (all are listed).
    """
    if dataset.manifest.ambiguous is None:
        return {}
    return read_ambiguous(beside(dataset.root, dataset.manifest.ambiguous, "ambiguous"))


def read_ambiguous(path: Path) -> dict[str, list[tuple[float, float]]]:
    """A CSV with the header video_id,start,end; times in seconds."""
    found: dict[str, list[tuple[float, float]]] = {}
    uneven: list[tuple[int, str]] = []
    rows = read_csv(path, ("video_id", "start", "end"), uneven).rows
    problems = [f"line {line}: {problem}" for line, problem in uneven]
    for line, row in rows:
        try:
            start, end = number(row["start"]), number(row["end"])
        except ValueError:
            start = end = math.nan
        if math.isfinite(start) and math.isfinite(end) and start < end:
            found.setdefault(row["video_id"], []).append((start, end))
        else:
            interval = f"[{shortened(row['start'])}, {shortened(row['end'])}]"
            problems.append(f"line {line} (video {row['video_id']}): {interval} is no interval")
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    return found


class Row(NamedTuple):
    """One entry of a video's annotations, seconds; `number` counts them from 0."""

    number: int
    label: str
    start: float
    end: float

    def __str__(self) -> str:
        return f"{self.label} [{self.start:g}, {self.end:g}] s"


State = Literal["good", "exceeds", "beyond", "duplicate", "zero length", "reversed by rounding", "malformed"]
"""What a row is. "good" stays, "exceeds" is clipped, "malformed" is an error; the others are dropped."""


def annotated(video_id: str, entry: Any, problems: list[str]) -> list[Row]:
    """The rows of a video's entry; those that cannot be read become problems. Blanks around class names are cut off."""
    annotations = entry.get("annotations", []) if isinstance(entry, dict) else None
    if isinstance(entry, dict) and annotations is None:
        return []
    if not isinstance(annotations, list):
        problems.append(f"video {video_id}: annotations must be a list")
        return []
    rows = []
    for i, item in enumerate(annotations):
        try:
            segment, label = item["segment"], item["label"]
            if not isinstance(segment, list) or len(segment) != 2:
                raise ValueError(f"segment {shortened(segment)} must be [start, end], in seconds")
            if not isinstance(label, (str, int)) or isinstance(label, bool):
                raise ValueError(f"label {shortened(label)} must be a class name")
            rows.append(Row(i, str(label).strip(), number(segment[0]), number(segment[1])))
        except KeyError as error:
            problems.append(f"video {video_id}, row {i}: has no {error}; it must hold segment and label")
        except TypeError:
            problems.append(f"video {video_id}, row {i}: {shortened(item)} must hold segment and label")
        except ValueError as error:
            problems.append(f"video {video_id}, row {i}: {error}")
    return rows


def judged(rows: Sequence[Row], duration: float) -> Iterator[tuple[Row, State]]:
    """Each row of a video of `duration` seconds, and what it is."""
    seen: set[tuple[str, float, float]] = set()
    for row in rows:
        key = (row.label, row.start, row.end)
        yield row, "duplicate" if key in seen else _state(row, duration)
        seen.add(key)


def _state(row: Row, duration: float) -> State:
    if not (math.isfinite(row.start) and math.isfinite(row.end)):
        return "malformed"
    if row.start == row.end:
        return "zero length"
    if row.start > row.end:
        return "reversed by rounding" if row.start - row.end <= ROUNDING else "malformed"
    if row.start >= duration or row.end <= 0:
        return "beyond"
    return "exceeds" if row.start < 0 or row.end > duration else "good"
