"""Contrastive pre-training of a detector's encoder on all training videos, without any label.

APL (ECCV 2024) section 3.3 and supplement B. Some frames are drawn from each video; k-means on their input features
says which belong together: two clusters in each video (action and background) and several over the batch. Frames of one
cluster should look alike to the encoder. Here is what all encoders share; pyramids are in
tad.methods.apl.contrastive_pyramid, BMN's base in tad.methods.apl.contrastive_bmn, the contrast in
tad.methods.apl.contrast.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from tad import bounds
from tad.methods.apl.contrast import Gather, cluster, coarse_contrast, fine_contrast, sample_frames
from tad.methods.common.windows import expected_length
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import Batch, Budget, Context, StageConfig, Total


class ContrastiveConfig(StageConfig):
    """What is contrasted, and for how long; network and optimiser are those of the detector that it starts."""

    enabled: bool = option(False, "start from an encoder pre-trained on all training videos, without labels (APL)")
    epochs: bounds.Epochs = option(
        15, "passes over all training videos", tune=Integer(5, 30), why="APL 15", when=("enabled", True)
    )
    frames: int = option(
        80,
        "drawn from each window, one from each of as many equal parts",
        ge=2,
        le=bounds.SNIPPETS,
        tune=Choice(20, 40, 80, 160),
        why="not published; the authors' other code has 20 to 80",
        when=("enabled", True),
    )
    clusters: int | None = option(
        None,
        "over the frames of a batch; null: twice the videos of a batch",
        ge=2,
        le=bounds.PARTS,
        tune=Integer(2, 32, log=True),
        why="APL 4 for batches of 2 videos, 2 for batches of 16",
        stand_in=4,
        when=("enabled", True),
    )
    temperature: bounds.Temperature = option(
        0.1,
        "of similarities; lower looks at the nearest more",
        tune=Float(0.05, 0.2, log=True),
        why="not published; .07 and .1 are usual",
        when=("enabled", True),
    )
    coarse_weight: bounds.Weight = option(1.0, "of the contrast of two clusters in each video")
    fine_weight: bounds.Weight = option(1.0, "of the contrast of the clusters over a batch")


class Part(Protocol):
    """What is pre-trained of a detector: an encoder, the windows that it sees, and its optimiser."""

    settings: dict[str, Any]
    """Saved with the weights, for the detector that starts from them."""
    batch_size: int
    ema_decay: float | None
    clip_norm: float | None

    @property
    def module(self) -> nn.Module:
        """From features [T, D], video [T] (-1 on padding) and rows [B, K] to representations [B, K, W]."""

    def __len__(self) -> int:
        """Number of items, each of which gives a window in every epoch."""

    def window(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """The rows [T, D] float32 of an item's window, without padding."""

    def pack(self, windows: list[np.ndarray]) -> tuple[Tensor, Tensor, list[int]]:
        """Windows one after the other; see `tad.methods.common.windows.pack`."""

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """As that of the detector."""


class Item(NamedTuple):
    """A window of one video."""

    features: np.ndarray  # [T, D] float32, without padding
    frames: np.ndarray  # [K'] int64, K' <= K of its rows
    labels: np.ndarray  # [K'] int64, their cluster within the window
    place: int  # of the item among all
    seed: int  # of the clusters over the batch


class ContrastiveTask:
    """The opened stage: windows of all training videos.

    Args:
        config: of the contrast.
        part: what is trained.
    """

    def __init__(self, config: ContrastiveConfig, part: Part) -> None:
        self.config, self.part = config, part
        self.settings, self.module = part.settings, part.module
        self.budget = Budget(config.epochs, part.batch_size, part.ema_decay, part.clip_norm)
        self.clusters = config.clusters or 2 * part.batch_size

    def __len__(self) -> int:
        return len(self.part)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A window as the detector's, and frames of it in two clusters."""
        rows = self.part.window(index, rng)
        frames = sample_frames(len(rows), self.config.frames, rng)
        return Item(rows, frames, cluster(rows[frames], 2, rng), index, int(rng.integers(2**31)))

    def collate(self, items: list[Item]) -> Batch:
        """Windows one after the other, the rows [B, K] of their frames, and labels [B, K], -1 where there are fewer."""
        features, video, slots = self.part.pack([item.features for item in items])
        frames = torch.zeros(len(items), self.config.frames, dtype=torch.int64)
        labels = torch.full_like(frames, -1)
        for row, (item, first) in enumerate(zip(items, np.cumsum([0, *slots[:-1]]), strict=True)):
            frames[row, : len(item.frames)] = torch.from_numpy(item.frames + first)
            labels[row, : len(item.frames)] = torch.from_numpy(item.labels)
        return {
            "features": features,
            "video": video,
            "frames": frames,
            "labels": labels,
            "items": torch.tensor([item.place for item in items]),
            "seeds": torch.tensor([item.seed for item in items]),
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The contrast of each window's two clusters, and that of the clusters over the windows of all workers."""
        config = self.config
        z = module(batch["features"], batch["video"], batch["frames"])
        coarse = coarse_contrast(z, batch["labels"], total, config.temperature)
        gather = Gather(batch["items"], len(self), total)
        fine = fine_contrast(z, self.fine_labels(batch, gather), gather, config.temperature)
        loss = config.coarse_weight * coarse + config.fine_weight * fine
        return {"loss": loss, "coarse": coarse, "fine": fine}

    def fine_labels(self, batch: Batch, gather: Gather) -> Tensor:
        """Clusters [A, K] of the frames of all workers' windows by their input features; the same on every worker."""
        inputs = gather(batch["features"][batch["frames"]])
        labels, seeds = gather(batch["labels"]), gather(batch["seeds"])
        rng = np.random.default_rng(seeds.tolist())
        real = labels >= 0
        found = cluster(inputs[real].cpu().numpy(), self.clusters, rng)
        labels[real] = torch.from_numpy(found).to(labels.device)
        return labels

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        return self.part.optimiser(module, steps)


def given_sizes(context: Context) -> dict[str, np.ndarray]:
    """Lengths [N], in snippets, of the actions of each fully labelled training video."""
    data, sizes = context.data, {}
    for video in context.videos:
        full = data.full_labels(video)
        if full is not None:
            grid = data.grid(video, expected_length(data, video))
            sizes[video] = (full.spans[:, 1] - full.spans[:, 0]) * grid.rate
    return sizes
