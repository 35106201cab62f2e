"""How detectors on a pyramid are optimised, and what follows from the data where an option is null.

Source: the released code of ActionFormer (ECCV 2022), which POTLoc's shares.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from tad.data.dataset import Dataset
from tad.errors import ConfigError


def adamw(
    module: nn.Module, lr: float, weight_decay: float, warmup: float, steps: int
) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW, linear warm-up and cosine; vectors and scalars (biases, norms, gains, scales) do not decay.

    Args:
        module: what is trained.
        lr: peak of the learning rate.
        weight_decay: of matrices; 0 is Adam.
        warmup: share of the steps until the peak.
        steps: of the whole training.
    """
    matrices = [p for p in module.parameters() if p.ndim > 1]
    vectors = [p for p in module.parameters() if p.ndim <= 1]
    groups: list[dict[str, Any]] = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors}]
    optimiser = torch.optim.AdamW(groups, lr=lr, weight_decay=0.0, fused=True)
    climb = round(warmup * steps)

    def factor(step: int) -> float:
        if step < climb:
            return (step + 1) / (climb + 1)
        return max(1e-4, 0.5 * (1 + math.cos(math.pi * (step - climb) / max(1, steps - climb))))

    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)


def derived_width(dim: int, heads: int, method: str) -> int:
    """The power of two nearest half the feature width `dim`, 32 to 512.

    Raises:
        ConfigError: the heads do not divide it.
    """
    width: int = 2 ** min(9, max(5, round(math.log2(dim / 2))))
    if width % heads:
        raise ConfigError(f"{method}: {heads} heads do not divide the derived width {width}; set width")
    return width


def derived_ema(steps: int) -> float:
    """Decay of averaged weights: 0.999, or less for fewer than 10,000 steps."""
    return max(0.0, min(0.999, 1 - 10 / steps))


def default_batch(data: Dataset, most: int) -> int:
    """`most` videos; fewer in a small set, which still takes several steps an epoch."""
    return min(most, max(1, len(data.videos("train")) // 8))
