"""Scores of detections from points alone, each a candidate for `select: points`; benchmarks.studies.objectives compares
them.

All of them judge detections in the training videos. `Surroundings` is what they may read: points (seen in training and
held out), and what the proposer of the configuration says.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.evaluator import average_precision, best_first
from tad.methods.roles import Round
from tad.methods.snippet.mining import mine
from tad.ops.iou import paired_tiou
from tad.selection.label_free_scores import points_score
from tad.selection.reference import Reference, by_proposals, reference
from tad.stages import Artifact

CONFIDENT = 2
"""So many detections for each point count as confident: the best ones of all videos."""


@dataclass(frozen=True)
class Surroundings:
    """What detections are judged by.

    Attributes:
        reference: of tad.selection.reference, from the features and the proposals of the configuration's proposer.
        proposals_alone: the same without features.
        background: by video, [T + 1] number of mined background rows before each row.
    """

    data: Dataset
    reference: Reference
    proposals_alone: Reference
    background: dict[str, np.ndarray]

    @classmethod
    def of(cls, round: Round) -> Surroundings:
        """From the round of a proposer that has scores."""
        data, scores = round.data, round.scores()
        assert scores is not None
        made, alone = reference(round), by_proposals(round.proposals().segments(), data)
        return cls(data, made, alone, {v: _background(data, scores, v) for v in made.videos})


def _background(data: Dataset, scores: Artifact, video: str) -> np.ndarray:
    curve = np.array(scores.array("background", video), dtype=np.float32)
    grid = data.grid(video, len(curve))
    points = np.zeros((1, len(curve), len(data.classes)), dtype=bool)
    for time, label in (*zip(*data.points(video), strict=True), *zip(*data.held_out(video), strict=True)):
        points[0, int(np.clip(grid.to_edge(time), 0, len(curve) - 1)), label] = True
    mask = torch.ones((1, len(curve)), dtype=torch.bool)
    mined = mine(torch.from_numpy(curve)[None], torch.from_numpy(points), mask).background[0].numpy()
    return np.append(0, np.cumsum(mined))


class Found:
    """Detections by class and descending score, and the points in each. N detections, G points."""

    def __init__(self, detections: Segments, of: Surroundings) -> None:
        table, self.classes = of.reference.segments, of.data.classes
        rank = {v: i for i, v in enumerate(of.reference.videos)}
        self.held = of.reference.judged
        self.time, self.point_label = table.point, table.label_index(self.classes)
        self.point_key = np.array([rank[v] for v in table.video_ids]) * len(self.classes) + self.point_label
        video = np.array([rank[v] for v in detections.video_ids], dtype=np.int64)
        label = detections.label_index(self.classes)
        order = best_first(label, detections.score, video, detections.spans)
        self.spans, self.score, self.label = detections.spans[order], detections.score[order], label[order]
        self.video = video[order]
        key = self.point_key + 1j * self.time  # complex numbers sort by their real part, then by the imaginary one
        mine = self.video * len(self.classes) + self.label
        self.first = np.searchsorted(key, mine + 1j * self.spans[:, 0], side="left")
        self.inside = np.searchsorted(key, mine + 1j * self.spans[:, 1], side="right") - self.first
        single = np.flatnonzero(self.inside == 1)
        self.hit = np.zeros(len(order), dtype=bool)
        self.hit[single[np.unique(self.first[single], return_index=True)[1]]] = True
        self.confident = np.zeros(len(order), dtype=bool)
        self.confident[np.argsort(-self.score, kind="stable")[: CONFIDENT * len(self.time)]] = True

    @property
    def holds_held(self) -> np.ndarray:
        """[N] bool: of detections that hold one point: it was held out."""
        return self.held[np.minimum(self.first, len(self.time) - 1)]

    def precision(self, hit: np.ndarray, judged: np.ndarray, points: np.ndarray) -> float:
        """Mean over classes of the average precision of `hit` among the `judged` detections, over `points`."""
        values = []
        for c in np.unique(self.point_label[points]):
            rows = judged & (self.label == c)
            values.append(average_precision(hit[rows], int((points & (self.point_label == c)).sum())))
        return float(np.mean(values))


def average_precision_over_points(found: Found, of: Surroundings) -> float:
    """A hit holds exactly one point of its class that no better detection has hit; all other detections are wrong."""
    everything = np.ones(len(found.hit), dtype=bool)
    return found.precision(found.hit, everything, np.ones(len(found.time), dtype=bool))


def over_points_seen(found: Found, of: Surroundings) -> float:
    """The same as if nothing had been held out: detections at held-out points are wrong."""
    seen = found.hit & ~found.holds_held
    return found.precision(seen, np.ones(len(seen), dtype=bool), ~found.held)


def over_points_held_out(found: Found, of: Surroundings) -> float:
    """The same over held-out points; detections that hold one point that was trained on count neither way."""
    hit = found.hit & found.holds_held
    return found.precision(hit, (found.inside != 1) | found.holds_held, found.held)


def recall_of_held_out(found: Found, of: Surroundings) -> float:
    """Share of the held-out points that a confident detection holds alone."""
    hit = found.hit & found.holds_held & found.confident
    return float(hit.sum() / found.held.sum())


def not_crowded(found: Found, of: Surroundings) -> float:
    """Share of the confident detections that do not hold several points of their class."""
    return float((found.inside[found.confident] < 2).mean()) if len(found.hit) else 0.0


def off_background(found: Found, of: Surroundings) -> float:
    """Share of the confident detections' time off the background that is mined between the points."""
    off = []
    for (start, end), video in zip(found.spans[found.confident], found.video[found.confident], strict=True):
        name = of.reference.videos[video]
        count = of.background[name]
        low, high = np.clip(
            np.round(of.data.grid(name, len(count) - 1).to_edge(np.array([start, end]))), 0, len(count) - 1
        )
        off.append(1 - (count[int(high)] - count[int(low)]) / max(high - low, 1))
    return float(np.mean(off)) if off else 0.0


