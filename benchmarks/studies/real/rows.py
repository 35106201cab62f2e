"""The rows of the benchmark: which ways are tried on which labels of which dataset. A new recipe is one line."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple


class Way(NamedTuple):
    """How detections are made: `tad run RECIPE --rounds ROUNDS --set CHANGE ... --local` does the same."""

    recipe: str
    changes: tuple[str, ...] = ()
    rounds: int = 1

    @property
    def overrides(self) -> tuple[str, ...]:
        return (*self.changes, f"rounds={self.rounds}")


WAYS: dict[str, Way | None] = {
    "probe": None,  # a linear probe with thresholded runs: benchmarks/studies/real/probe.py
    "proposer": Way("seeds", rounds=0),
    "seeds": Way("seeds"),
    "pser": Way("pser"),
    "pser-two-rounds": Way("pser", rounds=2),
    "points": Way("seeds", ("labeler.method=points",)),
    "potloc": Way("potloc-small"),
    "potloc-alone": Way("potloc-small", ("detector.decode.curve_share=0", "detector.decode.video_power=0")),
    "hrpro-stage-1": Way("hrpro-small", rounds=0),
    "hrpro": Way("hrpro-small"),
    "snippet-classes": Way("snippet-classes", rounds=0),
    "gaufuse-base": Way("gaufuse-small", rounds=0),
    "gaufuse": Way("gaufuse-small"),
    "gaufuse-student": Way("gaufuse-student"),
    "mixed": Way("mixed"),
    # What boundaries and points teach alone: no fused candidate scores above 1.
    "mixed-given": Way("mixed", ("labeler.fusion.gate.min_score=1.0",)),
    "apl": Way("apl-small"),
    "few-full": Way("few-full"),
    "full": Way("actionformer-full", rounds=0),
}

POINTS = (
    "probe",
    "proposer",
    "seeds",
    "pser",
    "pser-two-rounds",
    "points",
    "potloc",
    "potloc-alone",
    "hrpro-stage-1",
    "hrpro",
)
SOME = ("probe", "full", "apl", "few-full")
MIXED = ("mixed-given", "mixed")
MATRIX: dict[str, dict[str, tuple[str, ...]]] = {
    "shrec22": {
        "points": POINTS,
        "uniform": POINTS,
        "late": POINTS,
        "classes": ("proposer", "snippet-classes", "gaufuse-base", "gaufuse", "gaufuse-student"),
        "full10": SOME,
        "full40": SOME,
        "full10-points": ("pser", "mixed"),
        "several": MIXED,
        "full": ("probe", "full"),
    },
    # Nearly every recording holds all classes, so there is nothing to learn from classes alone.
    "sbhar": {
        "points": POINTS,
        "uniform": POINTS,
        "late": POINTS,
        "full10": SOME,
        "full40": SOME,
        "full10-points": ("pser", "mixed"),
        "several": MIXED,
        "full": ("probe", "full"),
    },
}
"""By dataset, then by labels of the training videos (benchmarks/studies/real/data.py)."""


PAPERS_MARK = ":"
"""Between paper and row in the names of the papers' ablations (benchmarks/studies/papers), which are no rows here."""


class Row(NamedTuple):
    """One line of the tables; with a seed, one result."""

    dataset: str
    labels: str
    way: str

    @property
    def name(self) -> str:
        return "/".join(self.document().values())

    def document(self) -> dict[str, str]:
        """The row in a result; of a dataset that is a folder its name."""
        return {**self._asdict(), "dataset": Path(self.dataset).name}


ROWS = [Row(dataset, labels, way) for dataset, part in MATRIX.items() for labels, ways in part.items() for way in ways]


def chosen(patterns: Sequence[str] | None) -> list[Row]:
    """The rows of this benchmark whose names match one of the patterns ("shrec22/points/*"); all without patterns.

    Raises:
        SystemExit: a pattern matches none.
    """
    return matching(ROWS, patterns)


def matching(rows: Sequence[Row], patterns: Sequence[str] | None) -> list[Row]:
    """Those of the rows whose names match one of the patterns; all without patterns.

    Raises:
        SystemExit: a pattern matches none.
    """
    for pattern in patterns or ():
        if not any(fnmatch(row.name, pattern) for row in rows):
            raise SystemExit(f"--only {pattern}: matches no row; --list prints them all")
    return [row for row in rows if patterns is None or any(fnmatch(row.name, p) for p in patterns)]
