"""The number format that a network computes in: float32, or bfloat16 for its matrix products."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

Precision = Literal["fp32", "bf16"]


class MixedPrecision(nn.Module):
    """A network whose matrix products are in bfloat16; its weights and its outputs are float32.

    So losses, gradients of the weights, averages of the weights and the optimiser's state stay float32. bfloat16 has
    float32's range, so losses need no scaling.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: Any) -> Any:
        device = next(self.module.parameters()).device.type
        with torch.autocast(device, torch.bfloat16):
            return float32(self.module(*inputs))


def float32(found: Any) -> Any:
    """The same with its tensors of fewer bits in float32; whatever holds them is of the same type."""
    if isinstance(found, Tensor):
        return found.float() if found.dtype in (torch.bfloat16, torch.float16) else found
    if isinstance(found, tuple):
        parts = [float32(part) for part in found]
        return type(found)(*parts) if hasattr(found, "_fields") else tuple(parts)
    if isinstance(found, dict):
        return {key: float32(part) for key, part in found.items()}
    return [float32(part) for part in found] if isinstance(found, list) else found
