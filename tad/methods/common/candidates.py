"""Proposals from curves: runs over several thresholds, scored by outer-inner contrast.

Source: HR-Pro (AAAI 2024) section 3.3 and its code. By default it differs from them where that measured better on
held-out training videos: half-snippet-correct interpolation, symmetric margins, no repeated runs, and thresholds up to
half of what a class's curve reaches in the video. With values below the threshold counting as zero, the highest
threshold whose run holds a point decides how long its best proposal is; half the height made the best labels on dev
videos of two real datasets (docs/results/real.md).
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import numpy as np

from tad import bounds
from tad.methods.roles import Round
from tad.ops.fusion import Aggregate, Overlap, gaussian_fusion
from tad.ops.grouping import inner_mean, outer_inner_contrast, threshold_runs, upsample
from tad.ops.nms import classwise_nms, compiled
from tad.options import option
from tad.ranges import Choice, Float, Integer, Steps
from tad.stages import StageConfig


def steps(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... up to and including stop."""
    return [round(start + i * step, 6) for i in range(round((stop - start) / step) + 1)]


class FusionOptions(StageConfig):
    """How Gaussian weighted fusion groups segments and what it makes of a group; see tad.ops.fusion."""

    temperature: bounds.Temperature = option(
        0.2,
        "of the weights in a group: low keeps its best segment, high is the plain mean",
        tune=Float(5e-3, 2.0, log=True),
        why="code .2; high is the plain mean of a group",
    )
    overlap_threshold: bounds.Chance = option(
        0.25,
        "a segment is fused with a better one if they overlap by more than this",
        tune=Float(0.15, 0.7),
        why="code .25; higher fuses fewer candidates into more labels or detections",
    )
    overlap: Overlap = option(
        "inter/candidate",
        "share of the lesser segment, tIoU, or share of the shorter one",
        tune=Choice("inter/candidate", "iou", "inter/min"),
        why="code inter/candidate; iou leaves short candidates inside long ones alone",
    )
    aggregate: Aggregate = option(
        "mean",
        "score of a group; the published mean ranks it below its best segment",
        tune=Choice("mean", "max", "noisy-or"),
        why="code mean, which lowers the score where many agree",
    )


class CandidateFusion(FusionOptions):
    """Fusion of proposals."""

    weight: Literal["confidence", "inner"] = option(
        "confidence",
        "what weighs a proposal: its score, or, as released, the mean of its class's curve in it",
        tune=Choice("confidence", "inner"),
        why="paper confidence, code inner",
    )


