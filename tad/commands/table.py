"""Rows of text as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from tad.errors import printable


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """A line for each row, its columns side by side; rows may end early."""
    shown = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*shown, fillvalue="")]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip() for row in shown]
