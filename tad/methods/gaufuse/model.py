"""The RSKP model: snippet embedding, prototypes of a video, random walks, prediction heads and a memory.

Source: RSKP (CVPR 2022) in the form that GauFuse's released code (CVPR 2023) has it.

Shapes: B videos, T snippets (padded), D input width, W embedding width, C classes, K prototypes, S slots of a class.
The background is class C, so heads have C + 1 columns.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from tad.methods.snippet.model import places, rows_of

TINY = 1e-9
POOLED = 1e-5
"""Added to the sum of weights when a video is pooled, as published."""


class Rows(NamedTuple):
    """Snippets of several videos without padding: wide rows are dear, and the longest video can be ten times another.

    What is narrow (a number for each prototype or class) is padded, and so is the same for all videos.
    """

    x: Tensor
    """[N, W], one video after the other."""
    norm: Tensor
    """[N] their lengths as vectors, kept because cosines divide by them again and again."""
    mask: Tensor
    """[B, T] bool, False on padding."""
    place: Tensor
    """[N] where the rows lie in the mask, see `places`."""
    lengths: list[int]
    """[B]"""

    @classmethod
    def of(cls, x: Tensor, mask: Tensor) -> Rows:
        norm = torch.linalg.vector_norm(x, dim=-1).clamp(min=TINY)
        return cls(x, norm, mask, places(mask), mask.sum(1).tolist())

    def replaced(self, x: Tensor) -> Rows:
        """Other rows [N, W] of the same videos."""
        return self._replace(x=x, norm=torch.linalg.vector_norm(x, dim=-1).clamp(min=TINY))

    def cosines(self, to: Tensor) -> Tensor:
        """[B, T, M] with vectors [M, W], the same for all videos, or [B, M, W] of each; zero on padding."""
        unit = normalize(to, dim=-1, eps=TINY)
        if unit.dim() == 2:
            products = self.x @ unit.T
        else:
            products = torch.cat([x @ own.T for x, own in zip(self.x.split(self.lengths), unit, strict=True)])
        padded = products.new_zeros(self.mask.numel(), products.shape[1])
        return padded.index_copy(0, self.place, products / self.norm[:, None]).view(*self.mask.shape, -1)

    def pooled(self, weights: Tensor) -> Tensor:
        """[B, M, W] weighted sums of each video's rows; weights [B, M, T]."""
        parts = zip(self.x.split(self.lengths), weights, strict=True)
        return torch.stack([weight[:, : len(x)] @ x for x, weight in parts])

    def mixed(self, weights: Tensor, vectors: Tensor) -> Tensor:
        """[N, W] weighted sums of each video's vectors [B, M, W], for every row; weights [B, M, T]."""
        parts = zip(weights, vectors, self.lengths, strict=True)
        return torch.cat([weight[:, :length].T @ own for weight, own, length in parts])


class HeadScores(NamedTuple):
    """What the prediction head says of a feature sequence."""

    logits: Tensor
    """[B, T, C + 1] of the snippets; zero on padding."""
    attention: Tensor
    """[B, T] class-agnostic attention in [0, 1]; zero on padding."""
    foreground: Tensor
    """[B, C + 1] logits of the video pooled by attention."""
    whole: Tensor
    """[B, C + 1] logits of the video, each class pooled by its own snippet scores."""


class RskpScores(NamedTuple):
    """What the model says of a batch of videos."""

    embedding: Tensor
    """[N, W] of all videos without padding, one after the other; non-negative, after dropout in training."""
    own: HeadScores
    """Branch "o": of the embedding."""
    walk: HeadScores
    """Branch "m": of the embedding after the random walk over the video's own prototypes."""
    memory: HeadScores | None
    """Branch "r": after the walk over the memory of the video's classes; None if no classes were given."""
    remembered: Tensor
    """[B] bool, videos with a class whose slots are filled; branch "r" counts for them alone."""
    prototypes: Tensor
    """[B, K, W] of each video."""
    prototype_scores: Tensor
    """[B, K, C + 1] class probabilities of the prototypes."""

    def snippets(self, share: float) -> Tensor:
        """[B, T, C + 1] attention times class probabilities, `share` of them from the embedding, the rest walked."""
        mixed = share * self.own.logits.softmax(-1) + (1 - share) * self.walk.logits.softmax(-1)
        return self.own.attention[..., None] * mixed

    def video(self, share: float) -> Tensor:
        """[B, C + 1] class probabilities of the video, `share` of them from the embedding, the rest walked."""
        return share * self.own.foreground.softmax(-1) + (1 - share) * self.walk.foreground.softmax(-1)


