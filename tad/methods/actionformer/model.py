"""ActionFormer: a pyramid of local self-attention with one classification and one regression head for all levels.

Source: ActionFormer (ECCV 2022), section 3 and its released configuration. The pyramid is in
tad.methods.common.pyramid.

Shapes: T rows of all videos and padding, D feature width, C classes, L levels, P points of all levels, level by level.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from tad.methods.common.pyramid import Backbone, Conv, ConvStack, Levels


class PointOutputs(NamedTuple):
    """What the model says at each point; rows where the mask is False are meaningless."""

    logits: Tensor
    """[P, C] class logits."""
    offsets: Tensor
    """[P, 2] distances >= 0 from the point to start and end, in strides of the point's level."""
    mask: Tensor
    """[P] bool, False on padding."""


class ActionFormer(Backbone):
    """The network, and the running count of positives that normalises its loss.

    Args:
        dim: width D of the features.
        classes: number of classes C.
        width: width of the pyramid.
        heads, levels, window, drop_path, input_dropout: see `Backbone`.
    """

    normaliser: Tensor
    """Running number of positive points in a batch; part of the state so that a resumed run goes on with it."""

    def __init__(
        self,
        dim: int,
        classes: int,
        width: int = 512,
        heads: int = 4,
        levels: int = 6,
        window: int = 19,
        drop_path: float = 0.1,
        input_dropout: float = 0.0,
    ) -> None:
        super().__init__(dim, width, heads, levels, window, drop_path, input_dropout)
        self.class_stack, self.offset_stack = ConvStack(width, width), ConvStack(width, width)
        self.class_head, self.offset_head = Conv(width, classes), Conv(width, 2)
        self.scales = nn.Parameter(torch.ones(levels))
        # Start with all points near probability 0.01, so that the many negatives do not swamp the first steps.
        assert self.class_head.bias is not None
        nn.init.constant_(self.class_head.bias, -math.log(99.0))
        self.register_buffer("normaliser", torch.tensor(100.0))

    @classmethod
    def of(cls, settings: dict[str, Any], **more: Any) -> Self:
        """The network that a model's settings describe, with fresh weights; `more` are a subclass's arguments."""
        names = ("dim", "width", "heads", "levels", "window", "drop_path", "input_dropout")
        return cls(classes=len(settings["classes"]), **{name: settings[name] for name in names}, **more)

    def forward(self, features: Tensor, video: Tensor, lengths: Tensor | None = None) -> PointOutputs:
        """From features [T, D] and the video [T] of each row (-1 on padding) to the outputs of all points.

        Args:
            features, video: see `Backbone.encode`.
            lengths: [V] rows of each video; needed for input dropout, in training.
        """
        return self.answer(self.encode(features, video, None if lengths is None else len(lengths)))[0]

    def answer(self, levels: Levels) -> tuple[PointOutputs, Tensor]:
        """The outputs of all points, and the hidden rows [R, W] from which the boundaries are read."""
        logits = self.class_head(self.class_stack(levels.rows, levels.video))[levels.point]
        hidden = self.offset_stack(levels.rows, levels.video)
        offsets = torch.relu(self.scales[levels.level, None] * self.offset_head(hidden)[levels.point])
        return PointOutputs(logits, offsets, levels.mask), hidden
