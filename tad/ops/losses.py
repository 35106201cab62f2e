"""Losses on probabilities, logits, boundary offsets and bags.

All are elementwise or per row: weights, masks and denominators are the caller's. Half-precision inputs are computed in
float32. Legend: N points or bag members, G bags, C classes, n negatives.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Keeps logarithms and their gradients finite at probabilities of exactly 0 and 1 (PseR's constant).
LOG_EPSILON = 1e-6


def probability_focal(p: Tensor, y: Tensor, gamma: float = 2.0) -> Tensor:
    """Focal loss of probabilities: |y - p|^gamma times the binary cross entropy.

    HR-Pro's snippet losses (fused class scores are products of probabilities, so there is no logit to start from).

    Args:
        p: probabilities in [0, 1], any shape.
        y: targets in [0, 1], same shape.
        gamma: focal exponent; 0 gives plain cross entropy.

    Returns:
        Elementwise loss, the shape of p. Finite, with finite gradients, at p = 0 and p = 1.
    """
    p, y = _full(p), _full(y)
    entropy = -(y * torch.log(p + LOG_EPSILON) + (1 - y) * torch.log1p(LOG_EPSILON - p))
    return _power((y - p).abs(), gamma) * entropy


def probability_entropy(p: Tensor, y: Tensor) -> Tensor:
    """Binary cross entropy of probabilities, logarithms limited to -100 as torch does; NaN where p is none.

    torch raises for a p outside [0, 1]; on a GPU that ends the process, before the training loop can look at the loss
    and say in which epoch the training diverged.

    Args:
        p: probabilities in [0, 1], any shape.
        y: targets in [0, 1], same shape.

    Returns:
        Elementwise loss, the shape of p.
    """
    p, y = _full(p), _full(y)
    good = (p >= 0) & (p <= 1)  # False for NaN
    entropy = F.binary_cross_entropy(torch.where(good, p, 0.5), y, reduction="none")
    return torch.where(good, entropy, torch.nan)


def sigmoid_focal(logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Sigmoid focal loss (RetinaNet; ActionFormer's classification loss).

    Args:
        logits: any shape.
        targets: in [0, 1], same shape; smoothed targets are allowed.
        alpha: weight of the positive side.
        gamma: focal exponent.

    Returns:
        Elementwise loss, the shape of logits.
    """
    logits, targets = _full(logits), _full(targets)
    p = torch.sigmoid(logits)
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    miss = p * (1 - targets) + (1 - p) * targets
    weight = alpha * targets + (1 - alpha) * (1 - targets)
    return weight * _power(miss, gamma) * entropy


def diou_1d(pred_offsets: Tensor, target_offsets: Tensor) -> Tensor:
    """Distance-IoU loss of two segments around one point: 1 - tIoU + (distance of centres / hull)^2.

    Args:
        pred_offsets: [N, 2] distances >= 0 from the point to start and end.
        target_offsets: [N, 2] same for the target.

    Returns:
        [N]. Two segments without length give 1.
    """
    overlap, shift = overlap_and_shift(pred_offsets, target_offsets)
    return 1 - overlap + shift**2


def overlap_and_shift(pred_offsets: Tensor, target_offsets: Tensor) -> tuple[Tensor, Tensor]:
    """tIoU of two segments around one point, and the signed distance of their centres over the length of their hull.

    Args:
        pred_offsets: [..., 2] distances >= 0 from the point to start and end.
        target_offsets: [..., 2] same for the target.

    Returns:
        tIoU [...] in [0, 1] and the ratio [...] in [-(1 - tIoU) / 2, (1 - tIoU) / 2]; both 0 where no segment has a
        length.
    """
    pred, target = _full(pred_offsets), _full(target_offsets)
    inter = torch.minimum(pred, target).sum(-1)
    union = pred.sum(-1) + target.sum(-1) - inter
    hull = torch.maximum(pred, target).sum(-1)
    distance = ((pred[..., 1] - pred[..., 0]) - (target[..., 1] - target[..., 0])) / 2
    return inter / union.clamp(min=1e-8), distance / hull.clamp(min=1e-8)


def joint_focal(
    logits: Tensor, quality: Tensor, targets: Tensor, gamma: float = 2.0, negative_weight: float = 0.75
) -> Tensor:
    """Focal loss of joint scores P = quality * sigmoid(logits) with soft targets Y: |Y - P|^gamma BCE(P, Y).

    APL's classification loss (equation 5, rebuilt after ARSL), which is least at P = Y. The logarithm of the product is
    taken in two parts, so a class logit learns where the quality is as low as it can be, too.

    Args:
        logits: [N, C] class logits.
        quality: [N] in (0, 1], the same for all classes of a point.
        targets: [N, C] in [0, 1].
        gamma: focal exponent.
        negative_weight: weight where the target is 0; it is 1 elsewhere.

    Returns:
        [N, C], float32. Finite, with finite gradients, at any logit.
    """
    logits, quality, targets = _full(logits), _full(quality)[:, None], _full(targets)
    log = F.logsigmoid(logits) + quality.log()
    score = log.exp().clamp(max=1 - LOG_EPSILON)
    entropy = -(targets * log + (1 - targets) * torch.log1p(-score))
    weight = torch.where(targets > 0, 1.0, negative_weight)
    return weight * _power((targets - score).abs(), gamma) * entropy


def smooth_l1(pred: Tensor, target: Tensor, beta: float = 1.0) -> Tensor:
    """Elementwise smooth L1: half the squared error over beta where it is below beta, else |error| - beta / 2."""
    return F.smooth_l1_loss(_full(pred), _full(target), reduction="none", beta=beta)


def mil_bag_probability(cls: Tensor, ins: Tensor) -> Tensor:
    """Probability of each class in each bag, by two streams (WSDDN; PseR's selection module).

    Args:
        cls: [G, N, C] class logits of the bag's members.
        ins: [G, N, C] instance logits: a softmax over the members, for each class, says who speaks for the bag.

    Returns:
        [G, C] in [0, 1].
    """
    share = torch.softmax(_full(ins), dim=1)
    return (torch.sigmoid(_full(cls)) * share).sum(1).clamp(0, 1)


def mil_loss(prob: Tensor, onehot: Tensor, gamma: float = 2.0) -> Tensor:
    """Loss of each bag: focal cross entropy of its class probabilities, summed over classes (PseR's L_sel).

    Args:
        prob: [G, C] from `mil_bag_probability`.
        onehot: [G, C] the class of the bag's point.
        gamma: focal exponent.

    Returns:
        [G].
    """
    return probability_focal(prob, onehot, gamma).sum(-1)


def negative_loss(logits: Tensor, gamma: float = 2.0) -> Tensor:
    """Loss of each negative: every class should be absent (PseR's L_neg before its weight and mean).

    Args:
        logits: [n, C] class logits.
        gamma: focal exponent.

    Returns:
        [n].
    """
    p = torch.sigmoid(_full(logits))
    return probability_focal(p, torch.zeros_like(p), gamma).sum(-1)


def _power(base: Tensor, gamma: float) -> Tensor:
    # Exponents below 1 have an infinite slope at 0.
    return base**gamma if gamma == 0 or gamma >= 1 else base.clamp(min=LOG_EPSILON) ** gamma


def _full(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
