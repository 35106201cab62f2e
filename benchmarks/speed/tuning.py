"""What a search costs: 100 trials over the labels of the demo's data, which share the proposer and the heads.

    python -m benchmarks.speed.tuning [--trials 100] [--folder DIR] [--tracking URI]

Bars on 2 cores: the trials after the first in 200 s, and each of them at least 20 times cheaper than one that shares
nothing. A trial's cost without sharing is measured: the best recipe once more, with an empty store.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"  # as trials on Ray have it

import argparse
import shutil
import tempfile
from collections import Counter
from pathlib import Path

import optuna

from distributed.engine.engine import Resources
from distributed.tuning.search import Options, tune
from distributed.tuning.study import open_storage
from distributed.tuning.trial import Work, evaluate, stages_of
from search_spaces.load import load
from tad.data.dataset import Dataset
from tad.prepare.split import split_holdout
from tad.prepare.synth import make_dataset
from tad.recipe.recipe import load_recipe

SPACE = "perturbation:labels"
"""The merge of PseR: what leaves proposer, proposals and heads as they are."""
SECONDS, RATIO = 200.0, 20.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--folder", type=Path, default=None, help="kept; default: a temporary one")
    parser.add_argument("--tracking", default="none", help="MLflow URI")
    given = parser.parse_args()
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        measure(folder, given.trials, given.tracking)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


def measure(folder: Path, trials: int, tracking: str) -> None:
    make_dataset(folder / "source", videos=36, classes=5, dim=64, seed=0, difficulty=0.4)
    split_holdout(Dataset.open(folder / "source"), 0.25, None, 0, folder / "data")
    # One round: judged by its labels, it trains no detector.
    recipe = load_recipe("demo", ["rounds=1", "select=dev-quality"])
    options = Options("bench", folder / "study", trials, store=str(folder / "store"), tracking=tracking)
    tune(recipe, load(SPACE), Dataset.open(folder / "data"), "dev-quality", 0, options)

    study = optuna.load_study(study_name="bench", storage=open_storage(f"sqlite:///{folder}/study/study.db"))
    done = [t for t in study.trials if t.state.name == "COMPLETE"]
    uses = [u for t in study.trials for u in stages_of(folder / "study" / "trials" / f"{t.number:04d}")]
    made = Counter(u.name for u in uses if u.made)
    ends = sorted(t.datetime_complete for t in done if t.datetime_complete is not None)
    after = (ends[-1] - ends[0]).total_seconds()
    waited = sorted(t.user_attrs["waited"] for t in done[1:])
    own = sorted(t.user_attrs["seconds"] for t in done[1:])

    values = study.best_trial.user_attrs["values"]
    alone = Work(recipe, folder / "study" / "data", str(folder / "empty"), folder / "alone", 0, Resources())
    cost = evaluate(alone, 0, values, lambda report: None)
    ratio = cost["seconds"] / (after / (len(done) - 1))
    print(
        f"\n{len(done)} of {trials} trials complete; made: " + ", ".join(f"{n} x {k}" for k, n in sorted(made.items()))
    )
    print(f"after the first trial:   {after:.1f} s, {after / (len(done) - 1):.2f} s a trial{bar(after <= SECONDS)}")
    print(f"in a trial, median:      {own[len(own) // 2]:.2f} s")
    print(f"Ray Tune's own, median:  {waited[len(waited) // 2]:.2f} s (until it begins, and until its end is known)")
    print(f"one trial, not sharing:  {cost['seconds']:.1f} s ({cost['made']} stages; equal score: {same(cost, study)})")
    print(f"ratio:                   {ratio:.0f}{bar(ratio >= RATIO)}")
    print(f"proposer and heads once: {made['snippet/train'] == made['pser/heads'] == 1}")


def same(cost: dict[str, object], study: optuna.Study) -> bool:
    return cost["value"] == study.best_value


def bar(kept: bool) -> str:
    return "" if kept else "  MISSES THE BAR"


if __name__ == "__main__":
    main()
