"""The timeline of one video: ground truth, points, pseudo-labels, detections and the activation curve, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from tad.data.segments import Segments
from tad.report.style import INK, MUTED, OTHER, PAGE, figure, plain, styled

LANES = 4
"""Overlapping segments of a row are drawn below each other, in at most this many lanes."""
CLASSES = 5
"""Curves of at most this many classes are drawn."""
COLUMNS = 700
"""A curve is thinned to about this many points, keeping its peaks."""


@dataclass(frozen=True)
class Curve:
    """What the proposer saw, at the centres of the snippets.

    Attributes:
        time: [T] seconds.
        actionness: [T], 1 - background.
        cas: a curve [T] for each class that is drawn.
    """

    time: np.ndarray
    actionness: np.ndarray
    cas: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Timeline:
    """Everything about one video; None where there is nothing of the kind, empty where it came out empty.

    Attributes:
        duration: seconds.
        points: (seconds, class name) of each point, or None.
        detections: the confident ones only.
        found: what to call these: in round 0 they are proposals.
    """

    video_id: str
    duration: float
    truth: Segments | None = None
    points: list[tuple[float, str]] | None = None
    labels: Segments | None = None
    detections: Segments | None = None
    curve: Curve | None = None
    found: str = "detections"

    @property
    def rows(self) -> list[tuple[str, Segments]]:
        """The rows of segments that are there, without the points."""
        rows = (("ground truth", self.truth), ("pseudo-labels", self.labels), (self.found, self.detections))
        return [(name, segments) for name, segments in rows if segments is not None]

    @property
    def annotated(self) -> list[str]:
        """Classes of ground truth and points, in order of appearance."""
        truth = self.truth.labels if self.truth is not None else []
        return list(dict.fromkeys([*truth, *(label for _, label in self.points or [])]))

    @property
    def classes(self) -> list[str]:
        """Classes that occur, the annotated ones first."""
        return list(dict.fromkeys([*self.annotated, *(c for _, segments in self.rows for c in segments.labels)]))

    def describe(self) -> str:
        """One sentence: what the figure shows."""
        parts = [f"{len(segments)} in {name}" for name, segments in self.rows]
        if self.points is not None:
            parts.append(f"{len(self.points)} points")
        return (
            f"Timeline of video {plain(self.video_id, 60)}, {self.duration:.0f} s: {', '.join(parts) or 'no segments'}"
        )


def timeline_figure(timeline: Timeline, colours: Mapping[str, str], title: str = "") -> Figure:
    """Rows of segments over the activation curve, time in seconds on the common axis.

    Args:
        timeline: what is drawn.
        colours: of the classes.
        title: drawn on top, for a figure that stands alone.

    Laid out by hand, in inches: it is quicker than matplotlib's layout, and the time axes of all timelines align.
    """
    rows = [_Row(name, segments, _lanes(segments)) for name, segments in timeline.rows]
    if timeline.points is not None:
        first = bool(rows) and rows[0].name == "ground truth"
        rows.insert(int(first), _Row("points", Segments.empty(), np.zeros(0, dtype=np.int64)))
    handles = _handles(timeline)
    columns = max(1, min(6, int(8.8 / (0.5 + 0.08 * max((len(h[0]) for h in handles), default=1)))))
    legend = 0.21 * -(-len(handles) // columns) + 0.12
    band = 0.42 * max(1.0, sum(row.height for row in rows))
    curve = 1.0 if timeline.curve is not None else 0.0
    left, width, below = 1.1, 10.0, 0.5
    heading = 0.3 if title else 0.03
    height = below + curve + 0.12 + band + legend + heading
    with styled():
        drawn = figure(width, height, layout=None)

        def place(low: float, tall: float, share: Axes | None = None) -> Axes:
            box = (left / width, low / height, (width - left - 0.12) / width, tall / height)
            return drawn.add_axes(box, sharex=share)

        top = place(below + curve + 0.12, band)
        bottom = top
        if timeline.curve is not None:
            bottom = place(below, curve, share=top)
            _draw_curve(bottom, timeline.curve, colours)
            top.tick_params(axis="x", length=0, labelbottom=False)
        _draw_rows(top, timeline, rows, colours)
        bottom.set_xlim(0, timeline.duration)
        bottom.set_xlabel("time [s]")
        shown = [
            Line2D([], [], color=INK, lw=0.9, label=label)
            if label == "actionness"
            else Patch(color=colours.get(name, OTHER) if name is not None else "none", label=label)
            for label, name in handles
        ]
        if shown:
            drawn.legend(
                handles=shown,
                loc="upper left",
                bbox_to_anchor=(left / width, 1 - heading / height),
                borderaxespad=0.0,
                borderpad=0.1,
                ncols=columns,
                handlelength=1.2,
                columnspacing=1.4,
            )
        if title:
            drawn.text(left / width, 1 - 0.07 / height, title, va="top", weight="bold")
    return drawn


@dataclass(frozen=True)
class _Row:
    name: str
    segments: Segments
    lanes: np.ndarray

    @property
    def lane_count(self) -> int:
        return int(self.lanes.max(initial=0)) + 1

    @property
    def height(self) -> float:
        """In rows of one lane."""
        return 1.0 if self.lane_count == 1 else 0.24 + 0.44 * self.lane_count


def _draw_rows(axes: Axes, timeline: Timeline, rows: list[_Row], colours: Mapping[str, str]) -> None:
    thinnest = timeline.duration / 500  # a segment of a long video is still seen
    edge, ticks = 0.0, []
    for row in rows:
        middle = edge + row.height / 2
        ticks.append(middle)
        if row.name == "points":
            points = timeline.points or []
            shades = [colours.get(label, OTHER) for _, label in points]
            axes.vlines([time for time, _ in points], edge + 0.15, edge + 0.85, colors=shades, lw=2.2)
        segments, labels = row.segments, row.segments.labels
        weights = segments.score if row.name == timeline.found else np.ones(len(segments))
        spans, bars, fills = segments.spans, [], []
        for i in np.argsort(weights, kind="stable"):  # the best on top
            start, end = spans[i]
            low, tall = edge + 0.14 + 0.44 * row.lanes[i], 0.72 if row.lane_count == 1 else 0.4
            bars.append(Rectangle((start, low), max(end - start, thinnest), tall))
            fills.append(to_rgba(colours.get(labels[i], OTHER), _alpha(float(weights[i]), weights)))
        axes.add_collection(PatchCollection(bars, facecolors=fills, edgecolors=PAGE, linewidths=0.6))
        if not len(segments) and not (row.name == "points" and timeline.points):
            axes.text(timeline.duration / 2, middle, "none", color=MUTED, ha="center", va="center", style="italic")
        edge += row.height
    axes.set_ylim(max(edge, 0.5), 0)
    axes.set_yticks(ticks, [row.name for row in rows])
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)


def _alpha(score: float, scores: np.ndarray) -> float:
    """Opacity 0.35 to 1 by score, relative to the highest in the video."""
    top = float(scores.max())
    return 0.35 + 0.65 * min(1.0, max(0.0, score / top)) if top > 0 else 0.35


def _lanes(segments: Segments) -> np.ndarray:
    """[N] int64: the lane of each segment, so that those of one lane do not overlap while lanes last."""
    lanes = np.zeros(len(segments), dtype=np.int64)
    ends = np.full(LANES, -np.inf)
    for i in np.lexsort((segments.end, segments.start)):
        free = np.flatnonzero(ends <= segments.start[i])
        lane = int(free[0]) if len(free) else int(ends.argmin())
        lanes[i], ends[lane] = lane, max(ends[lane], segments.end[i])
    return lanes


def _draw_curve(axes: Axes, curve: Curve, colours: Mapping[str, str]) -> None:
    time, actionness = _thin(curve.time, curve.actionness)
    axes.fill_between(time, actionness, color=MUTED, alpha=0.18, lw=0)
    axes.plot(time, actionness, color=INK, lw=0.9)
    for name, values in curve.cas.items():
        axes.plot(*_thin(curve.time, values), color=colours.get(name, OTHER), lw=1.3)
    axes.set_ylim(0, 1.03)
    axes.set_yticks([0, 0.5, 1])
    axes.set_ylabel("activation")


def _thin(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """[T] to about COLUMNS values: the highest of each block, at the block's middle."""
    block = -(-len(time) // COLUMNS)
    if block <= 1:
        return time, values
    pad = -len(time) % block
    time = np.pad(time, (0, pad), mode="edge").reshape(-1, block).mean(axis=1)
    return time, np.pad(values, (0, pad), mode="edge").reshape(-1, block).max(axis=1)


def _handles(timeline: Timeline) -> list[tuple[str, str | None]]:
    """The legend: label, and the class whose colour it explains."""
    names = timeline.classes
    handles: list[tuple[str, str | None]] = [(plain(name), name) for name in names[:12]]
    if len(names) > 12:
        handles.append((f"and {len(names) - 12} more classes", None))
    if timeline.curve is not None:
        handles.append(("actionness", None))
    return handles
