"""Contrastive pre-training of BMN's base, the convolutions before its towers, without any label.

APL (ECCV 2024) says in one sentence that it fits BMN; here a frame's representation is the base's output at its bin.
The contrast is that of tad.methods.apl.contrastive, on all windows of all training videos.

Stage: `bmn/pretrain` (fit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.apl.contrastive import ContrastiveConfig, ContrastiveTask, given_sizes
from tad.methods.bmn.model import convolutions, initialise, kept_inside
from tad.methods.bmn.options import BmnTraining, shape
from tad.methods.bmn.targets import read_window, window_of, windows_of
from tad.methods.bmn.training import falling
from tad.methods.common.windows import expected_length
from tad.methods.roles import Round
from tad.stages import Artifact, Context

OPTIONS = (
    "fit",
    "length",
    "upsample",
    "width",
    "batch_size",
    "lr",
    "decay_at",
    "weight_decay",
    "clip_norm",
    "ema_decay",
)
"""Options of the detector's training on which the base's depends: network, windows and optimiser."""


class BasePretraining(ContrastiveConfig):
    """All that the stage depends on."""

    training: BmnTraining
    """The detector's `OPTIONS`, the others being defaults."""


def pretrain(round: Round, config: ContrastiveConfig, detector: BmnTraining) -> Artifact:
    """Fits the base, once for all rounds.

    Returns:
        Of `state` the weights of `Bmn.base`, of `settings` tad.methods.bmn.options.SHAPE and the learning rate.
    """
    training = BmnTraining(**detector.model_dump(include=set(OPTIONS)))
    return round.first.fit(BaseTrain(BasePretraining(**config.model_dump(), training=training)))


@dataclass(frozen=True)
class BaseTrain:
    """Fits the base; needs no input."""

    config: BasePretraining
    name: str = "bmn/pretrain"
    version: int = 1

    def open(self, context: Context) -> ContrastiveTask:
        return ContrastiveTask(self.config, Base(self.config.training, context))


class Base:
    """The part of the detector that is pre-trained, and all windows of all training videos.

    Null options are derived from the full labels that are given, as the detector derives them from pseudo-labels.
    """

    def __init__(self, config: BmnTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.batch_size, self.ema_decay = config.batch_size, config.ema_decay
        self.clip_norm: float | None = config.clip_norm
        self.settings: dict[str, Any] = shape(config, self.data, given_sizes(context))
        self.items = [
            (video, number)
            for video in context.videos
            for number in range(len(windows_of(expected_length(self.data, video), self.settings)))
        ]
        self.module: nn.Module = Encoder(*(self.settings[name] for name in ("dim", "width", "length")))

    def __len__(self) -> int:
        return len(self.items)

    def window(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """Always the same; of its frames, others are drawn in every epoch."""
        video, number = self.items[index]
        features = self.data.features(video)
        window = window_of(len(features), number, self.settings)
        return read_window(features, window, self.settings["length"])[: window.bins]

    def pack(self, windows: list[np.ndarray]) -> tuple[Tensor, Tensor, list[int]]:
        """Windows one after the other, each with `length` rows."""
        length = self.settings["length"]
        features = torch.zeros(len(windows), length, windows[0].shape[1])
        video = torch.full((len(windows), length), -1)
        for index, window in enumerate(windows):
            features[index, : len(window)] = torch.from_numpy(window)
            video[index, : len(window)] = index
        return features.flatten(0, 1), video.flatten(), [length] * len(windows)

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """That of the base in the detector, where it decays more than the rest."""
        groups = [{"params": list(module.parameters()), "weight_decay": 10 * self.config.weight_decay}]
        return falling(groups, self.config.lr, self.config.decay_at, steps)


class Encoder(nn.Module):
    """The base alone; its weights have the names that they have in `Bmn`.

    Args:
        dim: feature channels D.
        width: of the base W.
        length: rows of a window.
    """

    def __init__(self, dim: int, width: int, length: int) -> None:
        super().__init__()
        self.base, self.length = convolutions(dim, width), length
        initialise(self)

    def forward(self, features: Tensor, video: Tensor, frames: Tensor) -> Tensor:
        """From features [B * length, D], video [B * length] (-1 on padding) and rows [B, K] to [B, K, W]."""
        keep = (video >= 0).view(-1, 1, self.length).to(features.dtype)
        x = kept_inside(self.base, features.view(-1, self.length, features.shape[1]), keep)
        return x.transpose(1, 2).flatten(0, 1)[frames]
