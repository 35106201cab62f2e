"""Labelers that work nothing out: what the papers' tables compare pseudo-labels with.

| labeler | its pseudo-labels | whose rows |
|---|---|---|
| `full` | the full labels of a video | POTLoc, Table 2: ground truth |
| `proposals` | the proposals as they are | POTLoc, Table 2: noisy proposals; HR-Pro, Table 3: no reliable proposals |
| `point-snippets` | the snippet that holds each point | POTLoc, Table 2: points |

Each is made of a video by itself. Stage: `controls/NAME` (map).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common.given_labels import given
from tad.methods.common.label_kinds import PointLabeler, pointed_videos
from tad.methods.common.seeds import Proposals, distinct, inside
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import option
from tad.stages import Artifact, Context, Inputs


class Control(MethodConfig):
    """Base of these labelers."""

    method: str

    def reads_features(self, data: Dataset) -> bool:
        return False

    def seeds(self, round: Round) -> Artifact:
        """Segments: the pseudo-labels themselves."""
        return round.map(ControlLabels(self, f"controls/{self.method}"), self.inputs(round))

    def label(self, round: Round) -> Labels:
        """Segments: the pseudo-labels."""
        return Labels(self.seeds(round))

    def inputs(self, round: Round) -> Inputs:
        """What `open` reads; nothing but the dataset, unless a labeler says otherwise."""
        return {}

    def open(self, context: Context) -> Callable[[str], Segments]:
        """The pseudo-labels of one video after the other."""
        raise NotImplementedError


@dataclass(frozen=True)
class ControlLabels:
    """Map stage: the pseudo-labels of every video."""

    config: Control
    name: str
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        return self.config.open(context)


class FullLabeler(Control):
    """Full labels as pseudo-labels, score 1, each with the point in it if the video has points, too."""

    method: Literal["full"] = "full"

    def problems(self, data: Dataset) -> list[str]:
        if len(bare := self._bare(data)) < len(data.videos("train")):
            return []
        return [
            f"none of the {len(bare)} training videos has full labels, and labeler full finds no others; add "
            "full_labels.csv, make it with `tad labels --kind full`, or use another labeler"
        ]

    def warnings(self, data: Dataset) -> list[str]:
        if not (bare := self._bare(data)):
            return []
        return [
            f"{len(bare)} of {len(data.videos('train'))} training videos have no full labels and get no pseudo-label "
            "of labeler full; labeler mixed labels them by what they have"
        ]

    def open(self, context: Context) -> Callable[[str], Segments]:
        data = context.data

        def label(video: str) -> Segments:
            rows = given(data, video, context.source)
            classes, point = rows.label_index(data.classes), np.full(len(rows), np.nan)
            for time, of_class in zip(*data.points(video), strict=True):
                holds = (classes == of_class) & (rows.start <= time) & (time <= rows.end)
                point[np.flatnonzero(holds)[:1]] = time
            return rows.replace(point=point)

        return label

    @staticmethod
    def _bare(data: Dataset) -> list[str]:
        return [video for video in data.videos("train") if data.full_labels(video) is None]


class ProposalsLabeler(Control):
    """Proposals of the current model as pseudo-labels, with their scores and without points."""

    method: Literal["proposals"] = "proposals"
    count: Literal["all", "points"] = option(
        "all", "pseudo-labels of a video: all proposals, or of each class as many of the best as it has points there"
    )

    def problems(self, data: Dataset) -> list[str]:
        if self.count == "all" or pointed_videos(data):
            return []
        return [
            "no training video has a point, and labeler.count: points takes as many proposals as there are points; use "
            "labeler.count: all, or add points.csv"
        ]

    def inputs(self, round: Round) -> Inputs:
        return {"proposals": round.proposals()}

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, proposals = context.data, Proposals(context).by_video

        def label(video: str) -> Segments:
            rows = proposals.get(video, Segments.empty()).replace(source=context.source)
            if self.count == "all":
                return rows
            order = np.argsort(-rows.score, kind="stable")
            classes = rows.label_index(data.classes)[order]
            wanted = np.bincount(data.points(video).label, minlength=len(data.classes))
            best = [order[classes == c][:count] for c, count in enumerate(wanted)]
            return rows.take(np.concatenate(best))

        return label


class PointSnippetsLabeler(Control, PointLabeler):
    """The snippet that holds each point as pseudo-label, score 1: points alone, for a detector that needs segments."""

    method: Literal["point-snippets"] = "point-snippets"

    def reads_features(self, data: Dataset) -> bool:
        return True  # their number says where a snippet ends

    def open(self, context: Context) -> Callable[[str], Segments]:
        data = context.data

        def label(video: str) -> Segments:
            points, grid = distinct(data.points(video)), data.grid(video)
            row = grid.row(points.time)
            spans = inside(grid.from_edge(np.stack([row, row + 1], axis=1)), 0.0, data.duration(video))
            names = [data.classes[c] for c in points.label]
            return Segments.of(video, spans[:, 0], spans[:, 1], names, 1.0, points.time, context.source)

        return label
