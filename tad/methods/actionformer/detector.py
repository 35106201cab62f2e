"""The detector `actionformer`: trained on pseudo-labels as if they were full labels, one model for all classes.

Source: ActionFormer (ECCV 2022) and its released code; channel dropout of the input as in OpenTAD's configuration.
The network is in tad.methods.actionformer.model, points and targets in tad.methods.actionformer.targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from pydantic import SerializeAsAny
from torch import Tensor, nn

from tad import bounds
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.methods.actionformer.model import ActionFormer, PointOutputs
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.targets import decode, pyramid
from tad.methods.actionformer.training import DetectorTask
from tad.methods.common import trained
from tad.methods.common.formerly import READING
from tad.methods.common.postprocess import Kept, Postprocess, postprocess
from tad.methods.common.pyramid import padded_length
from tad.methods.common.windows import refine
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import group, option
from tad.ranges import Float, Integer
from tad.stages import Artifact, Context, StageConfig


class Reading(StageConfig):
    """From the network's answers to segments; changing it needs no training."""

    formerly: ClassVar[dict[str, Any]] = READING
    min_score: bounds.Chance = option(
        0.001,
        "class scores at or below it are dropped",
        tune=Float(1e-4, 0.01, log=True),
        why="ActionFormer .001; detections below it are false nearly always",
    )
    top_k: bounds.Count = option(
        2000,
        "best (point, class) pairs of each level that reach post-processing",
        tune=Integer(200, 5000, log=True),
        why="ActionFormer 2000 of each level before suppression; sets its cost",
    )
    min_length: float = option(0.05, "shortest segment, in snippets", ge=0, le=bounds.SNIPPETS)
    max_detections: bounds.Count = option(
        200,
        "detections of each video, the best ones",
        tune=Integer(50, 2000, log=True),
        why="ActionFormer 200, 100 on ActivityNet",
    )


class Decoding(Reading):
    """From the network's answers and the proposer's video scores to detections."""

    video_power: bounds.Fraction = option(
        0.5,
        "share, in the exponent, of the proposer's video score; 0: none",
        tune=Float(0.0, 1.0),
        why="papers 0; share of the proposer's video score, .5 is the geometric mean",
    )


class Detection(StageConfig):
    """All that detecting depends on."""

    decode: SerializeAsAny[Decoding] = Decoding()
    postprocess: Postprocess = Postprocess()


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels" and, where it is, "ignored"."""

    config: Training
    name: str = "actionformer/train"
    version: int = 3
    task: type[DetectorTask] = DetectorTask
    detects: ClassVar[bool] = True
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)

    def open(self, context: Context) -> DetectorTask:
        return self.task(self.config, context)

    def fit(self, round: Round, inputs: Mapping[str, Artifact]) -> Artifact:
        """The model; values for null options are in the config, and so in fingerprint, record and log."""
        task = self.open(Context(round.data, inputs, round.data.videos("train"), seed=0))
        return round.fit(replace(self, config=task.config, reasons=task.reasons), inputs)


