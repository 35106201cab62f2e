"""The only code that converts between seconds and snippets.

A feature file has one row per snippet. Snippet i is computed from the frames
[offset + i * stride, offset + i * stride + window) of a clock that ticks `fps` times a second, so its centre is
frame offset + i * stride + window / 2. Two snippet coordinates are in use; they differ by half a snippet, and
mixing them is the commonest bug of the field:

* position: row i sits at position i, the centre of its frames. Interpolation between rows, the points of a detector
  and anything else that reads feature rows use positions.
* edge: snippet i covers [i, i + 1). Runs of rows (threshold, group, crop) use edges. edge = position + 1/2.

The three published conventions are cases of it (methods HR-Pro, ActionFormer, and any resized-to-T set-up):

| convention | grid | published formula |
|---|---|---|
| 25 fps, 16 frames, no offset | fps 25, stride 16, window 16 | edge t * 25 / 16 |
| native fps, stride 4, window 16, centre offset | video's fps, stride 4, window 16 | position (t * fps - 8) / 4 |
| resized to T rows | SnippetGrid.resized(duration, T) | position t * T / duration - 1/2 |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

Number = TypeVar("Number", float, np.ndarray, Any)


@dataclass(frozen=True, slots=True)
class SnippetGrid:
    """Where the rows of one video's features lie in time.

    Attributes:
        fps: ticks per second of the clock that stride, window and offset count.
        stride: ticks from one snippet to the next.
        window: ticks that one snippet sees.
        length: number of snippets (rows), T.
        offset: tick at which the first snippet's window begins.

    Raises:
        ValueError: a rate, stride or window is not positive, or the length is below one.
    """

    fps: float
    stride: float
    window: float
    length: int
    offset: float = 0.0

    def __post_init__(self) -> None:
        if not (self.fps > 0 and self.stride > 0 and self.window > 0 and self.length >= 1):
            raise ValueError(
                "a snippet grid needs positive fps, stride and window and at least one row, got "
                f"fps={self.fps}, stride={self.stride}, window={self.window}, length={self.length}"
            )

    @classmethod
    def resized(cls, duration: float, length: int) -> SnippetGrid:
        """The grid of features that were resized in time to `length` rows over `duration` seconds."""
        return cls(fps=length / duration, stride=1.0, window=1.0, length=length)

    @property
    def rate(self) -> float:
        """Snippets per second."""
        return self.fps / self.stride

    def to_position(self, seconds: Number) -> Number:
        """Seconds to positions: row i's centre is at position i."""
        return (seconds * self.fps - self.offset - self.window / 2) / self.stride

    def from_position(self, position: Number) -> Number:
        """Positions to seconds; inverse of `to_position`."""
        return (position * self.stride + self.offset + self.window / 2) / self.fps

    def to_edge(self, seconds: Number) -> Number:
        """Seconds to edges: snippet i covers [i, i + 1)."""
        return self.to_position(seconds) + 0.5

    def from_edge(self, edge: Number) -> Number:
        """Edges to seconds; inverse of `to_edge`."""
        return self.from_position(edge - 0.5)

    def row(self, seconds: Number) -> np.ndarray:
        """The row whose cell holds each time, int64, clipped to [0, length - 1]."""
        # The tiny nudge keeps times that lie exactly on a cell border (k * stride / fps) in the cell they open.
        rows = np.floor(np.asarray(self.to_edge(seconds), dtype=np.float64) + 1e-9).astype(np.int64)
        return np.minimum(np.maximum(rows, 0), self.length - 1)

    @staticmethod
    def expected_length(duration: float, fps: float, stride: float, window: float, offset: float = 0.0) -> int:
        """How many whole snippets fit into `duration` seconds (at least one)."""
        frames = duration * fps - offset
        return max(1, int(np.floor((frames - window) / stride + 1e-6)) + 1)
