"""Training of the detector `actionformer`: options, what is derived from the data, items, loss and optimiser.

Source: ActionFormer (ECCV 2022) section 3.4 and its released code.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tad.detectors.actionformer_targets import RANGE, Targets, assign, pyramid, random_crop
from tad.detectors.schedule import adamw, derived_ema, derived_width
from tad.detectors.windows import Labels, derived_upsample, pack, read_labels, refine, teaching, usual_length
from tad.models.actionformer import ActionFormer
from tad.models.pyramid import padded_length
from tad.ops.losses import diou_1d, sigmoid_focal
from tad.stage import Batch, Context, StageConfig, Total, unwrap


class Training(StageConfig):
    """Network and training; fields that are null are derived from the data, printed and saved with the model."""

    width: int | None = Field(
        default=None, ge=8, description="of the network; null: the power of two nearest half the feature width, 32..512"
    )
    heads: int = Field(default=4, ge=1, description="attention heads; divides the width")
    levels: int | None = Field(
        default=None, ge=1, le=10, description="of the pyramid; null: until half the longest pseudo-label is in range"
    )
    upsample: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="rows that the network sees for each snippet, interpolated; null: 2 where the median pseudo-label "
        "covers fewer than 16 snippets, else 1",
    )
    window: int = Field(default=19, ge=3, description="snippets that attention sees on each level; odd")
    drop_path: float = Field(default=0.1, ge=0, lt=1, description="chance that a residual branch is skipped")
    input_dropout: float = Field(default=0.2, ge=0, lt=1, description="chance that a feature channel is dropped")
    max_length: int | None = Field(
        default=None, ge=1, description="snippets of a training window; null: longer than 95 % of the videos, <= 2304"
    )
    epochs: int = Field(default=35, ge=1, description="passes over the training videos")
    batch_size: int = Field(default=2, ge=1, description="videos of a step, over all workers")
    lr: float | None = Field(
        default=None, gt=0, description="peak; null: 1e-4 for width 512 and batches of 2, more for narrower or larger"
    )
    warmup: float = Field(default=1 / 7, ge=0, lt=1, description="share of the steps until the peak; then a cosine")
    weight_decay: float = Field(default=0.05, ge=0, description="of matrices; none on biases, norms and gains")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="of the averaged weights; null: 0.999, or less for fewer than 10,000 steps",
    )
    centre_radius: float = Field(default=1.5, gt=0, description="of the positive zone around a centre, in strides")
    regression_weight: float = Field(default=1.0, ge=0, description="of the boundary loss beside the class loss")
    score_weight: float = Field(
        default=0.0, ge=0, le=1, description="how far a pseudo-label's score weighs its loss; 0: all count alike"
    )

    @model_validator(mode="after")
    def _shapes(self) -> Training:
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, got {self.window}")
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"heads must divide the width, got {self.heads} heads and width {self.width}")
        return self


class Item(NamedTuple):
    """A window of one video, refined."""

    features: np.ndarray
    """[T, D] float32, `upsample` rows for each snippet but the last."""
    labels: Labels
    """In positions of these rows."""


class DetectorTask:
    """The opened training stage: windows of the training videos with their pseudo-labels as targets.

    Videos without a pseudo-label are all background, or left out (see `teaching`).

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: the derived width is not divisible by the heads.
    """

    def __init__(self, config: Training, context: Context) -> None:
        self.config, self.data = config, context.data
        self.labels = read_labels(context, config.score_weight)
        self.videos = teaching(context, self.labels)
        self.settings = self._resolve()
        self.ema_decay: float = self.settings["ema_decay"]
        self.levels: int = self.settings["levels"]
        self.upsample: int = self.settings["upsample"]
        self.module = build(self.settings)

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A random window of a video; only its rows are read from the file."""
        video_id = self.videos[index]
        features, labels = self.data.features(video_id), self.labels[video_id]
        grid = self.data.grid(video_id, len(features))
        margin = grid.window / (2 * grid.stride)
        crop = random_crop(len(features), labels.spans, self.settings["max_length"], margin, rng)
        rows = refine(features[crop.start : crop.start + crop.size], self.upsample)
        points = (labels.points - crop.start) * self.upsample
        labels = labels._replace(spans=crop.spans * self.upsample, points=points)
        return Item(rows, Labels(*(part[crop.kept] for part in labels)))

    def collate(self, items: list[Item]) -> Batch:
        """Windows one after the other: features [T, D], video [T] and the targets of all P points, level by level."""
        features, video, slots = pack([item.features for item in items], self.levels)
        levels = []
        for item, size in zip(items, slots, strict=True):
            points = pyramid(size, self.levels)
            spans, labels, weights = (torch.from_numpy(part) for part in item.labels[:3])
            radius = self.config.centre_radius
            targets = assign(points, spans, labels, weights, len(self.settings["classes"]), radius)
            levels.append([part.split(points.sizes) for part in targets])
        # From video by video to level by level, which is the order of the network's points.
        targets = Targets(*(torch.cat([torch.cat(level) for level in zip(*part, strict=True)])
                            for part in zip(*levels, strict=True)))  # fmt: skip
        return {"features": features, "video": video, **targets._asdict()}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Focal loss on all points and 1-D DIoU on positive ones, both over a running number of positives."""
        outputs = module(batch["features"], batch["video"])
        positive = batch["classes"].any(-1) & outputs.mask
        number = total(positive.sum().float())
        normaliser = unwrap(module).normaliser
        normaliser.mul_(0.9).add_(0.1 * number.clamp(min=1))
        weights = batch["weights"] * outputs.mask
        focal = sigmoid_focal(outputs.logits, batch["classes"].float()) * weights[:, None]
        diou = diou_1d(outputs.offsets[positive], batch["offsets"][positive]) * weights[positive]
        classification, regression = focal.sum() / normaliser, diou.sum() / normaliser
        return {
            "loss": classification + self.config.regression_weight * regression,
            "classification": classification,
            "regression": regression,
            "positives": positive.sum().float(),
        }

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        return adamw(module, self.settings["lr"], config.weight_decay, config.warmup, steps)

    def _resolve(self) -> dict[str, Any]:
        """The options of the network, with the null ones derived from the data."""
        config, manifest = self.config, self.data.manifest
        sizes = np.concatenate([labels.spans[:, 1] - labels.spans[:, 0] for labels in self.labels.values()])
        upsample = config.upsample or derived_upsample(self.labels)
        steps = config.epochs * max(1, len(self.videos) // config.batch_size)
        width = config.width or derived_width(manifest.grid.dim, config.heads, "actionformer")
        # The last level starts at half its reach; its open end takes what an outlier needs beyond eight levels.
        levels = config.levels or min(8, max(3, 1 + math.ceil(math.log2(max(1.0, sizes.max() * upsample / 2 / RANGE)))))
        lr = 1e-4 * 512 / width * math.sqrt(config.batch_size / 2)
        return {
            "dim": manifest.grid.dim,
            "classes": list(self.data.classes),
            "width": width,
            "heads": config.heads,
            "levels": levels,
            "upsample": upsample,
            "window": config.window,
            "drop_path": config.drop_path,
            "input_dropout": config.input_dropout,
            "max_length": padded_length(config.max_length or usual_length(self.data, self.videos), levels),
            "lr": config.lr or min(1e-3, lr),
            "ema_decay": derived_ema(steps) if config.ema_decay is None else config.ema_decay,
            "longest_label": round(float(sizes.max()), 1),
        }


def build(settings: dict[str, Any]) -> ActionFormer:
    """The network that a model's settings describe, with fresh weights."""
    names = ("dim", "width", "heads", "levels", "window", "drop_path", "input_dropout")
    return ActionFormer(classes=len(settings["classes"]), **{name: settings[name] for name in names})
