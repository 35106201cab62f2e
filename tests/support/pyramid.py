"""Videos in one sequence, as networks with a pyramid read them."""

from __future__ import annotations

import torch

from tad.methods.common.pyramid import slot


def together(videos: list[torch.Tensor], levels: int) -> tuple[torch.Tensor, torch.Tensor]:
    features, video = [], []
    for i, rows in enumerate(videos):
        padding = slot(len(rows), levels) - len(rows)
        features += [rows, torch.full((padding, rows.shape[1]), 7.0)]  # padding need not be zero
        video += [torch.full((len(rows),), i), torch.full((padding,), -1)]
    return torch.cat(features), torch.cat(video)


def sizes(mask: torch.Tensor, levels: int) -> list[int]:
    top = len(mask) // (2**levels - 1)
    return [top << (levels - 1 - level) for level in range(levels)]
