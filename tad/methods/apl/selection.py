"""Which detections of the current model labeler `apl` selects: dynamic selection (APL, Eq. 6), or one threshold.

| rule | d2, the score from which detections are positives |
|---|---|
| adaptive | mean + k * deviation of the scores (the paper) |
| fixed | the same number for all (plain self-training, the baseline of the paper's Table 3) |

By option (ours) a fixed d2 falls until there are positives for a share of the actions that the labelled videos lead to
expect: what a score means differs from dataset to dataset.

Stage: `apl/select` (map).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common.seeds import Proposals
from tad.ops.nms import classwise_nms
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import Context, StageConfig

TOLERANCE = 1e-9
"""Scores this close to d2 reach it: of two scores the better one is mean + std, and rounding must not decide."""


class Selection(StageConfig):
    """Which detections are positives (score from d2 on) and which candidates (from d1 on, below d2)."""

    rule: Literal["adaptive", "fixed"] = option(
        "adaptive", "d2 is mean + k * deviation of the scores from d1 on, or (plain self-training) fixed"
    )
    d1: bounds.Fraction = option(
        0.15,
        "detections below are dropped",
        tune=Float(0.05, 0.3),
        why="paper .15; joint scores are low, and what is below is never looked at",
    )
    k: float = option(
        1.0,
        "adaptive: standard deviations above the mean",
        ge=0,
        le=bounds.SPREAD,
        tune=Float(0.0, 2.0),
        why="paper 1; 0 takes what is above the mean",
        when=("rule", "adaptive"),
    )
    scope: Literal["video", "class", "epoch"] = option(
        "video",
        "adaptive: mean and deviation of each video, of each class, or of all detections",
        tune=Choice("video", "class", "epoch"),
        why="video is ours, the paper is silent; class and epoch let whole videos go empty",
        when=("rule", "adaptive"),
    )
    d2_max: float | None = option(None, "adaptive: largest d2; null: no limit", ge=0, le=bounds.SCORE)
    fixed: bounds.Fraction = option(0.3, "d2 of rule fixed")
    least_share: bounds.Fraction = option(
        0.0,
        "fixed: d2 falls until there are positives for this share of the actions to expect, by how many there are in a "
        "second of the labelled videos; 0: it never does",
    )
    min_pos: int = option(0, "a video's best detections from d1 on that are positives anyway", ge=0, le=bounds.COUNT)
    hard_nms: bounds.PositiveFraction | None = option(
        None,
        "tIoU from which the lesser of two detections of a class is dropped before; null: none is, so that "
        "near duplicates stay which the detector's soft suppression has only lowered",
    )

    def d2(self, scores: np.ndarray, expected: float) -> float:
        """The threshold for the detections that share one; adaptive: infinite if there is none from d1 on.

        Args:
            scores: [N].
            expected: how many actions their videos are expected to hold; read if `least_share` is above 0.
        """
        scores = scores[scores >= self.d1]
        if self.rule == "fixed":
            wanted = min(round(self.least_share * expected), len(scores)) if self.least_share else 0
            return min(self.fixed, float(np.sort(scores)[-wanted])) if wanted else self.fixed
        if not len(scores):
            return np.inf
        value = float(scores.mean() + self.k * scores.std())
        return value if self.d2_max is None else min(value, self.d2_max)

    @property
    def spans_videos(self) -> bool:
        """Whether detections of several videos decide d2 together."""
        return self.least_share > 0 if self.rule == "fixed" else self.scope != "video"

    def groups(self, video: np.ndarray, label: np.ndarray) -> np.ndarray:
        """[N] codes of the detections that share a threshold, from [N] codes of their videos and classes."""
        if self.rule == "fixed":
            return np.zeros_like(video)
        return {"video": video, "class": label, "epoch": np.zeros_like(video)}[self.scope]

    def split(self, scores: np.ndarray, d2: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """Positives and candidates of one video, [N] bool each, from scores [N] and the threshold of each."""
        usable = scores >= (min(self.d1, self.fixed) if self.rule == "fixed" else self.d1)
        positive = usable & (scores >= d2 - TOLERANCE)
        best = np.argsort(-scores, kind="stable")[: self.min_pos]
        positive[best[usable[best]]] = True
        return positive, usable & ~positive


@dataclass(frozen=True)
class Select:
    """Map stage: positives (source apl/positive@N) and candidates (apl/candidate@N) of a video, best first.

    Where a video's points or classes are given, detections of other classes do not count.
    """

    config: Selection
    name: str = "apl/select"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, by_video = self.config, context.data, Proposals(context).by_video

        def usable(video: str) -> Segments:
            rows, kind = by_video.get(video, Segments.empty()), data.supervision(video)
            if kind == "full":
                return Segments.empty()
            if kind != "none":
                rows = rows.filter(np.isin(rows.label_index(data.classes), data.video_classes(video)))
            if config.hard_nms is not None and len(rows):
                suppressed = classwise_nms(
                    rows.spans,
                    rows.score,
                    rows.label_index(data.classes),
                    method="hard",
                    iou_threshold=config.hard_nms,
                    min_score=-1e9,
                )
                return rows.take(suppressed[3])
            return rows.take(np.argsort(-rows.score, kind="stable"))

        shared: np.ndarray | float = np.inf
        if config.spans_videos:
            parts = ((rows.label_index(data.classes), rows.score) for rows in map(usable, context.videos))
            label, score = (np.concatenate(part) for part in zip(*parts, strict=True))
            group = config.groups(np.zeros_like(label), label)
            expected = expected_actions(data, context.videos)
            shared = np.array([config.d2(score[group == c], expected) for c in range(len(data.classes))])

        def select(video: str) -> Segments:
            rows = usable(video)
            if isinstance(shared, np.ndarray):
                zero = np.zeros(len(rows), dtype=np.int64)
                d2 = shared[config.groups(zero, rows.label_index(data.classes))]
            else:
                d2 = config.d2(rows.score, np.nan)
            positive, candidate = config.split(rows.score, d2)
            kind = np.where(positive, f"apl/positive@{context.round}", f"apl/candidate@{context.round}")
            return rows.replace(source=kind.tolist(), point=None).filter(positive | candidate)

        return select


def expected_actions(data: Dataset, videos: Sequence[str]) -> float:
    """How many actions those of the videos hold that are not fully labelled, by the rate in all that are.

    Without a fully labelled training video it is 0.
    """
    full = [v for v in data.videos("train") if data.supervision(v) == "full"]
    given = map(data.full_labels, full)
    seconds = sum(map(data.duration, full))
    rest = sum(data.duration(v) for v in videos if data.supervision(v) != "full")
    return sum(len(rows.label) for rows in given if rows is not None) / seconds * rest if full else 0.0
