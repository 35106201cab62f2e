"""The rows of all papers on a dataset, as those of benchmarks/studies/real/rows.py: `shrec22/points/hrpro:base`."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.studies.papers import apl, gaufuse, hrpro, potloc
from benchmarks.studies.real.rows import PAPERS_MARK, Row, Way, matching

PAPERS = (hrpro.PAPER, potloc.PAPER, gaufuse.PAPER, apl.PAPER)
WAYS: dict[str, Way] = {paper.name + PAPERS_MARK + name: way for paper in PAPERS for name, way in paper.ways.items()}


def chosen(dataset: str, patterns: Sequence[str] | None) -> list[Row]:
    """The rows on a dataset whose names match one of the patterns ("*/hrpro:*"); all without patterns.

    Raises:
        SystemExit: a pattern matches none.
    """
    rows = [
        Row(dataset, labels, paper.name + PAPERS_MARK + way)
        for paper in PAPERS
        for labels in paper.labels
        for way in paper.ways
    ]
    return matching(rows, patterns)
