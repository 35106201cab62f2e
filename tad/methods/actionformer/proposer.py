"""Proposer `actionformer`: the detector of that name, trained on the fully labelled videos alone.

It is what semi-supervised methods start from: a model of a few videos with all their boundaries, which then looks for
actions in the others (APL, ECCV 2024, second phase). With rounds: 0 and every video labelled it is full supervision.
Stages: `actionformer/given` (map), `actionformer/labelled` (fit), `actionformer/points`,
`actionformer/embed` and `actionformer/propose` (maps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import SerializeAsAny

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.labels import Supervision
from tad.data.segments import Segments
from tad.methods.actionformer.detector import Detector, Reading, TrainStage, in_seconds, suppress
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.training import DetectorTask
from tad.methods.common.given_labels import given
from tad.methods.common.label_kinds import unread_labels, untaught
from tad.methods.common.postprocess import Kept, Postprocess
from tad.methods.roles import MethodConfig, Round
from tad.options import group, option
from tad.stages import Arrays, Artifact, Context, StageConfig


class LabelledTraining(Training):
    """Network and training on the fully labelled videos."""

    steps: int | None = option(
        None,
        "optimiser steps in place of epochs, as many for few videos as for many; null: epochs",
        ge=1,
        le=bounds.STEPS,
    )

    def of(self, videos: int) -> Training:
        """The detector's training on so many videos."""
        return Training(**self.options(videos))

    def options(self, videos: int) -> dict[str, Any]:
        """The detector's options of training on so many videos."""
        options = self.model_dump(exclude={"steps"})
        if self.steps is not None:
            options["epochs"] = max(1, round(self.steps / max(1, videos // self.batch_size)))
        return options

    @property
    def usable(self) -> tuple[Supervision, ...]:
        """The kinds of labels that teach: boundaries alone."""
        return ("full",)


def labelled(data: Dataset) -> int:
    """Number of fully labelled training videos."""
    return sum(data.supervision(v) == "full" for v in data.videos("train"))


class Suppression(StageConfig):
    """From the decoded points to proposals."""

    read: SerializeAsAny[Reading]
    postprocess: Postprocess


class ActionFormerProposer(MethodConfig):
    """ActionFormer, trained on fully labelled videos; its detections in all videos are the proposals."""

    detector: ClassVar[type[Detector]] = Detector
    method: Literal["actionformer"] = "actionformer"
    training: LabelledTraining = LabelledTraining()
    decode: Reading = group(Reading(), stage="proposals")
    postprocess: Postprocess = group(Postprocess(), stage="proposals")

    def problems(self, data: Dataset) -> list[str]:
        return untaught(data, self.training.usable)

    def warnings(self, data: Dataset) -> list[str]:
        return unread_labels(data, self.method, self.training.usable)

    def train(self, round: Round) -> Artifact:
        """Fits the detector on the boundaries of fully labelled training videos; the others are not seen."""
        training = self.training.of(labelled(round.data))
        return LabelledTrain(training).fit(round, {"labels": round.map(GivenLabels())})

    def score(self, round: Round, model: Artifact) -> Artifact:
        """The decoded points of every video, and curves made of them.

        Arrays `cas` [T, C], `background` [T] and `video` [C] as of the other proposers: a snippet's score of a class is
        the best of the points that stand for it, one on each level; background is what the best class leaves; a
        video's score is its best point's. `spans` [N, 2] positions, `scores` [N] and `labels` [N]: the candidates, the
        best points of each level.
        """
        return round.map(PointStage(self.decode, detector=self.detector), {"model": model})

    def embed(self, round: Round, model: Artifact) -> Artifact:
        """Array `embedding` [T, W], float16: the finest level of the pyramid."""
        return round.map(EmbedStage(detector=self.detector), {"model": model})

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: detections with their score; classes that are known change nothing."""
        config = Suppression(read=self.decode, postprocess=self.postprocess) if suppressed else StageConfig()
        return round.map(ProposeStage(config), {"scores": self.score(round, model)})


@dataclass(frozen=True)
class GivenLabels:
    """Map stage: the full labels of each training video that has them, as labels of a detector."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "actionformer/given"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        return lambda video: given(context.data, video, f"given@{context.round}")


@dataclass(frozen=True)
class LabelledTrain(TrainStage):
    """Fits the detector on the fully labelled training videos; reads the input "labels"."""

    name: str = "actionformer/labelled"

    def open(self, context: Context) -> DetectorTask:
        # Points of a video that led to no pseudo-label would make it all background; here they were never asked.
        full = [video for video in context.videos if context.data.supervision(video) == "full"]
        return super().open(replace(context, videos=full))


@dataclass(frozen=True)
class PointStage:
    """Map stage: what the network says of every video; reads the input "model"."""

    config: Reading
    name: str = "actionformer/points"
    version: int = 1
    output: Literal["arrays"] = "arrays"
    detector: type[Detector] = Detector

    def open(self, context: Context) -> Callable[[str], Arrays]:
        detector = self.detector.open(self.config, context)

        def points(video: str) -> Arrays:
            features = np.array(context.data.features(video), dtype=np.float32)
            answers = detector.answers(features)
            spans, scores, labels = detector.best(answers)
            cas = curves(answers.scores, answers.sizes)[: len(features) * detector.upsample : detector.upsample]
            return {
                "cas": cas,
                "background": 1 - cas.max(1),
                "video": answers.scores.max(0),
                "spans": spans.astype(np.float32),
                "scores": scores,
                "labels": labels.astype(np.int32),
            }

        return points


def curves(scores: np.ndarray, sizes: list[int]) -> np.ndarray:
    """[P, C] scores of points, level by level, to [T, C]: of each row the best of its nearest points of all levels."""
    length = sizes[0]
    parts = np.split(scores, np.cumsum(sizes)[:-1])
    best = parts[0].copy()
    for level, part in enumerate(parts[1:], 1):
        # Point i of a level lies at row i * 2 ** level.
        nearest = (np.arange(length) + (1 << (level - 1))) >> level
        np.maximum(best, part[nearest.clip(max=len(part) - 1)], out=best)
    return best


@dataclass(frozen=True)
class EmbedStage:
    """Map stage: what the finest level of the pyramid holds at every snippet; reads the input "model"."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "actionformer/embed"
    version: int = 1
    output: Literal["arrays"] = "arrays"
    detector: type[Detector] = Detector

    def open(self, context: Context) -> Callable[[str], Arrays]:
        detector = self.detector.open(Reading(), context)

        def embed(video: str) -> Arrays:
            features = np.array(context.data.features(video), dtype=np.float32)
            padded, of_video = detector.rows(features)
            with torch.inference_mode():
                levels = detector.module.encode(padded, of_video)  # type: ignore[operator]
            finest = levels.rows[: len(features) * detector.upsample : detector.upsample]
            return {"embedding": finest.cpu().numpy().astype(np.float16)}

        return embed


@dataclass(frozen=True)
class ProposeStage:
    """Map stage: proposals from the candidates of `PointStage`; all of them if there is no `Suppression`."""

    config: Suppression | StageConfig
    name: str = "actionformer/propose"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, artifact, config = context.data, context.inputs["scores"], self.config

        def propose(video: str) -> Segments:
            found = Kept(*(np.asarray(artifact.array(key, video)) for key in ("spans", "scores", "labels")))
            grid = data.grid(video)
            if isinstance(config, Suppression):
                found = suppress(found, config.read, config.postprocess, grid)
            return in_seconds(context, video, found, grid, data.classes)

        return propose
