"""Training of the detector `bmn`: options, what is derived from the data, items, losses and optimiser.

Source: BMN (ICCV 2019) section 3.4 and its public re-implementations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tad.detectors.bmn_losses import (
    LOW,
    boundary_loss,
    class_loss,
    distance_loss,
    regression_loss,
    soft_class_loss,
)
from tad.detectors.bmn_targets import (
    Fit,
    boundary_targets,
    held,
    positives,
    proposal_targets,
    read_window,
    windows,
)
from tad.detectors.schedule import derived_width
from tad.detectors.windows import SHORT, expected_length, read_ignored, read_labels, teaching
from tad.errors import ConfigError
from tad.models.bmn import Bmn
from tad.ops.bmn_sampling import valid_cells
from tad.stage import Batch, Context, StageConfig, Total

FILLED = 8.0
"""Bins that the median pseudo-label should cover; where a resized video leaves it fewer, videos are cut to windows."""


class BmnTraining(StageConfig):
    """Network, windows, losses and optimiser; null fields are derived from the data and saved with the model."""

    fit: Fit | None = Field(
        default=None,
        description="resize whole videos, or cut them to windows that overlap by half; null: resize where the features "
        "are already resized or the median pseudo-label still covers 8 bins",
    )
    length: int | None = Field(
        default=None, ge=4, description="bins of a window; null: the rows of resized features, else 128"
    )
    durations: int | None = Field(
        default=None, ge=1, description="longest proposal in bins; null: length if resized, else half of it"
    )
    upsample: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="bins for each snippet in windows; null: until the median pseudo-label covers 16",
    )
    width: int | None = Field(
        default=None, ge=8, multiple_of=4, description="of the base; null: published 256, or half the feature width"
    )
    samples: int = Field(default=32, ge=2, description="places at which a proposal is sampled")
    published_edges: bool = Field(
        default=False, description="true: the released code's uneven weights of samples beyond the window"
    )
    quality: bool = Field(
        default=False, description="a third map, the distance of centres, and a joint score (APL's quality branches)"
    )
    quality_weight: float = Field(default=0.1, ge=0, description="of the third map's loss")
    coverage: float = Field(
        default=0.75, gt=0, le=1, description="a window teaches the pseudo-labels of which it holds this share"
    )
    positive: float = Field(default=0.9, gt=0, lt=1, description="tIoU above which a proposal is positive")
    best_positive: bool = Field(
        default=True, description="a pseudo-label's best proposal is positive too, if its tIoU is above 0.5"
    )
    regression_weight: float = Field(default=5.0, ge=0, description="of the tIoU map's loss")
    unlabelled_weight: float | None = Field(
        default=None,
        ge=0,
        description="of the loss on videos that are not fully labelled, balanced on its own; null: all in one loss",
    )
    epochs: int = Field(default=10, ge=1, description="passes over the training windows")
    batch_size: int = Field(default=16, ge=1, description="windows of a step, over all workers")
    lr: float | None = Field(default=None, gt=0, description="null: 1e-3 for resized videos, 1e-4 for windows")
    decay_at: float = Field(default=0.7, gt=0, le=1, description="share of the steps after which the rate falls to .1")
    weight_decay: float = Field(default=1e-4, ge=0, description="10 times as much on the base")
    clip_norm: float = Field(default=1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float | None = Field(
        default=None, ge=0, lt=1, description="of the averaged weights; null: the last weights are used"
    )

    @model_validator(mode="after")
    def _shapes(self) -> BmnTraining:
        if None not in (self.length, self.durations) and self.durations > self.length:  # type: ignore[operator]
            raise ValueError(f"durations must not exceed length, got {self.durations} and {self.length}")
        return self


class Item(NamedTuple):
    """A window of one video with its targets."""

    features: np.ndarray
    """[T, C] float32."""
    bins: int
    start: np.ndarray
    """[T] float32."""
    end: np.ndarray
    """[T] float32."""
    quality: np.ndarray
    """[2, K] float32: tIoU and distance of every cell."""
    positive: np.ndarray
    """[K] bool."""
    bins_known: np.ndarray
    """[T] bool: inside the video, and no boundary of an ignored zone is near."""
    cells_known: np.ndarray
    """[K] bool: inside the video, and not about an ignored zone."""
    draw: np.ndarray
    """[K] float32 random numbers."""
    full: bool
    """Whether the video is fully labelled."""


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels"."""

    config: BmnTraining
    name: str = "bmn/train"
    version: int = 1

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def batch_size(self) -> int:
        return self.config.batch_size

    @property
    def ema_decay(self) -> float | None:
        return self.config.ema_decay

    @property
    def clip_norm(self) -> float | None:
        return self.config.clip_norm

    def open(self, context: Context) -> BmnTask:
        return BmnTask(self.config, context)


