"""Negative proposals: pieces of background runs.

Source: HR-Pro (AAAI 2024), reliability ranking, in the form its code runs.
"""

from __future__ import annotations

import numpy as np

ROUNDS = 32
"""Redraws. The rarest success, in runs of three rows, is one in four: one piece in 10,000 is then still missing."""


def sample_background(spans: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random pieces of background runs.

    For each piece a run is drawn, all alike whatever their lengths. A run of one row is taken whole. In a run of the
    rows first..last the piece starts at floor(U(first, last)), ends at floor(U(start, last)), and is drawn anew if that
    leaves nothing. In a run of two rows nothing ever remains, so a piece that found no place after some rounds is the
    first row of the run drawn last; the published loop does not end there.

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
    pieces, run = np.zeros((count, 2), dtype=np.int64), np.zeros(count, dtype=np.int64)
    missing = np.arange(count)
    for _ in range(ROUNDS):
        run[missing] = drawn = rng.integers(len(spans), size=len(missing))
        start = np.floor(rng.uniform(first[drawn], last[drawn])).astype(np.int64)
        end = np.floor(rng.uniform(start, last[drawn])).astype(np.int64)
        pieces[missing, 0] = start
        pieces[missing, 1] = np.where(first[drawn] == last[drawn], start + 1, end)
        missing = missing[pieces[missing, 0] >= pieces[missing, 1]]
        if not len(missing):
            break
    pieces[missing] = first[run[missing], None] + np.array([0, 1])
    return pieces.astype(np.float64)
