"""Exports pseudo-labels for training in OpenTAD.

The annotation file is built from an empty database: a training video holds its pseudo-labels and nothing else, an
empty list where there are none. Ground truth is written for test and development videos only, where OpenTAD's
evaluation needs it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from tad.data.dataset import Dataset, Role, Video
from tad.data.segments import Segments
from tad.errors import DataError, listing
from tad.evaluation.ground_truth import ground_truth
from tad.files import write_json, write_text
from tad.prepare.output import output_folder

SUBSETS: dict[Role, str] = {"train": "training", "dev": "development", "test": "validation"}
"""OpenTAD's configs train on "training" and evaluate on "validation"."""
DECIMALS = 3


class Exported(NamedTuple):
    """What an export wrote."""

    annotations: Path
    classes: Path
    videos: dict[str, int]
    """Videos per OpenTAD subset."""
    labels: int
    """Pseudo-labels written."""
    dropped: int
    """Pseudo-labels outside their video, or shorter than a millisecond."""


def export_opentad(labels: Segments, data: Dataset, out: Path, *, force: bool = False) -> Exported:
    """Writes OUT/opentad.json and OUT/category_idx.txt.

    Segments are clipped to their video and rounded to milliseconds. `frame` is the duration in ticks of the feature
    clock, because OpenTAD takes frame / duration for the rate that its stride counts.

    Args:
        labels: pseudo-labels of training videos.

    Raises:
        DataError: lists labels of videos that do not train or of unknown classes, and classes that a list with a name a
            line cannot hold; or the folder is not empty or cannot be written.
    """
    train = set(data.videos("train"))
    codes, video_ids = labels.codes("video_id")
    _, names = labels.codes("label")
    problems = [f"video {v} is not a training video of {data.root}" for v in video_ids if v not in train]
    problems += [f"class {name!r} is not in dataset.yaml" for name in names if name not in data.classes]
    problems += [
        f"class {name!r}: OpenTAD's list has a name a line; a name must hold no line break and no blanks around it"
        for name in data.classes
        if name.splitlines() != [name.strip()]
    ]
    if problems:
        raise DataError("the labels do not fit the dataset: " + listing(problems))
    database: dict[str, dict[str, Any]] = {}
    dropped = 0
    for role, subset in SUBSETS.items():
        segments = labels if role == "train" else ground_truth(data, role)
        by_video = segments.by_video()
        for video_id in data.videos(role):
            video = data.videos_by_id[video_id]
            rows = by_video.get(video_id, Segments.empty())
            kept = _annotations(rows, video.duration)
            if role == "train":
                dropped += len(rows) - len(kept)
            database[video_id] = {
                "subset": subset,
                "duration": video.duration,
                "frame": max(1, round(video.duration * _rate(data, video))),
                "annotations": kept,
            }
    annotations, classes = Path("opentad.json"), Path("category_idx.txt")
    with output_folder(out, "export opentad", force=force, sources=[data.root]) as fresh:
        write_json(fresh / annotations, {"database": database})
        write_text(fresh / classes, "".join(f"{name}\n" for name in data.classes))
    count = {subset: len(data.videos(role)) for role, subset in SUBSETS.items() if data.videos(role)}
    return Exported(out / annotations, out / classes, count, len(codes) - dropped, dropped)


def _annotations(rows: Segments, duration: float) -> list[dict[str, Any]]:
    kept = []
    for start, end, label in zip(rows.start.tolist(), rows.end.tolist(), rows.labels, strict=True):
        segment = [round(start, DECIMALS), min(round(end, DECIMALS), duration)]
        if segment[0] < segment[1]:
            kept.append({"segment": segment, "label": label})
    return kept


def _rate(data: Dataset, video: Video) -> float:
    """Ticks per second of the feature clock; for features resized in time, which have none, the video's own."""
    grid = data.manifest.grid
    if grid.length is None and grid.fps != "native":
        return float(grid.fps)
    return video.fps if video.fps is not None else 30.0
