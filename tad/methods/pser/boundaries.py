"""Boundaries by what rows and first labels say together: stage `pser/boundaries`.

In a video the points name the actions and their order; what is open is where each begins and ends. The labels are those
of all sets of segments, one around every point and none over another, with the largest

    sum over labels of  sum over rows inside of (log p(class) / p(background) +- vote / length of the first label)
                        - length_weight / 2 ((log length - log usual length of the class) / LENGTH_SPREAD)^2

where p comes from models that never saw the video (`rows.py`), and the first label votes for its own rows and against
all others. Found exactly, by dynamic programming. It does what PseR's bag does with 21 copies of a seed: there the
members are all segments around the point.

Legend: T rows of a video, C classes, G labels of one chain.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.methods.common.seeds import inside
from tad.methods.pser.apart import apart
from tad.ops.nms import compiled
from tad.options import option
from tad.ranges import Float
from tad.stages import Context, StageConfig

LENGTH_SPREAD = 0.35
"""Of the log length within a class."""
PRIOR = 2.0
"""Labels of the median length that each class gets beside its own."""


class BoundariesConfig(StageConfig):
    """What weighs how much; see above."""

    vote: float = option(
        20.0,
        "log odds of a first label over its length: to move an end by a tenth, rows must outweigh a tenth of this",
        ge=0,
        le=1000,
        tune=Float(0.0, 60.0),
        why="0 leaves labels to the rows; where these say little, the vote holds them",
    )
    length_weight: float = option(
        2.0,
        "how much the usual length of its class draws a label",
        ge=0,
        le=100,
        tune=Float(0.0, 4.0),
        why="0 leaves lengths to rows and votes",
    )


@dataclass(frozen=True)
class Boundaries:
    """Map stage: labels with new boundaries, one for every label of input "labels".

    Inputs: "labels" and "first", the same before any change, of the videos; "odds", of their rows; "usual", labels
    whose lengths are the usual ones of their class, without which lengths do not count. A label's score is the mean
    probability of its class over its rows.
    """

    config: BoundariesConfig
    name: str = "pser/boundaries"
    version: int = 4
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, odds = self.config, context.data, context.inputs["odds"]
        given, first = (context.inputs[name].by_video() for name in ("labels", "first"))
        usual, length_weight = np.zeros(len(data.classes)), 0.0
        if "usual" in context.inputs:
            usual = usual_lengths(context.inputs["usual"].segments(), data.classes)
            length_weight = config.length_weight

        def refine(video: str) -> Segments:
            rows = given.get(video, Segments.empty())
            if not len(rows):
                return rows
            labels, log_p = apart(rows, data.classes), odds.array("log_p", video).astype(np.float64)
            grid = data.grid(video, len(log_p))
            gain = (log_p[:, :-1] - log_p[:, -1:]).T[labels.label]
            gain += config.vote * votes(apart(first[video], data.classes).spans, grid)
            spans, scores = labels.spans.copy(), np.zeros(len(labels.time))
            for number in range(int(labels.chain.max()) + 1):
                mine = np.flatnonzero(labels.chain == number)
                if len(mine) > len(log_p):
                    continue  # more labels than rows: they stay
                label = labels.label[mine]
                points = own_rows(grid.row(labels.time[mine]), len(log_p))
                edges = best(gain[mine], points, usual[label] + np.log(grid.rate), length_weight)
                spans[mine] = grid.from_edge(between_rows(edges, gain[mine]))
                scores[mine] = [np.exp(log_p[a:b, c]).mean() for (a, b), c in zip(edges, label, strict=True)]
                spans[mine] = holding(spans[mine], labels.time[mine], 0.5 / grid.rate)
            spans = inside(spans, 0.0, data.duration(video))
            names = [data.classes[i] for i in labels.label]
            return Segments.of(video, spans[:, 0], spans[:, 1], names, scores, labels.time, context.source)

        return refine


def votes(spans: np.ndarray, grid: SnippetGrid) -> np.ndarray:
    """[G, T] for rows inside a label one over the rows that it covers (1 at least), for the others the negative."""
    centre, (start, end) = grid.from_edge(np.arange(grid.length) + 0.5), spans.T[:, :, None]
    side = np.where((centre >= start) & (centre < end), 1.0, -1.0)
    return np.asarray(side / np.maximum((end - start) * grid.rate, 1.0))


def usual_lengths(labels: Segments, classes: Sequence[str]) -> np.ndarray:
    """[C] median log length of each class, in seconds, drawn to that of all by PRIOR labels."""
    log_length, label = np.log(labels.end - labels.start), labels.label_index(classes)
    found = np.full(len(classes), np.median(log_length) if len(labels) else 0.0)
    for index in np.unique(label):
        own = log_length[label == index]
        found[index] = (len(own) * np.median(own) + PRIOR * found[index]) / (len(own) + PRIOR)
    return found


def holding(spans: np.ndarray, time: np.ndarray, shortest: float) -> np.ndarray:
    """[G, 2] seconds: labels of one chain that hold their points and reach none of their neighbours'.

    Args:
        spans: [G, 2].
        time: [G] of the points, ascending.
        shortest: what is shorter gets so many seconds about its middle first.
    """
    short = np.maximum(shortest - (spans[:, 1] - spans[:, 0]), 0.0) / 2
    start, end = np.minimum(spans[:, 0] - short, time), np.maximum(spans[:, 1] + short, time)
    start[1:], end[:-1] = np.maximum(start[1:], time[:-1]), np.minimum(end[:-1], time[1:])
    end[:-1] = np.minimum(end[:-1], start[1:])
    return np.stack([start, end], axis=1)


def own_rows(points: np.ndarray, rows: int) -> np.ndarray:
    """[G] ascending rows, moved as little as it takes for each to have its own; G is at most the number of rows."""
    order = np.arange(len(points))
    return np.minimum(np.maximum.accumulate(points - order) + order, rows - len(points) + order)


def best(gain: np.ndarray, points: np.ndarray, log_length: np.ndarray, length_weight: float) -> np.ndarray:
    """[G, 2] first row and row after the last of each label: the set of segments with the largest sum.

    Args:
        gain: [G, T] what each row adds to a label that it lies in.
        points: [G] rows of the points, ascending, no two alike.
        log_length: [G] usual log length in rows.
        length_weight: see above.
    """
    summed = np.concatenate([np.zeros((len(gain), 1)), np.cumsum(gain, axis=1)], axis=1)
    return _best(summed, points, log_length, length_weight / 2 / LENGTH_SPREAD**2)


@compiled
def _best(summed, points, log_length, weight):  # type: ignore[no-untyped-def]
    """`value[e]`: the largest sum of the labels so far if the next begins at e; `came[e]`: where the last one ends."""
    count, rows = summed.shape[0], summed.shape[1] - 1
    value, came = np.zeros(rows + 1), np.zeros((count + 1, rows + 1), np.int64)
    starts = np.zeros((count, rows + 1), np.int64)
    for g in range(count):
        point = points[g]
        first = points[g - 1] + 1 if g > 0 else 0
        last = points[g + 1] if g + 1 < count else rows
        first, last = min(first, point), max(last, point + 1)
        new = np.full(rows + 1, -np.inf)
        top, top_end = -np.inf, point + 1
        for end in range(point + 1, rows + 1):
            found = -np.inf
            if end <= last:
                for start in range(first, point + 1):
                    away = np.log(end - start) - log_length[g]
                    total = value[start] + summed[g, end] - summed[g, start] - weight * away * away
                    if total > found:
                        found, starts[g, end] = total, start
            if found > top:
                top, top_end = found, end
            new[end], came[g + 1, end] = top, top_end
        value = new
    edges, limit = np.empty((count, 2), np.int64), top_end
    for g in range(count - 1, -1, -1):
        edges[g, 0], edges[g, 1] = starts[g, limit], limit
        limit = came[g, edges[g, 0]]
    return edges


def between_rows(edges: np.ndarray, gain: np.ndarray) -> np.ndarray:
    """[G, 2] float64 edges: each end moved, by half a row at most, to where the log odds pass through zero."""
    found = edges.astype(np.float64)
    for g, (start, end) in enumerate(edges):
        for side, out, within in ((0, start - 1, start), (1, end, end - 1)):
            if 0 <= out < gain.shape[1] and gain[g, out] < 0 < gain[g, within]:
                part = gain[g, within] / (gain[g, within] - gain[g, out])
                found[g, side] += (0.5 - part) if side == 0 else (part - 0.5)
    over = found[:-1, 1] > found[1:, 0]
    found[:-1, 1][over] = found[1:, 0][over] = (found[:-1, 1] + found[1:, 0])[over] / 2
    return found
