"""What labels teach about rows: the class inside, background outside, and nothing around their ends.

Legend: T rows of a video, C classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.pser.apart import apart
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import StageConfig


class RowsConfig(StageConfig):
    """How models of rows are trained on labels."""

    folds: int = option(
        6,
        "parts of the training videos; each is judged by a model of the others",
        ge=2,
        le=20,
        tune=Choice(3, 6, 10),
        why="more folds: more videos for each model, and more models",
    )
    inside: float = option(
        0.15,
        "margin at each end of a label, inside it, of its length: such rows teach nothing",
        ge=0,
        le=0.5,
        tune=Float(0.0, 0.3),
        why="0 takes every label as true to its ends",
    )
    outside: float = option(
        0.3, "the same outside a label", ge=0, le=2, tune=Float(0.0, 0.6), why="0 takes every label as true to its ends"
    )
    margin_rows: float = option(
        3.0,
        "rows that the outer margin has at most; the inner one has half of them",
        gt=0,
        le=1000,
        tune=Float(1.0, 10.0, log=True),
        why="long actions are not less sharp at their ends than short ones",
    )
    hidden: int = option(128, "width of the row models", ge=1, le=4096, tune=Choice(64, 128, 256), why="small data")
    lr: bounds.Rate = option(1e-3, "of AdamW, with a cosine", tune=Float(3e-4, 3e-3, log=True), why="usual of Adam")
    steps: bounds.Count = option(
        400, "of training each time", tune=Integer(100, 1600, log=True), why="400 on recordings of 20 to 400 s"
    )


@dataclass(frozen=True)
class Teaching:
    """What labels teach about the rows of training videos.

    Attributes:
        config: its margins.
        data: the dataset.
        labels: by video, one for every point.
        first: the same labels before any change.
    """

    config: RowsConfig
    data: Dataset
    labels: Mapping[str, Segments]
    first: Mapping[str, Segments]

    def __call__(self, video: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """What each row of a video is to show [T, C + 1], and whether it teaches [T]; float32.

        A row teaches if it lies in no margin, and if the first labels, from which all started, say the same of it.
        Without the latter, what one round cuts away teaches the next that it is background, and labels go on shrinking.
        """
        target, weight = self._shown(self.labels[video], video, length)
        first, _ = self._shown(self.first[video], video, length)
        return target, weight * (target == first).all(1)

    def _shown(self, rows: Segments, video: str, length: int) -> tuple[np.ndarray, np.ndarray]:
        """What labels say of each row [T, C + 1], and whether it lies in no margin [T]; float32."""
        labels, grid = apart(rows, self.data.classes), self.data.grid(video, length)
        centre = grid.from_edge(np.arange(length) + 0.5)
        target = np.zeros((length, len(self.data.classes) + 1), dtype=np.float32)
        core, near = np.zeros(length, dtype=bool), np.zeros(length, dtype=bool)
        for (start, end), label, point in zip(labels.spans, labels.label, labels.time, strict=True):
            inner = min(self.config.inside * (end - start), self.config.margin_rows / 2 / grid.rate)
            outer = min(self.config.outside * (end - start), self.config.margin_rows / grid.rate)
            inside = (centre >= start) & (centre < end)
            inside[grid.row(point)] = True
            target[inside, label] = 1
            core |= (centre >= start + inner) & (centre < end - inner)
            core[grid.row(point)] = True
            near |= (centre >= start - outer) & (centre < end + outer)
        target[:, -1] = target.sum(1) == 0
        return target / target.sum(1, keepdims=True), (core | ~near).astype(np.float32)
