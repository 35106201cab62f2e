"""Which class each row of a video shows, by models that never saw the video: stage `pser/rows`.

Labels around points are wrong at their ends, and a model that is trained on them learns their mistakes by heart. So the
training videos are parted into folds, and the rows of a fold are judged by a model of the other folds. Around each end
of a label a margin takes no part in training: what lies there is for the model to say. Ours; cross-fitting of
pseudo-labels in place of PseR's ranking module, whose target is the seed itself.

Legend: T rows of a video, C classes, K folds, B items of a batch, L rows of an item, D feature width.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.data.segments import Segments
from tad.errors import DataError
from tad.methods.pser.teaching import RowsConfig, Teaching
from tad.stages import Batch, Budget, Context, Total

KERNEL = 5
"""Rows that one row is judged by."""
HALO = KERNEL // 2
CHUNK = 128
"""Rows of an item."""
BATCH = 4
INPUT_DROPOUT, DROPOUT = 0.2, 0.5
DECAY = 1e-3


class RowModels(nn.Module):
    """K small convolutional classifiers over standardised features, one for each fold.

    Args:
        dim: feature width.
        classes: number of classes; background comes after them.
        folds: number of models.
        hidden: width.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, dim: int, classes: int, folds: int, hidden: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("scale", torch.ones(dim))
        self.models = nn.ModuleList(
            nn.Sequential(
                nn.Dropout(INPUT_DROPOUT),
                nn.Conv1d(dim, hidden, KERNEL),
                nn.ReLU(),
                nn.Dropout(DROPOUT),
                nn.Conv1d(hidden, classes + 1, 1),
            )
            for _ in range(folds)
        )

    def forward(self, features: Tensor, fold: int | None = None) -> Tensor:
        """[B, K, L, C + 1] logits of all models, or [B, L, C + 1] of one.

        Args:
            features: [B, L + KERNEL - 1, D].
            fold: which model alone.
        """
        rows = ((features - self.mean) / self.scale).transpose(1, 2)
        if fold is not None:
            return self.models[fold](rows).transpose(1, 2)
        return torch.stack([model(rows) for model in self.models], 1).transpose(2, 3)


def with_halo(features: np.ndarray) -> np.ndarray:
    """[T + KERNEL - 1, D] float32: the first and last row go on beyond the ends."""
    return np.pad(np.asarray(features, dtype=np.float32), ((HALO, HALO), (0, 0)), mode="edge")


def fold_of(video: str, labelled: list[str], folds: int) -> int | None:
    """The fold of a video of the ascending list, None of another; ids that are near in the list share a fold, as such
    videos often have the same people and place."""
    at = bisect_left(labelled, video)
    return at * folds // len(labelled) if at < len(labelled) and labelled[at] == video else None


class Item(NamedTuple):
    features: np.ndarray  # [L + KERNEL - 1, D]
    target: np.ndarray  # [L, C + 1], sums to 1
    weight: np.ndarray  # [L], 0 in margins
    fold: int


class RowsTask:
    """Trains the row models on labels; input "labels": one for every point of the training videos; input
    "first": the same labels before any change.

    Raises:
        DataError: no video has a label.
    """

    def __init__(self, config: RowsConfig, context: Context) -> None:
        self.config, self.data = config, context.data
        labels, first = context.inputs["labels"].by_video(), context.inputs["first"].by_video()
        self.teaching = Teaching(config, self.data, labels, first)
        self.videos = sorted(video for video in context.videos if len(labels.get(video, Segments.empty())))
        if not self.videos:
            raise DataError(f"{context.inputs['labels'].path}: no training video has a label to refine")
        self.folds = min(config.folds, len(self.videos))
        classes = len(self.data.classes)
        architecture = {
            "dim": self.data.manifest.grid.dim,
            "classes": classes,
            "folds": self.folds,
            "hidden": config.hidden,
        }
        model = RowModels(**architecture)
        mean, scale, self.lengths = self._statistics()
        model.mean.copy_(torch.from_numpy(mean))
        model.scale.copy_(torch.from_numpy(scale))
        self.module: nn.Module = model
        self.items = [(v, a) for v in self.videos for a in range(0, self.lengths[v], CHUNK)]
        batch = min(BATCH, len(self.items))
        epochs = min(60, max(1, math.ceil(self.config.steps * batch / len(self.items))))
        self.budget = Budget(epochs, batch)
        self.settings: dict[str, Any] = {"architecture": architecture, "videos": len(self.videos)}

    def __len__(self) -> int:
        return len(self.items)

    def _statistics(self) -> tuple[np.ndarray, np.ndarray, dict[str, int]]:
        """Mean and deviation of every feature, float32, and the rows of every video."""
        count, lengths = 0, {}
        total, square = np.zeros(self.data.manifest.grid.dim), np.zeros(self.data.manifest.grid.dim)
        for video in self.videos:
            rows = np.asarray(self.data.features(video), dtype=np.float64)
            lengths[video] = len(rows)
            count, total, square = count + len(rows), total + rows.sum(0), square + (rows**2).sum(0)
        mean = total / count
        deviation = np.sqrt(np.maximum(square / count - mean**2, 0.0))
        return mean.astype(np.float32), (deviation + 1e-3).astype(np.float32), lengths

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """Some rows of a video."""
        video, begin = self.items[index]
        features = self.data.features(video)
        target, weight = self.teaching(video, len(features))
        rows = slice(begin, begin + CHUNK)
        fold = fold_of(video, self.videos, self.folds)
        assert fold is not None
        return Item(with_halo(features)[begin : begin + CHUNK + 2 * HALO], target[rows], weight[rows], fold)

    def collate(self, items: list[Item]) -> Batch:
        """Padded to the longest; what is padded has no weight. `others` [B, K]: whether a model may see an item."""

        def padded(name: str) -> Tensor:
            return nn.utils.rnn.pad_sequence([torch.from_numpy(getattr(i, name)) for i in items], batch_first=True)

        others = torch.tensor([[self.folds == 1 or k != i.fold for k in range(self.folds)] for i in items])
        return {name: padded(name) for name in ("features", "target", "weight")} | {"others": others}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Cross-entropy over the rows that teach, of each model its mean over them, as shares over all workers."""
        logits = module(batch["features"])
        entropy = -(batch["target"][:, None] * logits.log_softmax(-1)).sum(-1)
        weight = batch["weight"][:, None] * batch["others"][:, :, None]
        rows = total(weight.sum((0, 2))).clamp(min=1.0)
        return {"loss": ((entropy * weight).sum((0, 2)) / rows).sum()}

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """AdamW; the rate falls along a cosine."""
        optimiser = torch.optim.AdamW(module.parameters(), lr=self.config.lr, weight_decay=DECAY)
        return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, max(1, steps))


@dataclass(frozen=True)
class RowsFit:
    """Fit stage: the row models."""

    config: RowsConfig
    name: str = "pser/rows"
    version: int = 2

    def open(self, context: Context) -> RowsTask:
        return RowsTask(self.config, context)
