"""Scores for choosing between models that need points and no boundaries, so that choosing leaks no full label.

`points_score` judges detections, `label_change` says how much two rounds' pseudo-labels differ. Neither knows where an
instance starts or ends: a detection that is far too long or too short is as good as the right one, as long as it holds
its own point and no second one of its class. On videos whose points were trained on, the score is optimistic; held-out
points (the dev role) are the better judge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluate import average_precision, best_first
from tad.ops.iou import paired_tiou


@dataclass(frozen=True)
class PointsScore:
    """The result of `points_score`.

    Attributes:
        score: mean over the classes that have points of the average precision over points, 0..1.
        per_class: that precision by class.
        recall: share of all points that some detection hits.
        hits, empty, crowded, repeated: number of detections that hit a point; that contain no point of their class;
            that contain two or more; that contain one which a better detection has already hit.
        elsewhere: detections in videos of other roles or of classes without points; not judged.
    """

    score: float
    per_class: dict[str, float]
    recall: float
    hits: int
    empty: int
    crowded: int
    repeated: int
    elsewhere: int

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def points_score(detections: Segments, dataset: Dataset, role: Role = "dev") -> PointsScore:
    """Average precision over points: a score of detections that reads no boundary.

    Detections are taken by descending score (equal ones by video, start, end). One is a hit if it contains exactly one
    point of its class in its video, ends included, and no better detection has hit that point; all others are false
    positives. Precision and recall over the points of a class give its average precision (as in tad.evaluate).

    Raises:
        DataError: the role's videos have no points.
    """
    videos = dataset.videos(role)
    points = [dataset.points(v) for v in videos]
    time = np.concatenate([p.time for p in points]) if points else np.zeros(0)
    if not len(time):
        raise DataError(
            f"{dataset.root}: the {len(videos)} {role} videos have no points, which the score of points needs; "
            "add their rows to points.csv"
        )
    classes = len(dataset.classes)
    rank = {v: i for i, v in enumerate(sorted(videos))}
    sizes = [len(p.time) for p in points]
    point_label = np.concatenate([p.label for p in points])
    point_key = np.repeat([rank[v] for v in videos], sizes) * classes + point_label
    number = np.bincount(point_label, minlength=classes)

    codes, names = detections.codes("video_id")
    video = np.array([rank.get(v, -1) for v in names], dtype=np.int64)[codes] if len(detections) else codes
    label = detections.label_index(dataset.classes)
    judged = np.flatnonzero((video >= 0) & (label >= 0) & (number[label] > 0))
    video, label = video[judged], label[judged]
    span = detections.spans[judged]
    order = best_first(label, detections.score[judged], video, span)
    video, label, span = video[order], label[order], span[order]

    first, inside = points_inside(video * classes + label, span, point_key, time)
    single = np.flatnonzero(inside == 1)
    hit = np.zeros(len(order), dtype=bool)
    # Rows are by class and descending score, so the first row of a point is its best.
    hit[single[np.unique(first[single], return_index=True)[1]]] = True

    bounds = np.searchsorted(label, np.arange(classes + 1))
    per_class = {
        name: average_precision(hit[bounds[c] : bounds[c + 1]], int(number[c]))
        for c, name in enumerate(dataset.classes)
        if number[c]
    }
    return PointsScore(
        score=float(np.mean(list(per_class.values()))),
        per_class=per_class,
        recall=float(hit.sum() / len(time)),
        hits=int(hit.sum()),
        empty=int((inside == 0).sum()),
        crowded=int((inside > 1).sum()),
        repeated=int(len(single) - hit.sum()),
        elsewhere=len(detections) - len(judged),
    )


def points_inside(
    key: np.ndarray, span: np.ndarray, point_key: np.ndarray, point_time: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Which points lie in each interval, ends included, among those of the same key (class and video).

    key: [N], span: [N, 2] seconds; point_key, point_time: [P]. Returns [N] the first such point's rank in (key, time)
    order, and [N] their number.
    """
    below = _rank(key, span[:, 0], point_key, point_time, after=False)
    return below, _rank(key, span[:, 1], point_key, point_time, after=True) - below


def _rank(key: np.ndarray, at: np.ndarray, point_key: np.ndarray, point_time: np.ndarray, after: bool) -> np.ndarray:
    """[N] how many points come before (key, at) in order; `after`: points at the same place count as before."""
    both_key, both_time = np.concatenate([key, point_key]), np.concatenate([at, point_time])
    is_point = np.repeat([False, True], [len(key), len(point_key)])
    order = np.lexsort((is_point != after, both_time, both_key))
    before = np.empty(len(order), dtype=np.int64)
    before[order] = np.cumsum(is_point[order])
    return before[: len(key)]


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
