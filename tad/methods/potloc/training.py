"""Training of the detector `potloc`: what is derived from the data, items, losses and optimiser.

Source: POTLoc (Vahdani and Tian) and its released code.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.common.optimisers import adamw, derived_ema, derived_width
from tad.methods.common.pyramid import real_points
from tad.methods.common.windows import (
    Labels,
    derived_upsample,
    expected_length,
    pack,
    read_labels,
    refine,
    teaching,
    usual_length,
)
from tad.methods.potloc.model import Potloc
from tad.methods.potloc.options import PotlocTraining
from tad.methods.potloc.targets import annotated, background_seeds, sample, window
from tad.methods.snippet.model import video_scores
from tad.ops.losses import probability_entropy, probability_focal
from tad.stages import Batch, Budget, Context, Total


class Item(NamedTuple):
    """A window of one video."""

    features: np.ndarray  # [T, D] float32
    targets: Tensor  # [L, T, C] bool
    present: np.ndarray  # [C] bool, classes with a point in the window


class PotlocTask:
    """The opened training stage: windows of the training videos, pseudo-labels as targets.

    Whether a class is present in a window is said by the given points, not by the pseudo-labels; only a video without
    any given point has those of its pseudo-labels. Videos without a pseudo-label hold no class, or are left out (see
    `teaching`).

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: the derived width is not divisible by the heads.
    """

    def __init__(self, config: PotlocTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.labels = read_labels(context)
        self.videos = teaching(context, self.labels)
        self.points = {v: self._points(v) for v in self.videos}
        self.settings = self._resolve()
        self.budget = Budget(config.epochs, config.batch_size, self.settings["ema_decay"], config.clip_norm)
        self.classes = len(self.data.classes)
        self.module = build(self.settings)

    def _points(self, video_id: str) -> tuple[np.ndarray, np.ndarray]:
        """Positions [N] of the points of a video, ascending, and their classes [N]."""
        given = self.data.points(video_id)
        if not len(given.time):
            order = np.argsort(self.labels[video_id].points, kind="stable")
            return self.labels[video_id].points[order], self.labels[video_id].classes[order]
        grid = self.data.grid(video_id, expected_length(self.data, video_id))
        return grid.to_position(given.time), given.label

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A random window of a video; only its rows are read from the file."""
        video_id, config = self.videos[index], self.config
        features, labels, (points, classes) = self.data.features(video_id), self.labels[video_id], self.points[video_id]
        length = len(features)
        rows = annotated(points, length)
        start, size = window(length, rows, self.settings["max_length"], rng)
        present = np.zeros(self.classes, dtype=bool)
        present[classes[(rows >= start) & (rows < start + size)]] = True
        own = annotated(labels.points, length)
        kept = (own >= start) & (own < start + size)
        factor: int = self.settings["upsample"]
        labels = Labels(*(part[kept] for part in labels))
        labels = labels._replace(spans=(labels.spans - start) * factor, points=(labels.points - start) * factor)
        fine = refine(features[start : start + size], factor)
        targets = sample(labels, len(fine), config.levels, self.classes, config.radius, config.rounded)
        return Item(fine, targets, present)

    def collate(self, items: list[Item]) -> Batch:
        """The windows as one sequence, and their targets [B, L, T, ...], padded to the longest.

        `points` [N] are those of the network that are not padding, and `place` [N] is where each belongs in the
        flattened [B, L, T].
        """
        levels, longest = self.config.levels, max(len(item.features) for item in items)
        features, video, _ = pack([item.features for item in items], levels)
        lengths = torch.tensor([len(item.features) for item in items])
        classes = torch.zeros(len(items), levels, longest, self.classes, dtype=torch.bool)
        mask = torch.zeros(len(items), levels, longest, dtype=torch.bool)
        for index, item in enumerate(items):
            rows = len(item.features)
            classes[index, :, :rows] = item.targets
            for level in range(levels):
                mask[index, level, : -(-rows >> level)] = True
        # The network's points are ordered by level, then video, then row.
        place = torch.arange(mask.numel()).view_as(mask).transpose(0, 1)[mask.transpose(0, 1)]
        present = torch.from_numpy(np.stack([item.present for item in items]))
        return {
            "features": features,
            "video": video,
            "lengths": lengths,
            "points": real_points(video, levels).nonzero()[:, 0],
            "place": place,
            "mask": mask,
            "classes": classes,
            "present": present,
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The video, action and background term of each window, averaged over the windows."""
        config, mask = self.config, batch["mask"]
        scores = module(batch["features"], batch["video"], batch["lengths"])
        points = torch.cat([scores.classes, scores.background[:, None]], dim=1).index_select(0, batch["points"])
        table = points.new_zeros(mask.numel(), points.shape[1]).index_copy(0, batch["place"], points)
        terms = window_losses(table.view(*mask.shape, -1), batch, config)
        windows = total(table.new_full((), len(mask)))
        shares = {name: term.sum() / windows for name, term in terms.items()}
        weights = {"video": config.video_weight, "action": config.action_weight, "background": config.background_weight}
        loss = torch.stack([weights[name] * share for name, share in shares.items()]).sum()
        return {"loss": loss, **shares}

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        return adamw(module, self.settings["lr"], config.weight_decay, config.warmup, steps)

    def _resolve(self) -> dict[str, Any]:
        """The options of the network, with the null ones derived from the data."""
        config, dim = self.config, self.data.manifest.grid.dim
        steps = config.epochs * max(1, len(self.videos) // config.batch_size)
        width = config.width or derived_width(dim, config.heads, "potloc")
        return {
            "architecture": {
                "dim": dim,
                "classes": len(self.data.classes),
                "width": width,
                "heads": config.heads,
                "levels": config.levels,
                "window": config.window,
                "drop_path": config.drop_path,
                "input_dropout": config.input_dropout,
                "stem": config.stem,
                "gain": config.gain,
                "prior": config.prior,
            },
            "classes": list(self.data.classes),
            "top_ratio": config.top_ratio,
            "upsample": config.upsample or derived_upsample(self.labels),
            "max_length": config.max_length or usual_length(self.data, self.videos),
            "lr": config.lr or min(1e-3, 1e-4 * 512 / width * math.sqrt(config.batch_size / 4)),
            "ema_decay": derived_ema(steps) if config.ema_decay is None else config.ema_decay,
        }


@dataclass(frozen=True)
class PotlocTrain:
    """Fit stage: the network; input "labels"."""

    config: PotlocTraining
    name: str = "potloc/train"
    detects: ClassVar[bool] = True
    version: int = 2
    task: type[PotlocTask] = PotlocTask

    def open(self, context: Context) -> PotlocTask:
        return self.task(self.config, context)


def build(settings: dict[str, Any]) -> Potloc:
    """The network that a model's settings describe, with fresh weights."""
    return Potloc(**settings["architecture"])


def window_losses(scores: Tensor, batch: Batch, config: PotlocTraining) -> dict[str, Tensor]:
    """The three terms of every window, each [B]; a term without rows is 0.

    Rows of all levels count alike: the action and the background term are means over those of the window.

    Args:
        scores: [B, L, T, C + 1] of the classes and, last, of background; 0 where there is no row.
        batch: of `PotlocTask.collate`.
        config: of the training.
    """
    mask, target, present = batch["mask"], batch["classes"], batch["present"]
    classes, background = scores[..., :-1], scores[..., -1]
    output = torch.cat([classes * (1 - background[..., None]), background[..., None]], dim=-1)
    positive = target.any(-1)
    seeds = background_seeds(background, positive, mask, config.background_threshold, config.background_rows)
    empty = (torch.arange(output.shape[-1], device=output.device) == output.shape[-1] - 1).to(output)
    action = torch.cat([target.to(output), torch.zeros_like(output[..., :1])], dim=-1)

    def rows(target: Tensor, use: Tensor) -> Tensor:
        """[B] focal loss summed over the C + 1 outputs, mean over the rows in use."""
        each = probability_focal(output, target, config.focal).sum(-1)
        return (each * use).sum((1, 2)) / use.sum((1, 2)).clamp(min=1)

    # Absent classes are held down everywhere, present ones lifted where they are highest; mean over the levels.
    top = video_scores(classes.flatten(0, 1), mask.flatten(0, 1), config.top_ratio).view(*mask.shape[:2], -1).mean(1)
    mean = (classes.sum(2) / mask.sum(2)[..., None]).mean(1)
    pooled = torch.where(present, top, mean)
    return {
        "video": probability_entropy(pooled, present.to(pooled)).mean(1),
        "action": rows(action, positive),
        "background": rows(empty.expand_as(output), seeds),
    }
