"""LACP's completeness learning: losses on the segments that the sequence search finds in the training videos.

Source: LACP (ICCV 2021), score contrast and feature contrast, in the form its code runs.

Shapes: B videos, T snippets (padded), C classes, W embedding width, N segments of all videos and their classes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tad.methods.snippet.complete_segments import search
from tad.methods.snippet.mining import Mined

TEMPERATURE = 0.1
"""Of the similarities in `feature_loss` (LACP's constant)."""


class Found(NamedTuple):
    """The segments of a batch; those of one video and class alternate and cover the video."""

    video: Tensor
    """[N] long, row of the batch."""
    label: Tensor
    """[N] long, class index."""
    span: Tensor
    """[N, 2] long half-open row ranges."""
    action: Tensor
    """[N] bool: action of the class, or anything else."""


def find_segments(cas: Tensor, mined: Mined, mask: Tensor, budget: int) -> Found:
    """The most complete segments of each video and each class with an action row.

    For a class, the rows that are not its action are mined background and other classes' action rows. A class without
    a row of either kind is left out, as published.

    Args:
        cas: [B, T, C] fused class scores; not differentiated.
        mined: rows mined from the same scores.
        mask: [B, T] bool, False on padding.
        budget: see `search`.
    """
    curves, action = cas.detach().cpu().numpy(), mined.action.cpu().numpy()
    taken, lengths = mined.background.cpu().numpy() | action.any(-1), mask.sum(1).tolist()
    pairs, spans, kinds = [], [np.zeros((0, 2), dtype=np.int64)], [np.zeros(0, dtype=bool)]
    for video, label in np.argwhere(action.any(1)):
        rows = slice(int(lengths[video]))
        own = action[video, rows, label]
        known = np.where(own, 1, np.where(taken[video, rows], 0, -1))
        if (known == 0).any():
            found = search(curves[video, rows, label], known, budget)
            pairs.append([video, label])
            spans.append(found.spans)
            kinds.append(found.action)
    count = torch.tensor([len(kind) for kind in kinds[1:]], dtype=torch.long)
    owner = torch.repeat_interleave(torch.from_numpy(np.array(pairs, dtype=np.int64).reshape(-1, 2)), count, dim=0)
    device = cas.device
    return Found(
        owner[:, 0].to(device),
        owner[:, 1].to(device),
        torch.from_numpy(np.concatenate(spans)).to(device),
        torch.from_numpy(np.concatenate(kinds)).to(device),
    )


def score_loss(cas: Tensor, mask: Tensor, found: Found) -> Tensor:
    """[B] squared sum of two means over a video's segments: 1 - contrast of action, 1 - contrast of the rest.

    The contrast is outer-inner contrast with LACP's margins, a quarter of the length: rounded up on the left, down on
    the right; of the class's fused score for action, of its complement for the rest. 0 for a video without segments.

    Args:
        cas: [B, T, C] fused class scores.
        mask: [B, T] bool, False on padding.
        found: segments of the same videos.
    """
    classes = cas.shape[2]
    pair, owner = (found.video * classes + found.label).unique(return_inverse=True)
    # float64: differences of float32 sums over a long video lose the short segments.
    sums = cas.transpose(1, 2)[pair // classes, pair % classes].double().cumsum(1)
    sums = torch.cat([torch.zeros_like(sums[:, :1]), sums], dim=1)
    first, last = found.span.unbind(1)
    length = last - first
    left = (first - (length + 3) // 4).clamp(min=0)
    right = torch.minimum(last + length // 4, mask.sum(1)[found.video])

    def between(start: Tensor, end: Tensor) -> Tensor:
        return sums[owner, end] - sums[owner, start]

    inside = between(first, last)
    outside = between(left, right) - inside
    outer = right - left - length
    inside = torch.where(found.action, inside, length - inside) / length
    outside = torch.where(found.action, outside, outer - outside) / outer.clamp(min=1)
    missing = 1 - (inside - outside)

    def mean(use: Tensor) -> Tensor:
        zeros = missing.new_zeros(len(cas))
        count = zeros.index_add(0, found.video, use.to(missing))
        return zeros.index_add(0, found.video, missing * use) / count.clamp(min=1)

    return ((mean(found.action) + mean(~found.action)) ** 2).to(cas)


def feature_loss(embedding: Tensor, found: Found) -> Tensor:
    """[B] contrast between the segments of a video and class: actions look like actions, not like the rest.

    A segment stands for the mean embedding of three of its rows, one drawn from each third by torch's generator, at
    unit length. Each action segment has the negative log of its share of exp(cosine / 0.1) with the other action
    segments in that with all other segments; mean over a class's action segments, summed over the classes that have at
    least two. 0 for a video without such a class.

    Args:
        embedding: [B, T, W].
        found: segments of the same videos.
    """
    first, last = found.span.unbind(1)
    third = torch.arange(3, device=first.device)
    low = first[:, None] + (last - first)[:, None] * third // 3
    high = torch.maximum(first[:, None] + (last - first)[:, None] * (third + 1) // 3, low + 1)
    # Drawn on the CPU, whose generator is the one that the training loop seeds everywhere.
    draw = torch.rand(len(low), 3).to(low.device)
    rows = low + (draw * (high - low)).long()
    unit = normalize(embedding[found.video[:, None], rows].float().mean(1), dim=1)

    group = found.video * (int(found.label.max()) + 1 if len(low) else 1) + found.label
    same = (group[:, None] == group[None]) & ~torch.eye(len(group), dtype=torch.bool, device=group.device)
    kin = same & found.action[None]
    counted = found.action & kin.any(1)
    logits = (unit[counted] @ unit.T) / TEMPERATURE
    gone = torch.finfo(logits.dtype).min

    def log_sum(use: Tensor) -> Tensor:
        return logits.masked_fill(~use[counted], gone).logsumexp(1)

    each = log_sum(same) - log_sum(kin)
    actions = (kin.sum(1) + 1)[counted]
    return embedding.new_zeros(len(embedding)).index_add(0, found.video[counted], (each / actions).to(embedding))
