"""Gaussian weighted fusion of segments: groups of overlapping candidates become one segment each, in place of NMS.

Source: GauFuse (CVPR 2023) and its released code. If the ends of a group's members are samples of one Gaussian, and the
variance of each falls exponentially with its weight variable, their softmax-weighted mean is the most likely segment.
Grouping is greedy, so a loop is inherent: it is compiled by numba. Legend: N segments in, K fused ones out.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from tad.ops.nms import compiled

Overlap = Literal["inter/candidate", "iou", "inter/min"]
Aggregate = Literal["mean", "max", "noisy-or"]


class Fused(NamedTuple):
    """What `gaussian_fusion` makes, best first."""

    spans: np.ndarray
    """[K, 2] float64 starts and ends."""
    scores: np.ndarray
    """[K] float64, descending."""
    labels: np.ndarray
    """[K] classes, in the input's type."""
    group: np.ndarray
    """[N] int64: the row above that each input segment went into."""


def gaussian_fusion(
    spans: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    *,
    temperature: float,
    overlap_threshold: float = 0.25,
    overlap: Overlap = "inter/candidate",
    aggregate: Aggregate = "mean",
    stretch: float = 0.0,
) -> Fused:
    """Fuses the candidates of each class: the best one left gathers what overlaps it, and all of them become one.

    A fused start is sum_j omega_j s_j with omega = softmax(weights / temperature) over the group, a fused end likewise.
    Any unit of time will do.

    Args:
        spans: [N, 2] starts and ends.
        scores: [N], any sign; they choose the anchors. Among equal ones the first in the input comes first.
        weights: [N] the weight variable: the scores themselves in the paper, the mean of the class's curve inside the
            candidate in the released code. Only differences within a group matter.
        labels: [N] integer class of each.
        temperature: of the softmax; infinity is the plain mean, near 0 the member of highest weight.
        overlap_threshold: a candidate joins the anchor if their overlap is above it.
        overlap: "inter/candidate" (published): intersection over the candidate's own length; "iou": over the union;
            "inter/min": over the shorter of the two. An empty segment overlaps nothing.
        aggregate: score of a group: "mean" with the same weights omega (published), which ranks a candidate below its
            own score if others joined it; "max"; "noisy-or": 1 - prod(1 - score), scores cut to [0, 1].
        stretch: what each segment lasts longer in overlaps; the released code has 1, in snippets.

    Raises:
        ValueError: temperature not positive, stretch negative, an unknown overlap or aggregate, shapes that disagree,
            values that are not finite, or segments that end before they start.
    """
    spans, scores, weights, labels = _checked(spans, scores, weights, labels)
    for name, value, known in (("overlap", overlap, Overlap), ("aggregate", aggregate, Aggregate)):
        if value not in get_args(known):
            raise ValueError(f"unknown {name} {value!r}; known are {', '.join(get_args(known))}")
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}")
    if not stretch >= 0:
        raise ValueError(f"stretch must not be negative, got {stretch}")
    best = np.argsort(-scores, kind="stable")
    classes = labels[best]
    if len(labels) and np.iinfo(np.int16).min <= labels.min() <= labels.max() <= np.iinfo(np.int16).max:
        classes = classes.astype(np.int16)  # sorted by radix, ten times as fast
    order = best[np.argsort(classes, kind="stable")]
    ends = np.flatnonzero(np.diff(labels[order])) + 1
    offsets = np.array([0, *ends, len(order)], dtype=np.int64)
    fused, anchors, group = _fuse(
        spans[order],
        scores[order],
        weights[order],
        offsets,
        float(temperature),
        float(overlap_threshold),
        get_args(Overlap).index(overlap),
        get_args(Aggregate).index(aggregate),
        float(stretch),
    )
    ranked = np.argsort(-fused[:, 2], kind="stable")
    place = np.empty(len(ranked), dtype=np.int64)
    place[ranked] = np.arange(len(ranked))
    back = np.empty(len(order), dtype=np.int64)
    back[order] = place[group]
    return Fused(fused[ranked, :2], fused[ranked, 2], labels[order[anchors[ranked]]], back)


