"""Training of the instance model: options, items, losses and optimiser.

Source: HR-Pro (AAAI 2024), instance-level completeness learning, in the form its code runs.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tad import bounds
from tad.data.segments import Segments
from tad.errors import DataError
from tad.methods.common.optimisers import default_batch
from tad.methods.hrpro.detector_model import InstanceModel, framed
from tad.methods.snippet.training import read_features
from tad.ops.iou import tiou
from tad.ops.losses import smooth_l1
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import Batch, Budget, Context, StageConfig, Total

log = logging.getLogger(__name__)

ANY = -1
"""Class of a proposal that may match pseudo-labels of all classes."""


class InstanceTraining(StageConfig):
    """Model, losses and optimiser of the instance model."""

    bins: int = option(
        12,
        "RoI bins over a proposal and its extensions",
        ge=3,
        le=bounds.PARTS,
        paper=12,
        tune=Choice(8, 12, 16, 24),
        why="paper 12 pooled rows of a proposal and its surroundings",
    )
    extension: bounds.Ratio = option(
        0.25,
        "context on either side, as a share of the length",
        paper=0.25,
        tune=Float(0.1, 0.5),
        why="paper .25 of the length on either side",
    )
    dropout: bounds.Chance = option(
        0.7, "in the score head", paper=0.7, tune=Float(0.2, 0.8), why="code .7; in the score head"
    )
    positive_tiou: bounds.PositiveFraction = option(
        0.3,
        "proposals with at least this tIoU with a pseudo-label learn boundaries",
        paper=0.3,
        tune=Float(0.2, 0.6),
        why="paper .3; higher leaves fewer proposals to learn boundaries from",
    )
    match_class: bool = option(
        True, "candidates match pseudo-labels of their own class; false: of any class, as published", paper=False
    )
    max_proposals: bounds.Count = option(
        1000,
        "of a video in each epoch, drawn anew",
        paper=1000,
        tune=Integer(200, 2000, log=True),
        why="paper 1000 of a video in each epoch; sets the cost of a step",
    )
    completeness_weight: bounds.Weight = option(
        1.0,
        "weight of the completeness loss",
        paper=1.0,
        tune=Float(0.1, 10.0, log=True),
        why="code 1; the loss of completeness",
        formerly="score_weight",
    )
    regression_weight: bounds.Weight = option(
        1.0,
        "weight of the boundary loss",
        paper=1.0,
        tune=Float(0.1, 10.0, log=True),
        why="code 1; the loss of boundaries",
    )
    lr: bounds.Rate | None = option(
        None,
        "null: 5e-5 * 2048 / feature width, at most 1e-3",
        paper=None,  # 5e-5, which is the derived one at its feature width of 2048
        free=True,
        tune=Float(1e-5, 1e-3, log=True),
        why="code 5e-5, paper 1e-4 for features of width 2048; narrower ones want more",
        stand_in=2e-4,
    )
    weight_decay: bounds.Penalty = option(
        5e-4, "L2 penalty of Adam", paper=5e-4, tune=Float(1e-5, 0.01, log=True), why="code 5e-4, paper 1e-3"
    )
    epochs: bounds.Epochs = option(
        20,
        "passes over the training videos",
        paper=20,
        free=True,
        tune=Integer(3, 100, log=True),
        why="code 20; more for few videos",
    )
    batch_size: bounds.BatchSize | None = option(
        None,
        "null: 10, fewer if there are under 80 videos",
        paper=10,
        free=True,
        tune=Choice(None, 4, 5, 8, 10, 16),
        why="code 10; smaller for few videos",
    )
    ema_decay: bounds.Decay | None = option(
        None, "decay of averaged weights; null: the last weights", paper=None, formerly="ema"
    )


@dataclass(frozen=True)
class InstanceTrain:
    """Fit stage: the instance model; inputs "labels", "candidates" and "negatives"."""

    config: InstanceTraining
    name: str = "hrpro-instance/train"
    detects: ClassVar[bool] = True
    version: int = 1

    def open(self, context: Context) -> InstanceTask:
        return InstanceTask(self.config, context)


class Proposals(NamedTuple):
    """Proposals or pseudo-labels of one video."""

    spans: np.ndarray
    """[N, 2] float64 seconds (in an item: positions)."""
    classes: np.ndarray
    """[N] int64 class indices, or ANY."""


class Item(NamedTuple):
    """The proposals of one video that an epoch's loss reads, in positions."""

    features: Tensor  # [T, D] float32
    proposals: Proposals
    target: np.ndarray  # [N] float32, the largest tIoU with a pseudo-label that the proposal may match
    labels: Proposals


