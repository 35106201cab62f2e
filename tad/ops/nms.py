"""Hard and soft non-maximum suppression of segments, for each class or regardless of class, and segment voting.

The rules, including ties and rounding (all arithmetic in float32), are those of ActionFormer's compiled operator, which
OpenTAD shares. Each step picks the highest score left, emits it and lowers the scores of the segments that overlap it,
so a loop is inherent: it is compiled by numba. Legend: N segments in, K segments out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

METHODS = {"hard": 0, "linear": 1, "gaussian": 2, "gaussian-thresholded": 3}
EPSILON = np.float32(1e-6)
ZERO = np.float32(0.0)
ONE = np.float32(1.0)
MINUS_INFINITY = np.float32(-np.inf)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiled by numba at the first call, kept on disk where a cache folder can be written."""
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # a read-only installation without any cache folder: compile anew in each process
        return numba.njit(function)


def soft_nms(
    spans: np.ndarray,
    scores: np.ndarray,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    min_score: float = 0.001,
    limit: int | None = None,
    threshold_slope: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Soft-NMS: overlapping segments lose score; those that fall below `min_score` are dropped.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N].
        method: "gaussian": score *= exp(-tIoU^2 / sigma), whatever the tIoU; "linear": score *= 1 - tIoU where tIoU >=
            iou_threshold; "hard": score = 0 there; "gaussian-thresholded" (BMN in OpenTAD): as "gaussian", only where
            tIoU >= iou_threshold + threshold_slope * length of the higher segment.
        sigma: width of the Gaussians.
        iou_threshold: see method; "gaussian" does not read it.
        min_score: a segment whose lowered score is below it is dropped. The highest one always stays.
        limit: most segments to keep.
        threshold_slope: see method; only "gaussian-thresholded" reads it, which wants spans scaled to [0, 1].

    Returns:
        spans [K, 2] (input type), lowered scores [K] float32 in descending order, and the input rows [K] int64.

    Raises:
        ValueError: unknown method, sigma not positive, shapes that disagree, or values that are not finite.
    """
    spans, scores = _checked(spans, scores)
    _check_method(method, sigma)
    offsets = np.array([0, len(scores)], dtype=np.int64)
    rows, lowered, _ = _soft(
        spans.astype(np.float32),
        scores,
        np.arange(len(scores)),
        offsets,
        METHODS[method],
        np.float32(sigma),
        np.float32(iou_threshold),
        np.float32(threshold_slope),
        np.float32(min_score),
        _limit(limit, len(scores)),
    )
    return spans[rows], lowered, rows


def hard_nms(
    spans: np.ndarray, scores: np.ndarray, iou_threshold: float, limit: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hard NMS: drops every segment whose tIoU with a kept one of higher score is at least the threshold.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N]; equal scores keep their input order.
        iou_threshold: smallest tIoU that drops.
        limit: most segments to keep.

    Returns:
        spans [K, 2] (input type), scores [K] float32 in descending order, and the input rows [K] int64.

    Raises:
        ValueError: shapes that disagree, or values that are not finite.
    """
    spans, scores = _checked(spans, scores)
    order = np.argsort(-scores, kind="stable")
    offsets = np.array([0, len(scores)], dtype=np.int64)
    rows, _ = _hard(spans.astype(np.float32), order, offsets, np.float32(iou_threshold), _limit(limit, len(scores)))
    return spans[rows], scores[rows], rows


