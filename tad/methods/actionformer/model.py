"""ActionFormer: a pyramid of local self-attention with one classification and one regression head for all levels.

Source: ActionFormer (ECCV 2022), section 3 and its released configuration. The pyramid is in
tad.methods.common.pyramid.

Shapes: T rows of all videos and padding, D feature width, C classes, L levels, P points of all levels, level by level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tad.methods.common.pyramid import Backbone, Conv, ConvStack
from tad.ops.contrast import pyramid_rows


class PointOutputs(NamedTuple):
    """What the model says at each point; rows where the mask is False are meaningless."""

    logits: Tensor
    """[P, C] class logits."""
    offsets: Tensor
    """[P, 2] distances >= 0 from the point to start and end, in strides of the point's level."""
    mask: Tensor
    """[P] bool, False on padding."""
    quality: Tensor | None = None
    """[P, 2] logits of the tIoU and of the normalised distance (tND) with the true segment; None without branches."""
    frames: Tensor | None = None
    """[..., L * W] all levels of the pyramid, side by side, at the frames that were asked for; None if none were."""


LEAST_QUALITY = 1e-4
"""Least factor of the joint score: no logarithm of 0, and no class is ruled out. The paper says "small"."""


def joint_quality(logits: Tensor) -> Tensor:
    """The factor of the joint score: predicted tIoU minus predicted tND, in [LEAST_QUALITY, 1]; [P, 2] logits to [P].

    Source: APL (ECCV 2024), equation 4; what that equation shows was rebuilt from the prose.
    """
    overlap, distance = torch.sigmoid(logits.float()).unbind(-1)
    return (overlap - distance).clamp(min=LEAST_QUALITY)


class ActionFormer(Backbone):
    """The network, and the running count of positives that normalises its loss.

    Args:
        dim: width D of the features.
        classes: number of classes C.
        width: width of the pyramid.
        heads, levels, window, drop_path, input_dropout: see `Backbone`.
        quality: whether two more outputs tell how good a predicted segment is (APL, section 3.2): the tIoU and the
            normalised distance, on the hidden rows of the boundaries.
        unlabelled: whether positives of videos without full labels are counted on their own.
    """

    normaliser: Tensor
    unlabelled_normaliser: Tensor
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
        quality: bool = False,
        unlabelled: bool = False,
    ) -> None:
        super().__init__(dim, width, heads, levels, window, drop_path, input_dropout)
        self.class_stack, self.offset_stack = ConvStack(width, width), ConvStack(width, width)
        self.class_head, self.offset_head = Conv(width, classes), Conv(width, 2)
        self.scales = nn.Parameter(torch.ones(levels))
        # Start with all points near probability 0.01, so that the many negatives do not swamp the first steps.
        assert self.class_head.bias is not None
        nn.init.constant_(self.class_head.bias, -math.log(99.0))
        self.register_buffer("normaliser", torch.tensor(100.0))
        self.quality_head = Conv(width, 2) if quality else None
        if self.quality_head is not None:
            # The expected quality starts above 0: tIoU 0.5, tND 0.05.
            assert self.quality_head.bias is not None
            self.quality_head.bias.data = torch.tensor([0.0, -3.0])
        if unlabelled:
            self.register_buffer("unlabelled_normaliser", torch.tensor(100.0))

    def forward(self, features: Tensor, video: Tensor, frames: Tensor | None = None) -> PointOutputs:
        """From features [T, D] and the video [T] of each row (-1 on padding) to the outputs of all points.

        Args:
            features, video: see `Backbone.encode`.
            frames: int64 of any shape, rows of the features at which the pyramid itself is wanted, too.
        """
        levels = self.encode(features, video)
        logits = self.class_head(self.class_stack(levels.rows, levels.video))[levels.point]
        hidden = self.offset_stack(levels.rows, levels.video)
        offsets = torch.relu(self.scales[levels.level, None] * self.offset_head(hidden)[levels.point])
        quality = None if self.quality_head is None else self.quality_head(hidden)[levels.point]
        there = None if frames is None else pyramid_rows(levels.rows, len(features), self.levels, frames)
        return PointOutputs(logits, offsets, levels.mask, quality, there)
