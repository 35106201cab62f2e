"""Adaptive label quality assessment (ALQA): how good a predicted segment is, learnt beside class and boundaries.

Source: APL (ECCV 2024) section 3.2. The display equations are lost in the copies of the paper; what stands here was
rebuilt from the prose, from the published numbers of parameters, and from ARSL (CVPR 2023), which the paper follows.
Two more outputs of each point predict the tIoU with the true segment and the normalised distance between the two
centres (tND). Their difference times the class probability is the joint score.

Shapes: P points, n positive points, C classes, Q branches.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tad import bounds
from tad.methods.apl.actionformer_model import AplOutputs
from tad.ops.losses import joint_focal, overlap_and_shift
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import StageConfig

LEAST_QUALITY = 1e-4
"""Least factor of the joint score: no logarithm of 0, and no class is ruled out. The paper says "small"."""

Branches = Literal["tiou-tnd", "tiou", "diou"]
COUNT: dict[Branches, int] = {"tiou-tnd": 2, "tiou": 1, "diou": 1}
"""Outputs of each point."""


class Quality(StageConfig):
    """The branches and what is learned with them; the other options matter only if enabled."""

    enabled: bool = option(False, "predict the quality of segments and score by it (APL)")
    branches: Branches = option(
        "tiou-tnd",
        "what is predicted: the tIoU and the normalised distance apart, the tIoU alone, or their difference as one",
        neutral="tiou-tnd",
    )
    loss: Literal["bce", "kl"] = option(
        "bce",
        "of the branches: binary cross entropy, or the Kullback-Leibler divergence KL(predicted || measured)",
        neutral="bce",
    )
    weight: bounds.Weight = option(
        0.1, "of the loss of the two branches", tune=Float(0.05, 1.0, log=True), why="APL .1", when=("enabled", True)
    )
    soft_target: Literal["measured", "branch"] = option(
        "measured",
        "what the joint score of a positive point should be: the quality of its segment as measured, or as "
        "the branches say",
        tune=Choice("measured", "branch"),
        why="APL's text allows both; ARSL measures",
        when=("enabled", True),
    )
    tnd_power: int = option(
        2,
        "of the normalised distance: 2 as in the boundary loss",
        ge=1,
        le=2,
        tune=Choice(1, 2),
        why="2 as in the boundary loss; 1 gives the distance more weight",
        when=("enabled", True),
    )
    focal: bounds.Power = option(
        2.0,
        "exponent of |target - joint score| in the class loss",
        tune=Float(1.0, 3.0),
        why="not published; 2 in what APL follows",
        when=("enabled", True),
    )
    negative_weight: bounds.Weight = option(
        0.75,
        "of the class loss where the target is 0",
        tune=Float(0.5, 1.0),
        why="not published; .75 in what APL follows",
        when=("enabled", True),
    )


def quality_losses(
    outputs: AplOutputs, classes: Tensor, offsets: Tensor, positive: Tensor, config: Quality
) -> tuple[Tensor, Tensor]:
    """The class loss of all points and the branches' loss of positive ones (equations 3 to 5).

    Args:
        outputs: of a network with the branches.
        classes: [P, C] bool, what the points should answer.
        offsets: [P, 2] what they should answer, in strides.
        positive: [n] int64, the points that should answer.
        config: of the losses.

    Returns:
        [P, C] and [n].
    """
    assert outputs.quality is not None
    measured = measured_quality(outputs.offsets[positive].detach(), offsets[positive], config.tnd_power)
    measured = of_branches(measured, config.branches)
    branches = branch_losses(outputs.quality[positive].float(), measured, config.loss)
    joint = joint_quality(outputs.quality)
    soft = difference(measured) if config.soft_target == "measured" else joint[positive].detach()
    target = torch.zeros_like(joint)
    target[positive] = soft
    target = target[:, None] * classes
    return joint_focal(outputs.logits, joint, target, config.focal, config.negative_weight), branches


def measured_quality(predicted: Tensor, true: Tensor, power: int = 2) -> Tensor:
    """tIoU and tND (equation 1) of predicted and true offsets [n, 2] around the same points; [n, 2], each in [0, 1]."""
    overlap, shift = overlap_and_shift(predicted, true)
    return torch.stack([overlap, shift.abs() ** power], -1)


def of_branches(measured: Tensor, branches: Branches) -> Tensor:
    """What the branches should say, [n, Q], of the measured tIoU and tND [n, 2]."""
    if branches == "diou":
        return (measured[:, :1] - measured[:, 1:]).clamp(min=0)
    return measured[:, : COUNT[branches]]


def branch_losses(logits: Tensor, measured: Tensor, loss: str) -> Tensor:
    """[n] losses of the branches (equation 3) from logits and measured values [n, Q].

    The divergence is KL(predicted || measured); Table S1 does not say which way. KL(measured || predicted) differs from
    the cross entropy by what no gradient sees.
    """
    if loss == "bce":
        return F.binary_cross_entropy_with_logits(logits, measured, reduction="none").sum(-1)
    p, wanted = torch.sigmoid(logits), torch.logit(measured, eps=LEAST_QUALITY)
    logarithms = F.logsigmoid(logits) - F.logsigmoid(wanted), F.logsigmoid(-logits) - F.logsigmoid(-wanted)
    return (p * logarithms[0] + (1 - p) * logarithms[1]).sum(-1)


def joint_quality(logits: Tensor) -> Tensor:
    """The factor of the joint score, in [LEAST_QUALITY, 1]; [P, Q] logits to [P].

    Source: APL (ECCV 2024), equation 4; what that equation shows was rebuilt from the prose.
    """
    return difference(torch.sigmoid(logits.float()))


def difference(quality: Tensor) -> Tensor:
    """The tIoU less the tND where there are both, else what there is, at least LEAST_QUALITY; [n, Q] to [n]."""
    first, *second = quality.unbind(-1)
    return (first - second[0] if second else first).clamp(min=LEAST_QUALITY)