class InstanceTask:
    """The training task; an item is one video.

    Raises:
        DataError: no training video has both candidates and pseudo-labels, or a class is not the dataset's.
    """

    def __init__(self, config: InstanceTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.budget = Budget(config.epochs, config.batch_size or default_batch(self.data, 10), config.ema_decay)
        labels, candidates, negatives = (segments_of(context, x) for x in ("labels", "candidates", "negatives"))
        self.videos = [v for v in context.videos if v in labels and v in candidates]
        skipped = len(context.videos) - len(self.videos)
        if not self.videos:
            raise DataError(
                f"{context.inputs['labels'].path / 'segments.parquet'}: none of the {len(context.videos)} training "
                "videos has both a pseudo-label and a candidate; there is nothing to learn"
            )
        if skipped:
            log.info("leaving out %d of %d videos without pseudo-labels or candidates", skipped, len(context.videos))
        self.labels = {v: self._read(labels[v], config.match_class) for v in self.videos}
        self.proposals: dict[str, Proposals] = {}
        for video in self.videos:
            parts = [self._read(candidates[video], config.match_class)]
            if video in negatives:
                parts.append(self._read(negatives[video], False))
            self.proposals[video] = Proposals(*(np.concatenate(part) for part in zip(*parts, strict=True)))
        dim = self.data.manifest.grid.dim
        self.lr = min(1e-3, 5e-5 * 2048 / dim) if config.lr is None else config.lr
        architecture: dict[str, Any] = {
            "dim": dim,
            "bins": config.bins,
            "extension": config.extension,
            "dropout": config.dropout,
        }
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "lr": self.lr,
            "videos": len(self.videos),
            "skipped_videos": skipped,
        }
        self.module = InstanceModel(**architecture)

    def _read(self, segments: Segments, classes: bool) -> Proposals:
        found = segments.label_index(self.data.classes)
        return Proposals(segments.spans, found if classes else np.full_like(found, ANY))

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """The positives of a video and as many of its other proposals, in expectation."""
        video = self.videos[index]
        proposals, labels = self.proposals[video], self.labels[video]
        if len(proposals.spans) > self.config.max_proposals:
            drawn = rng.choice(len(proposals.spans), self.config.max_proposals, replace=False)
            proposals = Proposals(*(part[drawn] for part in proposals))
        target = targets(proposals, labels)
        positive = target >= self.config.positive_tiou
        rest = max(1, int((~positive).sum()))
        kept = positive | (rng.random(len(target)) < positive.sum() / rest)
        features = read_features(self.data, video)
        grid = self.data.grid(video, len(features))
        return Item(
            features,
            Proposals(grid.to_position(proposals.spans[kept]), proposals.classes[kept]),
            target[kept].astype(np.float32),
            Proposals(grid.to_position(labels.spans), labels.classes),
        )

    def collate(self, items: list[Item]) -> Batch:
        """All proposals one after the other, with their video; features and pseudo-labels padded to the longest."""
        features, lengths = framed([item.features for item in items])
        most = max(len(item.labels.spans) for item in items)
        label_spans = torch.zeros(len(items), most, 2, dtype=torch.float64)
        label_classes = torch.full((len(items), most), ANY)
        label_mask = torch.zeros(len(items), most, dtype=torch.bool)
        for v, item in enumerate(items):
            own = len(item.labels.spans)
            label_spans[v, :own] = torch.from_numpy(item.labels.spans)
            label_classes[v, :own] = torch.from_numpy(item.labels.classes)
            label_mask[v, :own] = True
        target = torch.from_numpy(np.concatenate([item.target for item in items]))
        return {
            "features": features,
            "lengths": lengths,
            "spans": torch.from_numpy(np.concatenate([item.proposals.spans for item in items])),
            "classes": torch.from_numpy(np.concatenate([item.proposals.classes for item in items])),
            "target": target,
            "positive": (target >= self.config.positive_tiou).nonzero()[:, 0],
            "video": torch.repeat_interleave(torch.tensor([len(item.target) for item in items])),
            "label_spans": label_spans,
            "label_classes": label_classes,
            "label_mask": label_mask,
        }

    def loss(self, module: torch.nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Completeness and boundary loss of each video, averaged over the videos."""
        video, target = batch["video"], batch["target"]
        answers = module(batch["features"], batch["lengths"], batch["spans"], video)
        videos = len(batch["lengths"])
        number = total(answers.completeness.new_full((), videos))
        positive = batch["positive"]
        reached = overlap(answers.refined[positive], video[positive], batch["classes"][positive], batch)
        score = video_means(smooth_l1(answers.completeness, target), video, videos)
        regression = video_means(smooth_l1(reached, torch.ones_like(reached)), video[positive], videos)
        shares = {"score": score.sum() / number, "regression": regression.sum() / number}
        loss = self.config.completeness_weight * shares["score"] + self.config.regression_weight * shares["regression"]
        return {"loss": loss, **shares}

    def optimiser(self, module: torch.nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        decay = self.config.weight_decay
        return torch.optim.Adam(module.parameters(), lr=self.lr, weight_decay=decay, fused=True), None


def segments_of(context: Context, name: str) -> Mapping[str, Segments]:
    """The segments of an input by video.

    Raises:
        DataError: a class is not the dataset's.
    """
    artifact, data = context.inputs[name], context.data
    by_video = artifact.by_video()
    unknown = sorted(by_video.labels - set(data.classes))
    if unknown:
        raise DataError(
            f"{artifact.path / 'segments.parquet'}: {name} of classes that {data.root} does not have: "
            f"{', '.join(unknown)}; its classes are {', '.join(data.classes)}"
        )
    return by_video


def targets(proposals: Proposals, labels: Proposals) -> np.ndarray:
    """[N] float64: the largest tIoU of each proposal with a pseudo-label that it may match; 0 if there is none."""
    match = (proposals.classes[:, None] == labels.classes) | (proposals.classes[:, None] == ANY)
    return np.where(match, tiou(proposals.spans, labels.spans), 0.0).max(axis=1, initial=0.0)


def overlap(spans: Tensor, video: Tensor, classes: Tensor, batch: Batch) -> Tensor:
    """[R] the largest tIoU of refined segments with the pseudo-labels of their video that they may match.

    Differentiable; 0 for a segment that overlaps none, or whose end lies before its start.

    Args:
        spans: [R, 2] positions.
        video: [R] which video each is of.
        classes: [R] class indices, or ANY.
        batch: from `InstanceTask.collate`.
    """
    labels = batch["label_spans"][video]
    match = (classes[:, None] == batch["label_classes"][video]) | (classes[:, None] == ANY)
    shared = torch.minimum(spans[:, None, 1], labels[..., 1]) - torch.maximum(spans[:, None, 0], labels[..., 0])
    shared = (shared * (match & batch["label_mask"][video])).clamp(min=0)
    union = (spans[:, 1] - spans[:, 0])[:, None] + labels[..., 1] - labels[..., 0] - shared
    # Where nothing is shared the union of an inverted segment may be 0 or less.
    return torch.where(shared > 0, shared / union.clamp(min=1e-9), shared).amax(dim=1)


def video_means(values: Tensor, video: Tensor, videos: int) -> Tensor:
    """[V] mean of the values [R] of each video; 0 where it has none."""
    sums = values.new_zeros(videos).index_add(0, video, values)
    return sums / values.new_zeros(videos).index_add(0, video, torch.ones_like(values)).clamp(min=1)
