"""Temporal IoU of segments.

Legend: N, M segments; a segment is (start, end) in any one unit.
"""

from __future__ import annotations

import numpy as np


def tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """tIoU of every segment of `a` with every segment of `b`.

    Args:
        a: [N, 2] starts and ends.
        b: [M, 2] starts and ends, same unit.

    Returns:
        [N, M] float64 in [0, 1]; 0 where two segments do not overlap or have no length.
    """
    a, b = _spans(a), _spans(b)
    inter = np.minimum(a[:, None, 1], b[None, :, 1])
    inter -= np.maximum(a[:, None, 0], b[None, :, 0])
    np.maximum(inter, 0.0, out=inter)
    union = (a[:, 1] - a[:, 0])[:, None] + (b[:, 1] - b[:, 0])[None, :]
    union -= inter
    return np.divide(inter, union, out=inter, where=inter > 0)


def paired_tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """tIoU of row i of `a` with row i of `b`.

    Args:
        a: [N, 2] starts and ends.
        b: [N, 2] starts and ends, same unit.

    Returns:
        [N] float64 in [0, 1].
    """
    a, b = _spans(a), _spans(b)
    inter = np.maximum(np.minimum(a[:, 1], b[:, 1]) - np.maximum(a[:, 0], b[:, 0]), 0.0)
    union = (a[:, 1] - a[:, 0]) + (b[:, 1] - b[:, 0]) - inter
    return np.divide(inter, union, out=inter, where=inter > 0)


def _spans(spans: np.ndarray) -> np.ndarray:
    return np.asarray(spans, dtype=np.float64).reshape(-1, 2)
