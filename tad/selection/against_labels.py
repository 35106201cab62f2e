"""Detections in training videos, judged by the pseudo-labels of these videos: no boundary is read.

Pseudo-labels do not say all that happens. Where they say nothing, a detection is neither right nor wrong and is left
out: in videos of which nothing is known, on stretches that detectors do not learn from, and at points that training
does not see.
"""

from __future__ import annotations

import numpy as np

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.evaluator import Judged, judge


def judged_by_labels(
    detections: Segments, labels: Segments, data: Dataset, ignored: Segments | None = None, tiou: float = 0.5
) -> Judged:
    """Which detections find a pseudo-label.

    Args:
        detections: in training videos, by models that have not learnt from them.
        labels: the pseudo-labels of all training videos.
        ignored: stretches of which detectors learn nothing.

    Raises:
        DataError: there is no pseudo-label or no detection.
    """
    if not len(labels):
        raise DataError("no pseudo-labels to judge detections by")
    videos = known_videos(labels, data)
    wanted = set(videos)
    detections = detections.filter(np.array([v in wanted for v in detections.video_ids], dtype=bool))
    detections = detections.filter(~(_on_hidden_points(detections, data) | _mostly_in(detections, ignored)))
    if not len(detections):
        raise DataError(f"no detections in {len(videos)} held-out training videos")
    return judge(detections, labels, tiou, videos=videos)


def known_videos(labels: Segments, data: Dataset) -> list[str]:
    """The training videos of which it is known what is in them: those with a pseudo-label, those whose full labels say
    that there is nothing, and those whose points have led to none."""
    labelled = set(labels.codes("video_id")[1])
    kinds = ("points", "full")
    return [v for v in data.videos("train") if v in labelled or data.supervision(v) in kinds]


def _on_hidden_points(detections: Segments, data: Dataset) -> np.ndarray:
    """[N] bool: detections that hold a held-out point of their class, and no point that was trained on."""
    found = np.zeros(len(detections), dtype=bool)
    video, names = detections.codes("video_id")
    label, spans = detections.label_index(data.classes), detections.spans
    for code, name in enumerate(names):
        if not len(data.held_out(name).time):
            continue
        rows = np.flatnonzero(video == code)
        hidden, seen = (
            (
                (points.label == label[rows][:, None])
                & (points.time >= spans[rows, :1])
                & (points.time <= spans[rows, 1:])
            ).any(axis=1)
            for points in (data.held_out(name), data.points(name))
        )
        found[rows] = hidden & ~seen
    return found


def _mostly_in(detections: Segments, ignored: Segments | None) -> np.ndarray:
    """[N] bool: detections of which more than half lies in one of the stretches."""
    found = np.zeros(len(detections), dtype=bool)
    stretches = ignored.by_video() if ignored is not None else {}
    video, names = detections.codes("video_id")
    for code, name in enumerate(names):
        if name in stretches:
            rows, other = np.flatnonzero(video == code), stretches[name].spans
            mine = detections.spans[rows]
            shared = np.minimum(mine[:, 1:], other[:, 1]) - np.maximum(mine[:, :1], other[:, 0])
            found[rows] = shared.max(axis=1) > np.diff(mine, axis=1)[:, 0] / 2
    return found
