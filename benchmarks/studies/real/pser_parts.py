"""What the parts of PseR's cross-fitted labels do on real recordings.

`python -m benchmarks.studies.real.pser_parts --out DIR` labels the training videos of the dev part and judges labels by
their boundaries: mean tIoU of each point's label, over the seeds of the proposer. With `--out DIR` of
benchmarks.studies.real, stages are shared with it. Prints Markdown (tad/methods/pser/README.md). A seed takes about
eight CPU minutes, nearly all of it for the bags.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from pathlib import Path

import numpy as np

from benchmarks.studies.objectives import table
from benchmarks.studies.real.data import DATASETS, labelled
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.quality_by_point import label_quality
from tad.methods.pser.boundaries import Boundaries, BoundariesConfig
from tad.methods.pser.rows import RowOdds, RowsConfig
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

PROTOCOLS = ("points", "uniform", "late")
ROWS, ENDS = "labeler.cross_fitting.rows.", "labeler.cross_fitting.boundaries."
SEEDS, BOUND = "`pser-seed`", "rows taught by the true boundaries, no votes (a bound)"
VARIANTS: dict[str, tuple[str, ...]] = {
    SEEDS: ("labeler.method=pser-seed",),
    "PseR, bag": ("labeler.refine=bag",),
    "**PseR, cross-fitted**": (),
    "one round": ("labeler.cross_fitting.rounds=1",),
    "two rounds": ("labeler.cross_fitting.rounds=2",),
    "four rounds": ("labeler.cross_fitting.rounds=4",),
    "three folds": (ROWS + "folds=3",),
    "ten folds": (ROWS + "folds=10",),
    "no margins": (ROWS + "inside=0", ROWS + "outside=0"),
    "narrower margins": (ROWS + "inside=0.1", ROWS + "outside=0.2", ROWS + "margin_rows=3"),
    "wider margins": (ROWS + "inside=0.25", ROWS + "outside=0.45", ROWS + "margin_rows=8"),
    "first labels do not vote": (ENDS + "vote=0",),
    "they vote half as much": (ENDS + "vote=10",),
    "twice": (ENDS + "vote=40",),
    "usual lengths do not count": (ENDS + "length_weight=0",),
    "they count twice as much": (ENDS + "length_weight=4",),
}


def mean_tiou(labels: Segments, data: Dataset) -> float:
    return float(label_quality(labels, data).tiou.mean())


def bound(rounds: Rounds, data: Dataset) -> Segments:
    """The same search with the rows of other videos judged by models of true boundaries."""
    first = rounds.round(1).adopt(_pointed(rounds.labels(1).segments.segments(), data), "truth")
    odds = rounds.round(1).map(RowOdds(RowsConfig(inside=0, outside=0)), {"taught": first})
    stage = Boundaries(BoundariesConfig(vote=0))
    known = {"labels": first, "first": first, "odds": odds}
    return rounds.round(1).map(stage, known | {"usual": rounds.round(1).map(stage, known)}).segments()


def _pointed(labels: Segments, data: Dataset) -> Segments:
    """The labels with the boundaries of their points' actions."""
    quality = label_quality(labels, data)
    true = {tuple(pseudo): truth for pseudo, truth in zip(quality.pseudo.tolist(), quality.truth, strict=True)}
    spans = np.array([true[tuple(span)] for span in labels.spans.tolist()])
    return labels.replace(start=spans[:, 0], end=spans[:, 1])


def measured(work: Path, seeds: list[int]) -> str:
    """The table: rows are variants, columns data sets and kinds of points."""
    found: dict[str, list[float]] = {name: [] for name in (*VARIANTS, BOUND)}
    columns = [(dataset, protocol) for dataset in DATASETS for protocol in PROTOCOLS]
    for dataset, protocol in columns:
        data = labelled(dataset, protocol, "dev", work)
        values: dict[str, list[float]] = {name: [] for name in found}
        for seed in seeds:
            place = work / "runs" / f"parts-{dataset}-{protocol}-{seed}"
            engine = Engine(data, Store(work / "store"), Record(place, quiet=True), seed)
            for name, changes in VARIANTS.items():
                labels = Rounds(load_recipe("pser", changes), engine).labels(1).segments.segments()
                values[name].append(mean_tiou(labels, data))
            values[BOUND].append(mean_tiou(bound(Rounds(load_recipe("seeds"), engine), data), data))
        for name, own in values.items():
            found[name].append(float(np.mean(own)))
    heads = ["labels", *(f"{dataset}, {protocol}" for dataset, protocol in columns)]
    return table(heads, [[name, *(f"{v:.3f}".removeprefix("0") for v in row)] for name, row in found.items()])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where stages are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    print(measured(options.out, options.seeds))
