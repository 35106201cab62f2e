"""Snippet targets from scored segments by constrained optimisation, their change between rounds, and their loss.

Source: GauFuse (CVPR 2023) and its released code. Scoring a class's target curve by inner minus outer must give back
every segment's score, with the least activation. Many curves do: the least sum of all has a whole face of optima, of
which a vertex puts each segment's mass on one snippet. Here it is the analytic centre of that face, the limit of the
central path, which spreads the mass; the curve of least norm is the alternative, unique by itself.

Snippets that lie in the same segments and margins are alike and get the same value, so they are one cell, one unknown.
Legend: N segments of one class, T snippets, G cells, C classes.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

Rows = Literal["sum", "mean"]
Solver = Literal["centre", "least-norm", "plain"]

MARGIN, POWER = 0.0785, 0.9
"""The margin of a segment of L snippets is 0.0785 L^0.9 on each side, as released."""
SLACK = 1e7
"""Weight of half the squared slack, which only constraints that contradict each other keep."""
PATH = {"centre": 1e-7, "least-norm": 1e-15}
"""Barrier at the end of the path: about what is left of a value that would be 0."""
NUDGE = 1e-6
"""Snippets; edges come from seconds, whose rounding must not decide."""
STEPS = 100
"""Newton steps at most; 20 to 50 are usual."""


class System(NamedTuple):
    """The constraints on the curve x of one class: for every segment, sum_t row_t x_t = score."""

    edges: np.ndarray
    """[G + 1] int64: cell g is the snippets edges[g] to edges[g + 1] - 1; beyond them x is 0."""
    rows: np.ndarray
    """[N, G] float64: what each snippet of a cell counts for a segment."""
    scores: np.ndarray
    """[N] float64."""


def system(
    spans: np.ndarray, scores: np.ndarray, length: int, rows: Rows = "sum", released_edges: bool = False
) -> System:
    """The constraints of one video and class (the released code's).

    Args:
        spans: [N, 2] edges in snippets, N at least 1, in any order.
        scores: [N], any sign.
        length: T.
        rows: "sum" (released): sum inside minus sum over both margins, so values are about score / segment length;
            "mean": the difference of both means, so values are about the score.
        released_edges: true cuts edges down to whole snippets, and leaves the last snippet out of margins; by
            default those snippets are inside whose centre is. A segment always has a snippet inside.
    """
    start, end = np.asarray(spans, dtype=np.float64).reshape(-1, 2).T
    if released_edges:
        first, last = (np.trunc(edge + NUDGE).astype(np.int64) for edge in (start, end))
    else:
        first = np.ceil(start - 0.5 - NUDGE).astype(np.int64)
        last = np.floor(end + 0.5 + NUDGE).astype(np.int64)
    first = np.clip(first, 0, length - 1)
    last = np.clip(last, first + 1, length)
    margin = MARGIN * (last - first) ** POWER
    left = np.maximum(0, np.trunc(first - margin)).astype(np.int64)
    right = np.minimum(length - released_edges, np.trunc(last + margin + 1).astype(np.int64))
    right = np.maximum(right, last)

    edges = np.unique(np.concatenate([left, first, last, right]))
    cell, width = edges[:-1], np.diff(edges)
    inner = (first[:, None] <= cell) & (cell < last[:, None])
    outer = (left[:, None] <= cell) & (cell < right[:, None]) & ~inner
    found = inner.astype(np.float64) - outer
    if rows == "mean":
        found = inner / (inner @ width)[:, None] - outer / np.maximum(outer @ width, 1)[:, None]
    return System(edges, found, np.asarray(scores, dtype=np.float64))


def solve(constraints: System, solver: Solver = "centre") -> np.ndarray:
    """[G] the value of each cell's snippets, in [0, 1].

    "centre" is the analytic centre of all curves of least sum, "least-norm" the curve of least sum of squares. Both by
    primal-dual Newton steps along the central path of

        minimise  linear . x + quadratic / 2 . |x|^2 + SLACK / 2 |Ax - b|^2,  0 <= x <= 1,

    each a system of N x N. The slack makes every system solvable: contradicting scores meet in the sense of least
    squares. Once done, the slack's multipliers are taken as given, so that constraints that agree hold to about 1e-8.
    """
    from scipy.linalg import cho_factor, cho_solve  # half a second, which every other start is spared

    width = np.diff(constraints.edges).astype(np.float64)
    scale = constraints.rows.max(axis=1, keepdims=True)
    dual, b = constraints.rows / scale, constraints.scores / scale[:, 0]
    a = dual * width
    linear, quadratic = (1.0, 0.0) if solver == "centre" else (0.0, 1.0)
    end, mu, passes = PATH[solver], 1.0, 0
    x, room = np.full(len(width), 0.5), np.full(len(width), 0.5)  # room is 1 - x, exact also where that is tiny
    low, high = np.ones(len(width)), np.ones(len(width))
    y, held = np.zeros(len(b)), np.zeros(len(b))
    for _ in range(STEPS):
        slope = linear + quadratic * x - y @ dual
        short = b - a @ x - (y - held) / SLACK
        # Contradictions have multipliers of 1e6 and more, to which rounding is relative.
        off = max(np.abs(slope - low + high).max() / max(1.0, np.abs(y).max()), np.abs(short).max())
        off_path = max(np.abs(low * x - mu).max(), np.abs(high * room - mu).max())
        if off < 1e-8 and off_path < 0.1 * mu and mu == end:
            if passes:
                break
            passes, held = 1, y
            continue
        if off < max(mu, 1e-8) and off_path < 0.5 * mu:
            mu = max(end, 0.1 * mu)
        curvature = quadratic + low / x + high / room
        residual = slope - mu / x + mu / room
        normal = (a / curvature) @ dual.T
        # Rounding makes the matrix of contradicting rows indefinite; what is added steers the steps, not their end.
        normal[np.diag_indices(len(b))] += 1 / SLACK + 1e-14 * len(b) * normal.diagonal().max()
        dy = cho_solve(cho_factor(normal), short + (a / curvature) @ residual)
        dx = (dy @ dual - residual) / curvature
        dlow = (mu - low * dx) / x - low
        dhigh = (mu + high * dx) / room - high
        reach = min(until(x, dx), until(room, -dx), until(low, dlow), until(high, dhigh))
        step = min(1.0, 0.99 * reach)
        x, room, y = x + step * dx, room - step * dx, y + step * dy
        low, high = low + step * dlow, high + step * dhigh
    return np.clip(x, 0.0, 1.0)  # rounding


def until(value: np.ndarray, change: np.ndarray) -> float:
    """How many times `change` may be added until the first value is 0."""
    falling = change < 0
    return float((value[falling] / -change[falling]).min(initial=np.inf))


def snippet_targets(
    spans: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    length: int,
    classes: int,
    *,
    rows: Rows = "sum",
    solver: Solver = "centre",
    released_edges: bool = False,
) -> np.ndarray:
    """[T, C] float64 in [0, 1]: a curve for each class with segments, 0 for the others.

    Args:
        spans: [N, 2] edges in snippets.
        scores: [N].
        labels: [N] class indices.
        length: T.
        classes: C.
        rows: see `system`.
        solver: see `solve`; "plain" solves nothing: a snippet's target is the largest score of the segments that it
            is inside, which is what a method without the constraints would teach.
        released_edges: see `system`.
    """
    targets = np.zeros((length, classes))
    for label in np.unique(labels):
        mine = labels == label
        constraints = system(spans[mine], scores[mine], length, rows, released_edges)
        first, last = constraints.edges[[0, -1]]
        if solver == "plain":
            inside = constraints.rows > 0
            best = np.where(inside, constraints.scores[:, None], 0.0).max(axis=0).clip(0.0, 1.0)
            targets[first:last, label] = np.repeat(best, np.diff(constraints.edges))
            continue
        targets[first:last, label] = np.repeat(solve(constraints, solver), np.diff(constraints.edges))
    return targets


def delta_target(now: Tensor, before: Tensor, gain: float, dead_zone: float = 0.0) -> Tensor:
    """Targets of two rounds as one: gain times their difference, 0 where it is at most `dead_zone`."""
    change = now - before
    return gain * torch.where(change.abs() > dead_zone, change, 0.0)


def target_loss(logits: Tensor, targets: Tensor, mask: Tensor, bounded: bool = True) -> Tensor:
    """[B] mean over a video's snippets of the loss of class probabilities p = softmax(logits) with signed targets D.

    Where D is positive, -D log p. Where it is negative, D log p as released, which has no lower bound and pushes least
    where the model is most wrong, or |D| (-log(1 - p)) if bounded.

    Args:
        logits: [B, T, C + 1], background last; it has no target.
        targets: [B, T, C].
        mask: [B, T] bool, False on padding.
        bounded: see above.
    """
    log_p = log_softmax(logits, dim=-1)[..., :-1]
    each = -(targets * log_p).sum(-1)
    if bounded:
        each = -(targets.clamp(min=0) * log_p).sum(-1)
        for c in (targets < 0).any(0).any(0).nonzero()[:, 0].tolist():
            rest = torch.cat([logits[..., :c], logits[..., c + 1 :]], dim=-1)  # 1 - p, exact also where p is near 1
            each = each + targets[..., c].clamp(max=0) * (rest.logsumexp(-1) - logits.logsumexp(-1))
    return (each * mask).sum(1) / mask.sum(1)
