"""Losses of BMN with a third map, the distance of centres, each a share of a value over all workers' windows.

Source: APL (ECCV 2024) equations 1 and 3 to 5, as far as they carry over to a grid of proposals.
Legend: B windows, K cells, N labels.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tad.methods.bmn.losses import balanced
from tad.methods.bmn.sampling import Cells
from tad.ops.iou import tiou
from tad.stages import Total

FLOOR = 1e-4
"""Least of overlap minus distance in a score, so that its logarithm is finite."""


def joint_score(tiou: Tensor, distance: Tensor) -> Tensor:
    """Predicted tIoU less predicted distance, at least `FLOOR`; times the first map it is APL's joint score."""
    return (tiou - distance).clamp(min=FLOOR)


def soft_class_loss(
    maps: Tensor, tiou: Tensor, distance: Tensor, positive: Tensor, valid: Tensor, total: Total
) -> Tensor:
    """Balanced soft focal loss of the joint score P: |Y - P|^2 BCE(P, Y), Y = tIoU - distance on positives, else 0.

    Args:
        maps: [B, 3, K] logits.
        tiou, distance: [B, K] targets.
        positive: [B, K] bool.
        valid: [B, K] bool.
        total: sums over all workers.
    """
    quality = joint_score(maps[:, 1].sigmoid(), maps[:, 2].sigmoid())
    score = (maps[:, 0].sigmoid() * quality).clamp(max=1 - 1e-6)
    wanted = positive * joint_score(tiou, distance)
    # In parts the logarithm of the product stays finite, and the first map learns where quality is at its floor.
    logarithm = F.logsigmoid(maps[:, 0]) + quality.log()
    entropy = -(wanted * logarithm + (1 - wanted) * torch.log1p(-score))
    return (balanced(positive, valid, total) * (wanted - score).square() * entropy).sum()


def distance_loss(logits: Tensor, targets: Tensor, overlap: Tensor, total: Total) -> Tensor:
    """Mean cross entropy of the third map over cells that overlap a label. All [B, K], overlap bool."""
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return (entropy * overlap).sum() / total(overlap.sum().float()).clamp(min=1)


def distances(cells: Cells, spans: np.ndarray) -> np.ndarray:
    """[K] float32: of each cell to its best-overlapping label, (distance of centres / length of the hull)^2; 0 where
    nothing overlaps. `spans` [N, 2] are the labels, in edges."""
    if not len(spans):
        return np.zeros(len(cells.start), dtype=np.float32)
    proposals = cells.spans
    overlap = tiou(proposals, spans)
    label = spans[overlap.argmax(1)]
    hull = np.maximum(proposals[:, 1], label[:, 1]) - np.minimum(proposals[:, 0], label[:, 0])
    distance = np.where(overlap.max(1) > 0, ((proposals.mean(1) - label.mean(1)) / hull) ** 2, 0.0)
    return distance.astype(np.float32)
