"""From one-dimensional curves to runs, and how much a run stands out from its surroundings.

Runs are half-open row ranges [first, last + 1), i.e. edges: row t covers [t, t + 1). Source: HR-Pro and LACP, candidate
proposals (threshold sweeps and outer-inner contrast). Legend: T rows, K thresholds, R runs.
"""

from __future__ import annotations

import numpy as np


def runs(mask: np.ndarray) -> np.ndarray:
    """Maximal runs of True.

    Args:
        mask: [T] bool.

    Returns:
        [R, 2] int64 half-open row ranges, ascending.
    """
    spans, _ = _runs_of_rows(np.asarray(mask, dtype=bool).reshape(1, -1))
    return spans


def threshold_runs(curve: np.ndarray, thresholds: np.ndarray | list[float]) -> tuple[np.ndarray, np.ndarray]:
    """Runs of rows at or above each threshold.

    Rows that are not positive never belong to a run, so threshold 0 gives runs of positive values as in HR-Pro.

    Args:
        curve: [T] values.
        thresholds: [K].

    Returns:
        spans [R, 2] int64 half-open row ranges, and [R] int64 index of the threshold that gave each; ordered by
        threshold, then by time. A run that several thresholds give appears once for each.
    """
    curve = np.asarray(curve).reshape(1, -1)
    thresholds = np.asarray(thresholds, dtype=np.float64).reshape(-1, 1)
    return _runs_of_rows((curve >= thresholds) & (curve > 0))


def outer_inner_contrast(
    curve: np.ndarray, spans: np.ndarray, margin: float = 0.25, symmetric: bool = True
) -> np.ndarray:
    """Mean of the curve inside each run minus its mean in the margins on both sides.

    Args:
        curve: [T] values.
        spans: [R, 2] int half-open row ranges, not empty, within [0, T].
        margin: length of either margin as a share of the run's length.
        symmetric: both margins hold ceil(margin * length) rows. False is HR-Pro's published rule: the right margin
            holds floor(margin * length), so that runs of fewer than 1 / margin rows have a left margin only.

    Returns:
        [R] float64; margins are cut at the curve's ends, and the outer mean is 0 where both are empty.

    Raises:
        ValueError: a run is empty or leaves the curve.
    """
    curve = np.asarray(curve, dtype=np.float64).reshape(1, -1)
    return _contrast(curve, np.zeros(len(spans), dtype=np.int64), spans, margin, symmetric)


def zeroed_contrast(
    curve: np.ndarray,
    spans: np.ndarray,
    threshold_index: np.ndarray,
    thresholds: np.ndarray | list[float],
    margin: float = 0.25,
    symmetric: bool = True,
) -> np.ndarray:
    """Outer-inner contrast on the curve with values below each run's threshold set to zero.

    HR-Pro scores the sweep over class scores so: whatever lies below the threshold counts as 0 in the margins.

    Args:
        curve: [T] values.
        spans: [R, 2], as given by `threshold_runs` for the same curve and thresholds.
        threshold_index: [R], as given by `threshold_runs`.
        thresholds: [K].
        margin: see `outer_inner_contrast`.
        symmetric: see `outer_inner_contrast`.

    Returns:
        [R] float64.

    Raises:
        ValueError: a run is empty or leaves the curve.
    """
    curve = np.asarray(curve, dtype=np.float64).reshape(1, -1)
    zeroed = np.where(curve >= np.asarray(thresholds, dtype=np.float64).reshape(-1, 1), curve, 0.0)
    return _contrast(zeroed, threshold_index, spans, margin, symmetric)


def upsample(curve: np.ndarray, scale: int, centred: bool = True) -> np.ndarray:
    """A curve at `scale` times the rate, by linear interpolation along its first axis.

    Args:
        curve: [T, ...] values.
        scale: samples per row.
        centred: sample u is read at position (u + 1/2) / scale - 1/2, the centre of its part of the edges
            [u / scale, (u + 1) / scale); the first and the last row are held outside. False is HR-Pro's rule: sample u
            is read at position u / scale, half a sample's part late, and the last samples are extrapolated.

    Returns:
        [scale * T, ...] of the curve's floating type (float64 for integers).

    Raises:
        ValueError: the curve is empty or the scale is below 1.
    """
    curve = np.asarray(curve)
    if scale < 1 or len(curve) == 0:
        raise ValueError(f"upsampling needs at least one row and a scale of at least 1, got {len(curve)} and {scale}")
    kind = curve.dtype if np.issubdtype(curve.dtype, np.floating) else np.dtype(np.float64)
    rows = len(curve)
    if rows == 1 or scale == 1:
        return np.repeat(curve.astype(kind), scale, axis=0)
    position = np.arange(scale * rows) / scale
    if centred:
        position = np.clip(position + 0.5 / scale - 0.5, 0, rows - 1)
    left = np.minimum(np.floor(position).astype(np.int64), rows - 2)
    share = (position - left).reshape((-1,) + (1,) * (curve.ndim - 1))
    return (curve[left] * (1 - share) + curve[left + 1] * share).astype(kind)


def _runs_of_rows(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Runs of True in each row of [K, T] masks: [R, 2] spans and the row of each."""
    count, length = masks.shape
    # One False between any two rows keeps runs apart, and the whole problem is one flat difference.
    padded = np.zeros((count, length + 2), dtype=np.int8)
    padded[:, 1:-1] = masks
    change = np.diff(padded.reshape(-1))
    first = np.flatnonzero(change == 1)
    last = np.flatnonzero(change == -1)
    row = first // (length + 2)
    spans = np.stack([first, last], axis=1) - (row * (length + 2))[:, None]
    return spans.astype(np.int64), row.astype(np.int64)


def _contrast(curves: np.ndarray, which: np.ndarray, spans: np.ndarray, margin: float, symmetric: bool) -> np.ndarray:
    """Contrast of each run on its own row `which` of curves [K, T], from prefix sums."""
    spans = np.asarray(spans, dtype=np.int64).reshape(-1, 2)
    total = curves.shape[1]
    first, last = spans[:, 0], spans[:, 1]
    length = last - first
    if len(spans) and (length.min() < 1 or first.min() < 0 or last.max() > total):
        raise ValueError(f"runs must be half-open, not empty and within [0, {total}]")
    sums = np.zeros((len(curves), total + 1))
    np.cumsum(curves, axis=1, out=sums[:, 1:])

    # Ratios such as 0.1 * 30 must not gain a row by rounding.
    left_rows = np.ceil(margin * length - 1e-9).astype(np.int64)
    right_rows = left_rows if symmetric else np.floor(margin * length + 1e-9).astype(np.int64)
    left = np.maximum(first - left_rows, 0)
    right = np.minimum(last + right_rows, total)

    inside = sums[which, last] - sums[which, first]
    outside = sums[which, right] - sums[which, left] - inside
    outer_length = (right - left) - length
    return inside / np.maximum(length, 1) - outside / np.maximum(outer_length, 1) * (outer_length > 0)
