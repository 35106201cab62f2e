"""One result: a row with a seed, trained, detected and judged as in benchmarks/studies/real/train.py, without F1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.studies.papers.rows import WAYS
from benchmarks.studies.real import judge
from benchmarks.studies.real.data import Part, labelled
from benchmarks.studies.real.rows import Row
from benchmarks.studies.real.train import by_recipe, commit, read_again

TIOUS = (0.1, 0.2, *judge.TIOUS)
"""On a dataset's own test videos, by the protocol of HR-Pro, which leaves ambiguous intervals out."""


def result(row: Row, seed: int, part: Part, out: Path) -> dict[str, Any]:
    """Trains and judges: on dev videos as the benchmark does, on test videos as the papers do.

    Raises:
        TadError: the recipe does not fit the labels, or a stage failed.
    """
    data = labelled(row.dataset, row.labels, part, out)
    reads = {"reads": read_again(out, f"{row.name} seed {seed}")} if part == "test" else {}
    made = by_recipe(WAYS[row.way], row, data, seed, part, out)
    how = (TIOUS, "hrpro") if part == "test" else (judge.TIOUS, "anet")
    return {
        **row.document(),
        "seed": seed,
        "part": part,
        "map": judge.mean_ap(made.found, data, part, *how),
        "labels_quality": judge.quality(made.labels, data) if made.labels is not None else None,
        "seconds": round(made.seconds, 1),
        "commit": commit(),
        **reads,
    }
