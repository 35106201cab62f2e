"""Pseudo action and background rows from points: grown from the labelled rows, bounded by confident background.

Source: HR-Pro (AAAI 2024) section 3.2 and LACP (ICCV 2021) section 3.2, in the form their code runs.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from tad.ops.nms import compiled


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
    `action_threshold` and the row is not background. Rows are walked over one by one, on the CPU.

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
    score, kinds = background.detach().float().cpu().numpy(), points.cpu().numpy()
    rows, limit = mask.sum(1).cpu().numpy(), np.float32(action_threshold)
    action, chosen = _mine(score, kinds, rows, limit, np.float32(background_threshold), outer == "reach")
    return Mined(torch.from_numpy(action).to(points.device), torch.from_numpy(chosen).to(points.device))


def background_runs(background: np.ndarray, points: np.ndarray, threshold: float = 0.95) -> np.ndarray:
    """The background rows of one video, as `mine` has them.

    Args:
        background: [T] background scores.
        points: [G] int rows with a point, in any order.
        threshold: smallest background score of a hit.

    Returns:
        [R, 2] int64 half-open row ranges, ascending, with a point between any two.
    """
    point = np.zeros(len(background), dtype=np.bool_)
    point[points] = True
    return _background_runs(np.ascontiguousarray(background, dtype=np.float32), point, np.float32(threshold), True)


@compiled
def _background_runs(score, point, threshold, reach):  # type: ignore[no-untyped-def]
    """Runs [R, 2] of background rows from scores [T] and whether a row has a point [T].

    The outer gaps, before the first and after the last point, reach to the ends, or else have their hits alone.
    """
    rows, number, count = len(score), 0, point.sum()
    spans = np.empty((count + 1, 2), np.int64)
    found = start = 0
    for stop in range(rows + 1):
        if stop < rows and not point[stop]:
            continue
        # The gap start..stop, with `number` of the points before it.
        if start < stop and count:
            first, last, peak = -1, -1, start
            for t in range(start, stop):
                if score[t] >= threshold:
                    first, last = (t if first < 0 else first), t
                if score[t] > score[peak]:
                    peak = t
            if first >= 0 or reach or 0 < number < count:
                spans[found, 0] = 0 if reach and number == 0 else (peak if first < 0 else first)
                spans[found, 1] = rows if reach and number == count else (peak if first < 0 else last) + 1
                found += 1
        start = stop + 1
        number += 1
    return spans[:found]


@compiled
def _mine(score, kinds, lengths, action_threshold, background_threshold, reach):  # type: ignore[no-untyped-def]
    """Action [B, T, C] and background [B, T] rows from scores [B, T], points' classes [B, T, C] and lengths [B]."""
    action = np.zeros(kinds.shape, np.bool_)
    background = np.zeros(score.shape, np.bool_)
    for b in range(len(score)):
        rows = lengths[b]
        point = np.zeros(rows, np.bool_)
        for t in range(rows):
            point[t] = kinds[b, t].any()
        for first, last in _background_runs(score[b, :rows], point, background_threshold, reach):
            background[b, first:last] = True
        # Forwards and then backwards, so a row between two points that both reach it joins the later one.
        for step in (1, -1):
            source = -1
            for i in range(rows):
                t = i if step == 1 else rows - 1 - i
                if point[t]:
                    source = t
                elif background[b, t] or score[b, t] > action_threshold:
                    source = -1
                if source >= 0:
                    action[b, t] = kinds[b, source]
    return action, background
