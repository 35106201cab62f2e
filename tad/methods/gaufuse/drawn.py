"""As many rows of every video, short or long: GauFuse's protocol on ActivityNet.

Source: ACM-Net's released code, which it follows there. Of each of 75 equal parts of a video it takes one snippet: at
random in training, the first in testing, with curves interpolated linearly between them. Here it is the middle one in
testing, so that curves do not come early.
"""

from __future__ import annotations

import numpy as np


def drawn(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """[count] int64, ascending: a random row of each of `count` equal parts of `length` rows.

    Where there are fewer rows than parts, some come more than once.
    """
    return _at(length, count, rng.random(count))


def middles(length: int, count: int) -> np.ndarray:
    """[N] int64, ascending: the middle row of each of N equal parts, of `count` or of all rows of a short video."""
    count = min(count, length)
    return _at(length, count, np.full(count, 0.5))


def whole(curves: np.ndarray, length: int) -> np.ndarray:
    """[length, ...]: curves [N, ...] at `middles`, interpolated at all rows; level outside the first and the last."""
    if len(curves) == length:
        return curves
    rows, flat = middles(length, len(curves)), curves.reshape(len(curves), -1)
    columns = [np.interp(np.arange(length), rows, column) for column in flat.T]
    return np.stack(columns, axis=1).reshape(length, *curves.shape[1:]).astype(curves.dtype)


def _at(length: int, count: int, share: np.ndarray) -> np.ndarray:
    rows = ((np.arange(count) + share) * (length / count)).astype(np.int64)
    return np.minimum(rows, length - 1)
