"""What `points_score` compares detections with: a segment for every point of the training videos.

Points and a run's first proposals give the first of it (`by_proposals`): segments of largest expected tIoU under the
model of labeler `points`. Their lengths are those of the proposals, and so are their errors. Where features can be
read, rows say where actions begin and end, too, by discriminants that never saw the video
(tad.methods.pser.cross_fitting).

It reads points that training does not see, too (`held_out` of dataset.yaml), and nothing that a labeler or detector of
the run has made: a reference made of what is judged would follow its lengths wherever these go
(docs/results/objectives.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from tad.data.dataset import Dataset
from tad.data.labels import Points
from tad.data.segments import Segments
from tad.errors import DataError
from tad.methods.common.seeds import inside
from tad.methods.points.model import Constants, PointModel
from tad.methods.potloc.labeler import Grouped, GroupedPoints
from tad.methods.pser.cross_fitting import CrossFittingConfig, set_anew
from tad.methods.roles import Round


@dataclass(frozen=True)
class Reference:
    """Where the actions of the training videos are, as far as is known without their boundaries.

    Attributes:
        segments: one for every point, seen in training or held out, of the training videos.
        judged: [G] bool: those that detections are judged by: of held-out points, or all where there are none.
        videos: the training videos.
    """

    segments: Segments
    judged: np.ndarray
    videos: list[str]


class _AllPoints(NamedTuple):
    """The distinct points of the training videos, seen and held out, by video, class and time."""

    videos: list[str]
    video: np.ndarray
    """[G] place in `videos`."""
    time: np.ndarray
    label: np.ndarray
    held: np.ndarray
    """[G] bool: not seen in training."""

    @classmethod
    def of(cls, data: Dataset) -> _AllPoints:
        """Raises DataError if there are none."""
        videos = data.videos("train")
        points = [_of_video(data, v) for v in videos]
        sizes = [len(seen.time) for seen, _ in points]
        if not sum(sizes):
            raise DataError(
                f"{data.root}: the {len(videos)} train videos have no points, which the score of points needs; "
                "add their rows to points.csv"
            )
        time, label, held = (
            np.concatenate([column for seen, held in points for column in [(seen.time, seen.label, held)[i]]])
            for i in range(3)
        )
        return cls(videos, np.repeat(np.arange(len(videos)), sizes), time, label, held)

    def reference(self, segments: Segments) -> Reference:
        """With one segment for every point, in their order."""
        return Reference(segments, self.held if self.held.any() else np.ones(len(self.held), dtype=bool), self.videos)

    def segments(self, spans: np.ndarray, classes: list[str]) -> Segments:
        """Of spans [G, 2] seconds."""
        videos, names = [self.videos[v] for v in self.video], [classes[c] for c in self.label]
        return Segments.of(videos, spans[:, 0], spans[:, 1], names, 1.0, self.time, "reference")


def reference(round: Round, features: bool = True) -> Reference:
    """The reference that a run's first proposals give, and the features of the training videos.

    Args:
        round: of the proposer (0), with the training videos.
        features: whether to read them.

    Raises:
        DataError: the training videos have no points.
    """
    found = by_proposals(round.proposals().segments(), round.data)
    if not features:
        return found
    first = round.adopt(found.segments, "reference")
    rows, classes = set_anew(round, CrossFittingConfig(), first, first).segments(), round.data.classes
    place = {v: i for i, v in enumerate(found.videos)}
    video = np.array([place[v] for v in rows.video_ids])
    order = np.lexsort((rows.point, rows.label_index(classes), video))
    return Reference(rows.take(order), found.judged, found.videos)


def by_proposals(proposals: Segments, data: Dataset) -> Reference:
    """The reference that a run's first proposals give; 150 videos with 2,000 points take a second or two.

    Raises:
        DataError: the training videos have no points.
    """
    points, classes = _AllPoints.of(data), len(data.classes)
    duration = np.array([data.duration(v) for v in points.videos])[points.video]
    grouped = GroupedPoints(points.video * classes + points.label, points.time, duration)
    spans = PointModel(grouped, _grouped(proposals, data, points.videos), classes, Constants()).label().spans
    spans = np.concatenate([inside(row[None], 0.0, end) for row, end in zip(spans, duration, strict=True)])
    return points.reference(points.segments(spans, data.classes))


def _of_video(data: Dataset, video: str) -> tuple[Points, np.ndarray]:
    """The distinct points of a video by class and time, seen and held out, and [G] bool which are held out."""
    seen, hidden = data.points(video), data.held_out(video)
    time, label = np.append(seen.time, hidden.time), np.append(seen.label, hidden.label)
    held = np.arange(len(time)) >= len(seen.time)
    order = np.lexsort((held, time, label))
    new = (np.diff(label[order], prepend=-1) != 0) | (np.diff(time[order], prepend=-1.0) != 0)
    order = order[new]
    return Points(time[order], label[order]), held[order]


def _grouped(proposals: Segments, data: Dataset, videos: list[str]) -> Grouped:
    place = {v: i for i, v in enumerate(videos)}
    known = proposals.label_index(data.classes) >= 0
    proposals = proposals.filter(known & np.array([v in place for v in proposals.video_ids], dtype=bool))
    video = np.array([place[v] for v in proposals.video_ids], dtype=np.int64)
    group = video * len(data.classes) + proposals.label_index(data.classes)
    return Grouped(group, proposals.spans, proposals.score)
