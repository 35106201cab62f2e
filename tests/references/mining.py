"""Mining of pseudo action and background rows, as a walk over the rows written from the description."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

ACTION, BACKGROUND = 0.1, 0.95


def walk(b: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One video, row by row: b [T], y [T, C]."""
    length = len(b)
    action, background = y.copy(), np.zeros(length, dtype=bool)
    points = [t for t in range(length) if y[t].any()]
    if not points:
        return action, background
    gaps = [(-1, points[0]), *pairwise(points), (points[-1], length)]
    for number, (left, right) in enumerate(gaps):
        rows = list(range(left + 1, right))
        if not rows:
            continue
        hits = [t for t in rows if b[t] >= BACKGROUND]
        peak = rows[int(np.argmax(b[rows]))]
        if number == 0:
            chosen = range((hits[-1] if hits else peak) + 1)
        elif number == len(gaps) - 1:
            chosen = range(hits[0] if hits else peak, length)
        elif len(hits) >= 2:
            chosen = range(hits[0], hits[-1] + 1)
        else:
            chosen = range(peak, peak + 1)
        for t in chosen:
            background[t] = True
    for left, right in gaps:
        if left >= 0:
            for t in range(left + 1, right):
                if b[t] > ACTION or background[t]:
                    break
                action[t] = y[left]
        if right < length:
            for t in range(right - 1, left, -1):
                if b[t] > ACTION or background[t]:
                    break
                action[t] = y[right]
    return action, background
