"""Self-attention within a window around each row, for padded batches.

Shapes: B sequences, T rows (padded), H heads, E width of a head, N blocks, Q rows of a block, K keys of a block.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 16
"""Rows of a block. Larger blocks waste more products outside the band, smaller ones cost more copies of keys."""


def banded_attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, radius: int) -> Tensor:
    """Scaled dot-product attention in which row i sees the valid rows j with |i - j| <= radius.

    Exactly the masked definition (ActionFormer, ECCV 2022, section 3.2), computed block by block: a block of Q
    queries meets the Q + 2 * radius keys that any of them may see, so time and memory grow with T, not T squared.

    Args:
        query, key, value: [B, T, H, E].
        mask: [B, T] bool, False on padding.
        radius: how many rows to either side are seen; at least 0.

    Returns:
        [B, T, H, E]; rows of padding are finite but meaningless.
    """
    B, T, H, E = query.shape
    Q = max(BLOCK, radius)
    N = -(-T // Q)
    more = N * Q - T
    if more:
        query, key, value = (F.pad(x, (0, 0, 0, 0, 0, more)) for x in (query, key, value))
        mask = F.pad(mask, (0, more))
    query = query.view(B, N, Q, H, E)
    keys, values = (_with_neighbours(x.view(B, N, Q, H, E), radius) for x in (key, value))
    seen = _with_neighbours(mask.view(B, N, Q), radius)[:, :, None, None]

    scores = torch.matmul(query.permute(0, 1, 3, 2, 4) * E**-0.5, keys.permute(0, 1, 3, 4, 2))  # [B, N, H, Q, K]
    first = -radius if N > 1 else 0
    place = torch.arange(first, first + scores.shape[-1], device=scores.device)
    band = (place - torch.arange(Q, device=scores.device)[:, None]).abs() <= radius
    # A finite floor, not -inf: a row of padding that sees nothing then gets some average instead of NaN.
    floor = torch.zeros_like(scores[:, :, :1]).masked_fill(~(band & seen), torch.finfo(scores.dtype).min)
    mixed = torch.matmul((scores + floor).softmax(-1), values.permute(0, 1, 3, 2, 4))
    return mixed.permute(0, 1, 3, 2, 4).reshape(B, N * Q, H, E)[:, :T]


def _with_neighbours(x: Tensor, radius: int) -> Tensor:
    """Blocks [B, N, Q, ...] with the last and first `radius` rows of their neighbours; radius <= Q. Zeros outside."""
    if x.shape[1] == 1 or radius == 0:
        return x
    edge = torch.zeros_like(x[:, :1, :radius])
    before = torch.cat([edge, x[:, :-1, -radius:]], 1)
    after = torch.cat([x[:, 1:, :radius], edge], 1)
    return torch.cat([before, x, after], 2)
