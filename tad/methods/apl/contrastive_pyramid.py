"""Contrastive pre-training of a detector's pyramid: its frames should look alike on all levels.

APL (ECCV 2024) section 3.3. The weights start any detector on the same pyramid. Stage: `contrastive/train` (fit).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.actionformer.derived import Facts, derived
from tad.methods.apl.contrast import pyramid_rows
from tad.methods.apl.contrastive import ContrastiveConfig, ContrastiveTask, given_sizes
from tad.methods.common.optimisers import adamw
from tad.methods.common.pyramid import Backbone, padded_length
from tad.methods.common.windows import expected_length, pack, random_crop, refine
from tad.methods.roles import Round
from tad.stages import Artifact, Context, StageConfig

LONG = 256.0
"""Snippets of a label that is assumed where there is none: as in the published data it leads to six levels, where rows
are not doubled."""
NETWORK = ("dim", "width", "heads", "levels", "window", "drop_path", "input_dropout", "stem", "gain")
"""Settings that are arguments of `Backbone`."""


class Pretraining(ContrastiveConfig):
    """All that the stage depends on: `ContrastiveConfig` and a detector's options of the same names."""

    width: int | None
    heads: int
    levels: int | None
    upsample: int | None
    window: int
    drop_path: float
    input_dropout: float
    stem: int
    gain: float
    max_length: int | None
    batch_size: int
    lr: float | None
    warmup: float
    weight_decay: float
    clip_norm: float | None
    ema_decay: float | None


def pretrain(round: Round, config: ContrastiveConfig, detector: StageConfig) -> Artifact:
    """Fits the encoder of a pyramid detector, once for all rounds; `detector` as of `pretraining`.

    Returns:
        Of `state` all weights of the `Backbone` (`load_state_dict(state, strict=False)` of a detector takes them), of
        `settings` its arguments, `upsample` and `max_length`.
    """
    return round.first.fit(ContrastiveTrain(pretraining(config, detector)))


def pretraining(config: ContrastiveConfig, detector: StageConfig) -> Pretraining:
    """The stage's config.

    Args:
        config: of the contrast.
        detector: the detector's training options; `stem` and `gain` are `Backbone`'s where it has none.
    """
    own = {name for name in Pretraining.model_fields if name not in ContrastiveConfig.model_fields}
    options = {"stem": 2, "gain": 1e-4} | detector.model_dump(include=own)
    return Pretraining(**config.model_dump(), **options)


@dataclass(frozen=True)
class ContrastiveTrain:
    """Fits the encoder; needs no input."""

    config: Pretraining
    name: str = "contrastive/train"
    version: int = 2

    def open(self, context: Context) -> ContrastiveTask:
        return ContrastiveTask(self.config, Pyramid(self.config, context))


class Pyramid:
    """The `Part` of a pyramid detector: its backbone, and a random window of each training video.

    Raises:
        ConfigError: the derived width is not divisible by the heads.
    """

    def __init__(self, config: Pretraining, context: Context) -> None:
        self.config, self.data, self.videos = config, context.data, list(context.videos)
        self.batch_size, self.clip_norm = config.batch_size, config.clip_norm
        self.settings = self._resolve(given_sizes(context))
        self.ema_decay: float | None = self.settings["ema_decay"]
        self.module = Encoder(**{name: self.settings[name] for name in NETWORK})

    def __len__(self) -> int:
        return len(self.videos)

    def window(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """A random window of a video, refined."""
        features = self.data.features(self.videos[index])
        crop = random_crop(len(features), np.zeros((0, 2)), self.settings["max_length"], 0.0, rng)
        return refine(features[crop.start : crop.start + crop.size], self.settings["upsample"])

    def pack(self, windows: list[np.ndarray]) -> tuple[Tensor, Tensor, list[int]]:
        return pack(windows, self.settings["levels"])

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        return adamw(module, self.settings["lr"], config.weight_decay, config.warmup, steps)

    def _resolve(self, given: dict[str, np.ndarray]) -> dict[str, Any]:
        """The options of the network, with the null ones derived from full labels as a detector's are."""
        data, sizes = self.data, np.concatenate([np.zeros(0), *given.values()])
        lengths = np.array([expected_length(data, video) for video in self.videos])
        facts = Facts(data.manifest.grid.dim, sizes if len(sizes) else np.array([LONG]), lengths, len(self.videos))
        config, _ = derived(self.config, facts)
        names = {*NETWORK, "upsample", "max_length", "lr", "ema_decay"} - {"dim"}
        found: dict[str, Any] = {"dim": facts.dim} | config.model_dump(include=names)
        return found | {"max_length": padded_length(found["max_length"], found["levels"])}


class Encoder(Backbone):
    """The backbone alone; its weights have the names that they have in a detector."""

    def forward(self, features: Tensor, video: Tensor, frames: Tensor) -> Tensor:
        """From features [T, D], video [T] (-1 on padding) and rows [B, K] to all levels there, [B, K, L * W]."""
        return pyramid_rows(self.encode(features, video, len(frames)).rows, len(features), self.levels, frames)
