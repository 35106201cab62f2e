"""Labels of one video made to share no time, except where two actions happen at once.

Legend: G labels of one video, ascending by their points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tad.data.segments import Segments
from tad.ops.iou import tiou

AT_ONCE = 0.5
"""Labels of two classes that hold each other's points and have this tIoU are two names of one stretch of time."""


class Apart(NamedTuple):
    """Labels by their points; those of one chain share no time."""

    spans: np.ndarray
    """[G, 2] seconds."""
    label: np.ndarray
    """[G] class indices."""
    time: np.ndarray
    """[G] seconds: the points, ascending."""
    chain: np.ndarray
    """[G] number of the chain; 0 unless an action happens at the same time as an earlier one."""


def apart(labels: Segments, classes: Sequence[str]) -> Apart:
    """The labels of one video, each with its point; where labels of a chain meet, the cut is between their points.

    A label that reaches a neighbour's point ends halfway to it; of two that overlap all the same, each gets half.
    """
    order = np.lexsort((labels.label_index(classes), labels.point))
    spans, time = labels.spans[order], labels.point[order]
    label = labels.label_index(classes)[order]
    chain = chains(spans, time, label)
    spans = spans.copy()
    for number in range(int(chain.max(initial=-1)) + 1):
        mine = np.flatnonzero(chain == number)
        half = (time[mine][1:] + time[mine][:-1]) / 2
        start, end = spans[mine].T.copy()
        start[1:] = np.where(start[1:] <= time[mine][:-1], half, start[1:])
        end[:-1] = np.where(end[:-1] >= time[mine][1:], half, end[:-1])
        over = end[:-1] > start[1:]
        middle = np.clip((end[:-1] + start[1:]) / 2, time[mine][:-1], time[mine][1:])
        end[:-1], start[1:] = np.where(over, middle, end[:-1]), np.where(over, middle, start[1:])
        spans[mine] = np.stack([start, end], axis=1)
    return Apart(spans, label, time, chain)


def chains(spans: np.ndarray, time: np.ndarray, label: np.ndarray) -> np.ndarray:
    """[G] chain of each label: the first whose labels so far do not happen at the same time as this one."""
    holds = (spans[:, None, 0] <= time) & (spans[:, None, 1] >= time)
    at_once = holds & holds.T & (tiou(spans, spans) >= AT_ONCE) & (label[:, None] != label)
    chain = np.zeros(len(time), dtype=np.int64)
    for g in range(len(time)):
        taken = set(chain[:g][at_once[g, :g]].tolist())
        chain[g] = next(number for number in range(g + 1) if number not in taken)
    return chain
