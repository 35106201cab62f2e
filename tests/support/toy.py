"""Stages small enough to follow by hand, run by the real engine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from tad.data.segments import Segments
from tad.stages import Arrays, Batch, Budget, Context, StageConfig, Total


class ToyConfig(StageConfig):
    epochs: int = 6
    batch_size: int = 4
    lr: float = 0.05
    ema_decay: float | None = None
    kill_at: int = -1
    """Epoch in which rank 1 kills its own process, once."""
    flag: str = ""
    """File that remembers that it did."""
    seconds: float = 0.0
    """Waits this long for each item."""


@dataclass(frozen=True)
class ToyFit:
    """Fits the mean of each video's features to its number of points by least squares."""

    config: ToyConfig
    name: str = "toy/fit"
    version: int = 1

    def open(self, context: Context) -> ToyTask:
        return ToyTask(self.config, context)


class ToyTask:
    def __init__(self, config: ToyConfig, context: Context) -> None:
        self.config, self.context = config, context
        self.module = nn.Linear(context.data.manifest.grid.dim, 1)
        self.settings: dict[str, Any] = {"dim": context.data.manifest.grid.dim}
        self.budget = Budget(config.epochs, config.batch_size, config.ema_decay)
        self.epoch_of_rank_one = 0

    def __len__(self) -> int:
        return len(self.context.videos)

    def item(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        time.sleep(self.config.seconds)
        video = self.context.videos[index]
        x = self.context.data.features(video).astype(np.float32).mean(0)
        return x + rng.normal(0, 0.01, x.shape).astype(np.float32), float(len(self.context.data.points(video).time))

    def collate(self, items: list[tuple[np.ndarray, float]]) -> Batch:
        return {"x": torch.from_numpy(np.stack([x for x, _ in items])), "y": torch.tensor([y for _, y in items])}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        self._maybe_die()
        count = total(torch.tensor(float(len(batch["y"]))))
        error = module(batch["x"])[:, 0] - batch["y"]
        return {"loss": error.square().sum() / count, "bias": error.detach().sum() / count}

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        optimiser = torch.optim.Adam(module.parameters(), lr=self.config.lr)
        return optimiser, torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)

    def _maybe_die(self) -> None:
        flag = Path(self.config.flag) if self.config.flag else None
        if flag is None or flag.exists():
            return
        import torch.distributed as dist

        self.epoch_of_rank_one += 1
        if dist.get_rank() == 1 and self.epoch_of_rank_one > self.config.kill_at:
            flag.touch()
            os.kill(os.getpid(), 9)


class ToyMapConfig(StageConfig):
    broken: tuple[str, ...] = ()
    """Videos that raise."""
    segments: int = 2


@dataclass(frozen=True)
class ToyMap:
    """A few segments for each video, from its mean feature."""

    config: ToyMapConfig
    name: str = "toy/map"
    version: int = 1
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments | Arrays]:
        def run(video: str) -> Segments | Arrays:
            if video in self.config.broken:
                raise ValueError(f"cannot read {video}")
            features = context.data.features(video)
            if self.output == "arrays":
                return {"mean": features.mean(0, dtype=np.float32)}
            start = np.arange(self.config.segments) + float(abs(features.mean()))
            return Segments.of(video, start, start + 1, context.data.classes[0], 0.5, source=context.source)

        return run