class RunsConfig(StageConfig):
    """How curves become runs, and how these are scored."""

    train_classes: Literal["given", "predicted"] = option(
        "given", "classes of training videos: those of their points, or the predicted ones", paper="predicted"
    )
    class_threshold: bounds.Fraction = option(
        0.2,
        "a class is predicted at this video score",
        paper=0.5,
        free=True,
        tune=Float(0.05, 0.7),
        why="HR-Pro .5, POTLoc .65; lower where videos hold many classes",
    )
    scale: bounds.Parts = option(
        2,
        "interpolated samples per snippet",
        paper=2,
        tune=Choice(2, 4, 8, 24),
        why="HR-Pro 2, POTLoc 8, LACP 24; finer for actions of a few snippets, at linear cost",
    )
    centred: bool = option(
        True, "false: the published interpolation, whose runs are up to half a snippet early", paper=False
    )
    cas_thresholds: list[bounds.Fraction] = option(
        steps(0.05, 0.5, 0.05),
        "thresholds on each class's curve",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=steps(0, 0.225, 0.025),
        tune=Steps(Float(0.0, 0.15), Float(0.16, 0.9), Integer(4, 20)),
        why="as levels HR-Pro 0 to .25, POTLoc 0 to .175; the highest decides how long seeds are",
    )
    relative: bool = option(
        True,
        "thresholds on a class's curve are shares of its highest value in the video, so .5 is half of it; false: "
        "absolute levels, as published",
        paper=False,
    )
    actionness_thresholds: list[bounds.Fraction] = option(
        steps(0.3, 0.7, 0.05),
        "thresholds on actionness; its runs are proposals of every class",
        max_length=bounds.ITEMS,
        paper=steps(0.5, 0.7, 0.025),
        tune=Steps(Float(0.1, 0.5), Float(0.6, 0.98), Integer(4, 30)),
        why="HR-Pro .5 to .7, POTLoc .3 to .975; below .1 a run is the whole video",
    )
    margin: bounds.Ratio = option(
        0.25,
        "outside of a run on each side, as a share of its length",
        paper=0.25,
        tune=Float(0.1, 0.5),
        why="HR-Pro .25, POTLoc .2; how far around a run the contrast looks",
    )
    symmetric: bool = option(True, "false: the published margins, longer on the left", paper=False)
    contrast: Literal["zeroed", "plain"] = option(
        "zeroed",
        "zeroed: a class's curve below the threshold counts as zero; plain: as it is",
        paper="zeroed",
        tune=Choice("zeroed", "plain"),
        why="paper zeroed; plain keeps runs of low thresholds ahead, so seeds are longer",
    )
    video_factor: bool = option(
        False,
        "multiply the contrast by the video's score of the class",
        paper=False,
        tune=Choice(False, True),
        why="paper false; true holds down classes that the video hardly shows",
    )
    video_bonus: bounds.Weight = option(
        0.0,
        "share of the video's score of the class that is added; LACP has 0.2, POTLoc 0.25",
        tune=Float(0.0, 0.5),
        why="HR-Pro 0, LACP .2, POTLoc .25; share of the video's class score",
    )
    repeats: bool = option(
        False, "true: the published list, with a run once for each threshold that yields it", paper=True
    )


class CandidateConfig(RunsConfig):
    """How curves become proposals."""

    suppression: Literal["none", "soft-nms", "nms", "gaufuse"] = option(
        "soft-nms",
        "overlapping proposals of a class: lower their scores, drop them, or fuse them",
        paper="soft-nms",
        tune=Choice("soft-nms", "nms"),
        why="HR-Pro soft-nms, POTLoc nms, which leaves fewer proposals to the labeler",
        when=("labeler.method", ("pser", "pser-seed", "potloc", "points")),
        formerly="nms",
        old_words={"soft-nms": "soft", "nms": "hard"},
    )
    sigma: bounds.Temperature = option(
        0.3,
        "soft-nms: width of the Gaussian",
        paper=0.3,
        tune=Float(0.1, 1.0, log=True),
        why="paper .3; above 1 overlapping proposals hardly lose score",
        when=("suppression", "soft-nms"),
    )
    iou_threshold: bounds.PositiveFraction = option(
        0.6,
        "nms: the tIoU from which it drops",
        tune=Float(0.4, 0.8),
        why="POTLoc .6; the tIoU from which a proposal is dropped",
        when=("suppression", "nms"),
    )
    stretch: bounds.Seconds = option(
        0.0, "seconds by which all proposals end later in suppression; published codes have 1", paper=1.0
    )
    fusion: CandidateFusion = CandidateFusion()


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
    cas: np.ndarray,
    actionness: np.ndarray,
    video: np.ndarray,
    known: np.ndarray,
    config: CandidateConfig,
    second: float = 1.0,
) -> Candidates:
    """Proposals of one video, suppressed or fused as the config says.

    Args:
        cas: [T, C] fused class scores.
        actionness: [T].
        video: [C] video scores.
        known: [K] class indices; empty to use the predicted ones.
        config: thresholds, scoring and suppression.
        second: snippets in a second; suppression with a stretch alone needs it.
    """
    found = scored_runs(cas, actionness, video, known, config)
    if config.suppression == "none":
        return found
    if config.suppression == "gaufuse":
        return fused(found, cas, config, second)
    return suppressed(found, config, second)


