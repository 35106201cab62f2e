"""How good pseudo-labels are, measured against ground truth, point by point.

Each point of the dataset has its own ground-truth instance: the one of its class that contains it (of several, the one
whose centre is nearest; then the earlier). Its pseudo-label is the row of its class and video that answers to it. What
is measured is their tIoU. Points that no instance contains (slips of human annotators) are counted, not scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.evaluator import check_videos
from tad.ops.iou import paired_tiou

SHARES = (0.3, 0.5, 0.7)
BUCKETS = (0.0, 1.0, 2.0, 4.0, 8.0, 16.0, np.inf)
"""Seconds: borders of the buckets of ground-truth length, each [low, high)."""
SAME_POINT = 1e-3
"""Seconds within which a row's point is the dataset's point."""


@dataclass(frozen=True)
class Quality:
    """The result of `label_quality`, one row for each scored point.

    Attributes:
        video: [P] video ids.
        label: [P] class names.
        truth: [P, 2] seconds: the point's ground-truth instance.
        pseudo: [P, 2] seconds: its pseudo-label; NaN where it has none.
        outside: number of points that no instance of their class contains; not among the P.
        instances: number of ground-truth instances; unpointed: how many of them no point answers to.
        unmatched: number of pseudo-labels that answer to none of the P points.
        covered: seconds of pseudo-labels, of ground truth, and of both (unions per video and class, summed).
    """

    video: np.ndarray
    label: np.ndarray
    truth: np.ndarray
    pseudo: np.ndarray
    outside: int
    instances: int
    unpointed: int
    unmatched: int
    covered: tuple[float, float, float]

    @property
    def missing(self) -> np.ndarray:
        """[P] bool: points without a pseudo-label."""
        return np.isnan(self.pseudo[:, 0])

    @property
    def tiou(self) -> np.ndarray:
        """[P] tIoU of each point's pseudo-label with its ground truth; 0 where it has none."""
        tiou = np.zeros(len(self.truth))
        there = ~self.missing
        tiou[there] = paired_tiou(self.pseudo[there], self.truth[there])
        return tiou

    def to_json(self) -> dict[str, Any]:
        """Plain values: mean_tiou, share, points, missing and more; see docs/evaluation.md."""
        pseudo, truth, both = self.covered
        length = self.truth[:, 1] - self.truth[:, 0]
        buckets = {}
        for low, high in pairwise(BUCKETS):
            name = f"{low:g}-{high:g}" if np.isfinite(high) else f"{low:g}+"
            buckets[name] = self._summary((length >= low) & (length < high))
        return {
            **self._summary(np.ones(len(length), dtype=bool)),
            "outside": self.outside,
            "instances": self.instances,
            "unpointed": self.unpointed,
            "unmatched": self.unmatched,
            "time": {"precision": both / pseudo if pseudo else 0.0, "recall": both / truth if truth else 0.0},
            "per_class": {str(c): self._summary(self.label == c) for c in np.unique(self.label)},
            "per_length": buckets,
        }

    def _summary(self, rows: np.ndarray) -> dict[str, Any]:
        """Of some points ([P] bool). Shares, tIoU, precision and recall count a missing pseudo-label as 0."""
        tiou, there = self.tiou[rows], rows & ~self.missing
        pseudo, truth = self.pseudo[there], self.truth[there]
        shared = np.minimum(pseudo[:, 1], truth[:, 1]) - np.maximum(pseudo[:, 0], truth[:, 0])
        shared = np.maximum(shared, 0.0)
        length, true_length = pseudo[:, 1] - pseudo[:, 0], truth[:, 1] - truth[:, 0]
        points = len(tiou)

        def mean(values: np.ndarray) -> float | None:
            return float(values.sum() / points) if points else None

        return {
            "mean_tiou": mean(tiou),
            "share": {f"{t:g}": mean(tiou >= t) for t in SHARES},
            "points": points,
            "missing": int(points - len(pseudo)),
            "log2_length_ratio": float(np.median(np.log2(length / true_length))) if len(pseudo) else None,
            "precision": mean(shared / length),
            "recall": mean(shared / true_length),
        }


def label_quality(labels: Segments, dataset: Dataset, role: Role = "train") -> Quality:
    """Pseudo-labels against the ground truth of a role's videos.

    Raises:
        DataError: the role has no point inside a ground-truth instance, or the labels share no video with it.
    """
    from tad.evaluation.ground_truth import ground_truth

    return point_quality(labels, ground_truth(dataset, role), dataset, role)


