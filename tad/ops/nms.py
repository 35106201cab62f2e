"""Class-wise hard and Gaussian soft non-maximum suppression of segments.

The rules, including ties and rounding (all arithmetic in float32), are those of ActionFormer's compiled operator, which
OpenTAD shares. Each step picks the highest score left, emits it and lowers the scores of the segments that overlap it,
so a loop is inherent: it is compiled by numba. Legend: N segments in, K segments out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numba
import numpy as np

EPSILON = np.float32(1e-6)
ZERO = np.float32(0.0)
MINUS_INFINITY = np.float32(-np.inf)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled by numba at the first call, kept on disk where a cache folder can be written."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # a read-only installation without any cache folder: compile anew in each process
        return numba.njit(function)


def classwise_nms(
    spans: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    method: Literal["gaussian", "hard"] = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    min_score: float = 0.001,
    limit: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """NMS of all detections of a video: each class on its own, then the best of all.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N].
        labels: [N] integer class of each.
        method: "gaussian": score *= exp(-tIoU^2 / sigma), whatever the tIoU with a segment of higher score; "hard":
            segments are dropped whose tIoU with one is at least `iou_threshold`, and equal scores keep their order.
        sigma: width of the Gaussians.
        min_score: "gaussian": a segment whose lowered score is below it is dropped, but for the highest of its class;
            "hard": segments that do not score above it are left out beforehand.
        limit: most segments to keep of each class, and in all.

    Returns:
        spans [K, 2] (input type), scores [K] float32 in descending order, labels [K] and the input rows [K] int64.

    Raises:
        ValueError: unknown method, sigma not positive, shapes that disagree, or values that are not finite.
    """
    spans = np.asarray(spans)
    spans = spans if np.issubdtype(spans.dtype, np.floating) else spans.astype(np.float64)
    spans, scores = spans.reshape(-1, 2), np.asarray(scores, dtype=np.float32).reshape(-1)
    labels = np.asarray(labels)
    if len(spans) != len(scores):
        raise ValueError(f"{len(spans)} segments but {len(scores)} scores")
    if labels.shape != scores.shape:
        raise ValueError(f"{len(scores)} scores but labels of shape {labels.shape}")
    if not (np.isfinite(spans).all() and np.isfinite(scores).all()):
        raise ValueError("segments and scores must be finite")
    if method not in ("gaussian", "hard"):
        raise ValueError(f"unknown NMS method {method!r}; known are gaussian and hard")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    single, most = spans.astype(np.float32), len(scores) if limit is None else min(limit, len(scores))
    candidates = np.arange(len(scores))
    if method == "hard":
        candidates = np.flatnonzero(scores > np.float32(min_score))
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    order = candidates[np.argsort(labels[candidates], kind="stable")]
    own = labels[order]
    offsets = np.flatnonzero(np.diff(own, prepend=own[:1] - 1, append=own[-1:] + 1)) if len(own) else np.zeros(1)
    groups = offsets.astype(np.int64)
    if method == "hard":
        rows = _hard(single, order, groups, np.float32(iou_threshold), most)
        kept = scores[rows]
    else:
        rows, kept = _soft(single, scores, order, groups, np.float32(sigma), np.float32(min_score), most)
    best = np.argsort(-kept, kind="stable")[:most]
    rows, kept = rows[best], kept[best]
    return spans[rows], kept, labels[rows], rows


@compiled
def _soft(spans, scores, order, offsets, sigma, min_score, limit):  # type: ignore[no-untyped-def]
    """Soft-NMS of each group order[offsets[g]:offsets[g + 1]]: kept input rows and lowered scores.

    Scores only fall, so what is emitted is sorted and the first `limit` are the best: the rest is never computed.
    """
    total = len(order)
    start = np.empty(total, np.float32)
    end = np.empty(total, np.float32)
    score = np.empty(total, np.float32)
    area = np.empty(total, np.float32)
    row = np.empty(total, np.int64)
    for k in range(total):
        r = order[k]
        start[k] = spans[r, 0]
        end[k] = spans[r, 1]
        score[k] = scores[r]
        area[k] = (end[k] - start[k]) + EPSILON
        row[k] = r
    kept = np.empty(total, np.int64)
    out = 0
    for g in range(len(offsets) - 1):
        first, live = offsets[g], offsets[g + 1]
        top = first
        for k in range(first + 1, live):  # the first of equals wins
            if score[k] > score[top]:
                top = k
        i = first
        while i < live and i - first < limit:
            start[i], start[top] = start[top], start[i]
            end[i], end[top] = end[top], end[i]
            score[i], score[top] = score[top], score[i]
            area[i], area[top] = area[top], area[i]
            row[i], row[top] = row[top], row[i]
            kept[out] = i
            out += 1
            start_i, end_i, area_i = start[i], end[i], area[i]
            k = top = i + 1
            best = MINUS_INFINITY
            while k < live:
                inter = min(end_i, end[k]) - max(start_i, start[k])
                if inter > ZERO:
                    overlap = inter / ((area_i + area[k]) - inter)
                    score[k] *= np.exp(-(overlap * overlap) / sigma)
                if score[k] < min_score:  # the last row takes its place, and is lowered next
                    live -= 1
                    start[k] = start[live]
                    end[k] = end[live]
                    score[k] = score[live]
                    area[k] = area[live]
                    row[k] = row[live]
                else:
                    if score[k] > best:  # the next top, found on the way
                        best = score[k]
                        top = k
                    k += 1
            i += 1
    return row[kept[:out]], score[kept[:out]]


@compiled
def _hard(spans, order, offsets, threshold, limit):  # type: ignore[no-untyped-def]
    """Hard NMS of each group order[offsets[g]:offsets[g + 1]], sorted by score: kept input rows."""
    kept = np.empty(len(order), np.int64)
    out = 0
    for g in range(len(offsets) - 1):
        begin = out
        for k in range(offsets[g], offsets[g + 1]):
            if out - begin >= limit:
                break
            r = order[k]
            start, end = spans[r, 0], spans[r, 1]
            area = (end - start) + EPSILON
            free = True
            for j in range(begin, out):
                other = kept[j]
                inter = max(min(end, spans[other, 1]) - max(start, spans[other, 0]), ZERO)
                union = (((spans[other, 1] - spans[other, 0]) + EPSILON) + area) - inter
                if inter / union >= threshold:
                    free = False
                    break
            if free:
                kept[out] = r
                out += 1
    return kept[:out]
