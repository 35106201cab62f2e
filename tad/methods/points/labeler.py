"""Labeler `points`: the segment of largest expected tIoU around every point, under a model learned from the data.

Where in an action annotators put their point, how long the actions of a video are, and whether a proposer's clock is
right: nobody says. But all three leave traces in a dataset's points and proposals, and are estimated there (empirical
Bayes). Ground truth is never read.
A point at time t has a segment of log length l, with the point at position u between its start (0) and its end (1):

    p(l) = N(l; m, spread^2)          m: mean of the class in the video, drawn to that of the class in all videos
    p(u | l)                          a histogram, smooth in l
    p(proposals | l, u) = sum_j w_j N(l_j; M + compression (l - M), length_noise^2) N(c_j + lag; c, s_j^2) + outlier
    w_j ~ exp(sharpness score_j) / number of points inside
    s_j = centre_noise x geometric mean of both lengths

l_j and c_j are the log length and centre of proposal j, cut between the point and its neighbours of the class. One
proposal of the mixture shows the segment; none needs to contain the point. `compression` below 1 says that proposals
are too long where actions are short and too short where they are long, M is the mean l of all. The lag is the time by
which proposals run ahead of the points (half-snippet mistakes in a proposer's clock are common).

p(u | l), the means and the lag maximise the likelihood (EM on a grid of l and u; the lag by trial). If points lie near
the centre, p(u | l) becomes a peak and labels centre themselves on the points; if they lie anywhere, it stays flat and
the proposals decide. The label is the segment of the grid with the largest tIoU expected under the posterior
(minimum Bayes risk), cut between neighbours; its score is that expectation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from tad.data.segments import Segments
from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.seeds import Proposals, inside
from tad.methods.points.model import Constants, Estimates, PointModel
from tad.methods.potloc.labeler import GroupedPoints, grouped_points, grouped_proposals
from tad.methods.roles import Labels, Round
from tad.stages import Artifact, Context


class PointsLabeler(Constants, PointLabeler):
    """Segments of largest expected tIoU as pseudo-labels; their score is that expectation."""

    method: Literal["points"] = "points"

    def seeds(self, round: Round) -> Artifact:
        """Segments: one label for every point."""
        return round.map(PointsLabels(self), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: the labels."""
        return Labels(self.seeds(round))


def learned_labels(config: PointsLabeler, context: Context) -> tuple[GroupedPoints, Estimates]:
    """The distinct points of all videos, in the order of their ids, and the labels.

    Raises:
        DataError: see `Proposals`.
    """
    videos = sorted(context.videos)  # so that sums do not depend on the order of the videos
    points, proposals = grouped_points(context.data, videos), grouped_proposals(Proposals(context), videos)
    return points, PointModel(points, proposals, len(context.data.classes), config).label()


@dataclass(frozen=True)
class PointsLabels:
    """Map stage: the labels of every video, cut to the video, one for every distinct point.

    The model is one of all videos, so all labels are made at once when the stage is opened; 200 videos with 3,000
    points take about a second, and 5 kB of memory per point.
    """

    config: PointsLabeler
    name: str = "points/label"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, videos = context.data, sorted(context.videos)
        points, labels = learned_labels(self.config, context)
        video, label = np.divmod(points.group, len(data.classes))
        order = np.lexsort((label, points.time, video))
        bounds = np.searchsorted(video, np.arange(len(videos) + 1))
        rows = {v: order[i:j] for v, (i, j) in zip(videos, pairwise(bounds), strict=True)}

        def rows_of(video: str) -> Segments:
            mine = rows[video]
            spans = inside(labels.spans[mine], 0.0, data.duration(video))
            names = [data.classes[i] for i in label[mine]]
            return Segments.of(
                video, spans[:, 0], spans[:, 1], names, labels.scores[mine], points.time[mine], context.source
            )

        return rows_of