class BmnTask:
    """The opened training stage: windows with pseudo-labels in them; videos that are all background give all theirs.

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: `durations` exceeds the derived length.
    """

    def __init__(self, config: BmnTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.labels, self.ignored = read_labels(context), read_ignored(context)
        self.settings = self._resolve()
        self.cells = valid_cells(self.settings["length"], self.settings["durations"])
        self.items = [(v, i) for v in teaching(context, self.labels) for i in self._teaching(v)]
        self.module = build(self.settings)

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A window of a video, always the same but for the random numbers."""
        video_id, number = self.items[index]
        length, features = self.settings["length"], self.data.features(video_id)
        # The video may have fewer rows than its duration lets expect.
        window = self._windows(len(features))[number:][:1] or self._windows(len(features))[-1:]
        bins = window[0].bins
        spans, _ = held(window[0].to_bins(self.labels[video_id].spans), bins, self.config.coverage)
        targets = proposal_targets(self.cells, spans)
        zones = window[0].to_bins(self.ignored.get(video_id, np.zeros((0, 2))))
        near = np.maximum(*(boundary_targets(zones[:, side], length) for side in (0, 1))) > 0.5
        about = proposal_targets(self.cells, zones).tiou > np.maximum(LOW, targets.tiou)
        ends = self.cells.start + self.cells.duration
        return Item(
            read_window(features, window[0], length),
            bins,
            boundary_targets(spans[:, 0], length),
            boundary_targets(spans[:, 1], length),
            np.stack(targets),
            positives(self.cells, spans, targets.tiou, self.config.positive, self.config.best_positive),
            (np.arange(length) < bins) & ~near,
            (ends < bins) & ~about,
            rng.random(len(self.cells.start), dtype=np.float32),
            self.data.full_labels(video_id) is not None,
        )

    def collate(self, items: list[Item]) -> Batch:
        """The fields of the items stacked; `mask` [B, T] is true inside the videos."""
        fields = {
            name: torch.from_numpy(np.stack([getattr(item, name) for item in items]))
            for name in Item._fields
            if name not in ("bins", "full")
        }
        bins = np.array([item.bins for item in items])[:, None]
        return fields | {
            "mask": torch.from_numpy(np.arange(self.settings["length"]) < bins),
            "full": torch.tensor([item.full for item in items]),
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Boundaries, first map and five times the second, over all windows or by whether their video is labelled."""
        outputs = module(batch["features"], batch["mask"])
        weight = self.config.unlabelled_weight
        everything = torch.ones_like(batch["full"])
        groups = [(1.0, everything)] if weight is None else [(1.0, batch["full"]), (weight, ~batch["full"])]
        maps = outputs.maps[:, :, self.cells.duration, self.cells.start]
        values: dict[str, Tensor] = {}
        for share, group in groups:
            bins, cells = batch["bins_known"] & group[:, None], batch["cells_known"] & group[:, None]
            for name, value in self._losses(outputs.start, outputs.end, maps, batch, bins, cells, total).items():
                values[name] = values.get(name, 0.0) + share * value
        weights = {"regression": self.config.regression_weight, "distance": self.config.quality_weight}
        return {"loss": sum((weights.get(k, 1.0) * v for k, v in values.items()), torch.zeros(()).to(maps))} | values

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Adam, with one fall of the rate."""
        base = {id(p) for p in module.base.parameters()}  # type: ignore[union-attr]
        decay = self.config.weight_decay
        groups = [
            {"params": [p for p in module.parameters() if (id(p) in base) == first], "weight_decay": amount}
            for first, amount in ((True, 10 * decay), (False, decay))
        ]
        optimiser = torch.optim.Adam(groups, lr=self.settings["lr"])
        fall = math.ceil(self.config.decay_at * steps)
        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 if step < fall else 0.1)

    def _losses(
        self, start: Tensor, end: Tensor, maps: Tensor, batch: Batch, bins: Tensor, cells: Tensor, total: Total
    ) -> dict[str, Tensor]:
        tiou, distance = batch["quality"].unbind(1)
        losses = {
            "start": boundary_loss(start, batch["start"], bins, total),
            "end": boundary_loss(end, batch["end"], bins, total),
            "regression": regression_loss(maps[:, 1], tiou, cells, batch["draw"], total),
        }
        if not self.config.quality:
            return losses | {"classification": class_loss(maps[:, 0], batch["positive"], cells, total)}
        return losses | {
            "classification": soft_class_loss(maps, batch["quality"], batch["positive"], cells, total),
            "distance": distance_loss(maps[:, 2], distance, cells & (tiou > 0), total),
        }

    def _windows(self, snippets: int) -> list[Any]:
        return windows(snippets, self.settings["length"], self.settings["fit"], self.settings["upsample"])

    def _teaching(self, video_id: str) -> list[int]:
        """The windows of a video that hold a pseudo-label; all of a video without any."""
        spans = self.labels[video_id].spans
        found = self._windows(expected_length(self.data, video_id))
        return [
            i
            for i, window in enumerate(found)
            if not len(spans) or len(held(window.to_bins(spans), window.bins, self.config.coverage)[1])
        ]

    def _resolve(self) -> dict[str, Any]:
        """The options of the network and its windows, with the null ones derived from the data."""
        config, grid = self.config, self.data.manifest.grid
        length = config.length or grid.length or 128
        fit = config.fit or ("resize" if grid.length or self._covered(length) >= FILLED else "windows")
        spans = np.concatenate([labels.spans for labels in self.labels.values()])
        median = float(np.median(spans[:, 1] - spans[:, 0]))
        upsample = 1 if fit == "resize" else config.upsample or int(np.clip(math.ceil(SHORT / median), 1, 4))
        durations = config.durations or (length if fit == "resize" else length // 2)
        if durations > length:
            raise ConfigError(f"bmn: durations {durations} exceed the derived length {length}; lower it, or set length")
        return {
            "dim": grid.dim,
            "classes": list(self.data.classes),
            "fit": fit,
            "length": length,
            "durations": durations,
            "upsample": upsample,
            "width": config.width or min(256, derived_width(grid.dim, 4, "bmn")),
            "samples": config.samples,
            "distance": config.quality,
            "published_edges": config.published_edges,
            "lr": config.lr or (1e-3 if fit == "resize" else 1e-4),
            "median_label": round(median, 1),
        }

    def _covered(self, length: int) -> float:
        """Bins that the median pseudo-label covers in a resized video."""
        return float(np.median(np.concatenate([
            (labels.spans[:, 1] - labels.spans[:, 0]) * length / expected_length(self.data, video)
            for video, labels in self.labels.items()
        ])))  # fmt: skip


def build(settings: dict[str, Any]) -> Bmn:
    """The network that a model's settings describe, with fresh weights."""
    names = ("dim", "length", "durations", "width", "samples", "distance", "published_edges")
    return Bmn(**{name: settings[name] for name in names})