def scored_runs(
    cas: np.ndarray, actionness: np.ndarray, video: np.ndarray, known: np.ndarray, config: RunsConfig
) -> Candidates:
    """All runs of one video, best copy of each (span, class) unless the published repeats are asked for.

    Arguments are those of `candidates`.
    """
    labels = known if len(known) else predicted_classes(video, config.class_threshold)
    *curves, shared = upsample(np.vstack([cas.T[labels], actionness]), config.scale, config.centred)
    agnostic, _ = threshold_runs(shared, config.actionness_thresholds)

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for label, curve in zip(labels, curves, strict=True):
        # The published interpolation extrapolates beyond the last row, which is no height of the curve.
        height = min(curve.max(), cas[:, label].max()) if config.relative else 1.0
        thresholds = np.array(config.cas_thresholds) * height
        swept, index = threshold_runs(curve, thresholds)
        spans, floors = np.concatenate([swept, agnostic]), None
        if config.contrast == "zeroed":
            floors = np.concatenate([thresholds[index], np.full(len(agnostic), -np.inf)])
        score = outer_inner_contrast(curve, spans, config.margin, config.symmetric, floors)
        if config.video_factor:
            score *= video[label]
        score += config.video_bonus * video[label]
        # One number for each span, as sorting by one is several times quicker than by two.
        key = spans[:, 0] * (len(curve) + 1) + spans[:, 1]
        order = best_first(np.argsort(key, kind="stable"), key, score)
        if not config.repeats:
            order = order[np.diff(key[order], prepend=-1) != 0]
        spans, score = spans[order], score[order]
        parts.append((spans / config.scale, score, np.full(len(spans), label)))
    spans, score, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Candidates(spans, score.astype(np.float32), label)


@compiled
def best_first(order, key, score):  # type: ignore[no-untyped-def]
    """The order [N] of rows by key, changed to descend in score among rows of the same key."""
    for i in range(1, len(order)):
        row, place = order[i], i
        while place and key[order[place - 1]] == key[row] and score[order[place - 1]] < score[row]:
            order[place] = order[place - 1]
            place -= 1
        order[place] = row
    return order


def suppressed(found: Candidates, config: CandidateConfig, second: float) -> Candidates:
    """Class-wise suppression of one video's proposals; best first.

    The published codes take times for pixels: a segment reaches one second beyond its end. They drop nothing for its
    score alone.
    """
    reach = np.array([0.0, config.stretch * second])
    spans, score, label, _ = classwise_nms(
        found.spans + reach,
        found.scores,
        found.labels,
        method="hard" if config.suppression == "nms" else "gaussian",
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        min_score=-1e9 if config.suppression == "nms" or config.stretch else 0.001,
        limit=None,
    )
    return Candidates(spans - reach, score, label)


def fused(found: Candidates, cas: np.ndarray, config: CandidateConfig, second: float) -> Candidates:
    """Class-wise Gaussian weighted fusion of one video's proposals; best first."""
    options = config.fusion
    weights = found.scores if options.weight == "confidence" else inner_mean(cas, found.spans, found.labels)
    spans, scores, labels, _ = gaussian_fusion(
        found.spans,
        found.scores,
        weights,
        found.labels,
        temperature=options.temperature,
        overlap_threshold=options.overlap_threshold,
        overlap=options.overlap,
        aggregate=options.aggregate,
        stretch=config.stretch * second,
    )
    return Candidates(spans, scores.astype(np.float32), labels)


def reading(round: Round, suppressed: bool) -> dict[str, Any]:
    """Changes to the config of candidates for a round: no suppression, and no known classes where labels are none.

    Args:
        round: labels of its videos are not read unless it knows them, even if the points file also lists others.
        suppressed: False gives every candidate with its own score.
    """
    return ({} if suppressed else {"suppression": "none"}) | ({} if round.known else {"train_classes": "predicted"})
