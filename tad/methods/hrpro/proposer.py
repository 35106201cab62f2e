"""Proposer `hrpro`: the snippet model with reliability-aware attention, prototype memory and contrast.

HR-Pro (AAAI 2024), "Snippet-level Action Discrimination Learning". Row losses and mining are those of the snippet
proposer; here are the memory, its initialisation from points, its update, and the contrastive loss. Where paper and
code differ, the code is followed; its known faults are mended unless `faithful: true`.
Stages: `hrpro/train` (fit), `hrpro/score`, `hrpro/embed`, `snippet/propose` (maps).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from tad import bounds
from tad.data.dataset import Dataset
from tad.errors import ConfigError
from tad.methods.common.candidates import CandidateConfig, steps
from tad.methods.common.label_kinds import unread_labels, untaught
from tad.methods.common.published import fill_published
from tad.methods.hrpro.model import HrproModel, prototype_contrast
from tad.methods.roles import MethodConfig, Round
from tad.methods.snippet.mining import Mined
from tad.methods.snippet.model import SnippetScores
from tad.methods.snippet.proposer import SnippetEmbed, SnippetScore, propose
from tad.methods.snippet.training import SnippetTask, TrainingConfig
from tad.stages import Artifact, Batch, Context, Total, unwrap


class HrproTraining(TrainingConfig):
    """Model, losses and optimiser."""

    # With attention every row sees the whole video, so a video-level loss teaches all rows to fire at once.
    video_weight: float = Field(default=0.0, ge=0, le=bounds.WEIGHT, description="weight of the video-level loss")
    attention_layers: int = Field(default=2, ge=0, le=8, description="attention blocks; 0: none")
    heads: int = Field(default=8, ge=1, le=bounds.PARTS, description="attention heads; divides the feature width")
    feedforward: int = Field(
        default=128, ge=1, le=bounds.WIDTH, description="hidden width of a block's feed-forward layer"
    )
    attention_dropout: float = Field(
        default=0.0, ge=0, lt=1, description="of attention weights; above 0 they are held in full, T x T"
    )
    block_dropout: float = Field(default=0.3, ge=0, lt=1, description="of a block's branches")
    double_projection: bool = Field(default=False, description="two linear maps to queries and keys, as published")
    scrambled: bool = Field(default=False, description="the published reshape that mixes the prototypes")
    contrast_weight: float = Field(
        default=1.0, ge=0, le=bounds.WEIGHT, description="weight of the contrast with prototypes; 0: none"
    )
    temperature: float = Field(
        default=0.1, gt=0, le=bounds.TEMPERATURE, description="of the contrast's cosine similarities"
    )
    momentum: float = Field(default=0.999, ge=0, lt=1, description="what one video leaves of a prototype")
    warm_memory: bool = Field(
        default=True,
        description="prototypes are plain means until momentum remembers longer; false: they keep the untrained "
        "network's embedding for hundreds of updates",
    )


class HrproProposer(MethodConfig):
    """Snippet model with attention and memory; its curves' runs are the proposals."""

    method: Literal["hrpro"] = "hrpro"
    faithful: bool = Field(default=False, description="the published behaviour; sets the options of every group below")
    training: HrproTraining = HrproTraining()
    candidates: CandidateConfig = CandidateConfig()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return fill_published(data, PUBLISHED, BUDGET)

    def problems(self, data: Dataset) -> list[str]:
        return untaught(data, self.training.usable)

    def warnings(self, data: Dataset) -> list[str]:
        return unread_labels(data, self.method, self.training.usable)

    def train(self, round: Round) -> Artifact:
        """Fits the model on the training videos that have full labels or points, or classes (see `SnippetTask`)."""
        return round.fit(HrproTrain(self.training))

    def score(self, round: Round, model: Artifact) -> Artifact:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32."""
        return round.map(SnippetScore(name="hrpro/score", model=HrproModel), {"model": model})

    def embed(self, round: Round, model: Artifact) -> Artifact:
        """Array `embedding` [T, W], float16."""
        return round.map(SnippetEmbed(name="hrpro/embed", model=HrproModel), {"model": model})

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: proposals with their outer-inner contrast as score."""
        return propose(round, self.score(round, model), self.candidates, suppressed)


@dataclass(frozen=True)
class HrproTrain:
    """Fit stage: the model and its memory, from the labels that each video has."""

    config: HrproTraining
    name: str = "hrpro/train"
    version: int = 1

    def open(self, context: Context) -> HrproTask:
        return HrproTask(self.config, context)


