"""ActionFormer with APL's quality branches, and the pyramid itself at some frames.

Source: APL (ECCV 2024) sections 3.2 and 3.3. Shapes as of tad.methods.actionformer.model; Q branches, W width.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from tad.methods.actionformer.model import ActionFormer
from tad.methods.apl.contrast import pyramid_rows
from tad.methods.common.pyramid import Conv


class AplOutputs(NamedTuple):
    """What the model says at each point; rows where the mask is False are meaningless."""

    logits: Tensor
    """[P, C] class logits."""
    offsets: Tensor
    """[P, 2] distances >= 0 from the point to start and end, in strides of the point's level."""
    mask: Tensor
    """[P] bool, False on padding."""
    quality: Tensor | None
    """[P, Q] logits of the tIoU and of the normalised distance (tND) with the true segment, or of one value; None
    without branches."""
    frames: Tensor | None
    """[..., L * W] all levels of the pyramid, side by side, at the frames that were asked for; None if none were."""


class AplActionFormer(ActionFormer):
    """The network.

    Args:
        branches: outputs that tell how good a predicted segment is, on the hidden rows of the boundaries.
        unlabelled: whether positives of videos without full labels are counted on their own.
        network: as of `ActionFormer`.
    """

    unlabelled_normaliser: Tensor
    """Running number of positive points of videos without full labels."""

    def __init__(self, branches: int = 0, unlabelled: bool = False, **network: Any) -> None:
        super().__init__(**network)
        width = self.offset_head.in_channels
        self.quality_head = Conv(width, branches) if branches else None
        if self.quality_head is not None:
            # The expected quality starts above 0: tIoU 0.5, tND 0.05.
            assert self.quality_head.bias is not None
            self.quality_head.bias.data = torch.tensor([0.0, -3.0][:branches])
        if unlabelled:
            self.register_buffer("unlabelled_normaliser", torch.tensor(100.0))

    @classmethod
    def of(cls, settings: dict[str, Any], **more: Any) -> Self:
        branches = settings.get("branches", 2) if "quality" in settings else 0
        return super().of(settings, branches=branches, unlabelled="unlabelled" in settings, **more)

    def forward(  # type: ignore[override]
        self, features: Tensor, video: Tensor, lengths: Tensor | None = None, frames: Tensor | None = None
    ) -> AplOutputs:
        """From features [T, D] and the video [T] of each row (-1 on padding) to the outputs of all points.

        Args:
            features, video, lengths: as of `ActionFormer`.
            frames: int64 of any shape, rows of the features at which the pyramid itself is wanted, too.
        """
        levels = self.encode(features, video, None if lengths is None else len(lengths))
        outputs, hidden = self.answer(levels)
        quality = None if self.quality_head is None else self.quality_head(hidden)[levels.point]
        there = None if frames is None else pyramid_rows(levels.rows, len(features), self.levels, frames)
        return AplOutputs(*outputs, quality, there)
