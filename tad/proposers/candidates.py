"""Proposals from curves: runs over several thresholds, scored by outer-inner contrast.

Source: HR-Pro (AAAI 2024) section 3.3, in the form its code runs; the half-snippet-correct interpolation, symmetric
margins and the removal of repeats are ours.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from tad.ops.grouping import outer_inner_contrast, threshold_runs, upsample, zeroed_contrast
from tad.ops.nms import classwise_nms
from tad.stage import StageConfig


def steps(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... up to and including stop."""
    return [round(start + i * step, 6) for i in range(round((stop - start) / step) + 1)]


class CandidateConfig(StageConfig):
    """How curves become proposals."""

    train_classes: Literal["given", "predicted"] = Field(
        default="given", description="classes of training videos: those of their points, or the predicted ones"
    )
    class_threshold: float = Field(default=0.5, ge=0, le=1, description="a class is predicted at this video score")
    scale: int = Field(default=2, ge=1, description="interpolated samples per snippet")
    cas_thresholds: list[float] = Field(default=steps(0, 0.225, 0.025), description="thresholds on cas")
    actionness_thresholds: list[float] = Field(default=steps(0.5, 0.7, 0.025), description="thresholds on actionness")
    margin: float = Field(default=0.25, gt=0, description="outside of a run on each side, as a share of its length")
    symmetric: bool = Field(default=True, description="false: the published margins, longer on the left")
    zeroed: bool = True
    power: float = 0
    video_score: float = Field(default=0.0, ge=0, description="share of the video score added to the contrast")
    nms: Literal["none", "soft"] = Field(default="none", description="class-wise suppression of overlapping proposals")
    sigma: float = Field(default=0.3, gt=0, description="width of the Gaussian of soft suppression")


class Candidates(NamedTuple):
    """Proposals of one video."""

    spans: np.ndarray
    """[N, 2] float64, edges in snippets."""
    scores: np.ndarray
    """[N] float32; may be negative."""
    labels: np.ndarray
    """[N] int64 class indices."""


def predicted_classes(video: np.ndarray, threshold: float) -> np.ndarray:
    """[K] class indices whose video score [C] reaches the threshold; the best one if none does."""
    found = np.flatnonzero(video >= threshold)
    return found if len(found) else np.array([int(np.argmax(video))])


def candidates(
    cas: np.ndarray, actionness: np.ndarray, video: np.ndarray, known: np.ndarray, config: CandidateConfig
) -> Candidates:
    """Proposals of one video, best copy of each (span, class).

    Args:
        cas: [T, C] fused class scores.
        actionness: [T].
        video: [C] video scores.
        known: [K] class indices; empty to use the predicted ones.
        config: thresholds and scoring.
    """
    labels = known if len(known) else predicted_classes(video, config.class_threshold)
    curves = upsample(np.asarray(cas, dtype=np.float64)[:, labels], config.scale)
    shared = upsample(np.asarray(actionness, dtype=np.float64), config.scale)
    agnostic, _ = threshold_runs(shared, np.array(config.actionness_thresholds))
    agnostic = np.unique(agnostic, axis=0)
    thresholds = np.array(config.cas_thresholds)

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for label, curve in zip(labels, curves.T, strict=True):
        curve = np.ascontiguousarray(curve)
        spans, index = threshold_runs(curve, thresholds)
        # Outside a run of the class sweep, what lies below its threshold counts as zero.
        score = zeroed_contrast(curve, spans, index, thresholds, config.margin, config.symmetric) if config.zeroed else outer_inner_contrast(curve, spans, config.margin, config.symmetric)
        score = np.concatenate([score, outer_inner_contrast(curve, agnostic, config.margin, config.symmetric)])
        spans = np.concatenate([spans, agnostic])
        score = (score + config.video_score * video[label])*video[label]**config.power
        # Best copy first, then one row of each span.
        order = np.lexsort((-score, spans[:, 1], spans[:, 0]))
        spans, score = spans[order], score[order]
        keep = np.ones(len(spans), dtype=bool)
        keep[1:] = (spans[1:] != spans[:-1]).any(1)
        parts.append((spans[keep] / config.scale, score[keep], np.full(int(keep.sum()), label)))
    spans, score, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    if config.nms == "soft":
        spans, score, label, _ = classwise_nms(
            spans, score, label, method="gaussian", sigma=config.sigma, iou_threshold=0.5, min_score=0.001, limit=None
        )
    return Candidates(np.asarray(spans, dtype=np.float64), score.astype(np.float32), np.asarray(label, dtype=np.int64))