@dataclass(frozen=True)
class Detector:
    """A trained network and all it needs to find candidates in one video."""

    network: ClassVar[type[ActionFormer]] = ActionFormer
    limits: Reading
    module: nn.Module
    levels: int
    upsample: int
    classes: list[str]
    device: torch.device

    @classmethod
    def open(cls, limits: Reading, context: Context) -> Self:
        """From the input "model".

        Raises:
            RunError: it was trained on features of another width.
        """
        module, settings, device = trained.load(context, cls.network.of)
        return cls(limits, module, settings["levels"], settings["upsample"], settings["classes"], device)

    def candidates(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [T, D] to all (point, class) pairs that reach post-processing.

        Returns:
            [N, 2] positions, [N] scores, [N] class indices; the best `top_k` of each level, level by level.
        """
        return self.best(self.answers(features))

    def best(self, answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The candidates among the network's answers; see `candidates`."""
        usable = answers.spans[:, 1] - answers.spans[:, 0] > self.limits.min_length
        found = []
        for first, size in zip(np.cumsum([0, *answers.sizes[:-1]]), answers.sizes, strict=True):
            level = answers.scores[first : first + size]
            point, label = np.nonzero((level > self.limits.min_score) & usable[first : first + size, None])
            best = np.argsort(-level[point, label], kind="stable")[: self.limits.top_k]
            found.append((point[best] + first, label[best]))
        point, label = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return answers.spans[point], answers.scores[point, label], label

    def answers(self, features: np.ndarray) -> Answers:
        """What the network says of a video of features [T, D]."""
        padded, video = self.rows(features)
        with torch.inference_mode():
            outputs = self.module(padded, video)
        points = pyramid(len(padded), self.levels)
        spans = decode(points, outputs.offsets.cpu()).numpy() / self.upsample
        return Answers(spans, self.scores(outputs).cpu().numpy(), points.sizes)

    def scores(self, outputs: PointOutputs) -> Tensor:
        """[P, C] scores of all points, 0 on padding."""
        return outputs.logits.sigmoid() * outputs.mask[:, None]

    def rows(self, features: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features [T, D] as the network takes them: refined and padded, on its device; and each row's video, 0 or -1
        on padding."""
        features = refine(features, self.upsample)
        length = padded_length(len(features), self.levels)
        padded = torch.zeros(length, features.shape[1])
        padded[: len(features)] = torch.from_numpy(features)
        video = torch.where(torch.arange(length) < len(features), 0, -1)
        return padded.to(self.device), video.to(self.device)


@dataclass(frozen=True)
class DetectStage:
    """Map stage: detections of a video, best first; reads the input "model" and, if it is there, "scores"."""

    config: Detection
    name: str = "actionformer/detect"
    version: int = 3
    output: Literal["segments", "arrays"] = "segments"
    detector: type[Detector] = Detector

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, limits, detector = context.data, self.config.decode, self.detector.open(self.config.decode, context)

        def detect(video_id: str) -> Segments:
            features = np.array(data.features(video_id), dtype=np.float32)
            spans, scores, labels = detector.candidates(features)
            if "scores" in context.inputs:
                # ActionFormer's recipe for ActivityNet: the geometric mean with a video-level classifier's probability.
                video = np.asarray(context.inputs["scores"].array("video", video_id))
                scores = scores ** (1 - limits.video_power) * video[labels] ** limits.video_power
            grid = data.grid(video_id, len(features))
            found = suppress(Kept(spans, scores, labels), limits, self.config.postprocess, grid)
            return in_seconds(context, video_id, found, grid, detector.classes)

        return detect


class Answers(NamedTuple):
    """The network's answers at all P points of a video, level by level."""

    spans: np.ndarray
    """[P, 2] float64 positions of snippets."""
    scores: np.ndarray
    """[P, C] float32, 0 on padding."""
    sizes: list[int]
    """Points of each level."""


class ActionFormerDetector(MethodConfig):
    """A multi-scale transformer with local attention that finds class and boundaries at every point of a pyramid."""

    detector: ClassVar[type[Detector]] = Detector
    method: Literal["actionformer"] = "actionformer"
    training: Training = Training()
    decode: Decoding = group(Decoding(), stage="detections")
    postprocess: Postprocess = group(Postprocess(), stage="detections")

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        return TrainStage(self.training).fit(round, labels.inputs())

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos; the proposer's scores, where it has any, weigh their classes."""
        scores = round.first.scores()
        inputs = {"model": model} | ({"scores": scores} if scores is not None else {})
        config = Detection(decode=self.decode, postprocess=self.postprocess)
        return round.map(DetectStage(config, detector=self.detector), inputs)


def suppress(found: Kept, limits: Reading, config: Postprocess, grid: SnippetGrid) -> Kept:
    """Post-processing of one video's candidates, in positions."""
    return postprocess(
        *found,
        config,
        min_score=limits.min_score,
        limit=limits.max_detections,
        second=float(grid.to_position(1.0) - grid.to_position(0.0)),
    )


def in_seconds(context: Context, video_id: str, found: Kept, grid: SnippetGrid, classes: list[str]) -> Segments:
    """Positions as segments in seconds, cut to the video; empty ones are left out."""
    spans = grid.from_position(np.asarray(found.spans, dtype=np.float64))
    duration = context.data.duration(video_id)
    return Segments.clipped(video_id, spans, found.labels, classes, found.scores, duration, context.source)
