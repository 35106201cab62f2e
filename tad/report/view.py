"""One round on the videos of one role: what its figures show, gathered from the run's folder and the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tad.data import arrays
from tad.data.dataset import SAFE_ID, Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.files import regular
from tad.ops.iou import tiou
from tad.report.run import Run
from tad.report.timeline import CLASSES, Curve, Timeline

PER_POINT = 2
"""So many detections count as confident for each action that the training points lead one to expect."""
WITHOUT_POINTS = 10
"""Confident detections a video, where there are no points to tell how many actions to expect."""


@dataclass(frozen=True)
class View:
    """One round's segments on one role's videos; None where the run has none of the kind (yet).

    Attributes:
        truth: ground truth of the role's videos, None where the dataset has none.
        labels: pseudo-labels (training videos only).
        detections: all detections; of round 0, the proposals.
        confident: the highest-scoring detections, see `confident`.
        scores: folder of the proposer's activations, or None.
    """

    data: Dataset
    number: int
    role: Role
    truth: Segments | None = None
    labels: Segments | None = None
    detections: Segments | None = None
    confident: Segments | None = None
    scores: Path | None = None

    @classmethod
    def open(cls, run: Run, data: Dataset, number: int, role: Role, scores: Path | None = None) -> View:
        """Reads what there is.

        Args:
            scores: folder of the proposer's activations on the role's videos.

        Raises:
            DataError: a segments file or the annotations cannot be read.
        """
        truth = ground_truth(data, role)
        found = run.detections(number, role)
        return cls(
            data,
            number,
            role,
            truth=truth if len(truth) else None,
            labels=run.segments(number, "labels") if role == "train" else None,
            detections=found,
            confident=confident(found, data, role) if found is not None else None,
            scores=scores,
        )

    @property
    def found(self) -> str:
        """What the round's detections are called."""
        return "proposals" if self.number == 0 else "detections"

    @property
    def covering(self) -> Segments | None:
        """What is judged by how it covers the ground truth: pseudo-labels where there are any, else the confident
        detections."""
        return self.labels if self.labels is not None else self.confident

    def coverage(self) -> dict[str, float]:
        """How well each video's ground truth is covered: the mean, over its actions, of the tIoU with the best
        covering segment of the same class. Without ground truth: how many covering segments there are.
        """
        found = self.covering.by_video() if self.covering is not None else {}
        if self.truth is None:
            return {video: float(len(found.get(video, ()))) for video in self.data.videos(self.role)}
        result = {}
        for video, truth in self.truth.by_video().items():
            mine = found.get(video, Segments.empty())
            overlap = tiou(truth.spans, mine.spans)
            overlap[np.array(truth.labels)[:, None] != np.array(mine.labels, dtype=str)[None, :]] = 0.0
            result[video] = float(overlap.max(axis=1, initial=0.0).mean())
        return result

    def timelines(self, videos: Sequence[str]) -> list[Timeline]:
        """The timelines of some videos."""
        keep = set(videos)
        split = [
            _only(segments, keep).by_video() if segments is not None else None
            for segments in (self.truth, self.labels, self.confident)
        ]
        result = []
        for video in videos:
            points = self.data.points(video)
            named = [(float(t), self.data.classes[c]) for t, c in zip(points.time, points.label, strict=True)]
            truth, labels, found = (v.get(video, Segments.empty()) if v is not None else None for v in split)
            timeline = Timeline(
                video,
                self.data.duration(video),
                truth,
                points=named if named or self.role == "train" else None,
                labels=labels,
                detections=found,
                found=self.found,
            )
            result.append(replace(timeline, curve=self._curve(video, timeline.annotated or timeline.classes)))
        return result

    def _curve(self, video: str, classes: Sequence[str]) -> Curve | None:
        """The activations, if their folder is still there; the store may have been cleared since."""
        if self.scores is None or not SAFE_ID.fullmatch(video):
            return None
        try:
            places = [arrays.find(self.scores, key, video) for key in ("background", "cas")]
            for place in places:
                regular(self.scores / place.file)
            background, cas = (arrays.read(self.scores, place) for place in places)
        except (DataError, OSError, ValueError, EOFError, OverflowError):
            return None
        if not all(isinstance(part, np.ndarray) and part.dtype.kind == "f" for part in (background, cas)):
            return None
        if background.ndim != 1 or not len(background) or cas.shape != (len(background), len(self.data.classes)):
            return None
        time = np.asarray(self.data.grid(video, len(background)).from_position(np.arange(len(background), dtype=float)))
        index = [self.data.classes.index(c) for c in classes if c in self.data.classes]
        if not index:
            index = list(np.argsort(-np.asarray(cas).max(axis=0)))[:1]
        curves = {self.data.classes[i]: np.asarray(cas[:, i], dtype=float) for i in index[:CLASSES]}
        return Curve(time, 1.0 - np.asarray(background, dtype=float), curves)


def confident(detections: Segments, data: Dataset, role: Role) -> Segments:
    """The highest-scoring detections: PER_POINT for each action that the training points lead one to expect.

    One threshold for all videos. The expected number is the training points' rate (per second of the videos that have
    points) times the seconds of the role's videos, so it needs no ground truth and adapts to any detector's scale of
    scores.
    """
    train, points = data.pointed("train"), data.point_count("train")
    if train:
        rate = points / sum(data.duration(v) for v in train)
        count = int(np.ceil(PER_POINT * rate * sum(data.duration(v) for v in data.videos(role))))
    else:
        count = WITHOUT_POINTS * len(data.videos(role))
    best = np.argsort(-detections.score, kind="stable")[:count]
    return detections.take(np.sort(best))


def _only(segments: Segments, videos: set[str]) -> Segments:
    codes, names = segments.codes("video_id")
    wanted = np.array([name in videos for name in names], dtype=bool)
    return segments.filter(wanted[codes]) if len(segments) else segments
