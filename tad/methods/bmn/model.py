"""Network of the detector `bmn`: probabilities of boundaries at every bin, and of every proposal of a grid.

Source: BMN (ICCV 2019) figure 4, in the layers of its public re-implementations. The third map is APL's (ECCV 2024).
Legend: B windows, T bins, D durations, C feature channels, W width, K valid cells, M maps, F frames.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tad.methods.bmn.sampling import BoundaryMatching, valid_cells


class BmnOutputs(NamedTuple):
    """Of one batch: logits, and the base's output at some bins."""

    start: Tensor
    """[B, T] that an action starts at the bin."""
    end: Tensor
    """[B, T] that one ends there."""
    maps: Tensor
    """[B, M, D, T] of the proposals [j, j + d + 1]: that it is one, its tIoU and, with M = 3, its distance."""
    frames: Tensor | None = None
    """[B, F, W] the base at the bins that were asked for; None if none were."""


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
        distance: whether there is a third map, for the distance of centres.
        published_edges: see `tad.methods.bmn.sampling.sampling_taps`.
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
        distance: bool = False,
        published_edges: bool = False,
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
        last = nn.Conv2d(half, 3 if distance else 2, 1)
        self.maps = nn.Sequential(
            nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1), nn.ReLU(), last
        )
        initialise(self)
        if distance:
            # Distances are small: the score, overlap less distance, should start above 0.
            assert last.bias is not None
            nn.init.constant_(last.bias[2:], -3.0)
        cells = valid_cells(length, durations)
        place = torch.full((durations, length), len(cells.start))
        place[cells.duration, cells.start] = torch.arange(len(cells.start))
        self.register_buffer("place", place, persistent=False)

    def forward(self, features: Tensor, mask: Tensor, frames: Tensor | None = None) -> BmnOutputs:
        """The whole network.

        Args:
            features: [B, T, C].
            mask: [B, T] true on rows of the video; what lies beyond its end reads as zeros, as beyond the window.
            frames: [B, F] int64 bins at which the base itself is wanted, too.
        """
        keep = mask[:, None].to(features.dtype)
        x = kept_inside(self.base, features, keep)
        cells = torch.relu(self.matching((self.reduce(x) * keep).transpose(1, 2)))
        # The published layer has all-zero samples where a proposal would leave the window; only biases pass there.
        beyond = torch.relu(self.matching.bias).expand(len(x), 1, -1)
        cells = torch.relu(self.project(torch.cat([cells, beyond], 1)))
        grid = cells[:, self.place].permute(0, 3, 1, 2)
        there = None if frames is None else x.transpose(1, 2).take_along_dim(frames[..., None], 1)
        return BmnOutputs(self.start(x)[:, 0], self.end(x)[:, 0], self.maps(grid), there)
