"""The point-supervised snippet model: an embedding and class and background scores for every snippet.

Source: HR-Pro (AAAI 2024) section 3.2 without attention and memory, which is also LACP (ICCV 2021) section 3.1.
HR-Pro's attention works on the rows before `ConvEmbedding`: see tad.methods.hrpro.model.

Shapes: B videos, T snippets (padded), D input width, W embedding width, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.data.dataset import Dataset


class SnippetScores(NamedTuple):
    """What the model says of each snippet; zero on padding."""

    embedding: Tensor
    """[B, T, W], non-negative."""
    classes: Tensor
    """[B, T, C] class scores S in (0, 1)."""
    background: Tensor
    """[B, T] background score b in (0, 1); actionness is 1 - b."""

    def cas(self) -> Tensor:
        """[B, T, C] class-specific activation sequence, the fused class score S (1 - b)."""
        return self.classes * (1 - self.background[..., None])


class ConvEmbedding(nn.Module):
    """Convolutions over time with ReLU, on rows without padding.

    The videos are laid end to end with zero rows between them, so that no time goes into padding: a batch of very
    unequal videos is several times as quick as with padded convolutions, and the result is the same.

    Args:
        dim: width D of the features.
        width: width W of the embedding.
        kernel: rows each convolution sees (odd).
        layers: convolutions.
    """

    def __init__(self, dim: int, width: int, kernel: int = 3, layers: int = 1) -> None:
        super().__init__()
        widths = [dim] + [width] * layers
        self.reach = kernel // 2
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=self.reach) for a, b in pairwise(widths))

    def forward(self, rows: Tensor, video: Tensor, videos: int) -> Tensor:
        """rows [N, D] of all videos, one video after the other, and the video [N] of each, to [N, W]."""
        # `reach` zero rows between two videos stand for what lies beyond their ends.
        place = torch.arange(len(video), device=video.device) + video * self.reach
        length = len(video) + (videos - 1) * self.reach
        for conv in self.convs:
            line = rows.new_zeros(length, rows.shape[1]).index_copy(0, place, rows)
            rows = torch.relu(conv(line.T[None]))[0].T[place]
        return rows


class SnippetModel(nn.Module):
    """Embedding, dropout, and a linear classifier of C classes and background.

    Args:
        dim: width D of the features.
        classes: number of classes C.
        width: width W of the embedding.
        kernel: rows each convolution sees (odd).
        layers: convolutions.
        dropout: share of embedding entries dropped before the classifier, in training.
    """

    def __init__(
        self, dim: int, classes: int, width: int, kernel: int = 3, layers: int = 1, dropout: float = 0.7
    ) -> None:
        super().__init__()
        self.embedding = ConvEmbedding(dim, width, kernel, layers)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, classes + 1, bias=False)

    def forward(self, features: Tensor, mask: Tensor) -> SnippetScores:
        """features [B, T, D] and mask [B, T] (False on padding) to scores."""
        place = places(mask)
        return self.of_rows(rows_of(features, place), place, mask)

    def of_rows(self, rows: Tensor, place: Tensor, mask: Tensor) -> SnippetScores:
        """`forward` for rows [N, D] that are already without padding (see `rows_of`), and their `places`."""
        video = torch.div(place, mask.shape[1], rounding_mode="floor")
        embedding = self.embedding(rows, video, len(mask))
        scores = torch.sigmoid(self.classifier(self.dropout(embedding)))

        def padded(rows: Tensor) -> Tensor:
            return rows.new_zeros(mask.numel(), rows.shape[1]).index_copy(0, place, rows).view(*mask.shape, -1)

        scores = padded(scores)
        return SnippetScores(padded(embedding), scores[..., :-1], scores[..., -1])


def places(mask: Tensor) -> Tensor:
    """[N] int64 where the rows of a mask [B, T] lie, video after video; on a GPU it is waited for."""
    return mask.flatten().nonzero()[:, 0]


def rows_of(padded: Tensor, place: Tensor) -> Tensor:
    """[N, D] the rows of [B, T, D] at these places [N]."""
    return padded.flatten(0, 1).index_select(0, place)


def video_scores(classes: Tensor, mask: Tensor, ratio: int = 8) -> Tensor:
    """[B, C] mean of the k largest class scores of each video, k = max(1, T // ratio) with the video's own T.

    Args:
        classes: [B, T, C] class scores.
        mask: [B, T] bool, False on padding.
        ratio: one snippet in `ratio` counts.
    """
    count = (mask.sum(1) // ratio).clamp(min=1)
    most = max(1, mask.shape[1] // ratio)  # of the longest video there may be
    top = classes.masked_fill(~mask[..., None], -1.0).topk(most, dim=1).values
    use = torch.arange(most, device=classes.device)[None] < count[:, None]
    return (top * use[..., None]).sum(1) / count[:, None]


def usual_ratio(data: Dataset, videos: Sequence[str]) -> int:
    """One row in so many is of a class, where a video's classes share a fifth of it; 8, as published, for few classes.

    The video term lifts these rows of each class that a video has, so they should not be more than the class has. On
    dev videos of real gestures, four classes in each, 8, 16, 24 and 32 led to 61, 80, 85 and 80 mAP.

    Args:
        data: the dataset.
        videos: those of the training; at least one has a class.
    """
    counts = [len(data.video_classes(video)) for video in videos]
    return max(8, round(5 * float(np.mean([count for count in counts if count] or [0]))))
