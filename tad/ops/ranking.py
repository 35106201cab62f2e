"""Negative proposals: pieces of background runs.

Source: HR-Pro (AAAI 2024), reliability ranking, in the form its code runs.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 64
"""Of draws. The rarest success, in runs of three rows, is one in four, and each round draws twice what is missing."""


def sample_background(spans: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random pieces of background runs.

    For each piece a run is drawn, all alike whatever their lengths. A run of one row is taken whole. In a run of the
    rows first..last the piece starts at floor(U(first, last)), ends at floor(U(start, last)), and is drawn anew, run
    and all, if that leaves nothing. In a run of two rows nothing ever remains, so such runs are not drawn. If there are
    no others, where the published loop does not end, the pieces are their first rows.

    Args:
        spans: [R, 2] int, half-open row ranges of the runs (see `tad.ops.grouping.runs`).
        count: how many pieces.
        rng: draws.

    Returns:
        [count, 2] float64 edges in rows (row t covers [t, t + 1)); none if there is no run.

    Raises:
        ValueError: a run is empty, or the count negative.
    """
    spans = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    if count < 0 or (spans[:, 1] <= spans[:, 0]).any():
        raise ValueError(f"runs must not be empty and the count not negative, got {spans.tolist()} and {count}")
    if not len(spans) or not count:
        return np.zeros((0, 2))
    size = spans[:, 1] - spans[:, 0]
    if (size == 2).all():
        first = spans[rng.integers(len(spans), size=count), 0]
        return np.stack([first, first + 1], axis=1).astype(np.float64)
    spans = spans[size != 2]
    pieces = np.zeros((0, 2), dtype=np.int64)
    for _ in range(ROUNDS):
        first, last = (spans[rng.integers(len(spans), size=2 * (count - len(pieces)) + 8)] - np.array([0, 1])).T
        start = np.floor(rng.uniform(first, last)).astype(np.int64)
        end = np.where(first == last, start + 1, np.floor(rng.uniform(start, last)).astype(np.int64))
        pieces = np.concatenate([pieces, np.stack([start, end], axis=1)[start < end]])
        if len(pieces) >= count:
            break
    return pieces[:count].astype(np.float64)
