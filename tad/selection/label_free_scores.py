"""Scores for choosing between models that need points or classes and no boundaries: choosing leaks no full label.

`points_score` and `classes_score` judge detections, `label_change` says how much two rounds' pseudo-labels differ.

For the score of points, detections are compared with a *reference* (tad.selection.reference): a segment for every point
of the training videos. It is wrong in many places, but a model that is better by the truth is, as a rule, better by it,
too (docs/results/objectives.md has the measurements). Where there are points that training did not see (`held_out` of
dataset.yaml), these alone judge: at points that were trained on, a model that has learnt its labels by heart looks
better than it is.
"""

from __future__ import annotations

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.evaluation.evaluator import evaluate
from tad.ops.iou import paired_tiou, tiou
from tad.selection.reference import Reference

TIOUS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)


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


def classes_role(data: Dataset) -> Role | None:
    """Whose classes judge: the dev videos' if one of these has a class, else the training videos'; None: nobody's."""
    roles: tuple[Role, ...] = ("dev", "train")
    return next((role for role in roles if any(len(data.video_classes(v)) for v in data.videos(role))), None)


def classes_score(detections: Segments, data: Dataset, role: Role) -> float:
    """How well detections rank videos by what is in them, 0..1: mAP over the given classes of a role's videos.

    A video is ranked in a class by its best detection of it, and is right where the class is given. Videos without any
    label are left out. This score is weak. It does not see boundaries, nor how often an action takes place: a model
    with a better classifier and worse boundaries wins by it. On training videos it says still less, because detections
    there may be of the given classes by construction; then all rounds have 1, or nearly.
    """
    videos = [v for v in data.videos(role) if data.supervision(v) != "none"]
    given = [(v, data.classes[c]) for v in videos for c in data.video_classes(v)]
    wanted = set(videos)
    detections = detections.filter(np.array([v in wanted for v in detections.video_ids], dtype=bool))
    if not given or not len(detections):
        return 0.0
    best: dict[tuple[str, str], float] = {}
    for video, label, score in zip(detections.video_ids, detections.labels, detections.score.tolist(), strict=True):
        best[video, label] = max(best.get((video, label), score), score)
    return evaluate(_whole(list(best), list(best.values())), _whole(given, 1.0), (1.0,), videos=videos).average


def _whole(found: list[tuple[str, str]], score: list[float] | float) -> Segments:
    """A video and class each as one segment of a second, so that mAP of segments ranks videos."""
    video, label = zip(*found, strict=True)
    start = np.zeros(len(found))
    return Segments.of(video, start, start + 1, label, score)


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


def label_change(old: Segments, new: Segments) -> float:
    """Mean tIoU between two rounds' pseudo-labels of the same action: 1 is no change, 0 nothing in common.

    Rows that name a point are matched by video, class and point (to the millisecond); of several rows for one point the
    best score counts. The others are matched within their video and class, one to one, the largest tIoU first. A
    pseudo-label that has no partner counts 0. Two empty tables have not changed: 1.
    """
    a, b = _by_point(old), _by_point(new)
    shared = sorted(a.keys() & b.keys())
    by_point = _tious(old, new, [a[k] for k in shared], [b[k] for k in shared])
    rest = old.filter(np.isnan(old.point)), new.filter(np.isnan(new.point))
    matched = _matched(*rest)
    alone = len(a.keys() ^ b.keys()) + len(rest[0]) + len(rest[1]) - 2 * len(matched)
    every = np.concatenate([by_point, matched, np.zeros(alone)])
    return float(every.mean()) if len(every) else 1.0


def _tious(old: Segments, new: Segments, rows: list[int], others: list[int]) -> np.ndarray:
    return paired_tiou(old.spans[rows], new.spans[others]) if rows else np.zeros(0)


def _matched(old: Segments, new: Segments) -> np.ndarray:
    """tIoU of the pairs of the greedy matching, those that overlap."""
    found: list[float] = []
    theirs = new.by_video()
    for video, mine in old.by_video().items():
        other = theirs.get(video, Segments.empty())
        same = np.array(mine.labels, dtype=str)[:, None] == np.array(other.labels, dtype=str)[None, :]
        overlap = np.where(same, tiou(mine.spans, other.spans), 0.0)
        row, column = np.nonzero(overlap)
        free = np.ones(len(mine), dtype=bool), np.ones(len(other), dtype=bool)
        for i in np.lexsort((column, row, -overlap[row, column])):
            if free[0][row[i]] and free[1][column[i]]:
                free[0][row[i]] = free[1][column[i]] = False
                found.append(float(overlap[row[i], column[i]]))
    return np.array(found)


def _by_point(labels: Segments) -> dict[tuple[str, str, int], int]:
    """The best row of each point: by video, class and millisecond."""
    best: dict[tuple[str, str, int], int] = {}
    videos, names, point = labels.video_ids, labels.labels, labels.point
    for row in np.lexsort((labels.end, labels.start, -labels.score)):
        if not np.isnan(point[row]):
            best.setdefault((videos[row], names[row], round(1000 * point[row])), int(row))
    return best
