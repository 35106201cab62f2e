"""POTLoc's detector: probabilities of the classes and of background at every point of a pyramid.

Source: POTLoc (Vahdani and Tian), "Pseudo-label Oriented Multi-scale Transformer", in the form its code runs. The
pyramid is ActionFormer's, in tad.methods.common.pyramid. There is no boundary head: boundaries come from thresholds.

Shapes: T rows of all videos and padding, D feature width, C classes, P points of all levels, level by level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tad.methods.common.pyramid import Backbone, Conv, ConvStack


class LevelScores(NamedTuple):
    """What the model says at each point; zero on padding."""

    classes: Tensor
    """[P, C] class scores in (0, 1)."""
    background: Tensor
    """[P] background score b in (0, 1); actionness is 1 - b."""
    mask: Tensor
    """[P] bool, False on padding."""

    def cas(self) -> Tensor:
        """[P, C] class-specific activation sequences of all levels, the fused class score p (1 - b)."""
        return self.classes * (1 - self.background[:, None])


class Potloc(Backbone):
    """The pyramid and one decoder for all levels.

    With `levels` 1 and `stem` 0 no attention is left: temporal convolutions alone, as in the paper's Table 2.

    Args:
        dim: width D of the features.
        classes: number of classes C.
        width: width of the pyramid.
        heads, levels, window, drop_path, input_dropout, stem, gain: see `Backbone`.
        prior: probability that all outputs start near, that of background included.
    """

    def __init__(
        self,
        dim: int,
        classes: int,
        width: int = 512,
        heads: int = 4,
        levels: int = 3,
        window: int = 12,
        drop_path: float = 0.1,
        input_dropout: float = 0.0,
        stem: int = 2,
        gain: float = 1e-4,
        prior: float = 0.01,
    ) -> None:
        super().__init__(dim, width, heads, levels, window, drop_path, input_dropout, stem, gain)
        self.decoder, self.head = ConvStack(width, width), Conv(width, classes + 1)
        nn.init.constant_(self.head.bias, math.log(prior / (1 - prior)))  # type: ignore[arg-type]

    def forward(self, features: Tensor, video: Tensor, lengths: Tensor | None = None) -> LevelScores:
        """From features [T, D], the video [T] of each row (-1 on padding) and the rows [V] of each video, which input
        dropout needs, to the scores of all points."""
        levels = self.encode(features, video, None if lengths is None else len(lengths))
        logits = self.head(self.decoder(levels.rows, levels.video))[levels.point]
        scores = torch.sigmoid(logits) * levels.mask[:, None]
        return LevelScores(scores[:, :-1], scores[:, -1], levels.mask)
