"""Proposer `hrpro`: the snippet model with reliability-aware attention, prototype memory and contrast.

HR-Pro (AAAI 2024), "Snippet-level Action Discrimination Learning". Row losses and mining are those of the snippet
proposer; here are the memory, its initialisation from points, its update, and the contrastive loss. Where paper and
code differ, the code is followed; its known faults are mended unless `faithful: true`.
Stages: `hrpro/train` (fit), `hrpro/score`, `hrpro/embed`, `snippet/propose` (maps).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from tad import bounds
from tad.data.dataset import Dataset
from tad.errors import ConfigError
from tad.methods.common.candidates import CandidateConfig
from tad.methods.common.label_kinds import unread_labels, untaught
from tad.methods.hrpro.model import HrproModel, prototype_contrast
from tad.methods.roles import MethodConfig, Round
from tad.methods.snippet.mining import Mined
from tad.methods.snippet.model import SnippetScores
from tad.methods.snippet.proposer import SnippetEmbed, SnippetScore, propose
from tad.methods.snippet.training import SnippetTask, TrainingConfig
from tad.options import again, group, option
from tad.ranges import Choice, Float, Integer
from tad.stages import Artifact, Batch, Context, Total, unwrap

MOST_HEADS = 8


class HrproTraining(TrainingConfig):
    """Model, losses and optimiser."""

    # With attention every row sees the whole video, so a video-level loss teaches all rows to fire at once.
    video_weight: bounds.Weight = again(TrainingConfig, "video_weight", 0.0, paper=0.0)
    action_threshold: bounds.Fraction = again(
        TrainingConfig,
        "action_threshold",
        why="paper .1; the rows that the contrast and the prototypes take for action",
        when=None,
    )
    attention_layers: int = option(
        2,
        "attention blocks; 0: none",
        ge=0,
        le=8,
        paper=2,
        tune=Integer(0, 4),
        why="paper 2; fewer for narrow features, which overfit sooner",
    )
    heads: bounds.Parts | None = option(
        None, "attention heads; null: the most that divide the feature width, up to 8", paper=8, free=True
    )
    feedforward: bounds.Width = option(128, "hidden width of a block's feed-forward layer", paper=128)
    attention_dropout: bounds.Chance = option(
        0.0, "of attention weights; above 0 they are held in full, T x T", paper=0.1
    )
    block_dropout: bounds.Chance = option(0.3, "of a block's branches", paper=0.3, tune=Float(0.0, 0.5), why="paper .3")
    double_projection: bool = option(False, "two linear maps to queries and keys, as published", paper=True)
    scrambled: bool = option(False, "the published reshape that mixes the prototypes", paper=True)
    contrast_weight: bounds.Weight = option(
        1.0,
        "weight of the contrast with prototypes; 0: none",
        paper=1.0,
        tune=Float(0.1, 3.0, log=True),
        why="paper 1; pull of rows towards their class's prototype",
    )
    temperature: bounds.Temperature = option(
        0.1,
        "of the contrast's cosine similarities",
        paper=0.1,
        tune=Float(0.05, 0.5, log=True),
        why="paper .1; of the contrast's cosine similarities",
    )
    momentum: bounds.Chance = option(
        0.999,
        "what one video leaves of a prototype",
        paper=0.999,
        tune=Choice(0.9, 0.99, 0.995, 0.999, 0.9999),
        why="paper .999; a prototype should remember a few epochs of its class's videos",
    )
    warm_memory: bool = option(
        True,
        "prototypes are plain means until momentum remembers longer; false: they keep the untrained "
        "network's embedding for hundreds of updates",
        paper=False,
    )


class HrproProposer(MethodConfig):
    """Snippet model with attention and memory; its curves' runs are the proposals."""

    method: Literal["hrpro"] = "hrpro"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    training: HrproTraining = HrproTraining()
    candidates: CandidateConfig = group(CandidateConfig(), stage="proposals")

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
    version: int = 2

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
        heads = config.heads or attention_heads(shape["dim"])
        if config.attention_layers and shape["dim"] % heads:
            raise ConfigError(
                f"hrpro: {heads} attention heads do not divide the feature width {shape['dim']}; "
                "leave training.heads null"
            )
        shape |= {"heads": heads} | {
            name: getattr(config, name)
            for name in (
                "attention_layers",
                "feedforward",
                "attention_dropout",
                "block_dropout",
                "double_projection",
                "scrambled",
            )
        }
        self.weights["contrast"] = config.contrast_weight
        self.remembers = False
        return HrproModel(**shape)

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The snippet task's terms and the contrast; then the memory learns from all workers' videos."""
        core = unwrap(module)
        assert isinstance(core, HrproModel)
        if not self.remembers:  # asked once: a GPU has to be waited for
            if (core.seen < 0).any():
                core.initialise(self.first_memory(core, batch["mask"].device))
            self.remembers = True
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


def attention_heads(width: int) -> int:
    """The most heads, up to the published 8, that divide a width: features of any width can be attended."""
    return max(heads for heads in range(1, MOST_HEADS + 1) if width % heads == 0)


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
