"""Labeler `pser-seed`: for every point, the best proposal around it.

The seed rule of PseR (stage A of the paper; the rule is HR-Pro's and LACP's) and the control without refinement:
seeds used as pseudo-labels. Legend: G points, N proposals of one video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.labels import Points
from tad.data.segments import Segments
from tad.errors import DataError
from tad.ops.nms import compiled
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import Context, StageConfig

FALLBACK_SCORE = 0.2
"""Score of a seed that no proposal stands behind, as in the published code."""

SHORTEST = 1e-3
"""Seconds; a proposal that is shorter once cut counts as none."""


class SeedRule(StageConfig):
    """Which proposal answers for a point."""

    neighbours: Literal["any-class", "same-class"] = option(
        "any-class",
        "points that a proposal must not reach: all, or those of its class",
        paper="any-class",
        tune=Choice("any-class", "same-class"),
        why="papers any-class; same-class where actions of several classes coincide",
    )
    crossing: Literal["clip", "discard", "keep"] = option(
        "clip",
        "where every proposal around a point reaches a neighbour: cut the best halfway to it, use none, or "
        "(HR-Pro) take the best as it is if its score is high enough",
        paper="discard",
        tune=Choice("clip", "discard", "keep"),
        why="PseR discard, HR-Pro keep; what happens to a proposal over two points",
    )
    min_score: bounds.Score = option(
        0.0,
        "proposals that reach no neighbour need a score above this",
        paper=0.0,
        tune=Float(-0.2, 0.8),
        why="papers 0; contrasts lie between -1 and 1, good ones above .3",
    )
    half_width: float = option(
        1.0,
        "seconds on either side of a point without a proposal",
        gt=0,
        le=bounds.SECONDS,
        paper=1.0,
        tune=Float(0.3, 5.0, log=True),
        why="PseR 1 s; half an action's length where no proposal holds the point",
        when=("fallback", "window"),
    )
    fallback: Literal["window", "none"] = option(
        "window",
        "a point without a proposal: a window around it, or no seed",
        paper="window",
        tune=Choice("window", "none"),
        why="PseR window, HR-Pro none; a point without a proposal",
    )
    inside_video: bool = option(True, "cut seeds at the ends of the video", paper=False)


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
    order = np.lexsort((points.label, points.time))
    time, label = points.time[order], points.label[order]
    new = np.ones(len(time), dtype=bool)
    new[1:] = (time[1:] != time[:-1]) | (label[1:] != label[:-1])
    return Points(time[new], label[new])


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
    reach = neighbour_times(time, label, rule.neighbours == "same-class")
    same = reach if rule.neighbours == "same-class" else neighbour_times(time, label, same_class=True)
    # Halfway to a neighbour of the same class; infinite where there is none, so nothing is cut there.
    halves = ((time + same[0]) / 2, (time + same[1]) / 2)
    rescue = {"clip": -np.inf, "keep": rule.min_score, "discard": np.inf}[rule.crossing]
    ends = (0.0, float(duration)) if rule.inside_video else (-np.inf, np.inf)
    found = _seeds(
        time,
        label,
        spans,
        scores,
        labels,
        reach,
        halves,
        rule.min_score,
        rescue,
        rule.crossing == "clip",
        rule.half_width,
        ends,
    )
    return Seeds(*found)


@compiled
def _seeds(  # type: ignore[no-untyped-def]
    time, label, spans, scores, labels, reach, halves, least, rescue, clip, half_width, ends
):
    """Spans, scores and fallback of the seeds of points at `time` [G] of class `label` [G].

    Of the proposals that contain the point, those that stay within `reach` come first and need a score above `least`;
    the others need one above `rescue`. Unless it is one of the former, the seed is cut to `halves` if it is to be
    clipped; in any case to `ends`.
    """
    seeds = np.empty((len(time), 2))
    values = np.full(len(time), FALLBACK_SCORE)
    fallback = np.ones(len(time), np.bool_)
    for g in range(len(time)):
        best, alone = -1, False
        for n in range(len(spans)):
            start, end = spans[n]
            if labels[n] != label[g] or start > time[g] or end < time[g]:
                continue
            free = scores[n] > least and start > reach[0][g] and end < reach[1][g]
            better = best < 0 or free > alone or (free == alone and scores[n] > scores[best])
            if better and (free or scores[n] > rescue):
                best, alone = n, free
        lower, upper = ends
        if clip and not alone:
            lower, upper = max(lower, halves[0][g]), min(upper, halves[1][g])
        if best >= 0:
            start, end = min(max(spans[best, 0], lower), upper), min(max(spans[best, 1], lower), upper)
            fallback[g] = end - start < SHORTEST  # a sliver of a proposal, or one beyond the end of the video
        if fallback[g]:
            start, end = min(max(time[g] - half_width, lower), upper), min(max(time[g] + half_width, lower), upper)
        else:
            values[g] = scores[best]
        seeds[g] = start, end
    return seeds, values, fallback


class Proposals:
    """The proposals of all videos, checked against the dataset: input "proposals", or "fused" (labeler `pser-weak`).

    Attributes:
        fused: whether each is a seed itself, with its centre for a point, and the dataset's points play no part.

    Raises:
        DataError: proposals of classes that the dataset does not have, or of none of the videos to label.
    """

    def __init__(self, context: Context) -> None:
        self.fused = "fused" in context.inputs
        artifact = context.inputs["fused" if self.fused else "proposals"]
        self.by_video, self.data = artifact.by_video(), context.data
        unknown = sorted(self.by_video.labels - set(self.data.classes))
        if unknown:
            raise DataError(
                f"{artifact.path}: proposals of classes that {self.data.root} does not have: {', '.join(unknown)}; "
                f"its classes are {', '.join(self.data.classes)}"
            )
        if self.by_video and not self.by_video.keys() & set(context.videos):
            raise DataError(
                f"{artifact.path}: no proposal is of a video to label; it has videos such as "
                f"{next(iter(self.by_video))}, the dataset such as {next(iter(context.videos))}"
            )

    def seeds(self, video: str, rule: SeedRule) -> tuple[Points, Seeds]:
        """The distinct points of a video that get a seed, and their seeds, [G] each."""
        if self.fused:
            rows = self.by_video.get(video, Segments.empty())
            time, label = rows.spans.mean(1), rows.label_index(self.data.classes)
            order = np.lexsort((label, time))
            none = np.zeros(len(rows), dtype=bool)
            return Points(time[order], label[order]), Seeds(rows.spans[order], rows.score[order], none)
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
