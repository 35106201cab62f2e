"""Proposals from curves: runs over several thresholds, scored by outer-inner contrast.

Source: HR-Pro (AAAI 2024) section 3.3 and its code. By default it differs from them where that measured better on
held-out training videos: half-snippet-correct interpolation, symmetric margins, contrast on the curve as it is, the
video's class score as a factor, and no repeated runs.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from tad import bounds
from tad.methods.roles import Round
from tad.ops.fusion import Aggregate, Overlap, gaussian_fusion
from tad.ops.grouping import inner_mean, outer_inner_contrast, threshold_runs, upsample
from tad.ops.nms import classwise_nms, compiled
from tad.stages import StageConfig


def steps(start: float, stop: float, step: float) -> list[float]:
    """start, start + step, ... up to and including stop."""
    return [round(start + i * step, 6) for i in range(round((stop - start) / step) + 1)]


class FusionOptions(StageConfig):
    """How Gaussian weighted fusion groups segments and what it makes of a group; see tad.ops.fusion."""

    temperature: float = Field(
        default=0.2,
        gt=0,
        le=bounds.TEMPERATURE,
        description="of the weights in a group: low keeps its best segment, high is the plain mean",
    )
    overlap_threshold: float = Field(
        default=0.25, ge=0, lt=1, description="a segment is fused with a better one if they overlap by more than this"
    )
    overlap: Overlap = Field(
        default="inter/candidate", description="share of the lesser segment, tIoU, or share of the shorter one"
    )
    aggregate: Aggregate = Field(
        default="mean", description="score of a group; the published mean ranks it below its best segment"
    )


class CandidateFusion(FusionOptions):
    """Fusion of proposals."""

    weight: Literal["confidence", "inner"] = Field(
        default="confidence",
        description="what weighs a proposal: its score, or, as released, the mean of its class's curve in it",
    )


class RunsConfig(StageConfig):
    """How curves become runs, and how these are scored."""

    train_classes: Literal["given", "predicted"] = Field(
        default="given", description="classes of training videos: those of their points, or the predicted ones"
    )
    class_threshold: float = Field(default=0.5, ge=0, le=1, description="a class is predicted at this video score")
    scale: int = Field(default=2, ge=1, le=bounds.PARTS, description="interpolated samples per snippet")
    centred: bool = Field(
        default=True, description="false: the published interpolation, whose runs are up to half a snippet early"
    )
    cas_thresholds: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=steps(0, 0.225, 0.025),
        min_length=1,
        max_length=bounds.ITEMS,
        description="thresholds on each class's curve",
    )
    actionness_thresholds: list[Annotated[float, Field(ge=0, le=1)]] = Field(
        default=steps(0.3, 0.7, 0.05),
        max_length=bounds.ITEMS,
        description="thresholds on actionness; its runs are proposals of every class",
    )
    margin: float = Field(
        default=0.25, gt=0, le=bounds.SHARE, description="outside of a run on each side, as a share of its length"
    )
    symmetric: bool = Field(default=True, description="false: the published margins, longer on the left")
    contrast: Literal["plain", "zeroed"] = Field(
        default="plain", description="zeroed: the published rule, a class's curve below the threshold counts as zero"
    )
    video_factor: bool = Field(default=True, description="multiply the contrast by the video's score of the class")
    video_bonus: float = Field(
        default=0.0,
        ge=0,
        le=bounds.WEIGHT,
        description="share of the video's score of the class that is added; LACP has 0.2, POTLoc 0.25",
    )
    repeats: bool = Field(
        default=False, description="true: the published list, with a run once for each threshold that yields it"
    )


class CandidateConfig(RunsConfig):
    """How curves become proposals."""

    nms: Literal["none", "soft", "hard", "gaufuse"] = Field(
        default="soft", description="what is done with overlapping proposals of a class; gaufuse: they are fused"
    )
    sigma: float = Field(
        default=0.3, gt=0, le=bounds.TEMPERATURE, description="width of the Gaussian of soft suppression"
    )
    iou_threshold: float = Field(default=0.6, gt=0, le=1, description="tIoU from which hard suppression drops")
    stretch: float = Field(
        default=0.0,
        ge=0,
        le=bounds.SECONDS,
        description="seconds by which all proposals end later in suppression; published codes have 1",
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
    if config.nms == "none":
        return found
    if config.nms == "gaufuse":
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
    thresholds = np.array(config.cas_thresholds)
    agnostic, _ = threshold_runs(shared, config.actionness_thresholds)

    parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for label, curve in zip(labels, curves, strict=True):
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
        method="hard" if config.nms == "hard" else "gaussian",
        sigma=config.sigma,
        iou_threshold=config.iou_threshold,
        min_score=-1e9 if config.nms == "hard" or config.stretch else 0.001,
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
    return ({} if suppressed else {"nms": "none"}) | ({} if round.known else {"train_classes": "predicted"})