def _checked(*columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    spans, scores, weights = (np.asarray(column, dtype=np.float64) for column in columns[:3])
    spans, scores, weights, labels = spans.reshape(-1, 2), scores.ravel(), weights.ravel(), np.asarray(columns[3])
    if not len(spans) == len(scores) == len(weights) == len(labels) or labels.ndim != 1:
        counts = f"{len(scores)} scores, {len(weights)} weights and labels of shape {labels.shape}"
        raise ValueError(f"{len(spans)} segments but {counts}")
    if not (np.isfinite(spans).all() and np.isfinite(scores).all() and np.isfinite(weights).all()):
        raise ValueError("segments, scores and weights must be finite")
    if (spans[:, 1] < spans[:, 0]).any():
        raise ValueError("segments must not end before they start")
    return spans, scores, weights, labels


@compiled
def _fuse(spans, scores, weights, offsets, temperature, threshold, overlap, aggregate, stretch):  # type: ignore[no-untyped-def]
    """Rows offsets[c]:offsets[c + 1] are a class, best first: fused starts, ends and scores [K, 3], rows of the anchors
    [K] and the group of each row [N].

    An anchor is compared with the candidates that start before it ends and not too early to reach it, those that are
    left: in the order of their starts, `following` leads from a candidate that is gone towards the next one left.
    """
    total = len(scores)
    fused = np.empty((total, 3))
    anchors = np.empty(total, np.int64)
    group = np.full(total, -1, np.int64)
    members = np.empty(total, np.int64)
    count = 0
    for c in range(len(offsets) - 1):
        base, size = offsets[c], offsets[c + 1] - offsets[c]
        by_start = np.argsort(spans[base : base + size, 0], kind="mergesort")
        start, end = spans[base : base + size, 0][by_start], spans[base : base + size, 1][by_start] + stretch
        following = np.arange(size + 1)
        longest = (end - start).max() if size else 0.0
        for anchor in range(base, base + size):
            if group[anchor] >= 0:
                continue
            start_i, end_i = spans[anchor, 0], spans[anchor, 1] + stretch
            members[0], found = anchor, 1
            k = _left(following, np.searchsorted(start, start_i - longest))
            while k < size and start[k] < end_i:
                j = base + by_start[k]
                joins = j == anchor
                inter = min(end_i, end[k]) - max(start_i, start[k])
                if inter > 0.0 and not joins:
                    length = end[k] - start[k]
                    if overlap == 1:
                        length = (end_i - start_i) + length - inter
                    elif overlap == 2:
                        length = min(end_i - start_i, length)
                    if inter / length > threshold:
                        joins = True
                        members[found] = j
                        found += 1
                if joins:
                    following[k] = k + 1
                k = _left(following, k + 1)
            group[members[:found]] = count
            anchors[count] = anchor
            fused[count, 0], fused[count, 1], fused[count, 2] = _merged(
                spans, scores, weights, members[:found], temperature, aggregate
            )
            count += 1
    return fused[:count], anchors[:count], group


@compiled
def _left(following, k):  # type: ignore[no-untyped-def]
    """The first candidate at k or later that is left; paths are halved on the way."""
    while following[k] != k:
        following[k] = following[following[k]]
        k = following[k]
    return k


@compiled
def _merged(spans, scores, weights, members, temperature, aggregate):  # type: ignore[no-untyped-def]
    """Start, end and score of one group; its anchor, the best one, is the first member."""
    anchor = members[0]
    start_i, end_i, score_i = spans[anchor, 0], spans[anchor, 1], scores[anchor]
    most = weights[anchor]
    for j in members:
        most = max(most, weights[j])
    # Means are taken of differences to the anchor: exact for a group of one, and as exact late in a video as early.
    total, start, end, score, miss = 0.0, 0.0, 0.0, 0.0, 1.0
    start_low, start_high, end_low, end_high = start_i, start_i, end_i, end_i
    for j in members:
        start_j, end_j, score_j = spans[j, 0], spans[j, 1], scores[j]
        omega = np.exp((weights[j] - most) / temperature)
        total += omega
        start += omega * (start_j - start_i)
        end += omega * (end_j - end_i)
        score += omega * (score_j - score_i)
        miss *= 1.0 - min(max(score_j, 0.0), 1.0)
        start_low, start_high = min(start_low, start_j), max(start_high, start_j)
        end_low, end_high = min(end_low, end_j), max(end_high, end_j)
    # Rounding must not carry a mean out of what it is the mean of.
    start = min(max(start_i + start / total, start_low), start_high)
    end = min(max(end_i + end / total, end_low), end_high)
    if aggregate == 1:
        return start, end, score_i
    if aggregate == 2:
        return start, end, 1.0 - miss
    return start, end, score_i + score / total
