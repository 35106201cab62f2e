"""Network of the detector `bmn`: probabilities of boundaries at every bin, and of every proposal of a grid.

Source: BMN (ICCV 2019) figure 4, in the layers of its public re-implementations.
Legend: B windows, T bins, D durations, C feature channels, W width, K valid cells, M maps.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from tad.methods.bmn.sampling import BoundaryMatching, valid_cells


class BmnOutputs(NamedTuple):
    """Of one batch: logits."""

    start: Tensor
    """[B, T] that an action starts at the bin."""
    end: Tensor
    """[B, T] that one ends there."""
    maps: Tensor
    """[B, M, D, T] of the proposals [j, j + d + 1]: that it is one, and its tIoU."""


def convolutions(dim: int, width: int) -> nn.Sequential:
    """The base: from features [B, C, T] to [B, W, T], all that the boundaries and the proposals have in common."""
    groups = math.gcd(4, width)
    return nn.Sequential(
        nn.Conv1d(dim, width, 3, padding=1, groups=math.gcd(groups, dim)),
        nn.ReLU(),
        nn.Conv1d(width, width, 3, padding=1, groups=groups),
        nn.ReLU(),
    )


def initialise(network: nn.Module) -> None:
    """Xavier-uniform weights and no biases, as in the released code."""
    for module in network.modules():
        if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


def kept_inside(base: nn.Module, features: Tensor, keep: Tensor) -> Tensor:
    """The base [B, W, T] of features [B, T, C]; `keep` [B, 1, T] is 0 beyond a video's end, which reads as zeros."""
    x: Tensor = base(features.transpose(1, 2) * keep) * keep
    return x


class Bmn(nn.Module):
    """Boundary-matching network.

    Args:
        dim: feature channels C.
        length: bins T of a window.
        durations: D, the longest proposal in bins.
        width: channels of the base; proposals are sampled with half as many and reduced to twice as many.
        samples: places at which a proposal is sampled.
        published_edges: see `tad.methods.bmn.sampling.sampling_taps`.
        maps: outputs of each proposal.
    """

    place: Tensor
    """[D, T] the cell at each place of the maps; K where the proposal would leave the window."""

    def __init__(
        self,
        dim: int,
        length: int,
        durations: int,
        width: int = 256,
        samples: int = 32,
        published_edges: bool = False,
        maps: int = 2,
    ) -> None:
        super().__init__()
        half, groups = width // 2, math.gcd(4, width)
        self.base = convolutions(dim, width)
        self.start, self.end = (
            nn.Sequential(nn.Conv1d(width, width, 3, padding=1, groups=groups), nn.ReLU(), nn.Conv1d(width, 1, 1))
            for _ in range(2)
        )
        self.reduce = nn.Sequential(nn.Conv1d(width, half, 3, padding=1), nn.ReLU())
        self.matching = BoundaryMatching(length, durations, half, 2 * width, samples, published_edges=published_edges)
        self.project = nn.Linear(2 * width, half)
        last = nn.Conv2d(half, maps, 1)
        self.maps = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), last
        )
        initialise(self)
        cells = valid_cells(length, durations)
        place = torch.full((durations, length), len(cells.start))
        place[cells.duration, cells.start] = torch.arange(len(cells.start))
        self.register_buffer("place", place, persistent=False)

    @classmethod
    def of(cls, settings: dict[str, Any], **more: Any) -> Self:
        """The network that a model's settings describe, with fresh weights; `more` are a subclass's arguments."""
        names = ("dim", "length", "durations", "width", "samples", "published_edges")
        return cls(**{name: settings[name] for name in names}, **more)

    def forward(self, features: Tensor, mask: Tensor) -> BmnOutputs:
        """The whole network.

        Args:
            features: [B, T, C].
            mask: [B, T] true on rows of the video; what lies beyond its end reads as zeros, as beyond the window.
        """
        keep = mask[:, None].to(features.dtype)
        x = kept_inside(self.base, features, keep)
        return self.answer(x, self.grid(x, keep))

    def grid(self, x: Tensor, keep: Tensor) -> Tensor:
        """The base [B, W, T] sampled for all proposals, [B, W / 2, D, T]."""
        cells = torch.relu(self.matching((self.reduce(x) * keep).transpose(1, 2)))
        # The published layer has all-zero samples where a proposal would leave the window; only biases pass there.
        beyond = torch.relu(self.matching.bias).expand(len(x), 1, -1)
        cells = torch.relu(self.project(torch.cat([cells, beyond], 1)))
        return cells[:, self.place].permute(0, 3, 1, 2)

    def answer(self, x: Tensor, grid: Tensor) -> BmnOutputs:
        """The outputs from the base and the sampled proposals."""
        return BmnOutputs(self.start(x)[:, 0], self.end(x)[:, 0], self.maps(grid))

    @staticmethod
    def score(maps: Tensor) -> Tensor:
        """The score of proposals from the probabilities of their maps, [M, ...] to [...]."""
        return maps[0] * maps[1]
