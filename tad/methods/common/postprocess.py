"""What is done with overlapping detections, whatever the detector: soft-NMS, NMS, or Gaussian weighted fusion.

Source: GauFuse (CVPR 2023), which fuses detections where others suppress them. Changing it needs no training. Fusion
has other defaults here than for proposals: on held-out training videos, with detections that are many and well ranked,
the published ones lost 4 to 11 points of mAP against them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from tad import bounds
from tad.methods.common.candidates import FusionOptions
from tad.ops.fusion import Aggregate, Overlap, gaussian_fusion
from tad.ops.nms import classwise_nms
from tad.options import option
from tad.ranges import Choice, Float


class Postprocess(FusionOptions):
    """What is done with overlapping detections of a class; options without a method's name are those of gaufuse."""

    suppression: Literal["soft-nms", "nms", "gaufuse"] = option(
        "soft-nms",
        "lower the scores of overlapping detections, drop them, or fuse them",
        tune=Choice("soft-nms", "nms", "gaufuse"),
        why="ActionFormer, HR-Pro soft-nms, POTLoc nms, GauFuse fuses: boundaries are means of many",
        formerly="method",
    )
    sigma: bounds.Temperature = option(
        0.5,
        "soft-nms: width of the Gaussian",
        tune=Float(0.1, 1.0, log=True),
        why="ActionFormer .5, HR-Pro .3; above 1 overlapping detections hardly lose score",
        when=("suppression", "soft-nms"),
    )
    iou_threshold: bounds.PositiveFraction = option(
        0.5,
        "nms: the tIoU from which it drops",
        tune=Float(0.3, 0.7),
        why="POTLoc .45; the tIoU from which a detection is dropped",
        when=("suppression", "nms"),
    )
    temperature: bounds.Temperature = option(
        0.005,
        "of the weights in a group, in units of scores; published: 0.2",
        tune=Float(1e-3, 1.0, log=True),
        why="GauFuse .2; from nearly a copy of the best of a group to the plain mean",
        when=("suppression", "gaufuse"),
    )
    overlap_threshold: bounds.Chance = option(
        0.3,
        "a detection is fused with a better one above this; published: 0.25",
        tune=Float(0.15, 0.9),
        why="GauFuse .25; higher fuses fewer, and leaves more",
        when=("suppression", "gaufuse"),
    )
    overlap: Overlap = option(
        "iou",
        "tIoU, share of the lesser detection (published), or share of the shorter one",
        tune=Choice("inter/candidate", "iou", "inter/min"),
        why="GauFuse inter/candidate: what lies inside a better one always joins it",
        when=("suppression", "gaufuse"),
    )
    aggregate: Aggregate = option(
        "mean",
        "score of a group; the published mean ranks it below its best segment",
        tune=Choice("mean", "max", "noisy-or"),
        why="GauFuse mean, which lowers the score of a good one that others join",
        when=("suppression", "gaufuse"),
    )
    stretch: bounds.Seconds = option(0.0, "seconds by which all segments end later in overlaps; published codes have 1")


class Kept(NamedTuple):
    """Detections of a video after post-processing, best first."""

    spans: np.ndarray
    """[K, 2] in the unit of the input."""
    scores: np.ndarray
    """[K] float32."""
    labels: np.ndarray
    """[K] class indices."""


def postprocess(
    spans: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    config: Postprocess,
    *,
    min_score: float | None = None,
    limit: int | None = None,
    second: float = 1.0,
) -> Kept:
    """Class-wise post-processing of one video's detections.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N]; in fusion they are the weight variable, too, as in the paper.
        labels: [N] class indices.
        config: the method and its options.
        min_score: detections below it are dropped, after their scores were lowered or fused; None: none. Soft-NMS
            always leaves the best one of a class, NMS drops what is not above it.
        limit: most detections to keep, the best ones; None: all.
        second: a second in the unit of spans, for the stretch.
    """
    floor = -1e9 if min_score is None else min_score
    if config.suppression == "gaufuse":
        fused = gaussian_fusion(
            spans,
            scores,
            scores,
            labels,
            temperature=config.temperature,
            overlap=config.overlap,
            overlap_threshold=config.overlap_threshold,
            aggregate=config.aggregate,
            stretch=config.stretch * second,
        )
        best = np.flatnonzero(fused.scores >= floor)[:limit]
        return Kept(fused.spans[best], fused.scores[best].astype(np.float32), fused.labels[best])
    _, lowered, labels, rows = classwise_nms(
        spans + np.array([0.0, config.stretch * second]),
        scores,
        labels,
        method="hard" if config.suppression == "nms" else "gaussian",
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        min_score=floor,
        limit=limit,
    )
    return Kept(spans[rows], lowered, labels)