def classwise_nms(
    spans: np.ndarray,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    method: str = "gaussian",
    sigma: float = 0.5,
    iou_threshold: float = 0.5,
    min_score: float = 0.001,
    limit: int | None = None,
    voting: float | None = None,
    class_agnostic: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """NMS of all detections of a video: each class on its own, then the best of all.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N].
        labels: [N] integer class of each.
        method: of `soft_nms`; "hard" is `hard_nms` on the segments that score above `min_score`.
        sigma: see `soft_nms`.
        iou_threshold: see `soft_nms` and `hard_nms`.
        min_score: see `soft_nms`.
        limit: most segments to keep of each class, and in all.
        voting: smallest tIoU of the segments that vote on the ends of a kept one (see `vote`); None: no voting. The
            voters are the segments of the same class, or all with `class_agnostic`. (The published wrapper ignores
            voting unless class-agnostic: leave it None there to get the same.)
        class_agnostic: a segment suppresses others of any class.

    Returns:
        spans [K, 2] (input type), scores [K] float32 in descending order, labels [K] and the input rows [K] int64.

    Raises:
        ValueError: unknown method, sigma not positive, shapes that disagree, or values that are not finite.
    """
    spans, scores = _checked(spans, scores)
    _check_method(method, sigma)
    labels = np.asarray(labels)
    if labels.shape != scores.shape:
        raise ValueError(f"{len(scores)} scores but labels of shape {labels.shape}")
    single = spans.astype(np.float32)
    group = np.zeros(len(scores), dtype=np.int64) if class_agnostic else labels
    if method == "hard":
        candidates = np.flatnonzero(scores > np.float32(min_score))
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    else:
        candidates = np.arange(len(scores))
    order = candidates[np.argsort(group[candidates], kind="stable")]
    offsets = np.flatnonzero(np.diff(group[order], prepend=group[order][:1] - 1, append=group[order][-1:] + 1))
    offsets = offsets.astype(np.int64) if len(order) else np.zeros(1, dtype=np.int64)
    most = _limit(limit, len(scores))
    if method == "hard":
        rows, part = _hard(single, order, offsets, np.float32(iou_threshold), most)
        kept = scores[rows]
    else:
        rows, kept, part = _soft(
            single,
            scores,
            order,
            offsets,
            METHODS[method],
            np.float32(sigma),
            np.float32(iou_threshold),
            ZERO,
            np.float32(min_score),
            most,
        )
    best = np.argsort(-kept, kind="stable")[:most]
    rows, kept, part = rows[best], kept[best], part[best]
    result = spans[rows]
    if voting is not None:
        voters = np.argsort(group, kind="stable")
        bounds = (
            np.searchsorted(group[voters], group[rows], side="left"),
            np.searchsorted(group[voters], group[rows], side="right"),
        )
        result = _vote(single[rows], single, scores, voters, *bounds, np.float32(voting), True).astype(spans.dtype)
    return result, kept, labels[rows], rows


def vote(
    kept: np.ndarray, spans: np.ndarray, scores: np.ndarray, iou_threshold: float, weigh_by_iou: bool = True
) -> np.ndarray:
    """Segment voting: each kept segment becomes a weighted mean of the segments that overlap it well.

    Args:
        kept: [K, 2] segments after NMS.
        spans: [N, 2] segments before NMS.
        scores: [N] their scores before NMS.
        iou_threshold: smallest tIoU of a voter.
        weigh_by_iou: weight = score * tIoU (ActionFormer); False: weight = score (OpenTAD).

    Returns:
        [K, 2] in the type of `kept`; a segment without any voter stays as it is.

    Raises:
        ValueError: shapes that disagree, or values that are not finite.
    """
    spans, scores = _checked(spans, scores)
    kept = np.asarray(kept).reshape(-1, 2)
    first = np.zeros(len(kept), dtype=np.int64)
    moved = _vote(
        kept.astype(np.float32),
        spans.astype(np.float32),
        scores,
        np.arange(len(scores)),
        first,
        first + len(scores),
        np.float32(iou_threshold),
        weigh_by_iou,
    )
    return moved.astype(kept.dtype)


def _checked(spans: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    spans = np.asarray(spans)
    spans = spans if np.issubdtype(spans.dtype, np.floating) else spans.astype(np.float64)
    spans, scores = spans.reshape(-1, 2), np.asarray(scores, dtype=np.float32).reshape(-1)
    if len(spans) != len(scores):
        raise ValueError(f"{len(spans)} segments but {len(scores)} scores")
    if not (np.isfinite(spans).all() and np.isfinite(scores).all()):
        raise ValueError("segments and scores must be finite")
    return spans, scores


def _check_method(method: str, sigma: float) -> None:
    if method not in METHODS:
        raise ValueError(f"unknown NMS method {method!r}; known are {', '.join(METHODS)}")
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}")


def _limit(limit: int | None, count: int) -> int:
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    return count if limit is None else min(limit, count)


@compiled
def _soft(spans, scores, order, offsets, method, sigma, threshold, slope, min_score, limit):  # type: ignore[no-untyped-def]
    """Soft-NMS of each group order[offsets[g]:offsets[g + 1]]: kept input rows, lowered scores, group of each.

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
    group = np.empty(total, np.int64)
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
            group[out] = g
            out += 1
            start_i, end_i, area_i = start[i], end[i], area[i]
            bar = threshold + slope * area_i if method == 3 else threshold
            k = top = i + 1
            best = MINUS_INFINITY
            while k < live:
                inter = min(end_i, end[k]) - max(start_i, start[k])
                if inter > ZERO or (method != 2 and bar <= ZERO):
                    inter = max(inter, ZERO)
                    overlap = inter / ((area_i + area[k]) - inter)
                    if method == 2:
                        score[k] *= np.exp(-(overlap * overlap) / sigma)
                    elif overlap >= bar:
                        if method == 0:
                            score[k] = ZERO
                        elif method == 1:
                            score[k] *= ONE - overlap
                        else:
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
    return row[kept[:out]], score[kept[:out]], group[:out]


@compiled
def _hard(spans, order, offsets, threshold, limit):  # type: ignore[no-untyped-def]
    """Hard NMS of each group order[offsets[g]:offsets[g + 1]], sorted by score: kept input rows, group of each."""
    total = len(order)
    kept = np.empty(total, np.int64)
    group = np.empty(total, np.int64)
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
                group[out] = g
                out += 1
    return kept[:out], group[:out]


@compiled
def _vote(kept, spans, scores, voters, first, last, threshold, weigh_by_iou):  # type: ignore[no-untyped-def]
    """Each kept segment as the weighted mean of its voters among voters[first[k]:last[k]]."""
    moved = kept.copy()
    for k in range(len(kept)):
        weight_sum, start_sum, end_sum = 0.0, 0.0, 0.0
        start, end = kept[k, 0], kept[k, 1]
        for j in range(first[k], last[k]):
            r = voters[j]
            inter = min(end, spans[r, 1]) - max(start, spans[r, 0])
            if inter <= ZERO:
                continue
            overlap = inter / (((end - start) + (spans[r, 1] - spans[r, 0])) - inter)
            if overlap >= threshold:
                weight = scores[r] * overlap if weigh_by_iou else scores[r]
                weight_sum += weight
                start_sum += weight * spans[r, 0]
                end_sum += weight * spans[r, 1]
        if weight_sum > 0.0:
            moved[k, 0] = np.float32(start_sum / weight_sum)
            moved[k, 1] = np.float32(end_sum / weight_sum)
    return moved
