"""Self-attention within a window around each row, for several videos in one sequence.

Shapes: T rows of all videos, H heads, E width of a head, N blocks, Q rows of a block, K keys of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
"""Rows of a block. Larger blocks waste more products outside the band, smaller ones cost more copies of keys."""


def banded_attention(query: Tensor, key: Tensor, value: Tensor, video: Tensor, radius: int) -> Tensor:
    """Scaled dot-product attention in which row i sees the rows j of its video with |i - j| <= radius.

    Exactly the masked definition (ActionFormer, ECCV 2022, section 3.2), computed block by block: a block of Q
    queries meets the Q + 2 * radius keys that any of them may see, so time and memory grow with T, not T squared.

    Args:
        query, key, value: [T, H, E].
        video: [T] which video each row belongs to.
        radius: how many rows to either side are seen; at least 0.

    Returns:
        [T, H, E].
    """
    T, H, E = query.shape
    Q = max(BLOCK, radius)
    N = -(-T // Q)
    more = N * Q - T
    query, key, value = (F.pad(x, (0, 0, 0, 0, 0, more)).view(N, Q, H, E) for x in (query, key, value))
    video = F.pad(video, (0, more), value=-2).view(N, Q)
    keys, values = (_with_neighbours(x, radius, 0.0) for x in (key, value))
    same = video[:, :, None] == _with_neighbours(video, radius, -2)[:, None]  # [N, Q, K]

    scores = torch.matmul(query.transpose(1, 2) * E**-0.5, keys.permute(0, 2, 3, 1))  # [N, H, Q, K]
    first = -radius if N > 1 else 0
    place = torch.arange(first, first + scores.shape[-1], device=scores.device)
    band = (place - torch.arange(Q, device=scores.device)[:, None]).abs() <= radius
    floor = torch.zeros_like(scores[:, 0]).masked_fill(~(band & same), -torch.inf)
    mixed = torch.matmul((scores + floor[:, None]).softmax(-1), values.transpose(1, 2))
    return mixed.transpose(1, 2).reshape(N * Q, H, E)[:T]


def _with_neighbours(x: Tensor, radius: int, outside: float) -> Tensor:
    """Blocks [N, Q, ...] with the last and first `radius` <= Q rows of their neighbours, `outside` at the ends."""
    if len(x) == 1 or radius == 0:
        return x
    edge = torch.full_like(x[:1, :radius], outside)
    before = torch.cat([edge, x[:-1, -radius:]])
    after = torch.cat([x[1:, :radius], edge])
    return torch.cat([before, x, after], 1)
