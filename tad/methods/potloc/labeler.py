"""Labeler `potloc`: a pseudo-label for every point from the proposals around it and the mean length of its class.

Source: POTLoc (Vahdani and Tian, arXiv 2310.13585), Algorithm 1, by three rules: the released code's, the paper's, and
the default, which keeps every label between its neighbours. Legend: G points, N proposals, K candidates, M pairs of a
segment and a point inside it, C classes. A group is one class in one video, numbered video * C + class.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.seeds import SHORTEST, Proposals, inside, neighbour_times
from tad.methods.roles import Labels, Round
from tad.options import option
from tad.ranges import Choice
from tad.stages import Artifact, Context

Rule = Literal["midpoints", "released", "paper"]


class Grouped(NamedTuple):
    """Proposals, candidates or labels, and the group of each."""

    group: np.ndarray
    """[N] int64."""
    spans: np.ndarray
    """[N, 2] float64 seconds."""
    scores: np.ndarray
    """[N] float64."""

    def rows(self, index: np.ndarray) -> Grouped:
        """Some of them, by a mask or by their numbers."""
        return Grouped(*(column[index] for column in self))


class GroupedPoints(NamedTuple):
    """Distinct points, ascending in group and then in time."""

    group: np.ndarray
    """[G] int64."""
    time: np.ndarray
    """[G] float64 seconds."""
    duration: np.ndarray
    """[G] float64 seconds: of the point's video."""


def algorithm_one(points: GroupedPoints, proposals: Grouped, rule: Rule, classes: int) -> Grouped:
    """One label for every point, in their order (POTLoc, Algorithm 1).

    The candidates for a point come from the proposals of its group that contain it. A proposal over several points is
    cut halfway between them ("released"), halfway to all neighbours of its group, also those outside it, and at the
    end of the video ("midpoints"), or gives none ("paper"). A point without a candidate gets a window as long as the
    mean candidate of its class over all videos, with score 0; by the rule "paper" it gets the best proposal around it,
    cut to that window, where there is one. The label of a point is the highest-scoring candidate or window of its group
    that contains it, the first of equals; windows of other points count, too.

    Args:
        points: see `GroupedPoints`.
        proposals: in their file's order.
        rule: see above.
        classes: C, their number.

    Raises:
        DataError: points but no candidate at all, so no mean length.
    """
    before, after = neighbour_times(points.time, points.group, same_class=True)
    lower, upper = (before + points.time) / 2, (points.time + after) / 2
    if rule == "midpoints":
        upper = np.minimum(upper, points.duration)

    source, owner = pairs(points, proposals)
    start, end = proposals.spans[source].T
    if rule == "midpoints":
        start, end = np.maximum(start, lower[owner]), np.minimum(end, upper[owner])
        kept = end - start >= SHORTEST
    else:
        start = np.where(before[owner] >= start, lower[owner], start)
        end = np.where(after[owner] <= end, upper[owner], end)
        kept = np.ones(len(source), dtype=bool)
        if rule == "paper":
            kept = np.bincount(source, minlength=len(proposals.group))[source] == 1
    candidates = Grouped(points.group[owner], np.stack([start, end], axis=1), proposals.scores[source]).rows(kept)

    bare = np.ones(len(points.time), dtype=bool)
    bare[owner[kept]] = False
    half = mean_lengths(candidates, classes)[points.group % classes] / 2 if bare.any() else np.zeros(len(bare))
    around = np.stack([np.maximum(points.time - half, 0.0), points.time + half], axis=1)
    scores = np.zeros(len(around))
    if rule == "midpoints":
        around = np.clip(around, lower[:, None], upper[:, None])
    if rule == "paper":
        best = first_best(source, owner, proposals.scores, len(bare))
        rescued = np.flatnonzero(bare & (best >= 0))
        whole = proposals.spans[best[rescued]]
        around[rescued] = np.clip(whole, around[rescued, :1], around[rescued, 1:])
        scores[rescued] = proposals.scores[best[rescued]]
    windows = Grouped(points.group, around, scores).rows(bare)

    pool = Grouped(*(np.concatenate(both) for both in zip(candidates, windows, strict=True)))
    best = first_best(*pairs(points, pool), pool.scores, len(bare))
    return pool.rows(best)


def pairs(points: GroupedPoints, segments: Grouped) -> tuple[np.ndarray, np.ndarray]:
    """All pairs of a segment and a point of its group inside it, ends included.

    Returns:
        Rows of segments and rows of points, [M] each, ascending.
    """
    # Complex numbers sort by their real part, then by the imaginary one.
    keys = points.group + 1j * points.time
    first = np.searchsorted(keys, segments.group + 1j * segments.spans[:, 0], side="left")
    last = np.searchsorted(keys, segments.group + 1j * segments.spans[:, 1], side="right")
    count = last - first
    skipped = first - (np.cumsum(count) - count)  # from the number of a pair to the number of its point
    return np.repeat(np.arange(len(count)), count), np.arange(count.sum()) + np.repeat(skipped, count)


