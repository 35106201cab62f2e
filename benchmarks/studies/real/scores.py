"""Whether the score of points sees which labels are better: `python -m benchmarks.studies.real.scores --out DIR`.

Labelers of graded quality label the training videos of the dev part; some of them teach a detector. What the truth says
of them (mean tIoU of the labels; mAP of the detections on dev videos, which took no part) is correlated with what two
references say that read no boundary: the one of proposals alone, and the one that `points_score` stands on. With
`--out DIR` of benchmarks.studies.real, stages are shared with it. Prints Markdown (docs/results/objectives.md).
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.studies.objectives import shown, spearman, table
from benchmarks.studies.real import judge
from benchmarks.studies.real.data import DATASETS, labelled
from benchmarks.studies.real.rows import Way
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.evaluation.quality_by_point import label_quality
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds
from tad.selection.label_free_scores import label_change, points_score
from tad.selection.reference import by_proposals, reference

ANEW, BAG = "labeler.cross_fitting.", ("labeler.refine=bag", "labeler.merge.contain_point=false")
EPOCHS = {"shrec22": ("detector.training.epochs=12",), "sbhar": ()}
"""12 of the usual 35: what is asked for is the order."""


def seeds(*changes: str) -> Way:
    return Way("seeds", changes)


def pser(*changes: str) -> Way:
    return Way("pser", changes)


LABELERS: dict[str, Way] = {
    "seeds": seeds(),
    "seeds, score > .9, 1 s": seeds("labeler.seed_rule.min_score=0.9", "labeler.seed_rule.half_width=1.0"),
    "points": seeds("labeler.method=points"),
    "points, compression 1.5": seeds("labeler.method=points", "labeler.compression=1.5"),
    "points, compression .6": seeds("labeler.method=points", "labeler.compression=0.6"),
    "points, sharpness 0": seeds("labeler.method=points", "labeler.sharpness=0.0"),
    "potloc": Way("potloc-small"),
    "hrpro": seeds("labeler.method=hrpro"),
    "pser, 1 round": pser(ANEW + "rounds=1"),
    "pser": pser(),
    "pser, 2 rounds": pser(ANEW + "rounds=2"),
    "pser, no usual length": pser(ANEW + "boundaries.length_weight=0.0"),
    "pser, no votes": pser(ANEW + "boundaries.vote=0.0"),
    "pser, no margins": pser(ANEW + "rows.inside=0.0", ANEW + "rows.outside=0.0"),
    "bag": pser("labeler.refine=bag"),
    "bag of scale .5": pser(*BAG, "labeler.bag.scales=[0.5]"),
    "bag of scale .7": pser(*BAG, "labeler.bag.scales=[0.7]"),
    "bag of scale 1.4": pser("labeler.refine=bag", "labeler.bag.scales=[1.4]"),
}
TAUGHT = ("seeds", "points", "pser", "bag of scale .7", "bag of scale 1.4")
"""Those that teach a detector."""


class Measured(NamedTuple):
    """A labeler by the truth, by the reference of proposals and by the one that features have a part in."""

    name: str
    labels: tuple[float, float, float]
    """Mean tIoU."""
    detections: tuple[float, float, float] | None
    """mAP: of dev videos, .3 to .7; of training videos, against the references."""


def measure(dataset: str, work: Path) -> list[Measured]:
    """All labelers of a dataset, the best labels first; of two that make the same labels the first alone."""
    data = labelled(dataset, "points", "dev", work)
    engine = Engine(data, Store(work / "store"), Record(work / "runs" / f"scores-{dataset}"))
    plain = Rounds(load_recipe("seeds"), engine)
    against = (by_proposals(plain.detections(0, "train").segments(), data), reference(plain.round(0)))
    found: dict[str, Measured] = {}
    for name, way in LABELERS.items():
        fewer = EPOCHS[dataset] if way.recipe in ("seeds", "pser") else ()
        rounds = Rounds(load_recipe(way.recipe, (*way.overrides, *fewer)), engine)
        labels = rounds.labels(1).segments.segments()
        content = labels.replace(source="", score=1.0).digest()
        if content in found:
            continue
        truth = label_quality(labels, data, "train").to_json()["mean_tiou"]
        of_labels = (float(truth or 0.0), *(label_change(labels, one.segments) for one in against))
        of_detections = None
        if name in TAUGHT:
            value = judge.mean_ap(rounds.detections(1, "dev").segments(), data, "dev")["mean"] / 100
            on_train = rounds.detections(1, "train").segments()
            of_detections = (value, *(points_score(on_train, one) for one in against))
        found[content] = Measured(name, of_labels, of_detections)
    return sorted(found.values(), key=lambda one: -one.labels[0])


def correlations(values: list[tuple[float, float, float]]) -> list[str]:
    """Of the truth with each reference."""
    truth, *others = np.array(values).T
    return [shown(spearman(other, truth)) for other in others]


def lines(rows: list[Measured]) -> list[list[str]]:
    """One for each labeler, and the rank correlations over all of them, and over those that are not `pser`."""
    found = []
    for row in rows:
        of_detections = ["", "", ""] if row.detections is None else [f"{x:.3f}" for x in row.detections]
        found.append([row.name, *(f"{x:.3f}" for x in row.labels), *of_detections])
    taught = [row.detections for row in rows if row.detections is not None]
    found.append([f"**rank correlation ({len(rows)}; {len(taught)})**", "", *correlations([r.labels for r in rows])])
    found[-1] += ["", *correlations(taught)]
    others = [row.labels for row in rows if not row.name.startswith("pser")]
    found.append([f"without `pser` ({len(others)})", "", *correlations(others), "", "", ""])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="store and datasets")
    options = parser.parse_args()
    head = ["labels", "true mean tIoU", "with proposals alone", "with the reference"]
    head += ["mAP on dev videos", "score of proposals alone", "score"]
    for dataset in DATASETS:
        print(f"### {dataset}\n\n{table(head, lines(measure(dataset, options.out.resolve())))}\n", flush=True)


if __name__ == "__main__":
    main()
