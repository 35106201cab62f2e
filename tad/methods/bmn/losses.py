"""Losses of BMN, each a share of a value over all workers' windows.

Source: BMN (ICCV 2019) section 3.3 and its released code. Legend: B windows, T bins, K cells.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tad.stages import Total

HIGH, LOW = 0.7, 0.3
"""tIoU above, and up to which, a cell is of the upper or lower class of the balanced regression."""


def balanced(positive: Tensor, valid: Tensor, total: Total) -> Tensor:
    """Weights that give both sides half of the loss, and sum to 1; all alike where there is but one side.

    Args:
        positive: bool, any shape.
        valid: bool, same shape; the others weigh 0.
        total: sums over all workers.
    """
    positive, negative = positive & valid, ~positive & valid
    ups, downs = total(positive.sum().float()), total(negative.sum().float())
    halves = positive / (2 * ups).clamp(min=1) + negative / (2 * downs).clamp(min=1)
    return torch.where((ups == 0) | (downs == 0), valid / (ups + downs).clamp(min=1), halves)


def boundary_loss(logits: Tensor, targets: Tensor, valid: Tensor, total: Total) -> Tensor:
    """Balanced cross entropy of one boundary; targets above 1/2 are positive. All [B, T]."""
    positive = targets > 0.5
    weights = balanced(positive, valid, total)
    return (weights * F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")).sum()


def class_loss(logits: Tensor, positive: Tensor, valid: Tensor, total: Total) -> Tensor:
    """Balanced cross entropy of the first map. All [B, K]."""
    weights = balanced(positive, valid, total)
    return (weights * F.binary_cross_entropy_with_logits(logits, positive.float(), reduction="none")).sum()


def regression_loss(logits: Tensor, tiou: Tensor, valid: Tensor, draw: Tensor, total: Total) -> Tensor:
    """Mean squared error of the second map on as many cells of low and of middle tIoU as there are of high tIoU.

    The released code keeps a cell where draw * member > 1 - share: with a share above 1 that is every cell of the map,
    even outside its class. Here the share is at most 1, and only members are kept.

    Args:
        logits: [B, K].
        tiou: [B, K] targets.
        valid: [B, K] bool.
        draw: [B, K] uniform random numbers in [0, 1); a cell is kept where it is below its class's share.
        total: sums over all workers.
    """
    high = valid & (tiou > HIGH)
    kept = high
    number = total(high.sum().float())
    for member in (valid & (tiou <= HIGH) & (tiou > LOW), valid & (tiou <= LOW)):
        share = (number / total(member.sum().float()).clamp(min=1)).clamp(max=1)
        kept = kept | (member & (draw < share))
    error = (logits.sigmoid() - tiou).square()
    return (error * kept).sum() / total(kept.sum().float()).clamp(min=1)