def one_length_a_class(found: Found, of: Surroundings) -> float:
    """Minus the spread of the hits' log lengths within a class."""
    length = np.log(found.spans[:, 1] - found.spans[:, 0])
    spread = [
        length[rows].std() for c in range(len(found.classes)) if (rows := found.hit & (found.label == c)).sum() > 2
    ]
    return -float(np.mean(spread)) if spread else -np.inf


def room_to_neighbours(found: Found, of: Surroundings) -> float:
    """Mean over hits of the share of the detection that lies nearer to its point than to others of its class."""
    at = found.first[found.hit]
    before = np.where(np.append(True, np.diff(found.point_key) != 0), -np.inf, np.append(-np.inf, found.time[:-1]))
    after = np.where(np.append(np.diff(found.point_key) != 0, True), np.inf, np.append(found.time[1:], np.inf))
    low, high = ((x[at] + found.time[at]) / 2 for x in (before, after))
    start, end = found.spans[found.hit].T
    shared = np.minimum(end, high) - np.maximum(start, low)
    return float((shared / (end - start)).mean() * found.hit.sum() / len(found.time)) if len(at) else 0.0


def agreement_of_doubles(found: Found, of: Surroundings) -> float:
    """Mean over points of the tIoU between the best detection that holds it alone and the others, weighed by score."""
    rows = np.flatnonzero(found.inside == 1)
    best = np.full(len(found.time), -1)
    best[found.first[found.hit]] = np.flatnonzero(found.hit)
    mate = best[found.first[rows]]
    weight = np.maximum(found.score[rows], 0) * (rows != mate)
    total = np.bincount(found.first[rows], weight * paired_tiou(found.spans[rows], found.spans[mate]), len(found.time))
    weights = np.bincount(found.first[rows], weight, len(found.time))
    return float(np.divide(total, weights, out=np.zeros(len(found.time)), where=weights > 0).mean())


def against_all(detections: Segments, of: Surroundings) -> float:
    """mAP against the reference at all points."""
    return points_score(detections, replace(of.reference, judged=np.ones_like(of.reference.judged)))


def against_held_out(detections: Segments, of: Surroundings) -> float:
    """mAP against the reference at held-out points: `tad.selection.label_free_scores.points_score`."""
    return points_score(detections, of.reference)


def against_itself(detections: Segments, of: Surroundings) -> float:
    """mAP against a reference that is made of the detections."""
    best = np.argsort(-detections.score, kind="stable")[: 20 * len(of.reference.judged)]
    made = by_proposals(detections.take(best), of.data)
    return points_score(detections, replace(made, judged=np.ones_like(made.judged)))


def against_proposals_alone(detections: Segments, of: Surroundings) -> float:
    """mAP against the reference that reads no features, at held-out points."""
    return points_score(detections, of.proposals_alone)


CHOSEN = "mAP against the reference, held-out points"
OF_POINTS: dict[str, Callable[[Found, Surroundings], float]] = {
    "average precision over points, seen ones": over_points_seen,
    "average precision over points, all": average_precision_over_points,
    "average precision over points, held-out ones": over_points_held_out,
    "recall of held-out points": recall_of_held_out,
    "not crowded": not_crowded,
    "off mined background": off_background,
    "one length a class": one_length_a_class,
    "room to neighbours": room_to_neighbours,
    "agreement of doubles": agreement_of_doubles,
}
OF_SEGMENTS: dict[str, Callable[[Segments, Surroundings], float]] = {
    "mAP against a reference of themselves": against_itself,
    "mAP against a reference of proposals alone, held-out points": against_proposals_alone,
    "mAP against the reference, all points": against_all,
    CHOSEN: against_held_out,
}


def all_scores(detections: Segments, of: Surroundings) -> dict[str, float]:
    """Every design's value of the detections in the training videos."""
    found = Found(detections, of)
    return {n: f(found, of) for n, f in OF_POINTS.items()} | {n: f(detections, of) for n, f in OF_SEGMENTS.items()}
