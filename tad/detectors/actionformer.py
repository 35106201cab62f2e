"""The detector `actionformer`: trained on pseudo-labels as if they were full labels, one model for all classes.

Source: ActionFormer (ECCV 2022) and its released code; channel dropout of the input as in OpenTAD's configuration.
The network is in tad.models.actionformer, points and targets in tad.detectors.actionformer_targets.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import nn

from tad.data.dataset import Role
from tad.data.segments import Segments
from tad.detectors.actionformer_targets import decode, pyramid
from tad.detectors.actionformer_training import DetectorTask, Training, build
from tad.detectors.postprocess import Postprocess, postprocess
from tad.detectors.windows import refine
from tad.errors import RunError
from tad.models.pyramid import padded_length
from tad.stage import Artifact, Before, Context, Engine, StageConfig


class Decoding(StageConfig):
    """From the network's answers to detections; changing it needs no training."""

    min_score: float = Field(default=0.001, ge=0, lt=1, description="class scores at or below it are dropped")
    top_k: int = Field(
        default=2000, ge=1, description="best (point, class) pairs of each level that reach post-processing"
    )
    min_length: float = Field(default=0.05, ge=0, description="shortest segment, in snippets")
    video_power: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="share, in the exponent, of the proposer's video score; 0: none",
    )
    max_detections: int = Field(default=200, ge=1, description="detections of each video, the best ones")


class Detection(StageConfig):
    """All that detecting depends on."""

    decode: Decoding = Decoding()
    postprocess: Postprocess = Postprocess()


class ActionFormerDetector(Training):
    """A multi-scale transformer with local attention that finds class and boundaries at every point of a pyramid."""

    method: Literal["actionformer"] = "actionformer"
    decode: Decoding = Decoding()
    postprocess: Postprocess = Postprocess()

    wants_candidates: ClassVar[bool] = False
    rescores: ClassVar[Literal[False]] = False

    def train(
        self,
        engine: Engine,
        labels: Artifact,
        scores: Artifact | None = None,
        candidates: Artifact | None = None,
        before: Before | None = None,
    ) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos; the other inputs are for other methods."""
        options = self.model_dump(exclude={"method", "decode", "postprocess"})
        return engine.fit(TrainStage(Training(**options)), {"labels": labels})

    def detect(
        self,
        engine: Engine,
        model: Artifact,
        role: Role,
        scores: Artifact | None = None,
        candidates: Artifact | None = None,
    ) -> Artifact:
        """Detections in all videos of a role; `scores` are the proposer's, for their video-level class scores."""
        inputs = {"model": model} | ({"scores": scores} if scores is not None else {})
        return engine.map(DetectStage(Detection(decode=self.decode, postprocess=self.postprocess)), inputs, role)


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels"."""

    config: Training
    name: str = "actionformer/train"
    version: int = 2

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @property
    def ema_decay(self) -> float | None:
        """The most there is; the task's own, which knows the number of steps, goes before."""
        return 0.999 if self.config.ema_decay is None else self.config.ema_decay

    @property
    def clip_norm(self) -> float | None:
        return self.config.clip_norm

    def open(self, context: Context) -> DetectorTask:
        return DetectorTask(self.config, context)


@dataclass(frozen=True)
class DetectStage:
    """Detections of one video after the other; reads the input "model" and, if it is there, "scores"."""

    config: Detection
    name: str = "actionformer/detect"
    version: int = 3
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
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
        spans, scores, labels = postprocess(
            spans,
            scores,
            labels,
            self.config.postprocess,
            min_score=limits.min_score,
            limit=limits.max_detections,
            second=float(grid.to_position(1.0) - grid.to_position(0.0)),
        )
        spans = np.clip(grid.from_position(np.asarray(spans, dtype=np.float64)), 0.0, data.duration(video_id))
        real = spans[:, 0] < spans[:, 1]
        names = [self.classes[i] for i in labels[real]]
        return Segments.of(
            video_id, spans[real, 0], spans[real, 1], names, scores[real], source=self.context.source
        )  # fmt: skip

    def candidates(self, features: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Features [T, D] to all (point, class) pairs that reach post-processing.

        Returns:
            [N, 2] positions, [N] scores, [N] class indices; the best `top_k` of each level, level by level.
        """
        features = refine(features, self.upsample)
        length = padded_length(len(features), self.levels)
        padded = torch.zeros(length, features.shape[1])
        padded[: len(features)] = torch.from_numpy(features)
        video = torch.where(torch.arange(length) < len(features), 0, -1)
        with torch.inference_mode():
            outputs = self.module(padded.to(self.device), video.to(self.device))
        points = pyramid(length, self.levels)
        spans = decode(points, outputs.offsets.cpu()).numpy() / self.upsample
        scores = (outputs.logits.sigmoid() * outputs.mask[:, None]).cpu().numpy()
        usable = spans[:, 1] - spans[:, 0] > self.config.decode.min_length
        found = []
        for first, size in zip(np.cumsum([0, *points.sizes[:-1]]), points.sizes, strict=True):
            level = scores[first : first + size]
            point, label = np.nonzero((level > self.config.decode.min_score) & usable[first : first + size, None])
            best = np.argsort(-level[point, label], kind="stable")[: self.config.decode.top_k]
            found.append((point[best] + first, label[best]))
        point, label = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return spans[point], scores[point, label], label