class HrproTask(SnippetTask):
    """The snippet task with a memory: initialised at the first step, learning after every step.

    Raises:
        DataError: no training video teaches anything.
        ConfigError: the widths do not fit the attention.
    """

    config: HrproTraining

    def build(self) -> nn.Module:
        config, shape = self.config, self.architecture
        if config.attention_layers and shape["width"] != shape["dim"]:
            raise ConfigError(
                f"hrpro: width {shape['width']} differs from the features' {shape['dim']}, but prototypes of the "
                "embedding attend beside features; leave training.width null, or set training.attention_layers to 0"
            )
        if config.attention_layers and shape["dim"] % config.heads:
            raise ConfigError(
                f"hrpro: {config.heads} attention heads do not divide the feature width {shape['dim']}; "
                "set training.heads"
            )
        shape |= {
            name: getattr(config, name)
            for name in (
                "attention_layers",
                "heads",
                "feedforward",
                "attention_dropout",
                "block_dropout",
                "double_projection",
                "scrambled",
            )
        }
        self.weights["contrast"] = config.contrast_weight
        return HrproModel(**shape)

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The snippet task's terms and the contrast; then the memory learns from all workers' videos."""
        core = unwrap(module)
        assert isinstance(core, HrproModel)
        if (core.seen < 0).any():
            core.initialise(self.first_memory(core, batch["mask"].device))
        self.learnt: tuple[Tensor, Tensor] | None = None
        values = super().loss(module, batch, total)
        assert self.learnt is not None
        # The same sums on every worker, so the memories stay equal.
        core.learn(*(total(part) for part in self.learnt), self.config.momentum, self.config.warm_memory)
        return values

    def terms(self, module: nn.Module, scores: SnippetScores, batch: Batch, mined: Mined) -> dict[str, Tensor]:
        """[B] each; also keeps what the memory will learn."""
        terms = super().terms(module, scores, batch, mined)
        core, config = unwrap(module), self.config
        assert isinstance(core, HrproModel)
        if config.contrast_weight:
            terms["contrast"] = prototype_contrast(
                scores.embedding, mined.action, mined.background, core.memory.clone(), config.temperature
            )
        self.learnt = class_means(scores.embedding.detach(), mined.action)
        return terms

    @torch.no_grad()
    def first_memory(self, core: HrproModel, device: torch.device) -> Tensor:
        """[C, W] mean embedding of each class's rows over all training videos, before any training: rows with points,
        all action rows of fully labelled videos.

        HR-Pro eq. 2, of the embedding as in its code: the network in eval mode, the memory still zero. Every worker
        goes through all videos and gets the same. A class without a row gets zeros.
        """
        sums, counts = torch.zeros_like(core.memory), torch.zeros_like(core.seen)
        core.eval()
        for index in range(len(self)):
            item = self.item(index, np.random.default_rng(0))
            batch = {k: v.to(device) for k, v in self.collate([item]).items()}
            embedding = core(batch["features"], batch["mask"]).embedding[0]
            points = batch["points"][0].to(embedding)
            sums += points.T @ embedding
            counts += points.sum(0)
        core.train()
        return sums / counts.clamp(min=1)[:, None]


def class_means(embedding: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    """What a memory learns from a batch.

    Args:
        embedding: [B, T, W].
        action: [B, T, C] bool, rows that count as action of a class.

    Returns:
        [C, W] sum over the videos of the mean embedding of each class's rows, and [C] the number of these videos.
    """
    weight = action / action.sum(1, keepdim=True).clamp(min=1)
    video, row, label = action.nonzero().unbind(1)
    sums = embedding.new_zeros(action.shape[2], embedding.shape[2])
    sums.index_add_(0, label, embedding[video, row] * weight[video, row, label][:, None])
    return sums, action.any(1).sum(0).to(sums)


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "training": {
        "kernel": 3,
        "layers": 1,
        "dropout": 0.7,
        "top_ratio": 8,
        "video_weight": 0.0,
        "point_weight": 0.5,
        "background_weight": 1.0,
        "action_rows": "points",
        "focal": 2.0,
        "action_threshold": 0.1,
        "background_threshold": 0.95,
        "weight_decay": 5e-4,
        "ema": None,
        "attention_layers": 2,
        "heads": 8,
        "feedforward": 128,
        "attention_dropout": 0.1,
        "block_dropout": 0.3,
        "double_projection": True,
        "scrambled": True,
        "contrast_weight": 1.0,
        "temperature": 0.1,
        "momentum": 0.999,
        "warm_memory": False,
    },
    "candidates": {
        "train_classes": "predicted",
        "class_threshold": 0.5,
        "scale": 2,
        "centred": False,
        "cas_thresholds": steps(0, 0.225, 0.025),
        "actionness_thresholds": steps(0.5, 0.7, 0.025),
        "margin": 0.25,
        "symmetric": False,
        "contrast": "zeroed",
        "video_factor": False,
        "repeats": True,
        "nms": "soft",
        "stretch": 1.0,
        "sigma": 0.3,
    },
}
"""The published code on THUMOS14, item by item."""

BUDGET = ("training.heads", "candidates.class_threshold")
"""Options that faithful: true sets but lets the user change: they depend on the data."""
