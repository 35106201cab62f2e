"""HR-Pro's instance model: how complete a proposal is, and where its boundaries should be.

Source: HR-Pro (AAAI 2024), instance-level completeness learning, in the form its code runs. The model knows no classes
and reads the dataset's features, not the snippet model's.
Legend: V videos, T rows, D channels, R proposals, P bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tad.ops.roi import roi_align

CHUNK = 512
"""Proposals pooled at a time: [CHUNK, D, P] is the largest tensor of the model."""


class InstanceScores(NamedTuple):
    """What the model says of proposals."""

    completeness: Tensor
    """[R] in (0, 1): an estimate of the tIoU with an action."""
    refined: Tensor
    """[R, 2] refined segments in the coordinates and type of the input; the end may lie before the start."""


class InstanceModel(nn.Module):
    """Score head and two boundary heads over pooled features of the inside and both outsides of proposals.

    Each boundary head sees the outside next to its boundary only.

    Args:
        dim: feature width D.
        bins: RoI bins P over the extended proposal, at least 3; those over the extensions make the outsides.
        extension: proposals reach this share of their length further on both sides.
        dropout: in the score head.
    """

    def __init__(self, dim: int, bins: int = 12, extension: float = 0.25, dropout: float = 0.7) -> None:
        super().__init__()
        self.bins, self.extension = bins, extension
        self.outside = min((bins - 1) // 2, max(1, round(bins * extension / (1 + 2 * extension))))
        half = max(1, dim // 2)
        self.score = nn.Sequential(
            nn.Linear(3 * dim, dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(dim, half), nn.ReLU(), nn.Linear(half, 1)
        )
        self.start, self.end = (nn.Sequential(nn.Linear(dim, half), nn.ReLU(), nn.Linear(half, 1)) for _ in range(2))

    def forward(self, features: Tensor, lengths: Tensor, spans: Tensor, video: Tensor) -> InstanceScores:
        """Scores and refined boundaries of all proposals of several videos.

        Args:
            features: [V, T + 2, D] from `framed`.
            lengths: [V] from `framed`.
            spans: [R, 2] positions (`SnippetGrid.to_position`), ends after starts; not differentiated.
            video: [R] long, which video each proposal is of.
        """
        before, inside, after = self.pool(features, lengths, spans, video)
        contrast = torch.cat([inside - before, inside, inside - after], dim=1)
        offsets = torch.cat([self.start(before), self.end(after)], dim=1)
        refined = spans + (spans[:, 1:] - spans[:, :1]) * offsets.to(spans.dtype)
        return InstanceScores(torch.sigmoid(self.score(contrast)).squeeze(1), refined)

    @torch.no_grad()
    def pool(self, features: Tensor, lengths: Tensor, spans: Tensor, video: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Largest bin before, inside and after each proposal, [R, D] each; arguments as for `forward`."""
        extra = self.extension * (spans[:, 1] - spans[:, 0])
        # Row t of a video is row t + 1 of its frame.
        rois = torch.stack([spans[:, 0] - extra, spans[:, 1] + extra], dim=1) + 1
        widths = (self.outside, self.bins - 2 * self.outside, self.outside)
        parts = []
        for some, whose in zip(rois.split(CHUNK), video.split(CHUNK), strict=True):
            bins = roi_align(features, some, self.bins, whose, lengths)
            parts.append([part.amax(dim=2) for part in bins.split(widths, dim=2)])
        before, inside, after = (torch.cat(part) for part in zip(*parts, strict=True))
        return before, inside, after


def framed(features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Features of several videos [T, D] each, with a row of zeros before and after each.

    Pooling then fades out beyond a video as the published model's does, which pads with zeros: a sample between the
    last row and one row further is interpolated with zeros, one beyond that is zero.

    Returns:
        [V, longest T + 2, D] and [V] lengths T + 2.
    """
    lengths = torch.tensor([len(rows) + 2 for rows in features])
    table = torch.zeros(len(features), int(lengths.max()), features[0].shape[1])
    for padded, rows in zip(table, features, strict=True):
        padded[1 : len(rows) + 1] = rows
    return table, lengths
