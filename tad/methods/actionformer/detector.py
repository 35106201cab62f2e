"""The detector `actionformer`: trained on pseudo-labels as if they were full labels, one model for all classes.

Source: ActionFormer (ECCV 2022) and its released code; channel dropout of the input as in OpenTAD's configuration.
The network is in tad.methods.actionformer.model, points and targets in tad.methods.actionformer.targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from pydantic import model_validator
from torch import Tensor, nn

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.errors import RunError
from tad.methods.actionformer.model import joint_quality
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.targets import decode, pyramid
from tad.methods.actionformer.training import DetectorTask, build
from tad.methods.actionformer.warm_start import differing
from tad.methods.common.contrastive import ContrastiveConfig, start
from tad.methods.common.postprocess import Kept, Postprocess, postprocess
from tad.methods.common.pyramid import padded_length
from tad.methods.common.windows import refine
from tad.methods.roles import Labels, MethodConfig, Roles, Round
from tad.options import group, option
from tad.ranges import Float, Integer
from tad.stages import Artifact, Context, StageConfig


class Reading(StageConfig):
    """From the network's answers to segments; changing it needs no training."""

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
        tune=Integer(50, 1000, log=True),
        why="ActionFormer 200, 100 on ActivityNet",
    )
    quality_power: bounds.Fraction = option(
        1.0,
        "exponent of the predicted quality in the score, where the network has it",
        tune=Float(0.0, 1.0),
        why="APL 1; exponent of the predicted quality beside the class score",
        when=("detector.quality.enabled", True),
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

    decode: Decoding = Decoding()
    postprocess: Postprocess = Postprocess()


class ActionFormerDetector(Training, MethodConfig):
    """A multi-scale transformer with local attention that finds class and boundaries at every point of a pyramid."""

    method: Literal["actionformer"] = "actionformer"
    pretrain: ContrastiveConfig = ContrastiveConfig()
    decode: Decoding = group(Decoding(), stage="detections")
    postprocess: Postprocess = group(Postprocess(), stage="detections")

    @model_validator(mode="after")
    def _one_start(self) -> ActionFormerDetector:
        if self.pretrain.enabled and self.init == "before":
            raise ValueError(
                "pretrain.enabled and init: before are two models to start from; set init to none, or "
                "pre-train the proposer"
            )
        return self

    def problems(self, data: Dataset) -> list[str]:
        if self.unlabelled_weight is None or any(data.supervision(v) == "full" for v in data.videos("train")):
            return []
        return [
            "detector.unlabelled_weight weighs videos beside fully labelled ones, and none of the "
            f"{len(data.videos('train'))} training videos has full labels; add full_labels.csv, or set it to null"
        ]

    def conflicts(self, recipe: Roles) -> list[str]:
        if self.init != "before":
            return []
        if recipe.proposer.method != "actionformer":
            return [
                "detector.init: before starts from the proposer's weights, but the proposer is "
                f"{recipe.proposer.method}; use proposer actionformer, or detector.init: none"
            ]
        unlike = differing(self, recipe.proposer.training)  # type: ignore[attr-defined]
        if not unlike:
            return []
        return [
            "detector.init: before starts from the proposer's weights, but detector and proposer.training differ in "
            f"{', '.join(unlike)}; set them alike, or detector.init: none"
        ]

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        options = Training(**self.model_dump(exclude={"method", "pretrain", "decode", "postprocess"}))
        training, inputs = start(round, self.pretrain, options)
        if self.init == "before":
            inputs["before"] = round.previous.model
        return round.fit(TrainStage(training), labels.inputs() | inputs)

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos; the proposer's scores, where it has any, weigh their classes."""
        scores = round.first.scores()
        inputs = {"model": model} | ({"scores": scores} if scores is not None else {})
        return round.map(DetectStage(Detection(decode=self.decode, postprocess=self.postprocess)), inputs)


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels" and, where they are, "ignored" and "before" (init: before)."""

    config: Training
    name: str = "actionformer/train"
    version: int = 2

    def open(self, context: Context) -> DetectorTask:
        return DetectorTask(self.config, context)


@dataclass(frozen=True)
class DetectStage:
    """Detections of one video after the other; reads the input "model" and, if it is there, "scores"."""

    config: Detection
    name: str = "actionformer/detect"
    version: int = 3
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Detector:
        saved = context.inputs["model"].model()
        settings = saved["settings"]
        dim = context.data.manifest.grid.dim
        if dim != settings["dim"]:
            raise RunError(
                f"{context.data.root}: features of width {dim}, but the detector was trained on width "
                f"{settings['dim']}; use features of the same kind"
            )
        module = build(settings)
        module.load_state_dict(saved["state"])
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        module = module.to(device).eval()
        return Detector(
            self.config, context, module, settings["levels"], settings["upsample"], settings["classes"], device
        )


@dataclass(frozen=True)
class Detector:
    """A trained network and all it needs to detect in one video."""

    config: Detection
    context: Context
    module: nn.Module
    levels: int
    upsample: int
    classes: list[str]
    device: torch.device

    def __call__(self, video_id: str) -> Segments:
        """The video's detections, best first."""
        data, limits = self.context.data, self.config.decode
        features = np.array(data.features(video_id), dtype=np.float32)
        spans, scores, labels = self.candidates(features)
        if "scores" in self.context.inputs:
            # ActionFormer's recipe for ActivityNet: the geometric mean with a video-level classifier's probability.
            video = np.asarray(self.context.inputs["scores"].array("video", video_id))
            scores = scores ** (1 - limits.video_power) * video[labels] ** limits.video_power
        grid = data.grid(video_id, len(features))
        found = suppress(Kept(spans, scores, labels), limits, self.config.postprocess, grid)
        return in_seconds(self.context, video_id, found, grid, self.classes)

    def candidates(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [T, D] to all (point, class) pairs that reach post-processing.

        Returns:
            [N, 2] positions, [N] scores, [N] class indices; the best `top_k` of each level, level by level.
        """
        return self.best(self.answers(features))

    def best(self, answers: Answers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The candidates among the network's answers; see `candidates`."""
        usable = answers.spans[:, 1] - answers.spans[:, 0] > self.config.decode.min_length
        found = []
        for first, size in zip(np.cumsum([0, *answers.sizes[:-1]]), answers.sizes, strict=True):
            level = answers.scores[first : first + size]
            point, label = np.nonzero((level > self.config.decode.min_score) & usable[first : first + size, None])
            best = np.argsort(-level[point, label], kind="stable")[: self.config.decode.top_k]
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
        scores = outputs.logits.sigmoid() * outputs.mask[:, None]
        if outputs.quality is not None:
            scores = scores * joint_quality(outputs.quality)[:, None] ** self.config.decode.quality_power
        return Answers(spans, scores.cpu().numpy(), points.sizes)

    def rows(self, features: np.ndarray) -> tuple[Tensor, Tensor]:
        """Features [T, D] as the network takes them: refined and padded, on its device; and each row's video, 0 or -1
        on padding."""
        features = refine(features, self.upsample)
        length = padded_length(len(features), self.levels)
        padded = torch.zeros(length, features.shape[1])
        padded[: len(features)] = torch.from_numpy(features)
        video = torch.where(torch.arange(length) < len(features), 0, -1)
        return padded.to(self.device), video.to(self.device)


class Answers(NamedTuple):
    """The network's answers at all P points of a video, level by level."""

    spans: np.ndarray
    """[P, 2] float64 positions of snippets."""
    scores: np.ndarray
    """[P, C] float32, 0 on padding."""
    sizes: list[int]
    """Points of each level."""


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
    spans = np.clip(spans, 0.0, context.data.duration(video_id))
    real = spans[:, 0] < spans[:, 1]
    names = [classes[i] for i in found.labels[real]]
    return Segments.of(video_id, spans[real, 0], spans[real, 1], names, found.scores[real], source=context.source)
