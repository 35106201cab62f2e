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
    first, last = spans[:, 0], spans[:, 1] - 1
    usable = last != first + 1
    if not usable.any():
        start = first[rng.integers(len(first), size=count)].astype(np.float64)
        return np.stack([start, start + 1], axis=1)
    first, last = first[usable], last[usable]
    pieces: list[np.ndarray] = []
    missing = count
    for _ in range(ROUNDS):
        chosen = rng.integers(len(first), size=2 * missing + 8)
        low, high = first[chosen], last[chosen]
        start = np.floor(low + (high - low) * rng.random(len(chosen)))
        end = np.floor(start + (high - start) * rng.random(len(chosen)))
        end[low == high] += 1
        pieces.append(np.stack([start, end], axis=1)[start < end])
        missing -= len(pieces[-1])
        if missing <= 0:
            break
    return np.concatenate(pieces)[:count]
