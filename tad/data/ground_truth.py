"""Boundaries: the only reader of the segments in annotations.json. Training code never imports this module.

Published annotation files have defects. Three are repaired, and each repair is counted (`Repairs`):

* a segment that reaches beyond its video (before 0 or after its duration) is clipped to it;
* a segment that lies entirely beyond its video is dropped;
* an exact duplicate (same video, class, start and end) is dropped.

Everything else (reversed, zero-length or non-finite segments, unknown classes) is an error that lists every such row.
`raw_ground_truth` repairs nothing: published evaluators score the files as they are.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError, listing
from tad.files import read_json

SOURCE = "ground-truth"


@dataclass(frozen=True)
class Repairs:
    """What was mended while reading, one line per segment: video, row, class, boundaries in seconds."""

    clipped: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.clipped) + len(self.beyond) + len(self.duplicates)

    def __str__(self) -> str:
        return f"{len(self.clipped)} clipped, {len(self.beyond)} beyond the video, {len(self.duplicates)} duplicate"


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


def ground_truth(dataset: Dataset, role: Role) -> Segments:
    """The annotated segments of a role's videos, repaired; score 1, source "ground-truth", no points.

    Raises:
        DataError: lists every reversed, zero-length, non-finite or unknown-class segment.
    """
    return read_ground_truth(dataset, role)[0]


def read_ground_truth(dataset: Dataset, role: Role) -> tuple[Segments, Repairs]:
    """`ground_truth`, and what was repaired to get it."""
    return repaired(dataset, dataset.videos(role))


def repaired(dataset: Dataset, video_ids: Sequence[str]) -> tuple[Segments, Repairs]:
    """The segments of some videos (in this order; rows in file order), and what was repaired."""
    path = dataset.root / "annotations.json"
    database = _database(path)
    classes = set(dataset.classes)
    repairs = Repairs()
    problems: list[str] = []
    rows: list[tuple[str, float, float, str]] = []
    for video_id in video_ids:
        duration = dataset.duration(video_id)
        seen: set[tuple[str, float, float]] = set()
        for i, (label, start, end) in enumerate(_annotations(video_id, database.get(video_id), problems)):
            where = f"video {video_id}, row {i}: {label} [{start:g}, {end:g}] s"
            if not (math.isfinite(start) and math.isfinite(end) and start < end):
                problems.append(f"{where}: start must be before end, both finite")
            elif label not in classes:
                problems.append(f"{where}: class not in dataset.yaml")
            elif (label, start, end) in seen:
                repairs.duplicates.append(where)
            elif start >= duration or end <= 0:
                repairs.beyond.append(f"{where} of {duration:g} s")
            else:
                if start < 0 or end > duration:
                    repairs.clipped.append(f"{where} of {duration:g} s")
                rows.append((video_id, max(start, 0.0), min(end, duration), label))
            seen.add((label, start, end))
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    if not rows:
        return Segments.empty(), repairs
    ids, starts, ends, labels = zip(*rows, strict=True)
    return Segments.of(ids, starts, ends, labels, source=SOURCE), repairs


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
    database = _database(path)
    found = sorted({str(e.get("subset")) for e in database.values() if isinstance(e, dict)})
    missing = sorted(set(subsets) - set(found))
    if missing:
        raise DataError(f"{path}: no video in subset {', '.join(missing)}; found {', '.join(found) or 'none'}")
    problems: list[str] = []
    videos: list[str] = []
    rows: list[tuple[str, float, float, str]] = []
    for video_id, entry in database.items():
        if subsets and (not isinstance(entry, dict) or str(entry.get("subset")) not in subsets):
            continue
        videos.append(video_id)
        for i, (label, start, end) in enumerate(_annotations(video_id, entry, problems)):
            if math.isfinite(start) and math.isfinite(end):
                rows.append((video_id, start, end, label))
            else:
                problems.append(f"video {video_id}, row {i}: {label} [{start}, {end}] s is not finite")
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    ids, starts, ends, labels = zip(*rows, strict=True) if rows else ((), (), (), ())
    times = np.array([starts, ends], dtype=np.float64).reshape(2, -1)
    return RawGroundTruth(videos, np.array(ids, dtype=str), times[0], times[1], np.array(labels, dtype=str))


def ambiguous(dataset: Dataset) -> dict[str, list[tuple[float, float]]]:
    """Intervals (seconds) per video in which a detection is neither right nor wrong; empty if there is no file.

    Raises:
        DataError: the file that dataset.yaml names is missing, or rows are malformed (all are listed).
    """
    if dataset.manifest.ambiguous is None:
        return {}
    return read_ambiguous(dataset.root / dataset.manifest.ambiguous)


def read_ambiguous(path: Path) -> dict[str, list[tuple[float, float]]]:
    """A CSV with the header video_id,start,end; times in seconds."""
    if not path.is_file():
        raise DataError(f"{path}: missing, but dataset.yaml names it under `ambiguous`")
    found: dict[str, list[tuple[float, float]]] = {}
    problems: list[str] = []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != ["video_id", "start", "end"]:
            raise DataError(f"{path}: the header must be video_id,start,end; found {reader.fieldnames}")
        for line, row in enumerate(reader, start=2):
            try:
                start, end = float(row["start"]), float(row["end"])
            except (TypeError, ValueError):
                start = end = math.nan
            if not (math.isfinite(start) and math.isfinite(end) and start < end):
                problems.append(f"line {line} (video {row['video_id']}): [{row['start']}, {row['end']}] is no interval")
            else:
                found.setdefault(row["video_id"], []).append((start, end))
    if problems:
        raise DataError(f"{path}: " + listing(problems))
    return found


def _database(path: Path) -> Mapping[str, Any]:
    document = read_json(path)
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise DataError(f'{path}: expected {{"database": {{video: {{subset, duration, annotations}}}}}}')
    return database


def _annotations(video_id: str, entry: Any, problems: list[str]) -> list[tuple[str, float, float]]:
    """Label, start and end of each row; rows that cannot be read become problems."""
    rows = []
    annotations = entry.get("annotations", []) if isinstance(entry, dict) else None
    if not isinstance(annotations, list):
        problems.append(f"video {video_id}: annotations must be a list")
        return []
    for i, item in enumerate(annotations):
        try:
            start, end = (float(x) for x in item["segment"])
            rows.append((str(item["label"]), start, end))
        except (KeyError, TypeError, ValueError) as error:
            problems.append(f"video {video_id}, row {i}: {type(error).__name__}: {error}")
    return rows
