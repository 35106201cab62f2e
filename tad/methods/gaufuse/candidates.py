"""Candidates of the RSKP model: runs of its curves over many thresholds, scored by inner-outer contrast, then fused.

Source: GauFuse (CVPR 2023), its released code. By default it differs from the code where that is off by one
(`released_edges`).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from tad import bounds
from tad.methods.common.candidates import CandidateFusion, Candidates, predicted_classes, steps
from tad.ops.fusion import gaussian_fusion
from tad.ops.grouping import threshold_runs
from tad.ops.nms import classwise_nms
from tad.options import group, option
from tad.ranges import Choice, Float
from tad.stages import StageConfig


def ratios(first: float, last: float, count: int) -> list[float]:
    """Values in equal ratios from `first` to `last`, to three digits: scores are products over orders of magnitude."""
    return [float(f"{value:.3g}") for value in np.geomspace(first, last, count)]


RELEASED = CandidateFusion(
    temperature=0.2, overlap_threshold=0.25, overlap="inter/candidate", aggregate="mean", weight="inner"
)
"""Fusion in the published code."""


class RskpCandidates(StageConfig):
    """How curves become candidates, and candidates proposals."""

    train_classes: Literal["given", "predicted"] = option(
        "given", "classes of training videos: those of their labels, or the predicted ones", paper="predicted"
    )
    class_threshold: bounds.Fraction = option(
        0.16,
        "a class is predicted at this video score",
        paper=0.16,
        free=True,
        tune=Float(0.0, 0.7),
        why="code .16; lower where videos hold many classes",
    )
    best_class: bool = option(
        True, "predict the best class where none reaches the threshold; released: none", paper=False
    )
    thresholds: list[bounds.Fraction] = option(
        ratios(0.0003, 0.04, 20),
        "a run is above a threshold throughout; released: 0.001 to 0.039 in equal steps",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=steps(0.001, 0.039, 0.002),
    )
    min_length: bounds.Snippets = option(2, "snippets of the shortest run", paper=2)
    widen: float = option(
        0.5,
        "snippets that a candidate gains at either end; curves learnt from classes peak within actions",
        ge=0,
        le=bounds.SNIPPETS,
        paper=0.0,
    )
    context: bounds.Ratio = option(
        0.0785,
        "outside on each side: context * length^exponent",
        paper=0.0785,
        tune=Float(0.03, 0.35),
        why="code .0785, RSKP .25; how far around a run the contrast looks",
    )
    exponent: float = option(
        0.9, "see context", ge=0, le=2, paper=0.9, tune=Float(0.7, 1.1), why="code .9, RSKP 1; of the run's length"
    )
    released_edges: bool = option(
        False,
        "the released code's: ends one snippet late, the inside one snippet longer, the outside without "
        "the snippet after the run and without the video's last one",
        paper=True,
    )
    suppression: Literal["none", "soft-nms", "nms", "gaufuse"] = option(
        "gaufuse",
        "overlapping candidates of a class: lower their scores, drop them, or fuse them",
        paper="gaufuse",
        tune=Choice("soft-nms", "nms"),
        why="HR-Pro soft-nms, POTLoc nms, which leaves fewer proposals to the labeler",
        when=("labeler.method", ("pser", "pser-seed", "potloc", "points")),
        formerly="nms",
        old_words={"soft-nms": "soft", "nms": "hard"},
    )
    sigma: bounds.Temperature = option(
        0.3,
        "soft-nms: width of the Gaussian",
        tune=Float(0.1, 1.0, log=True),
        why="paper .3; above 1 overlapping proposals hardly lose score",
        when=("suppression", "soft-nms"),
    )
    iou_threshold: bounds.PositiveFraction = option(0.25, "nms: the tIoU from which it drops")
    fusion: CandidateFusion = group(CandidateFusion(), paper=RELEASED)


class Scored(NamedTuple):
    """Runs of one curve, repeated for each threshold that yields them: so often they count in fusion."""

    spans: np.ndarray
    """[N, 2] float64, edges in snippets, widened."""
    contrast: np.ndarray
    """[N] float64 mean inside minus mean outside."""
    inner: np.ndarray
    """[N] float64 mean inside."""


def scored_runs(curve: np.ndarray, config: RskpCandidates) -> Scored:
    """The runs of a curve [T] above each threshold, of at least the minimum length."""
    above = np.nextafter(config.thresholds, np.inf)  # strictly, as published
    spans, _ = threshold_runs(curve, above)
    first, last = spans[spans[:, 1] - spans[:, 0] >= config.min_length].T
    rows = len(curve)
    reach = config.context * (last - first) ** config.exponent
    if config.released_edges:
        inside = np.minimum(last + 1, rows)
        left = np.maximum(np.trunc(first - reach), 0).astype(np.int64)
        start = np.minimum(last + 1, rows)
        right = np.maximum(np.minimum(np.trunc(last + reach + 1), rows - 1).astype(np.int64), start)
    else:
        inside = start = last
        margin = np.ceil(reach - 1e-9).astype(np.int64)
        left, right = np.maximum(first - margin, 0), np.minimum(last + margin, rows)
    sums = np.concatenate([[0.0], np.cumsum(curve, dtype=np.float64)])
    inner = (sums[inside] - sums[first]) / (inside - first)
    outside = sums[first] - sums[left] + sums[right] - sums[start]
    outer = outside / np.maximum(first - left + right - start, 1)
    ends = np.stack([first - config.widen, last + config.widen + config.released_edges], axis=1)
    return Scored(ends.clip(0, rows + config.released_edges), inner - outer, inner)


def rskp_candidates(cas: np.ndarray, video: np.ndarray, known: np.ndarray, config: RskpCandidates) -> Candidates:
    """Proposals of one video, best first if they are suppressed or fused.

    Args:
        cas: [T, C] attention times class probability.
        video: [C] class probabilities of the video.
        known: [K] class indices; empty to use the predicted ones.
        config: thresholds, scoring and suppression.
    """
    labels = known if len(known) else predicted_classes(video, config.class_threshold)
    if not len(known) and not config.best_class:
        labels = labels[video[labels] >= config.class_threshold]
    found = [scored_runs(np.ascontiguousarray(cas[:, c]), config) for c in labels]
    spans = np.concatenate([np.zeros((0, 2)), *(runs.spans for runs in found)])
    score = np.concatenate([np.zeros(0), *(runs.contrast for runs in found)])
    label = np.repeat(labels, [len(runs.spans) for runs in found])
    if config.suppression == "gaufuse":
        inner = np.concatenate([np.zeros(0), *(runs.inner for runs in found)])
        fusion = config.fusion
        spans, score, label, _ = gaussian_fusion(
            spans,
            score,
            score if fusion.weight == "confidence" else inner,
            label,
            temperature=fusion.temperature,
            overlap_threshold=fusion.overlap_threshold,
            overlap=fusion.overlap,
            aggregate=fusion.aggregate,
            stretch=float(config.released_edges),
        )
    elif config.suppression != "none":
        spans, score, label = suppressed(spans, score, label, config)
    return Candidates(spans, score.astype(np.float32), label)


def suppressed(
    spans: np.ndarray, score: np.ndarray, label: np.ndarray, config: RskpCandidates
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class-wise suppression of one video's candidates, each run once; best first."""
    _, once = np.unique(np.column_stack([spans, label]), axis=0, return_index=True)
    reach = np.array([0.0, float(config.released_edges)])
    kept, score, label, _ = classwise_nms(
        spans[once] + reach,
        score[once],
        label[once],
        method="hard" if config.suppression == "nms" else "gaussian",
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        min_score=-1e9 if config.suppression == "nms" else 0.001,
        limit=None,
    )
    return kept - reach, score, label