class RskpModel(nn.Module):
    """Embedding, prototypes by expectation and maximisation, random walks, and one head for all branches.

    Attributes:
        memory: [C, S, W] the prototypes with the highest scores of each class; zero where a slot is empty.
        memory_scores: [C, S] their scores, -1 where a slot is empty.
        steps: [] training steps so far; a buffer, so that training goes on from a checkpoint where it was.

    Args:
        dim: width D of the features.
        classes: number of classes C.
        width: width W of the embedding.
        prototypes: prototypes K that sum up a video.
        em_iterations: rounds of expectation and maximisation.
        em_temperature: factor on cosines when snippets are assigned to prototypes.
        walk: share of the random walk that goes on.
        scale: factor on cosines with class centres.
        slots: prototypes S of each class in the memory.
        dropout: share of embedding entries dropped in training.
    """

    memory: Tensor
    memory_scores: Tensor
    steps: Tensor

    def __init__(
        self,
        dim: int,
        classes: int,
        width: int,
        prototypes: int = 8,
        em_iterations: int = 2,
        em_temperature: float = 5.0,
        walk: float = 0.5,
        scale: float = 20.0,
        slots: int = 5,
        dropout: float = 0.6,
    ) -> None:
        super().__init__()
        self.em_iterations, self.em_temperature, self.walk, self.scale = em_iterations, em_temperature, walk, scale
        self.embedding = nn.Linear(dim, width)
        self.dropout = nn.Dropout(dropout)
        self.prototypes = nn.Parameter(torch.empty(prototypes, width))
        self.centres = nn.Parameter(torch.empty(classes + 1, width))
        for weight in (self.embedding.weight, self.prototypes, self.centres):
            nn.init.xavier_uniform_(weight)
        nn.init.zeros_(self.embedding.bias)
        self.foreground = nn.Parameter(-self.centres[-1].detach().clone())
        self.register_buffer("memory", torch.zeros(classes, slots, width))
        self.register_buffer("memory_scores", torch.full((classes, slots), -1.0))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, features: Tensor, mask: Tensor, classes: Tensor | None = None) -> RskpScores:
        """Scores of all branches.

        Args:
            features: [B, T, D].
            mask: [B, T] bool, False on padding.
            classes: [B, C] bool, the classes whose memory each video walks over; None leaves the branch out.
        """
        rows = Rows.of(self.dropout(torch.relu(self.embedding(rows_of(features, places(mask))))), mask)
        prototypes = summarise(rows, self.prototypes, self.em_iterations, self.em_temperature)
        memory, remembered = None, mask.new_zeros(len(mask))
        if classes is not None:
            slots, filled = self.recall(classes)
            remembered = filled.any(1)
            memory = self.head(random_walk(rows, slots, self.walk, self.em_temperature, filled))
        return RskpScores(
            rows.x,
            self.head(rows),
            self.head(random_walk(rows, prototypes, self.walk, self.em_temperature)),
            memory,
            remembered,
            prototypes,
            self.logits(prototypes).softmax(-1),
        )

    def logits(self, x: Tensor) -> Tensor:
        """[..., C + 1] scaled cosines of vectors [..., W] with the class centres."""
        return self.scale * normalize(x, dim=-1, eps=TINY) @ normalize(self.centres, dim=-1, eps=TINY).T

    def head(self, rows: Rows) -> HeadScores:
        """Scores of the snippets and of the video."""
        logits = self.scale * rows.cosines(torch.cat([self.centres, self.foreground[None]]))
        logits, foreground = logits[..., :-1], logits[..., -1]
        attention = torch.sigmoid(foreground) * rows.mask
        own = torch.sigmoid(logits) * rows.mask[..., None]
        weights = torch.cat([attention[:, None], own.transpose(1, 2)], dim=1)
        pooled = rows.pooled(weights) / (weights.sum(2, keepdim=True) + POOLED)  # [B, 1 + C + 1, W]
        cosines = normalize(pooled[:, 1:], dim=-1, eps=TINY) * normalize(self.centres, dim=-1, eps=TINY)
        return HeadScores(logits, attention, self.logits(pooled[:, 0]), self.scale * cosines.sum(-1))

    def recall(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The memory of each video's classes [B, C] bool: rows [B, M, W] and which of them hold something [B, M]."""
        known = classes & (self.memory_scores >= 0).all(1)
        most = max(1, int(known.sum(1).max()))
        # The video's own classes first, so that no work goes into those that no video of the batch has.
        index = known.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        filled = known.gather(1, index)
        slots = self.memory[index] * filled[..., None, None]
        return slots.flatten(1, 2), filled.repeat_interleave(self.memory.shape[1], dim=1)

    @torch.no_grad()
    def remember(self, prototypes: Tensor, scores: Tensor) -> None:
        """Merges prototypes of several videos into the memory; each class keeps those with the highest scores.

        Among equal scores those already in the memory stay, then the first ones come, so the result does not depend on
        anything but the order of the rows.

        Args:
            prototypes: [N, W].
            scores: [N, C] of each prototype for each class; negative where the video does not have the class.
        """
        classes, slots = self.memory_scores.shape
        every = torch.cat([self.memory_scores, scores.T.to(self.memory_scores)], dim=1)
        best = every.argsort(dim=1, descending=True, stable=True)[:, :slots]
        new = prototypes[(best - slots).clamp(min=0)]
        old = self.memory[torch.arange(classes, device=best.device)[:, None], best.clamp(max=slots - 1)]
        kept = every.gather(1, best)
        chosen = torch.where((best < slots)[..., None], old, new.to(old))
        self.memory.copy_(chosen * (kept >= 0)[..., None])
        self.memory_scores.copy_(kept.clamp(min=-1))

    @torch.no_grad()
    def forget(self) -> None:
        """Empties the memory and counts steps from 0."""
        self.memory.zero_()
        self.memory_scores.fill_(-1)
        self.steps.zero_()


def assign(rows: Rows, prototypes: Tensor, temperature: float, use: Tensor | None = None) -> Tensor:
    """[B, K, T] how much each snippet belongs to each prototype; sums to 1 over prototypes, 0 on padding.

    Args:
        rows: snippets.
        prototypes: [K, W], the same for all videos, or [B, K, W].
        temperature: factor on the cosines.
        use: [B, K] bool, False on rows that hold no prototype; None: all do.
    """
    cosines = rows.cosines(prototypes).transpose(1, 2)
    if use is not None:
        cosines = cosines.masked_fill(~use[..., None], -1e4)
    share = (temperature * cosines).softmax(1) * rows.mask[:, None]
    return share if use is None else share * use[..., None]


def over_time(share: Tensor) -> Tensor:
    """Assignments [B, K, T] scaled so that each prototype's sum to 1 over time; zero where it has none."""
    return share / share.sum(2, keepdim=True).clamp(min=TINY)


def summarise(rows: Rows, start: Tensor, iterations: int, temperature: float) -> Tensor:
    """[B, K, W] prototypes of each video, by expectation and maximisation from `start` [K, W]."""
    prototypes = start
    for _ in range(iterations):
        prototypes = rows.pooled(over_time(assign(rows, prototypes, temperature)))
    return prototypes


def random_walk(rows: Rows, prototypes: Tensor, share: float, temperature: float, use: Tensor | None = None) -> Rows:
    """The limit of a random walk between snippets and prototypes: for every snippet a convex mix of both.

    With Z the assignments, N those over time and r = share Z'mu + x, the limit is
    (1 - share) (I - share^2 Z'N)^-1 r; by Woodbury's identity that is exactly
    (1 - share) (r + share^2 Z'(I - share^2 N Z')^-1 N r), with a K x K system in place of T x T.
    A video none of whose prototypes is in use keeps (1 - share) x.

    Args:
        rows: snippets.
        prototypes: [B, K, W].
        share: of the walk that goes on.
        temperature: factor on cosines when snippets are assigned.
        use: [B, K] bool, False on rows that hold no prototype; None: all do.
    """
    z = assign(rows, prototypes, temperature, use)
    n = over_time(z)
    meet = n @ z.transpose(1, 2)
    system = torch.eye(z.shape[1], dtype=z.dtype, device=z.device) - share**2 * meet
    solved = torch.linalg.solve(system, share * meet @ prototypes + rows.pooled(n))
    # [B, K, W] in brackets: all that is left to do for each snippet is to mix.
    return rows.replaced((1 - share) * (rows.x + rows.mixed(z, share * prototypes + share**2 * solved)))
