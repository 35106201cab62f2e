"""Which conclusions about boundaries were the generator's own: labels on generated features of two kinds.

`python -m benchmarks.studies.boundary_cues --out DIR` invents a dataset at the usual setting of `tad synth` ("weak":
jittered boundaries, weak ends, a background that looks like the action) and one at which boundaries can be found
("clear"). Videos, annotations, points and random numbers are the same. It measures mean tIoU of each point's label, for
labelers and for parts that set boundaries, each beside the labels without it; a seed is one of generator and models.
Prints Markdown (docs/results/generated.md). Finished stages are kept in DIR. A seed takes about three minutes for each
setting, most of them for the detectors behind labels of a second round.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.studies.objectives import table
from benchmarks.studies.papers.hrpro import NO_NP, SCORE
from benchmarks.studies.papers.potloc import EVERYTHING
from benchmarks.studies.real.pser_parts import ENDS, ROWS, bound
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import label_quality
from tad.methods.pser.cross_fitting import set_anew
from tad.methods.pser.labeler import PserLabeler
from tad.prepare.synth import make_dataset
from tad.prepare.synth_video import jittered
from tad.prepare.synth_world import Cues, Levels
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

CLASSES, DIM = 5, 64
SETTINGS = {"weak": Cues(), "clear": Cues(jitter=0.04, edge_drop=0.1, context=0.1)}
REDRAWN = 50
"""Draws of jittered boundaries that the first row is the mean of."""
SHOWN, TAUGHT = "where the features begin and end", "rows taught by the true boundaries, no votes"


class Row(NamedTuple):
    """One kind of labels."""

    recipe: str
    changes: tuple[str, ...] = ()
    against: str = ""
    """The row without the part."""
    round: int = 1
    """Whose labels; from the second on they are made of a detector's detections."""
    kind: str = "labels"
    """labels, seeds, or anew: cross-fitted ones whether they are believed or not."""


def bag(*merge: str) -> tuple[str, ...]:
    return ("labeler.refine=bag", *(f"labeler.merge.{change}" for change in merge))


SEEDS, BAG, ANEW, HRPRO = "`pser-seed`", "`pser`, bag", "`pser`, rows always believed", "`hrpro`, its second stage"
CHANGE = "`gaufuse`, third round"
LABELS: Mapping[str, Row] = {
    SEEDS: Row("seeds"),
    "`potloc`": Row("potloc-small", (), SEEDS),
    "`hrpro`": Row("hrpro-small", (), SEEDS),
    "`points`": Row("seeds", ("labeler.method=points",), SEEDS),
    BAG: Row("pser", bag(), SEEDS),
    "bag, plain mean of the copies": Row("pser", bag("rank_power=0"), SEEDS),
    "bag, the published product": Row("pser", bag("class_power=1", "instance_power=1", "rank_power=1"), BAG),
    "**`pser`**": Row("pser", (), SEEDS),
    ANEW: Row("pser", (), SEEDS, kind="anew"),
    "rows, one round": Row("pser", ("labeler.cross_fitting.rounds=1",), ANEW, kind="anew"),
    "rows, no margins": Row("pser", (ROWS + "inside=0", ROWS + "outside=0"), ANEW, kind="anew"),
    "rows, wider margins": Row(
        "pser", (ROWS + "inside=0.25", ROWS + "outside=0.45", ROWS + "margin_rows=8"), ANEW, kind="anew"
    ),
    "rows, first labels do not vote": Row("pser", (ENDS + "vote=0",), ANEW, kind="anew"),
    "rows, first labels vote twice as much": Row("pser", (ENDS + "vote=40",), ANEW, kind="anew"),
    "rows, usual lengths do not count": Row("pser", (ENDS + "length_weight=0",), ANEW, kind="anew"),
    HRPRO: Row("hrpro-small", (), "`hrpro`", 2),
    "second stage, no regression": Row("hrpro-small", SCORE, HRPRO, 2),
    "second stage, refined boundaries alone": Row(
        "hrpro-small", ("detector.decode.keep=refined",), "second stage, no regression", 2
    ),
    "second stage, no negative proposals": Row("hrpro-small", NO_NP, HRPRO, 2),
    "`potloc`, after its detector": Row("potloc-small", (), "`potloc`", 2),
    "the same, its detector taught all rows": Row("potloc-small", EVERYTHING, "`potloc`, after its detector", 2),
    "`pser-seed`, after ActionFormer": Row("seeds", (), SEEDS, 2),
    "`gaufuse` without fusion, from classes": Row("gaufuse-small", kind="seeds"),
    "`gaufuse`": Row("gaufuse-small", (), "`gaufuse` without fusion, from classes"),
    CHANGE: Row("gaufuse-small", (), "`gaufuse`", 3),
    "`gaufuse`, as much training without labels": Row("gaufuse-small", ("detector.schedule.weight=0",), CHANGE, 3),
}


