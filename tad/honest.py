"""Scores for choosing between models that need points and no boundaries, so that choosing leaks no full label.

`points_score` judges detections, `label_change` says how much two rounds' pseudo-labels differ.

The detections are compared with a *reference*: a segment for every point, of largest expected tIoU under the model of
labeler `points`, which learns from a run's first proposals and all points where in an action annotators click, how long
the actions of a class and video are, and how far proposals can be believed. The reference is wrong in many places, but
a model that is better by the truth is, as a rule, better by it, too (docs/results/objectives.md has the measurements).
It reads points that training did not see (`held_out` of dataset.yaml) where there are some, and then judges by these
alone: at points that were trained on, a model that has learnt its labels by heart looks better than it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tad.data.dataset import Dataset, Points
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluate import evaluate
from tad.labelers.points_model import Constants, PointModel
from tad.labelers.potloc import Grouped, GroupedPoints
from tad.labelers.pser_seed import inside
from tad.ops.iou import paired_tiou

TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Reference:
    """Where the actions of the training videos are, as far as points and proposals tell.

    Attributes:
        segments: one for every point, seen in training or held out, of the training videos.
        judged: [G] bool: those that detections are judged by: of held-out points, or all where there are none.
        videos: the training videos.
    """

    segments: Segments
    judged: np.ndarray
    videos: list[str]


def reference(proposals: Segments, data: Dataset) -> Reference:
    """The reference that a run's first proposals give; 150 videos with 2,000 points take a second or two.

    Raises:
        DataError: the training videos have no points.
    """
    videos, classes = data.videos("train"), len(data.classes)
    points = [_all_points(data, v) for v in videos]
    sizes = [len(seen.time) for seen, _ in points]
    if not sum(sizes):
        raise DataError(
            f"{data.root}: the {len(videos)} train videos have no points, which the score of points needs; "
            "add their rows to points.csv"
        )
    time, label, held = (
        np.concatenate([column for seen, held in points for column in [(seen.time, seen.label, held)[i]]])
        for i in range(3)
    )
    video = np.repeat(np.arange(len(videos)), sizes)
    duration = np.array([data.duration(v) for v in videos])[video]
    grouped = GroupedPoints(video * classes + label, time, duration)
    spans = PointModel(grouped, _grouped(proposals, data, videos), classes, Constants()).label().spans
    spans = np.concatenate([inside(row[None], 0.0, end) for row, end in zip(spans, duration, strict=True)])
    names = [data.classes[c] for c in label]
    segments = Segments.of([videos[v] for v in video], spans[:, 0], spans[:, 1], names, 1.0, time, "reference")
    return Reference(segments, held if held.any() else np.ones(len(time), dtype=bool), videos)


def points_score(detections: Segments, against: Reference) -> float:
    """mAP (mean over tIoU .1 to .7) of detections in the training videos against the reference, 0..1.

    Where points are held out, detections that lie nearest to the segment of a point that was trained on are left out:
    of the segments of their class and video, they have the largest tIoU with that one.
    """
    wanted = set(against.videos)
    detections = detections.filter(np.array([v in wanted for v in detections.video_ids], dtype=bool))
    if not against.judged.all():
        detections = detections.filter(~_belongs(detections, against.segments, ~against.judged))
    if not len(detections):
        return 0.0
    truth = against.segments.filter(against.judged)
    return evaluate(detections, truth, TIOUS, videos=against.videos).average


def _belongs(detections: Segments, segments: Segments, to: np.ndarray) -> np.ndarray:
    """[N] bool: of the segments of their class and video, detections overlap most with one of `to` ([G] bool)."""
    key = {k: i for i, k in enumerate(dict.fromkeys(zip(segments.video_ids, segments.labels, strict=True)))}
    of_segment = np.array([key[k] for k in zip(segments.video_ids, segments.labels, strict=True)])
    of_detection = np.array([key.get(k, -1) for k in zip(detections.video_ids, detections.labels, strict=True)])
    order = np.argsort(of_segment, kind="stable")
    low, high = (np.searchsorted(of_segment[order], of_detection, side=side) for side in ("left", "right"))
    count = high - low
    row = np.repeat(np.arange(len(count)), count)
    other = order[np.arange(count.sum()) + np.repeat(low - (np.cumsum(count) - count), count)]
    overlap = paired_tiou(detections.spans[row], segments.spans[other])
    best = np.zeros(len(count))
    np.maximum.at(best, row, overlap)
    found = np.zeros(len(count), dtype=bool)
    nearest = (overlap > 0) & (overlap == best[row])
    np.logical_or.at(found, row[nearest], to[other[nearest]])
    return found


def _all_points(data: Dataset, video: str) -> tuple[Points, np.ndarray]:
    """The distinct points of a video by class and time, seen and held out, and [G] bool which are held out."""
    seen, hidden = data.points(video), data.held_out(video)
    time, label = np.append(seen.time, hidden.time), np.append(seen.label, hidden.label)
    held = np.arange(len(time)) >= len(seen.time)
    order = np.lexsort((held, time, label))
    new = (np.diff(label[order], prepend=-1) != 0) | (np.diff(time[order], prepend=-1.0) != 0)
    order = order[new]
    return Points(time[order], label[order]), held[order]


def _grouped(proposals: Segments, data: Dataset, videos: list[str]) -> Grouped:
    place = {v: i for i, v in enumerate(videos)}
    known = proposals.label_index(data.classes) >= 0
    proposals = proposals.filter(known & np.array([v in place for v in proposals.video_ids], dtype=bool))
    video = np.array([place[v] for v in proposals.video_ids], dtype=np.int64)
    group = video * len(data.classes) + proposals.label_index(data.classes)
    return Grouped(group, proposals.spans, proposals.score)


def label_change(old: Segments, new: Segments) -> float:
    """Mean tIoU between the two rounds' pseudo-labels of the same point: 1 is no change, 0 nothing in common.

    Rows are matched by video, class and point (to the millisecond); of several rows for one point the best score
    counts. A point that has a pseudo-label in only one round counts 0. Two empty tables have not changed: 1.

    Raises:
        DataError: there are pseudo-labels, but none of them names its point.
    """
    a, b = _by_point(old), _by_point(new)
    points = a.keys() | b.keys()
    if not points:
        if len(old) or len(new):
            raise DataError("the change between two rounds is measured by point, and no pseudo-label names its point")
        return 1.0
    shared = sorted(a.keys() & b.keys())
    if not shared:
        return 0.0
    pairs = old.spans[[a[k] for k in shared]], new.spans[[b[k] for k in shared]]
    return float(paired_tiou(*pairs).sum() / len(points))


def _by_point(labels: Segments) -> dict[tuple[str, str, int], int]:
    """The best row of each point: by video, class and millisecond."""
    best: dict[tuple[str, str, int], int] = {}
    videos, names, point = labels.video_ids, labels.labels, labels.point
    for row in np.lexsort((labels.end, labels.start, -labels.score)):
        if not np.isnan(point[row]):
            best.setdefault((videos[row], names[row], round(1000 * point[row])), int(row))
    return best
