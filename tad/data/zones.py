"""Zones: rows in a table of pseudo-labels that are no labels; a detector learns neither action nor background there."""

from __future__ import annotations

import numpy as np

from tad.data.segments import Segments

IGNORE = "ignore"
"""What the `source` of such a row starts with."""


def parted(table: Segments) -> tuple[Segments, Segments]:
    """The pseudo-labels of a table, and what is to be ignored."""
    codes, sources = table.codes("source")
    ignored = np.array([source.startswith(IGNORE) for source in sources], dtype=bool)[codes]
    return table.filter(~ignored), table.filter(ignored)
