"""Labeler `pser-seed`: for every point, the best proposal around it.

The seed rule of PseR (stage A of the paper; the rule is HR-Pro's and LACP's) and the control without refinement:
seeds used as pseudo-labels. Legend: G points, N proposals of one video.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, model_validator

from tad.data.dataset import Dataset, Points
from tad.data.segments import Segments
from tad.errors import DataError
from tad.published import fill_published
from tad.stage import Artifact, Context, Engine, StageConfig

FALLBACK_SCORE = 0.2
"""Score of a seed that no proposal stands behind, as in the published code."""

SHORTEST = 1e-3
"""Seconds; a proposal that is shorter once cut counts as none."""


class SeedRule(StageConfig):
    """Which proposal answers for a point."""

    neighbours: Literal["same-class", "any-class"] = Field(
        default="same-class", description="points that a proposal must not reach: those of its class, or all"
    )
    crossing: Literal["clip", "discard", "keep"] = Field(
        default="clip",
        description="where every proposal around a point reaches a neighbour: cut the best halfway to it, use none, or "
        "(HR-Pro) take the best as it is if its score is high enough",
    )
    min_score: float = Field(default=0.0, description="proposals that reach no neighbour need a score above this")
    half_width: float = Field(default=1.0, gt=0, description="seconds on either side of a point without a proposal")
    fallback: Literal["window", "none"] = Field(
        default="window", description="a point without a proposal: a window around it, or no seed"
    )
    inside_video: bool = Field(default=True, description="cut seeds at the ends of the video")


class Seeds(NamedTuple):
    """One seed for every point of a video."""

    spans: np.ndarray
    """[G, 2] float64 seconds."""
    scores: np.ndarray
    """[G] float64: the proposal's score; FALLBACK_SCORE where there is none."""
    fallback: np.ndarray
    """[G] bool: no proposal, so a window around the point."""


def distinct(points: Points) -> Points:
    """The points without repetitions of a time and class, ascending in time."""
    both = np.unique(np.stack([points.time, points.label.astype(np.float64)], axis=1), axis=0)
    return Points(both[:, 0], both[:, 1].astype(np.int64))


def neighbour_times(time: np.ndarray, label: np.ndarray, same_class: bool) -> tuple[np.ndarray, np.ndarray]:
    """Times of the previous and the next point of each point; -inf and inf where there is none.

    Args:
        time: [G] seconds, ascending.
        label: [G] class indices.
        same_class: look at points of the same class only.

    Returns:
        Two [G] float64 arrays in the order of the points.
    """
    group = label if same_class else np.zeros_like(label)
    order = np.lexsort((time, group))
    sorted_time, new_group = time[order], np.diff(group[order]) != 0
    previous, following = np.full(len(time), -np.inf), np.full(len(time), np.inf)
    previous[order[1:]] = np.where(new_group, -np.inf, sorted_time[:-1])
    following[order[:-1]] = np.where(new_group, np.inf, sorted_time[1:])
    return previous, following


def select_seeds(
    time: np.ndarray,
    label: np.ndarray,
    spans: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    rule: SeedRule,
    duration: float = np.inf,
) -> Seeds:
    """The best proposal of its class for every point of one video; of equal ones the first.

    A proposal answers for a point that it contains if it reaches no neighbouring point and its score is high enough
    (PseR, seed rule). Where none does: the highest-scoring one that contains the point, cut halfway to the
    neighbours of its class, if the rule clips, or as it is, if the rule keeps it and its score is high enough (HR-Pro,
    reliable proposals); a window around the point otherwise.

    Args:
        time: [G] seconds, ascending, without repetitions of a time and class (see `distinct`).
        label: [G] class indices.
        spans: [N, 2] seconds, proposals in their file's order.
        scores: [N].
        labels: [N] class indices; -1 never matches.
        rule: the options.
        duration: seconds; seeds are cut to the video if the rule says so.
    """
    holds = (labels == label[:, None]) & (spans[:, 0] <= time[:, None]) & (time[:, None] <= spans[:, 1])
    before, after = neighbour_times(time, label, rule.neighbours == "same-class")
    strong = holds & (scores > rule.min_score)
    alone = strong & (spans[:, 0] > before[:, None]) & (spans[:, 1] < after[:, None])

    seeds = np.stack([time - rule.half_width, time + rule.half_width], axis=1)
    chosen, found = _best(alone, scores)
    # Halfway to a neighbour of the same class; infinite where there is none, so nothing is cut there.
    halves = [(time + other) / 2 for other in neighbour_times(time, label, same_class=True)]
    cut = ~found & (rule.crossing == "clip")
    if rule.crossing != "discard":
        rescued, rescuable = _best(holds if rule.crossing == "clip" else strong, scores)
        chosen = np.where(found, chosen, rescued)
        found = found | rescuable
    if len(spans):
        seeds = np.where(found[:, None], spans[chosen], seeds)
    lower, upper = np.where(cut, halves[0], -np.inf), np.where(cut, halves[1], np.inf)
    if rule.inside_video:
        lower, upper = np.maximum(lower, 0.0), np.minimum(upper, duration)
    seeds = np.clip(seeds, lower[:, None], upper[:, None])
    gone = seeds[:, 1] - seeds[:, 0] < SHORTEST
    if gone.any():  # a sliver of a proposal, or one that lies beyond the end of the video
        window = np.stack([time - rule.half_width, time + rule.half_width], axis=1)
        seeds[gone] = np.clip(window, lower[:, None], upper[:, None])[gone]
        found = found & ~gone
    values = scores[chosen] if len(spans) else np.zeros(len(time))
    return Seeds(seeds, np.where(found, values, FALLBACK_SCORE), ~found)


