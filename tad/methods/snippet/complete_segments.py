"""Search of the most complete segmentation of a curve between known rows, by a beam over switching times.

Some rows of a video are known to be action of one class, others to be anything else. Between them, where the one ends
and the other starts is chosen so that the segments stand out from their surroundings: action high, the rest low.
Source: LACP (ICCV 2021), optimal sequence search, in the form its code runs.

Legend: T rows, K segments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tad.ops.nms import compiled

FLOOR = 0.1
"""Hypotheses whose mean contrast is below it are dropped (LACP's constant)."""
TIES = 4
"""At most this many budgets of hypotheses, where ties would keep more. Published: no bound, hence exponential growth
on curves with flat stretches."""


class Sequence(NamedTuple):
    """A whole video as alternating segments."""

    spans: np.ndarray
    """[K, 2] int64 half-open row ranges; together they cover [0, T)."""
    action: np.ndarray
    """[K] bool."""
    score: float
    """Mean contrast of the segments: outer-inner contrast of the curve for action, of 1 - curve for the rest."""


def search(curve: np.ndarray, known: np.ndarray, budget: int = 25) -> Sequence:
    """The segmentation of highest score that a greedy beam finds.

    Known rows of one kind with none of the other kind between them form one segment; it holds all rows between them,
    and the first and the last segment reach to the ends. What is searched is each switching time from a segment's last
    known row to the next one's first. A hypothesis is a list of such times. They are extended row by row; at each row
    those with a mean contrast of finished segments below `FLOOR` go (the best one stays), then all but the best
    `budget` and what equals the last of them. Margins are those of `outer_inner_contrast(symmetric=False)`.

    Args:
        curve: [T] scores of the class in [0, 1].
        known: [T] 1 where a row is action of the class, 0 where it is not, -1 where unknown.
        budget: hypotheses kept.

    Raises:
        ValueError: shapes disagree, no row is known, or the budget is below 1.
    """
    curve, known = np.asarray(curve, dtype=np.float64), np.asarray(known, dtype=np.int64)
    if curve.ndim != 1 or curve.shape != known.shape:
        raise ValueError(f"expected curve [T] and known [T], got {curve.shape} and {known.shape}")
    if budget < 1:
        raise ValueError(f"budget must be at least 1, got {budget}")
    rows = np.flatnonzero(known >= 0)
    if not len(rows):
        raise ValueError("no row is known to be action or not")
    # A switch lies between two known rows of different kinds that follow each other.
    change = np.flatnonzero(np.diff(known[rows]))
    earliest, latest = rows[change] + 1, rows[change + 1]
    first = int(known[rows[0]])
    sums = np.concatenate([[0.0], np.cumsum(curve)])
    cuts, score = _beam(sums, earliest, latest, first, budget, TIES * budget)
    edges = np.concatenate([[0], cuts, [len(curve)]])
    return Sequence(np.stack([edges[:-1], edges[1:]], axis=1), np.arange(len(cuts) + 1) % 2 == 1 - first, float(score))


@compiled
def _contrast(sums, first, last, action):  # type: ignore[no-untyped-def]
    """Outer-inner contrast of rows [first, last) from prefix sums [T + 1] of the curve; of 1 - curve if not action."""
    length = last - first
    left = max(first - (length + 3) // 4, 0)
    right = min(last + length // 4, len(sums) - 1)
    inside = sums[last] - sums[first]
    outside = sums[right] - sums[left] - inside
    outer = right - left - length
    if action == 0:
        inside, outside = length - inside, outer - outside
    if outer == 0:
        return inside / length
    return inside / length - outside / outer


@compiled
def _beam(sums, earliest, latest, first, budget, most):  # type: ignore[no-untyped-def]
    """Switching times [K - 1] with earliest <= time <= latest, and the mean contrast of the K segments.

    A hypothesis: the last switch, the sum of contrasts, whether it has made the current switch, its mean contrast (of
    equals the earlier in the list goes first) and its node, which says when the switch was and what went before.
    """
    switches = len(earliest)
    nodes = 1
    for k in range(switches):
        nodes += (latest[k] - earliest[k] + 1) * most
    when = np.empty(nodes, np.int64)
    before = np.empty(nodes, np.int64)
    nodes = 0

    start = np.zeros(2 * most, np.int64)
    total = np.zeros(2 * most)
    node = np.full(2 * most, -1)
    score = np.full(2 * most, np.inf)
    moved = np.zeros(2 * most, np.bool_)
    live = 1
    for k in range(switches):
        action = (first + k) % 2
        moved[:live] = False
        for t in range(earliest[k], latest[k] + 1):
            old = live
            for h in range(old):
                if moved[h]:
                    continue
                place = h if t == latest[k] else live
                gained = total[h] + _contrast(sums, start[h], t, action)
                when[nodes] = t
                before[nodes] = node[h]
                start[place], total[place], node[place], moved[place] = t, gained, nodes, True
                score[place] = gained / (k + 1)
                nodes += 1
                if place == live:
                    live += 1
            # The bar: the floor, or the score of the last one in the budget; the best stays in any case.
            bar = FLOOR
            if live > budget:
                bar = max(bar, np.sort(score[:live])[live - budget])
            best = np.argmax(score[:live])
            kept = 0
            for h in range(live):
                # When ties are too many, one place is left for the best.
                if h == best or (score[h] >= bar and kept < most - (h < best)):
                    start[kept], total[kept], node[kept], moved[kept] = start[h], total[h], node[h], moved[h]
                    score[kept] = score[h]
                    kept += 1
            live = kept

    action = (first + switches) % 2
    top, winner = -np.inf, 0
    for h in range(live):
        mean = (total[h] + _contrast(sums, start[h], len(sums) - 1, action)) / (switches + 1)
        if mean > top:
            top, winner = mean, h
    cuts = np.empty(switches, np.int64)
    at = node[winner]
    for k in range(switches - 1, -1, -1):
        cuts[k] = when[at]
        at = before[at]
    return cuts, top
