"""Simple rules and oracles beside which labelers are measured. Each gives [G, 2] seconds, NaN where it has none."""

from __future__ import annotations

import numpy as np

from benchmarks.references.point_protocols import Protocol
from tad.methods.common.seeds import SHORTEST, neighbour_times
from tad.methods.points.labeler import PointsLabeler
from tad.methods.points.model import PointModel
from tad.methods.potloc.labeler import algorithm_one, first_best, pairs
from tad.ops.iou import paired_tiou

SIGMA = 0.25
"""Of the Gaussian in the point's distance from a proposal's centre, in lengths."""
SCALES = np.array([0.5, 0.625, 0.75, 0.875, 1.0, 1.25, 1.5, 1.75, 2.0])
SHIFTS = np.linspace(-0.5, 0.5, 9)
"""Of the bag: 81 scaled and shifted copies."""
HALF_SNIPPET = 0.28
"""Seconds by which POTLoc's proposals are early: its decoder puts the value of snippet i, the centre of which is at
(i + 0.5) * 0.64 s, to i * 0.64 s, and ends runs half a step of 0.08 s late."""
FOLDS = 5
"""Of the videos, for what an oracle learns from those of the others."""


def highest(of: Protocol) -> np.ndarray:
    """The highest-scoring proposal that contains the point, as it is."""
    best = first_best(*pairs(of.points, of.grouped), of.grouped.scores, len(of.truth))
    return np.where(best[:, None] >= 0, of.grouped.spans[best], np.nan)


def territories(of: Protocol) -> np.ndarray:
    """[G, 2] seconds up to halfway to the neighbours of the class and to the ends of the video."""
    time = of.points.time
    before, after = neighbour_times(time, of.points.group, same_class=True)
    return np.stack([np.maximum((before + time) / 2, 0), np.minimum((after + time) / 2, of.points.duration)], axis=1)


def cut(of: Protocol, spans: np.ndarray) -> np.ndarray:
    """Segments cut to the points' territories."""
    return np.clip(spans, *(x[:, None] for x in territories(of).T))


def highest_cut(of: Protocol) -> np.ndarray:
    return cut(of, highest(of))


def gaussian_fusion(of: Protocol) -> np.ndarray:
    """Mean boundaries of the proposals that contain the point, cut, weighted by score x Gaussian of the centredness."""
    source, owner = pairs(of.points, of.grouped)
    spans = np.clip(of.grouped.spans[source], *(x[owner, None] for x in territories(of).T))
    spans, owner, source = (x[spans[:, 1] - spans[:, 0] > SHORTEST] for x in (spans, owner, source))
    off = (of.points.time[owner] - spans.mean(axis=1)) / (spans[:, 1] - spans[:, 0])
    weight = np.maximum(of.grouped.scores[source] * np.exp(-0.5 * (off / SIGMA) ** 2), 1e-9)
    sums = np.stack([np.bincount(owner, weight * x, len(of.truth)) for x in spans.T], axis=1)
    with np.errstate(invalid="ignore"):
        fused = sums / np.bincount(owner, weight, len(of.truth))[:, None]
    return np.where(np.isnan(fused), released_labels(of), fused)


def released_labels(of: Protocol) -> np.ndarray:
    """POTLoc's released rule, not cut to the video."""
    return algorithm_one(of.points, of.grouped, "released", len(of.data.classes)).spans


def later(of: Protocol) -> np.ndarray:
    """POTLoc's released rule on proposals moved by the half snippet that their clock is wrong by."""
    moved = of.grouped._replace(spans=of.grouped.spans + HALF_SNIPPET)
    return algorithm_one(of.points, moved, "released", len(of.data.classes)).spans


def recentred(of: Protocol) -> np.ndarray:
    """POTLoc's labels moved so that the point is their centre."""
    spans = released_labels(of)
    return spans + (of.points.time - spans.mean(axis=1))[:, None]


def recentred_cut(of: Protocol) -> np.ndarray:
    return cut(of, recentred(of))


def oracle_proposal(of: Protocol) -> np.ndarray:
    """Of the proposals that contain the point, cut, the one nearest to its instance."""
    source, owner = pairs(of.points, of.grouped)
    spans = np.clip(of.grouped.spans[source], *(x[owner, None] for x in territories(of).T))
    tiou = np.nan_to_num(paired_tiou(spans, of.truth[owner]))
    best = first_best(np.arange(len(owner)), owner, tiou, len(of.truth))
    return np.where(best[:, None] >= 0, spans[best], np.nan)


def oracle_bag(of: Protocol) -> np.ndarray:
    """Of 81 scaled and shifted copies of POTLoc's label, cut to the video, the one nearest to the point's instance."""
    spans = released_labels(of)
    length = spans[:, 1] - spans[:, 0]
    best, value = spans, np.full(len(spans), -1.0)
    for scale in SCALES:
        for shift in SHIFTS:
            centre = spans.mean(axis=1) + shift * length
            copy = np.stack([centre - scale * length / 2, centre + scale * length / 2], axis=1)
            copy = np.clip(copy, 0.0, of.points.duration[:, None])
            tiou = np.nan_to_num(paired_tiou(copy, of.truth))
            best = np.where((tiou > value)[:, None], copy, best)
            value = np.maximum(tiou, value)
    return best


def of_points(of: Protocol) -> np.ndarray:
    """Labels of `points`, not cut to the video."""
    return PointModel(of.points, of.grouped, len(of.data.classes), PointsLabeler()).label().spans


def stretched(of: Protocol, spans: np.ndarray, log_factor: np.ndarray) -> np.ndarray:
    """Segments [G, 2] made longer by exp of the factors [G], each about its point."""
    time = of.points.time[:, None]
    return np.clip(time + (spans - time) * np.exp(log_factor)[:, None], 0.0, of.points.duration[:, None])


def oracle_length(of: Protocol) -> np.ndarray:
    """Labels of `points` with the true length; the point stays where it is in the label."""
    spans = of_points(of)
    return stretched(of, spans, log_length(of.truth) - log_length(spans))


def oracle_centre(of: Protocol) -> np.ndarray:
    """Labels of `points` with the true centre and their own length."""
    spans = of_points(of)
    moved = spans + (of.truth.mean(axis=1) - spans.mean(axis=1))[:, None]
    return np.clip(moved, 0.0, of.points.duration[:, None])


def oracle_class_lengths(of: Protocol) -> np.ndarray:
    """Labels of `points`, those of each class made longer by one factor: the median that the truth of the class has in
    other videos."""
    spans = of_points(of)
    missing = log_length(of.truth) - log_length(spans)
    fold = (np.random.default_rng(0).permutation(len(of.videos)) % FOLDS)[of.video]
    factor = np.zeros(len(spans))
    for index in np.unique(of.label):
        for k in range(FOLDS):
            mine = of.label == index
            others = missing[mine & (fold != k) & ~np.isnan(missing)]
            factor[mine & (fold == k)] = np.median(others) if len(others) else 0.0
    return stretched(of, spans, factor)


def log_length(spans: np.ndarray) -> np.ndarray:
    """[G] natural logs of lengths in seconds."""
    return np.log(spans[:, 1] - spans[:, 0])
