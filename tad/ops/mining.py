"""Pseudo action and background rows from points: grown from the labelled rows, bounded by confident background.

Source: HR-Pro (AAAI 2024) section 3.2 and LACP (ICCV 2021) section 3.2, in the form their code runs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Mined(NamedTuple):
    """Rows that training may treat as labelled."""

    action: Tensor
    """[B, T, C] bool: the point rows and the rows that took over a neighbouring point's classes."""
    background: Tensor
    """[B, T] bool."""


def mine(
    background: Tensor,
    points: Tensor,
    mask: Tensor,
    action_threshold: float = 0.1,
    background_threshold: float = 0.95,
    outer: Literal["reach", "hits"] = "reach",
) -> Mined:
    """Rows between points that are confidently background, and rows around points that are confidently action.

    A gap is a maximal stretch of rows without a point. Its hits are the rows whose background score is at least
    `background_threshold`. Background rows are, between two points, all from the first to the last hit, or the row of
    the largest score if there are fewer than two hits; before the first point, all rows up to the last hit (without
    hits: up to the row of the largest score); after the last point, the mirror image. So each gap has some. Action
    rows are the point rows, and rows next to them in one go, outwards, as long as the score is at most
    `action_threshold` and the row is not background. All gaps of all videos are worked on at once.

    Args:
        background: [B, T] background scores of the current model; not differentiated.
        points: [B, T, C] bool, the classes of the points in each row (several points may share a row).
        mask: [B, T] bool, False on padding, which must come last.
        action_threshold: largest background score of a row that joins a point.
        background_threshold: smallest background score of a hit.
        outer: "hits" (POTLoc's rule) takes in the gaps before the first and after the last point the rows from the
            first to the last hit only, and none without hits; "reach" is the rule above.

    Returns:
        Mined rows; a video without points has none.
    """
    score = background.detach()
    videos, length = score.shape
    device = score.device
    point = points.any(-1) & mask
    free = mask & ~point
    row = torch.arange(length, device=device).expand(videos, length)

    # Gap number: how many point rows came before. Every row of a gap shares it; padding and point rows are left out.
    number = point.cumsum(1)
    count = number[:, -1:]
    gap = number + torch.arange(videos, device=device)[:, None] * (length + 1)
    gaps = videos * (length + 1)
    hit = free & (score >= background_threshold)

    def first(rows: Tensor) -> Tensor:
        """Smallest row in each gap, `length` where there is none."""
        out = torch.full((gaps,), length, device=device)
        return out.scatter_reduce(0, gap[rows], row[rows], "amin")

    def last(rows: Tensor) -> Tensor:
        """Largest row in each gap, -1 where there is none."""
        return torch.full((gaps,), -1, device=device).scatter_reduce(0, gap[rows], row[rows], "amax")

    top = torch.full((gaps,), float("-inf"), dtype=score.dtype, device=device)
    top = top.scatter_reduce(0, gap[free], score[free], "amax")
    peak = first(free & (score == top[gap]))
    hit_first, hit_last = first(hit), last(hit)
    # With one hit the hit is the peak, so "from first to last hit, or the peak" also covers fewer than two hits.
    found = hit_last >= 0
    lower = torch.where(found, hit_first, peak)[gap]
    upper = torch.where(found, hit_last, peak)[gap]
    if outer == "reach":
        lower = torch.where(number == 0, 0, lower)
        upper = torch.where(number == count, length, upper)
    chosen = free & (count > 0) & (row >= lower) & (row <= upper)
    if outer == "hits":
        chosen = chosen & (found[gap] | (number > 0) & (number < count))

    # A free row joins the point before it if no row in between stops the walk; likewise the point after it.
    stop = ~point & ~(free & ~chosen & (score <= action_threshold))
    before = torch.where(point, row, -1).cummax(1).values
    stopped_before = torch.where(stop, row, -1).cummax(1).values
    after = _cummin_from_right(torch.where(point, row, length))
    stopped_after = _cummin_from_right(torch.where(stop, row, length))
    from_left = free & (stopped_before < before)
    from_right = free & (stopped_after > after)
    source = torch.where(from_right, after, torch.where(from_left, before, row))
    action = (points & mask[..., None]).gather(1, source[..., None].expand_as(points))
    return Mined(action, chosen)


def _cummin_from_right(values: Tensor) -> Tensor:
    """[B, T]: the minimum over this and all later rows."""
    return values.flip(1).cummin(1).values.flip(1)