def point_quality(labels: Segments, truth: Segments, dataset: Dataset, role: Role) -> Quality:
    """As `label_quality`, with the ground truth at hand."""
    videos = dataset.videos(role)
    check_videos(labels, videos, f"labels share no video with the {role} videos of {dataset.root}")
    wanted = set(videos)
    labels = labels.filter(np.array([v in wanted for v in labels.video_ids], dtype=bool))
    rows_of, truth_of = _grouped(labels), _grouped(truth)
    label_spans, true_spans, score, point = labels.spans, truth.spans, labels.score, labels.point
    ids: list[str] = []
    names: list[str] = []
    spans: list[np.ndarray] = []
    own: list[np.ndarray] = []
    outside = pointed = used = 0
    for video in videos:
        points = dataset.points(video)
        for c in np.unique(points.label):
            name = dataset.classes[int(c)]
            time = points.time[points.label == c]
            instances = true_spans[truth_of.get((video, name), NONE)]
            instance = instance_of(time, instances)
            outside += int((instance < 0).sum())
            time, instance = time[instance >= 0], instance[instance >= 0]
            rows = rows_of.get((video, name), NONE)
            row = row_of(time, label_spans[rows], score[rows], point[rows])
            found = np.full((len(time), 2), np.nan)
            found[row >= 0] = label_spans[rows][row[row >= 0]]
            ids += [video] * len(time)
            names += [name] * len(time)
            spans.append(found)
            own.append(instances[instance])
            pointed += len(np.unique(instance))
            used += len(np.unique(row[row >= 0]))
    if not names:
        raise DataError(
            f"{dataset.root}: no point of the {len(videos)} {role} videos lies in a ground-truth segment of its class; "
            "pseudo-label quality needs points.csv and annotations.json of the same videos"
        )
    return Quality(
        video=np.array(ids),
        label=np.array(names),
        truth=np.concatenate(own),
        pseudo=np.concatenate(spans),
        outside=outside,
        instances=len(truth),
        unpointed=len(truth) - pointed,
        unmatched=len(labels) - used,
        covered=_covered(labels, truth, rows_of, truth_of),
    )


def instance_of(time: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """[P] row of `spans` [G, 2] that each point of `time` [P] lies in: nearest centre, then the earlier; -1 if none."""
    if not len(spans):
        return np.full(len(time), -1)
    inside = (spans[:, 0] <= time[:, None]) & (time[:, None] <= spans[:, 1])
    distance = np.where(inside, np.abs(spans.mean(axis=1) - time[:, None]), np.inf)
    # Rounded, so that equally near centres tie in spite of floating point; then the earlier start and end.
    rank = np.empty(len(spans))
    rank[np.lexsort((spans[:, 1], spans[:, 0]))] = np.arange(len(spans))
    tied = np.round(distance, 9) == np.round(distance, 9).min(axis=1, keepdims=True)
    return np.where(inside.any(axis=1), np.where(tied, rank, np.inf).argmin(axis=1), -1)


def row_of(time: np.ndarray, spans: np.ndarray, score: np.ndarray, point: np.ndarray) -> np.ndarray:
    """[P] the pseudo-label of each point `time` [P] among the rows of its class and video; -1 if there is none.

    Rows that name a point answer to that point only (of several, the best score). A point that no row names takes the
    best row without a point that contains it. spans [R, 2], score [R], point [R] seconds or NaN.
    """
    order = np.lexsort((spans[:, 1], spans[:, 0], -score))
    spans, point = spans[order], point[order]
    named = np.abs(point - time[:, None]) <= SAME_POINT
    inside = np.isnan(point) & (spans[:, 0] <= time[:, None]) & (time[:, None] <= spans[:, 1])
    # The nearest of the rows that name it: two points may be closer to each other than the tolerance.
    gap = np.round(np.where(named, np.abs(point - time[:, None]), np.inf), 9)
    row = np.full(len(time), -1)
    if len(order):
        row = np.where(named.any(axis=1), order[gap.argmin(axis=1)], row)
        row = np.where(~named.any(axis=1) & inside.any(axis=1), order[inside.argmax(axis=1)], row)
    return row


NONE = np.zeros(0, dtype=np.int64)
Rows = Mapping[tuple[str, str], np.ndarray]


def _grouped(segments: Segments) -> Rows:
    """Row numbers by video and class."""
    video, videos = segments.codes("video_id")
    label, labels = segments.codes("label")
    key = video * max(1, len(labels)) + label
    order = np.argsort(key, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(key[order])) + 1) if len(order) else []
    return {(videos[video[rows[0]]], labels[label[rows[0]]]): rows for rows in groups}


def _covered(labels: Segments, truth: Segments, rows_of: Rows, truth_of: Rows) -> tuple[float, float, float]:
    """Seconds of pseudo-labels, of ground truth and of both."""
    totals = np.zeros(3)
    label_spans, true_spans = labels.spans, truth.spans
    for key in sorted(rows_of.keys() | truth_of.keys()):  # a set has another order in every process
        a = label_spans[rows_of.get(key, NONE)]
        b = true_spans[truth_of.get(key, NONE)]
        seconds_a, seconds_b, either = _union(a), _union(b), _union(np.concatenate([a, b]))
        totals += (seconds_a, seconds_b, seconds_a + seconds_b - either)
    return float(totals[0]), float(totals[1]), float(totals[2])


def _union(spans: np.ndarray) -> float:
    """Seconds that spans [N, 2] cover together."""
    spans = spans[np.argsort(spans[:, 0], kind="stable")]
    reach = np.maximum.accumulate(spans[:, 1])
    before = np.append(-np.inf, reach[:-1])
    return float(np.maximum(0.0, reach - np.maximum(spans[:, 0], before)).sum()) if len(spans) else 0.0
