"""Does a search pay? Recipes that `tad tune` finds on the dev part of shrec22, beside the recipe that it began with.

`python -m benchmarks.studies.real.search --out DIR --searches pser` searches with each study seed, trains what was
found on all training videos, with each seed, and judges on the test videos. With `--out DIR` of
benchmarks.studies.real, stages are shared with it. Prints the report of each search, then Markdown
(docs/results/real.md). Everything that is done is kept, and skipped when the command is given again.

The best trial is judged whether its gain on the dev videos counts or not: the page asks what it is worth.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.studies.objectives import table
from benchmarks.studies.real import judge
from benchmarks.studies.real.data import labelled
from benchmarks.studies.real.train import read_again
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.tuning.search import Options, tune
from distributed.tuning.summary import Summary, recipe_of
from search_spaces.load import load
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.evaluator import evaluate
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import label_quality
from tad.files import read_json, write_json
from tad.recipe.recipe import Recipe, changed, load_recipe
from tad.recipe.rounds import Rounds

DATASET, LABELS = "shrec22", "points"
GROUPS = 24
"""Of test videos, left out one after the other for the jackknife."""


@dataclass(frozen=True)
class Search:
    """Where a search begins, what it may change and what it looks for."""

    recipe: str
    space: str
    objective: str
    trials: int
    changes: tuple[str, ...] = ()
    """In the recipe of the trials; the winner is trained without them."""


SEARCHES = {
    "pser": Search("pser", "perturbation,thresholds:proposals", "dev-quality", 100),
    # The control: would a search still find what its defaults lack?
    "seeds": Search("seeds", "labels,thresholds:proposals", "dev-quality", 100),
    # By points alone, without a boundary. Each trial trains a detector; a third of the usual epochs is for the order.
    "seeds-points": Search("seeds", "labels,thresholds:proposals", "points", 20, ("detector.training.epochs=12",)),
}
OWN = ("detector.training.epochs",)
"""Options that `changes` sets."""


class Judged(NamedTuple):
    """A recipe, trained on all training videos and judged on the test videos, by seed.

    Attributes:
        labels: mean tIoU of the labels with their points' actions.
        map: mean mAP [%].
        left_out: [GROUPS] mAP without each group of the test videos.
    """

    labels: list[float]
    map: list[float]
    left_out: list[list[float]]


def found(kind: str, seed: int, out: Path) -> tuple[Summary, Recipe, Recipe]:
    """A study, its best recipe, and the recipe that it began with."""
    search = SEARCHES[kind]
    data = labelled(DATASET, LABELS, "dev", out)
    recipe = load_recipe(search.recipe, ("rounds=1", *search.changes))
    name = f"{kind}-{seed}"
    options = Options(
        name, out / "studies" / name, search.trials, tracking="none", store=str(out / "store"), local=True
    )
    summary = tune(recipe, load(search.space), data, search.objective, seed, options)
    assert summary.best is not None
    free = dict.fromkeys(OWN)
    return summary, changed(recipe_of(summary.best, recipe), free), changed(recipe, free)


def judged(recipe: Recipe, name: str, seeds: list[int], out: Path) -> Judged:
    """Reads the test videos, once for each seed."""
    data = labelled(DATASET, LABELS, "test", out)
    all_of = Judged([], [], [])
    for seed in seeds:
        path = out / "searched" / f"{name}-seed-{seed}.json"
        if not path.is_file():
            read_again(out, f"search {name} seed {seed}")
            engine = Engine(data, Store(out / "store"), Record(path.with_suffix("")), seed)
            rounds = Rounds(recipe, engine)
            detections = rounds.detections(1, "test").segments()
            labels = float(label_quality(rounds.labels(1).segments.segments(), data).tiou.mean())
            values = [labels, judge.mean_ap(detections, data, "test")["mean"], without_groups(detections, data)]
            write_json(path, values)
        for known, value in zip(all_of, read_json(path), strict=True):
            known.append(value)
    return all_of


def without_groups(detections: Segments, data: Dataset) -> list[float]:
    """Mean mAP [%] on the test videos without each of the groups."""
    group = {video: i % GROUPS for i, video in enumerate(data.videos("test"))}
    truth, values = ground_truth(data, "test"), []
    for left in range(GROUPS):
        mine, own = (s.filter(np.array([group[v] != left for v in s.video_ids])) for s in (detections, truth))
        values.append(100 * float(evaluate(mine, own, judge.TIOUS).average))
    return values


def interval(before: Judged, after: Judged) -> tuple[float, float]:
    """Mean gain in mAP over the seeds, and half of its 95 % interval for a random choice of test videos (jackknife)."""
    gain = np.mean(after.map) - np.mean(before.map)
    left = np.mean(after.left_out, axis=0) - np.mean(before.left_out, axis=0)
    error = np.sqrt((GROUPS - 1) / GROUPS * ((left - left.mean()) ** 2).sum())
    return float(gain), float(1.96 * error)


def measured(kinds: list[str], studies: list[int], seeds: list[int], out: Path) -> str:
    """The table: one row for each study."""
    rows = []
    for kind in kinds:
        for study in studies:
            summary, best, plain = found(kind, study, out)
            before, after = (
                judged(plain, SEARCHES[kind].recipe, seeds, out),
                judged(best, f"{kind}-{study}", seeds, out),
            )
            gain, half = interval(before, after)
            own = f"{summary.gain:+.4f}" + (f" ± {summary.error:.4f}" if summary.error is not None else "")
            labels = f"{np.mean(before.labels):.3f} → {np.mean(after.labels):.3f}"
            scores = f"{np.mean(before.map):.1f} → {np.mean(after.map):.1f}"
            each = ", ".join(f"{b - a:+.1f}" for a, b in zip(before.map, after.map, strict=True))
            cost = f"{summary.totals['cpu_seconds'] / 60:.0f}"
            trials = str(sum(summary.states.values()))
            rows.append([kind, str(study), trials, cost, own, labels, scores, each, f"**{gain:+.1f}** ± {half:.1f}"])
    heads = [
        "search",
        "study",
        "trials",
        "CPU min",
        "gain there",
        "labels' tIoU",
        "test mAP",
        "gain, each seed",
        "mean gain, 95 %",
    ]
    return table(heads, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="studies, store and datasets")
    parser.add_argument("--searches", nargs="+", choices=list(SEARCHES), default=list(SEARCHES))
    parser.add_argument("--studies", type=int, nargs="+", default=[0, 1, 2], help="seeds of the searches")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the final trainings")
    options = parser.parse_args()
    print(measured(options.searches, options.studies, options.seeds, options.out.resolve()))
