"""Which detection takes which true segment. Both rules are loops: who takes what depends on who came before."""

from __future__ import annotations

import numpy as np

from tad.ops.nms import compiled


@compiled
def by_detection(
    span: np.ndarray, low: np.ndarray, high: np.ndarray, truth: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Each detection, by descending score, takes the free true segment with the largest tIoU >= threshold.

    span [N, 2] by descending score; low, high [N]: the rows of truth [G, 2] that have its class and video; thresholds
    [T]. Of equal tIoUs the earlier row of truth is taken. Returns [N, T] bool: which detections take one.
    """
    count = len(thresholds)
    hit = np.zeros((len(span), count), dtype=np.bool_)
    taken = np.zeros((len(truth), count), dtype=np.bool_)
    best = np.empty(count)
    which = np.empty(count, dtype=np.int64)
    for n in range(len(span)):
        best[:] = -1.0
        for g in range(low[n], high[n]):
            inter = min(span[n, 1], truth[g, 1]) - max(span[n, 0], truth[g, 0])
            if inter <= 0:
                continue
            overlap = inter / (span[n, 1] - span[n, 0] + truth[g, 1] - truth[g, 0] - inter)
            for t in range(count):
                if overlap >= thresholds[t] and overlap > best[t] and not taken[g, t]:
                    best[t] = overlap
                    which[t] = g
        for t in range(count):
            if best[t] >= 0:
                hit[n, t] = True
                taken[which[t], t] = True
    return hit


@compiled
def by_truth(
    span: np.ndarray, rows: np.ndarray, low: np.ndarray, high: np.ndarray, truth: np.ndarray, thresholds: np.ndarray
) -> np.ndarray:
    """Each true segment, in order, takes the free detection with the largest tIoU if that is > threshold.

    span [N, 2]; rows [N]: its rows by class and video, in each by descending score; low, high [G]: the part of rows
    that has the class and video of each row of truth [G, 2]; thresholds [T]. Of equal tIoUs the earlier of rows is
    taken. Returns [N, T] bool: which detections are taken.
    """
    hit = np.zeros((len(span), len(thresholds)), dtype=np.bool_)
    for g in range(len(truth)):
        for t in range(len(thresholds)):
            best = 0.0
            which = -1
            for k in range(low[g], high[g]):
                n = rows[k]
                if hit[n, t]:
                    continue
                inter = min(span[n, 1], truth[g, 1]) - max(span[n, 0], truth[g, 0])
                if inter <= 0:
                    continue
                overlap = inter / (max(span[n, 1], truth[g, 1]) - min(span[n, 0], truth[g, 0]))
                if overlap > best:
                    best = overlap
                    which = n
            if which >= 0 and best > thresholds[t]:
                hit[which, t] = True
    return hit
