"""From one-dimensional curves to runs, and how much a run stands out from its surroundings.

Runs are half-open row ranges [first, last + 1), i.e. edges: row t covers [t, t + 1). Source: HR-Pro and LACP, candidate
proposals (threshold sweeps and outer-inner contrast). Legend: T rows, K thresholds, R runs.
"""

from __future__ import annotations

import numpy as np

from tad.ops.nms import compiled


def runs(mask: np.ndarray) -> np.ndarray:
    """Maximal runs of True.

    Args:
        mask: [T] bool.

    Returns:
        [R, 2] int64 half-open row ranges, ascending.
    """
    return threshold_runs(mask, [1.0])[0]


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
    return _runs(np.ascontiguousarray(curve, dtype=np.float64), np.ascontiguousarray(thresholds, dtype=np.float64))


def outer_inner_contrast(
    curve: np.ndarray, spans: np.ndarray, margin: float = 0.25, symmetric: bool = True, floors: np.ndarray | None = None
) -> np.ndarray:
    """Mean of the curve inside each run minus its mean in the margins on both sides.

    Args:
        curve: [T] values.
        spans: [R, 2] int half-open row ranges, not empty, within [0, T].
        margin: length of either margin as a share of the run's length.
        symmetric: both margins hold ceil(margin * length) rows. False is HR-Pro's published rule: the right margin
            holds floor(margin * length), so that runs of fewer than 1 / margin rows have a left margin only.
        floors: [R] values of the curve below a run's floor count as 0, as HR-Pro does with values below the threshold
            that gave the run; runs of equal floors should follow each other, for speed. None: all values count.

    Returns:
        [R] float64; margins are cut at the curve's ends, and the outer mean is 0 where both are empty.

    Raises:
        ValueError: a run is empty or leaves the curve, or there are not as many floors as runs.
    """
    curve, spans = np.ascontiguousarray(curve, dtype=np.float64), np.ascontiguousarray(spans, dtype=np.int64)
    floors = np.full(len(spans), -np.inf) if floors is None else floors
    if len(floors) != len(spans):
        raise ValueError(f"{len(floors)} floors for {len(spans)} runs")
    return _contrast(curve, spans, floors, margin, symmetric)


def inner_mean(curves: np.ndarray, spans: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Mean inside each span of one of the curves, which are taken as constant over each row.

    Args:
        curves: [T, C] values.
        spans: [N, 2] edges in rows, whole or not; what lies outside [0, T] counts as nothing.
        columns: [N] the curve of each span.

    Returns:
        [N] float64; 0 for a span that has no length within [0, T].
    """
    sums = np.vstack([np.zeros(curves.shape[1]), np.cumsum(curves, axis=0, dtype=np.float64)])
    edges = np.clip(np.asarray(spans, dtype=np.float64), 0, len(curves))
    row = np.minimum(edges.astype(np.int64), len(curves) - 1)
    low, high = sums[row, columns[:, None]], sums[row + 1, columns[:, None]]
    until = low + (edges - row) * (high - low)
    length = edges[:, 1] - edges[:, 0]
    return (until[:, 1] - until[:, 0]) / np.where(length > 0, length, 1.0)


def upsample(curves: np.ndarray, scale: int, centred: bool = True) -> np.ndarray:
    """Curves at `scale` times the rate, by linear interpolation along the last axis.

    Args:
        curves: [..., T] values.
        scale: samples per row.
        centred: sample u is read at position (u + 1/2) / scale - 1/2, the centre of its part of the edges
            [u / scale, (u + 1) / scale); the first and the last row are held outside. False is HR-Pro's rule: sample u
            is read at position u / scale, half a sample's part late, and the last samples are extrapolated.

    Returns:
        [..., scale * T] float64.

    Raises:
        ValueError: the curves are empty or the scale is below 1.
    """
    curves = np.ascontiguousarray(curves, dtype=np.float64)
    rows = curves.shape[-1]
    if scale < 1 or rows == 0:
        raise ValueError(f"upsampling needs at least one row and a scale of at least 1, got {rows} and {scale}")
    return _upsample(curves.reshape(-1, rows), scale, centred).reshape(*curves.shape[:-1], scale * rows)


@compiled
def _upsample(curves, scale, centred):  # type: ignore[no-untyped-def]
    """See `upsample`; curves [K, T]."""
    count, rows = curves.shape
    fine = np.empty((count, scale * rows))
    for u in range(scale * rows):
        position = u / scale
        if centred:
            position = min(max(position + 0.5 / scale - 0.5, 0.0), rows - 1.0)
        left = max(min(int(position), rows - 2), 0)
        right, share = min(left + 1, rows - 1), position - left
        for k in range(count):
            fine[k, u] = curves[k, left] * (1 - share) + curves[k, right] * share
    return fine


@compiled
def _runs(curve, thresholds):  # type: ignore[no-untyped-def]
    """Runs [R, 2] of positive rows at or above each of the thresholds, and [R] which threshold."""
    rows = len(curve)
    edges = np.empty(len(thresholds) * (rows + 1), np.int64)
    index = np.empty(len(edges) // 2, np.int64)
    found = 0
    for k in range(len(thresholds)):
        inside = False
        for t in range(rows):
            if inside != (curve[t] >= thresholds[k] and curve[t] > 0):
                inside = not inside
                index[found // 2] = k
                edges[found] = t
                found += 1
        if inside:
            edges[found] = rows
            found += 1
    return edges[:found].reshape(-1, 2), index[: found // 2]


@compiled
def _contrast(curve, spans, floors, margin, symmetric):  # type: ignore[no-untyped-def]
    """See `outer_inner_contrast`; from prefix sums, which are those of the run before if it has the same floor."""
    rows = len(curve)
    sums = np.zeros(rows + 1)
    contrast = np.empty(len(spans))
    for r in range(len(spans)):
        first, last = spans[r]
        length = last - first
        if first < 0 or length < 1 or last > rows:
            raise ValueError("runs must be half-open, not empty and within the curve")
        if r == 0 or floors[r] != floors[r - 1]:
            for t in range(rows):
                sums[t + 1] = sums[t] + (0.0 if curve[t] < floors[r] else curve[t])
        # Ratios such as 0.1 * 30 must not gain a row by rounding.
        left_rows = int(np.ceil(margin * length - 1e-9))
        left = max(first - left_rows, 0)
        right = min(last + (left_rows if symmetric else int(np.floor(margin * length + 1e-9))), rows)
        inside = sums[last] - sums[first]
        outside = sums[right] - sums[left] - inside
        contrast[r] = inside / length - outside / max(right - left - length, 1)
    return contrast
