"""PseR's heads: they read the snippets under a segment and say what it is and how well it fits.

Source: PseR, refinement network (selection module: two-stream multiple-instance learning; ranking module: temporal
confidence). Legend: V videos, T rows, D feature width, G bags, N members of a bag, n negatives, C classes, P bins.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from tad.ops.roi import roi_align


class BagScores(NamedTuple):
    """What the heads say about bags and negatives."""

    cls: Tensor
    """[G, N, C] class logits."""
    ins: Tensor
    """[G, N, C] instance logits: a softmax over the members says who speaks for the bag."""
    rank: Tensor
    """[G, N] temporal confidence in (0, 1)."""
    negative: Tensor
    """[n, C] class logits of the negatives."""


class PserHeads(nn.Module):
    """Selection and ranking module over pooled features of segments.

    Nothing depends on the number of classes, bags or members. Every member is scored for itself except for the mean
    of its bag, which the ranking module takes into account, so the order of bags and members does not matter.

    Args:
        dim: feature width D.
        classes: number of classes C.
        bins: RoI bins P.
        hidden: width of the two layers of each module.
        project: each module first reduces snippets to this width by a linear map of its own, which commutes with
            pooling; None pools the features themselves.
        context: segments are widened by this share of their length on either side before pooling.
        centred: segments shorter than a snippet are widened to one about their centre (False: at their end).
        bag_mean: the ranking module adds the mean of its bag to each member's hidden state (published), or
            subtracts it, so that only differences within the bag count.
        dropout: before each hidden layer.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        bins: int = 8,
        hidden: int = 1024,
        project: int | None = None,
        context: float = 0.0,
        centred: bool = True,
        bag_mean: Literal["add", "subtract"] = "add",
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.bins, self.context, self.centred = bins, context, centred
        self.sign = 1.0 if bag_mean == "add" else -1.0
        # Both projections in one matrix: snippets are pooled once.
        self.project = None if project is None else nn.Linear(dim, 2 * project, bias=False)
        width = bins * (dim if project is None else project)
        self.selection = _layers(width, hidden, dropout)
        self.ranking = _layers(width, hidden, dropout)
        self.cls = nn.Linear(hidden, classes)
        self.ins = nn.Linear(hidden, classes)
        self.rank = nn.Linear(hidden, 1)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        bags: Tensor,
        bag_video: Tensor,
        negatives: Tensor,
        negative_video: Tensor,
    ) -> BagScores:
        """Scores of all members of all bags, and of the negatives.

        Args:
            features: [V, T, D] padded.
            lengths: [V] rows of each video.
            bags: [G, N, 2] snippet coordinates; row i is read at coordinate i.
            bag_video: [G] which video each bag is of.
            negatives: [n, 2] same coordinates.
            negative_video: [n] which video each negative is of.
        """
        groups, members = bags.shape[:2]
        rois = torch.cat([bags.reshape(-1, 2), negatives])
        video = torch.cat([bag_video.repeat_interleave(members), negative_video])
        pooled = self.pool(features, lengths, rois, video)
        if self.project is None:
            selecting = ranking = pooled.flatten(1)
        else:
            selecting, ranking = (half.flatten(1) for half in pooled.chunk(2, dim=1))

        hidden = self.selection(selecting)
        own, other = hidden[: groups * members], hidden[groups * members :]
        fit = self.ranking(ranking[: groups * members]).view(groups, members, -1)
        fit = fit + self.sign * fit.mean(dim=1, keepdim=True)
        return BagScores(
            self.cls(own).view(groups, members, -1),
            self.ins(own).view(groups, members, -1),
            torch.sigmoid(self.rank(fit)).squeeze(-1),
            self.cls(other),
        )

    def pool(self, features: Tensor, lengths: Tensor, rois: Tensor, video: Tensor) -> Tensor:
        """[R, D', P] pooled features of segments [R, 2]; D' is D, or twice the projection's width."""
        start, end = rois.unbind(-1)
        size = end - start
        extra = self.context * size
        if self.centred:
            extra = torch.maximum(extra, (1 - size) / 2)
        rois = torch.stack([start - extra, end + extra], dim=-1)
        if self.project is not None:
            features = self.project(features)
        return roi_align(features, rois, self.bins, video, lengths)


def _layers(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(width, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
    )
