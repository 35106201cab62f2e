"""The point-supervised snippet model: an embedding and class and background scores for every snippet.

Source: HR-Pro (AAAI 2024) section 3.2 without attention and memory, which is also LACP (ICCV 2021) section 3.1.
HR-Pro's attention block works on the input features and so goes before `ConvEmbedding`; its memory compares prototypes
with the `embedding` of the output and so needs no change here.

Shapes: B videos, T snippets (padded), D input width, W embedding width, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class SnippetScores(NamedTuple):
    """What the model says of each snippet; rows of padding are meaningless."""

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
    """Convolutions over time with ReLU; [B, T, D] and mask [B, T] to [B, T, W]."""

    def __init__(self, dim: int, width: int, kernel: int = 3, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        widths = [dim] + [width] * layers
        self.convs = nn.ModuleList(
            nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        keep = mask[:, None].to(features.dtype)
        x = features.transpose(1, 2) * keep
        for i, conv in enumerate(self.convs):
            # Rows beyond the end must be zero before each layer, as if the video were alone.
            x = torch.relu(conv(self.dropout(x) if i else x)) * keep
        return x.transpose(1, 2)


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
        embedding = self.embedding(features, mask)
        scores = torch.sigmoid(self.classifier(self.dropout(embedding)))
        return SnippetScores(embedding, scores[..., :-1], scores[..., -1])


def video_scores(classes: Tensor, mask: Tensor, ratio: int = 8) -> Tensor:
    """[B, C] mean of the k largest class scores of each video, k = max(1, T // ratio) with the video's own T.

    Args:
        classes: [B, T, C] class scores.
        mask: [B, T] bool, False on padding.
        ratio: one snippet in `ratio` counts.
    """
    count = (mask.sum(1) // ratio).clamp(min=1)
    most = int(count.max())
    top = classes.masked_fill(~mask[..., None], -1.0).topk(most, dim=1).values
    use = torch.arange(most, device=classes.device)[None] < count[:, None]
    return (top * use[..., None]).sum(1) / count[:, None]
