"""What the ablations of a paper are made of: ways to train, tables of them, and the steps between their rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from benchmarks.studies.real.rows import Way


class Line(NamedTuple):
    """A row of a paper's table."""

    text: str
    way: str
    figures: tuple[float | None, ...] = ()
    """The paper's mAP, one for each of `Paper.labels`; none where it has no such row or its number is not known."""


class Step(NamedTuple):
    """What one way gains over another."""

    text: str
    way: str
    against: str


class Table(NamedTuple):
    """A table of a paper."""

    title: str
    lines: tuple[Line, ...]
    steps: tuple[Step, ...]

    def figure(self, way: str, number: int) -> float | None:
        """The paper's figure of a way, with its labels of that number."""
        figures = next(line.figures for line in self.lines if line.way == way)
        return figures[number] if number < len(figures) else None


class Paper(NamedTuple):
    """The ablations of a paper.

    Attributes:
        labels: of the training videos (benchmarks/studies/real/data.py).
        measure: what its figures are.
        least: tIoU from which on mAP is averaged, as in the paper, where so low a one was measured.
        ways: by name, each behind a row or more.
    """

    name: str
    labels: tuple[str, ...]
    measure: str
    least: float
    ways: Mapping[str, Way]
    tables: tuple[Table, ...]