class Measured(NamedTuple):
    tiou: float
    octaves: float
    """Median log2 of the label's length in lengths of the action."""


def measured(labels: Segments, data: Dataset) -> Measured:
    quality = label_quality(labels, data)
    length, own = (np.diff(spans, axis=1)[~quality.missing] for spans in (quality.pseudo, quality.truth))
    return Measured(float(quality.tiou.mean()), float(np.median(np.log2(length / own))))


def labels_of(row: Row, engine: Engine) -> Segments:
    recipe = load_recipe(row.recipe, row.changes)
    rounds = Rounds(recipe, engine)
    if row.kind == "seeds":
        return rounds.seeds(row.round).segments()
    if row.kind == "anew":
        labeler, now = recipe.labeler, rounds.round(row.round)
        assert isinstance(labeler, PserLabeler)
        seeds = labeler.seeds(now)
        return set_anew(now, labeler.cross_fitting, seeds, seeds).segments()
    return rounds.labels(row.round).segments.segments()


def shown(data: Dataset, jitter: float, seed: int) -> Measured:
    """Of the segments that features show, by the generator's own jitter, drawn anew."""
    truth, rng = ground_truth(data, "train"), np.random.default_rng(seed)
    drawn = []
    for _ in range(REDRAWN):
        spans = jittered(truth.spans, jitter, rng)
        drawn.append(measured(truth.replace(start=np.maximum(spans[:, 0], 0), end=spans[:, 1]), data))
    return Measured(*np.mean(drawn, axis=0).tolist())


def of_seed(setting: str, seed: int, options: argparse.Namespace) -> dict[str, Measured]:
    """The rows on one dataset."""
    cues, difficulty, work = SETTINGS[setting], options.difficulty, options.out
    folder = work / f"{setting}-{difficulty:g}-{options.videos}-{seed}"
    if not (folder / "dataset.yaml").is_file():
        make_dataset(
            folder, videos=options.videos, test=0, classes=CLASSES, dim=DIM, seed=seed, difficulty=difficulty, cues=cues
        )
    data = Dataset.open(folder)
    engine = Engine(data, Store(work / "store"), Record(work / "runs" / folder.name, quiet=True), seed)
    found = {SHOWN: shown(data, Levels.at(difficulty, cues).jitter, seed)}
    for name in options.rows:
        found[name] = measured(labels_of(LABELS[name], engine), data)
        print(f"{folder.name}, {name}: {found[name].tiou:.3f}", flush=True)
    found[TAUGHT] = measured(bound(Rounds(load_recipe("seeds"), engine), data), data)
    return found


def three(value: float, plus: str = "") -> str:
    return f"{round(value, 3) + 0.0:{plus}.3f}".replace("0.", ".", 1)


def result(found: Mapping[str, list[dict[str, Measured]]]) -> str:
    """The table, of every setting's seeds; without gain where the row beside it was left out."""
    head = ["labels", "without it", *(f"{setting}: {what}" for setting in found for what in ("tIoU", "gain", "length"))]
    lines = []
    for name in next(iter(found.values()))[0]:
        against = LABELS[name].against if name in LABELS else ""
        line = [name, against]
        for seeds in found.values():
            line.append(three(float(np.mean([seed[name].tiou for seed in seeds]))))
            gains = [seed[name].tiou - seed[against].tiou for seed in seeds] if against in seeds[0] else []
            spread = [three(g, "+") for g in (min(gains), max(gains))] if gains else []
            line.append(f"{three(float(np.mean(gains)), '+')} ({' to '.join(spread)})" if gains else "")
            line.append(f"{np.mean([seed[name].octaves for seed in seeds]):+.2f}")
        lines.append(line)
    return table(head, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where datasets and stages are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", choices=SETTINGS, nargs="+", default=list(SETTINGS))
    parser.add_argument("--difficulty", type=float, default=0.5, help="of all else in the generator, 0 to 1")
    parser.add_argument("--videos", type=int, default=60, help="training videos")
    parser.add_argument("--rows", choices=LABELS, metavar="ROW", nargs="+", default=list(LABELS), help="all by default")
    options = parser.parse_args()
    found = {setting: [of_seed(setting, seed, options) for seed in options.seeds] for setting in options.settings}
    print(f"\n{result(found)}")


if __name__ == "__main__":
    main()