def first_best(segment: np.ndarray, point: np.ndarray, scores: np.ndarray, count: int) -> np.ndarray:
    """[count] the highest-scoring segment that is paired with each point, the first of equals; -1 where there is none.

    Args:
        segment: [M] rows of `scores`.
        point: [M] less than `count`.
        scores: [N] of the segments.
        count: number of points.
    """
    order = np.lexsort((segment, -scores[segment], point))
    found, at = np.unique(point[order], return_index=True)
    best = np.full(count, -1)
    best[found] = segment[order[at]]
    return best


def mean_lengths(candidates: Grouped, classes: int) -> np.ndarray:
    """[C] mean length of the candidates of each class in seconds; that of all for a class without any.

    Sums are exact, so the mean does not depend on the order of the videos.

    Raises:
        DataError: no candidate.
    """
    if not len(candidates.group):
        raise DataError(
            "no proposal gives a candidate for any point of its class, so windows have no length; proposals need the "
            "classes and the clock (seconds) of points.csv"
        )
    label = candidates.group % classes
    order = np.argsort(label, kind="stable")
    length = (candidates.spans[:, 1] - candidates.spans[:, 0])[order].tolist()
    bounds = np.searchsorted(label[order], np.arange(classes + 1))
    sums = np.array([math.fsum(length[i:j]) for i, j in pairwise(bounds)])
    count = np.diff(bounds)
    return np.where(count > 0, sums / np.maximum(count, 1), math.fsum(length) / len(length))


def grouped_points(data: Dataset, videos: Sequence[str]) -> GroupedPoints:
    """The points of some videos, without repetitions of a time and class."""
    given = [data.points(video) for video in videos]
    video = np.repeat(np.arange(len(videos)), [len(points.time) for points in given])
    time = np.concatenate([points.time for points in given])
    group = video * len(data.classes) + np.concatenate([points.label for points in given])
    duration = np.array([data.duration(video) for video in videos])[video]
    order = np.lexsort((time, group))
    new = (np.diff(group[order], prepend=-1) != 0) | (np.diff(time[order], prepend=-1.0) != 0)
    return GroupedPoints(*(column[order[new]] for column in (group, time, duration)))


def grouped_proposals(proposals: Proposals, videos: Sequence[str]) -> Grouped:
    """The proposals of some videos in their file's order, videos in the order of `videos`."""
    place, classes = {video: i for i, video in enumerate(videos)}, proposals.data.classes
    none = np.zeros(0, dtype=np.int64), np.zeros((0, 2)), np.zeros(0)
    parts = (  # in the file's order, which is quick to read
        (place[video] * len(classes) + rows.label_index(classes), rows.spans, np.array(rows.score))
        for video, rows in proposals.by_video.items()
        if video in place
    )
    group, spans, score = (np.concatenate(part) for part in zip(none, *parts, strict=True))
    order = np.argsort(group // len(classes), kind="stable")
    return Grouped(group[order], spans[order], score[order])


@dataclass(frozen=True)
class PotlocLabels:
    """Map stage: the labels of every video, cut to the video, one for every distinct point, with the proposals' scores.

    Lengths are means over all videos, so all labels are made at once when the stage is opened.
    """

    config: PotlocLabeler
    name: str = "potloc/label"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, classes = context.data, len(context.data.classes)
        points = grouped_points(data, context.videos)
        proposals = grouped_proposals(Proposals(context), context.videos)
        try:
            labels = algorithm_one(points, proposals, self.config.rule, classes)
        except DataError as error:
            raise DataError(f"{context.inputs['proposals'].path}: {error}") from error

        video = labels.group // classes
        order = np.lexsort((labels.group, points.time, video))
        bounds = np.searchsorted(video, np.arange(len(context.videos) + 1))
        rows = {v: order[i:j] for v, (i, j) in zip(context.videos, pairwise(bounds), strict=True)}

        def label(video: str) -> Segments:
            mine, time = labels.rows(rows[video]), points.time[rows[video]]
            spans = inside(mine.spans, 0.0, data.duration(video))
            names = [data.classes[i] for i in mine.group % classes]
            return Segments.of(video, spans[:, 0], spans[:, 1], names, mine.scores, time, context.source)

        return label


class PotlocLabeler(PointLabeler):
    """Algorithm 1 as pseudo-labels; their score is the proposal's as it is, and 0 for a window."""

    method: Literal["potloc"] = "potloc"
    rule: Rule = option(
        "midpoints",
        "a proposal over several points: cut halfway to all neighbours of the class, cut as the released "
        "code does (among the points inside), or not used (paper)",
        tune=Choice("midpoints", "released", "paper"),
        why="the published code has released; all there is to choose in Algorithm 1",
    )

    def seeds(self, round: Round) -> Artifact:
        """Segments: one label for every point."""
        return round.map(PotlocLabels(self), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: the labels."""
        return Labels(self.seeds(round))