def _best(allowed: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[G] index of the highest-scoring allowed proposal of each row (0 where there is none) and [G] whether one is."""
    if not allowed.shape[1]:
        return np.zeros(len(allowed), dtype=np.int64), np.zeros(len(allowed), dtype=bool)
    best = np.where(allowed, scores, -np.inf).argmax(axis=1)
    return best, np.asarray(allowed.any(axis=1))


class Proposals:
    """The proposals of all videos, checked against the dataset.

    Raises:
        DataError: proposals of classes that the dataset does not have, or of none of the videos to label.
    """

    def __init__(self, context: Context) -> None:
        artifact = context.inputs["proposals"]
        segments, self.data = artifact.segments(), context.data
        unknown = sorted(set(segments.labels) - set(self.data.classes))
        if unknown:
            raise DataError(
                f"{artifact.path}: proposals of classes that {self.data.root} does not have: {', '.join(unknown)}; "
                f"its classes are {', '.join(self.data.classes)}"
            )
        self.by_video = segments.by_video()
        if len(segments) and not set(self.by_video) & set(context.videos):
            raise DataError(
                f"{artifact.path}: no proposal is of a video to label; it has videos such as "
                f"{next(iter(self.by_video))}, the dataset such as {next(iter(context.videos))}"
            )

    def seeds(self, video: str, rule: SeedRule) -> tuple[Points, Seeds]:
        """The distinct points of a video that get a seed, and their seeds, [G] each."""
        return video_seeds(self.data, video, self.by_video.get(video), rule)


def video_seeds(data: Dataset, video: str, proposals: Segments | None, rule: SeedRule) -> tuple[Points, Seeds]:
    """The distinct points of a video that get a seed, and their seeds.

    Args:
        data: the dataset.
        video: its id.
        proposals: those of this video, None for none.
        rule: the options; with fallback "none", points without a proposal are left out.
    """
    points = distinct(data.points(video))
    proposals = Segments.empty() if proposals is None else proposals
    seeds = select_seeds(
        points.time,
        points.label,
        proposals.spans,
        proposals.score,
        proposals.label_index(data.classes),
        rule,
        data.duration(video),
    )
    if rule.fallback == "none":
        kept = ~seeds.fallback
        points, seeds = Points(*(x[kept] for x in points)), Seeds(*(x[kept] for x in seeds))
    return points, seeds


@dataclass(frozen=True)
class SeedSelection:
    """Map stage: the seeds of every video, cut to the video, one for every distinct point, scores cut to [0, 1]."""

    config: SeedRule
    name: str = "pser/seed"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        proposals, data = Proposals(context), context.data

        def label(video: str) -> Segments:
            points, seeds = proposals.seeds(video, self.config)
            spans = inside(seeds.spans, 0.0, data.duration(video))
            names = [data.classes[i] for i in points.label]
            scores = np.clip(seeds.scores, 0.0, 1.0)
            return Segments.of(video, spans[:, 0], spans[:, 1], names, scores, points.time, context.source)

        return label


def inside(spans: np.ndarray, lower: float, upper: float) -> np.ndarray:
    """[G, 2] cut to [lower, upper] seconds; one with nothing left becomes the shortest segment at that end."""
    spans = np.clip(spans, lower, upper)
    gone = spans[:, 1] - spans[:, 0] < SHORTEST
    if gone.any():
        start = np.clip(spans[gone].mean(1) - SHORTEST / 2, lower, max(lower, upper - SHORTEST))
        spans[gone] = np.stack([start, start + SHORTEST], axis=1)
    return spans


class SeedLabeler(StageConfig):
    """The seeds themselves as pseudo-labels."""

    method: Literal["pser-seed"] = "pser-seed"
    faithful: bool = Field(default=False, description="the published rule; sets the options of seed_rule")
    seed_rule: SeedRule = SeedRule()

    wants_embedding: ClassVar[bool] = False
    wants_suppressed: ClassVar[bool] = True

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return fill_published(data, {"seed_rule": PUBLISHED_RULE})

    def seeds(self, engine: Engine, proposals: Artifact) -> Artifact:
        """Segments: one seed for every point of the training videos."""
        return engine.map(SeedSelection(self.seed_rule), {"proposals": proposals})

    def label(self, engine: Engine, proposals: Artifact, embedding: Artifact | None) -> Artifact:
        """Segments: the seeds."""
        return self.seeds(engine, proposals)


PUBLISHED_RULE: Mapping[str, Any] = {
    "neighbours": "any-class",
    "crossing": "discard",
    "min_score": 0.0,
    "half_width": 1.0,
    "fallback": "window",
    "inside_video": False,
}
"""The seed rule of the published code."""
