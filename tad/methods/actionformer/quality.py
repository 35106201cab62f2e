"""Assessing how good labels and predictions are, inside the detector `actionformer`.

Source: APL (ECCV 2024) section 3.2, "adaptive label quality assessment". The display equations are lost in the copies
of the paper; what stands here was rebuilt from the prose, from the published numbers of parameters, and from ARSL (CVPR
2023), which the paper follows. Two more outputs of each point predict the tIoU with the true segment and the normalised
distance between the two centres (tND). Their difference times the class probability is the joint score.

Shapes: P points, n positive points, C classes.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from tad import bounds
from tad.methods.actionformer.model import LEAST_QUALITY, PointOutputs, joint_quality
from tad.ops.losses import joint_focal, overlap_and_shift
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import StageConfig


class Quality(StageConfig):
    """The two branches and what is learned with them; the other options matter only if enabled."""

    enabled: bool = option(False, "predict the quality of segments and score by it (APL)")
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
    outputs: PointOutputs, classes: Tensor, offsets: Tensor, positive: Tensor, config: Quality
) -> tuple[Tensor, Tensor]:
    """The class loss of all points and the branches' loss of positive ones (equations 3 to 5).

    Args:
        outputs: of a network with the branches.
        classes: [P, C] bool, what the points should answer.
        offsets: [P, 2] what they should answer, in strides.
        positive: [P] bool.
        config: of the losses.

    Returns:
        [P, C] and [n].
    """
    assert outputs.quality is not None
    measured = measured_quality(outputs.offsets[positive].detach(), offsets[positive], config.tnd_power)
    branches = F.binary_cross_entropy_with_logits(outputs.quality[positive].float(), measured, reduction="none").sum(-1)
    joint = joint_quality(outputs.quality)
    if config.soft_target == "measured":
        soft = (measured[:, 0] - measured[:, 1]).clamp(min=LEAST_QUALITY)
    else:
        soft = joint[positive].detach()
    target = torch.zeros_like(joint)
    target[positive] = soft
    target = target[:, None] * classes
    return joint_focal(outputs.logits, joint, target, config.focal, config.negative_weight), branches


def measured_quality(predicted: Tensor, true: Tensor, power: int = 2) -> Tensor:
    """tIoU and tND (equation 1) of predicted and true offsets [n, 2] around the same points; [n, 2], each in [0, 1]."""
    overlap, shift = overlap_and_shift(predicted, true)
    return torch.stack([overlap, shift.abs() ** power], -1)
