"""Whether scores mean what they say: of the detections with a score in [.7, .8), how many are right?

Source of the expected calibration error: Naeini, Cooper and Hauskrecht, AAAI 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tad.evaluation.evaluator import Judged

BINS = 10


class Bin(NamedTuple):
    """Detections with scores in [low, high); the last bin has 1, too.

    Attributes:
        score: their mean; None if there are none.
        right: share of them that is right; None if there are none.
    """

    low: float
    high: float
    detections: int
    score: float | None
    right: float | None


def reliability(judged: Judged, bins: int = BINS) -> list[Bin] | None:
    """The detections of all classes by score, in bins of equal width; None if a score lies outside [0, 1]."""
    score = judged.score
    if len(score) and (score.min() < 0 or score.max() > 1):
        return None
    # Against the edges as they are shown: 0.7 lies in [.7, .8), though 0.7 * 10 is a hair below 7.
    edges = np.round(np.arange(bins + 1) / bins, 12)
    place = np.clip(np.searchsorted(edges, score, side="right") - 1, 0, bins - 1)
    found = []
    for i in range(bins):
        own = place == i
        number = int(own.sum())
        mean = (float(score[own].mean()), float(judged.right[own].mean())) if number else (None, None)
        found.append(Bin(float(edges[i]), float(edges[i + 1]), number, *mean))
    return found


def calibration_error(bins: Sequence[Bin]) -> float | None:
    """Expected calibration error: how far the share that is right lies from the mean score, over all detections; None
    without any."""
    total = sum(b.detections for b in bins)
    apart = [b.detections * abs(b.right - b.score) for b in bins if b.right is not None and b.score is not None]
    return sum(apart) / total if total else None


def to_json(bins: Sequence[Bin]) -> dict[str, Any]:
    """Plain values: the bins, and `calibration_error`."""
    return {"bins": [b._asdict() for b in bins], "calibration_error": calibration_error(bins)}
