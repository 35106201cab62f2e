"""What early stopping saves: `python -m benchmarks.studies.real.pruning --out DIR --trials 48`.

Trials of a random search over the space `training` of recipe `seeds`, on the dev part of shrec22 with points, are each
trained to their end; what the detector in training is worth at each look, and the CPU seconds until then, are kept.
Then every scheduler of `tad tune` is given the same trials in several orders, and stops each of them where it would
have stopped it: a trial's further seconds are not counted. As the trials are drawn independently, each order is a study
of a random search, the one with another seed. With `--out DIR` of benchmarks.studies.real, stages are shared with it.

A study with a scheduler is asked how many CPU seconds it needs until a trial that ended has the best score of the same
study without one, or less by at most `--within`. Prints Markdown (docs/performance.md). A trial that is there is
skipped; two commands with other numbers (`--trials 0 24`, `--trials 24 48`) work side by side.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
from optuna.trial import TrialState

from benchmarks.studies.objectives import table
from benchmarks.studies.real.data import labelled
from distributed.engine.engine import Resources
from distributed.run.selftrain import LOOKS
from distributed.tuning.search import pruner, sampler
from distributed.tuning.trial import Work, evaluate
from search_spaces.load import load
from tad.files import read_json, write_json
from tad.recipe.recipe import load_recipe

DATASET, LABELS, RECIPE, SPACE, OBJECTIVE = "shrec22", "points", "seeds", "training", "dev-map"
SCHEDULERS = ("none", "median", "asha", "hyperband")
AS_IT_IS = 0
"""The trial of the recipe itself, which comes first and is never stopped."""


class Recorded(NamedTuple):
    """A trial to its end: at each step its score, and the CPU seconds up to there, without the looks.

    A training of few epochs has fewer steps; the last one is the trial's end.
    """

    steps: list[int]
    values: list[float]
    seconds: list[float]


class Study(NamedTuple):
    """What a scheduler made of the trials in one order.

    Attributes:
        seconds, best: after each trial: CPU seconds so far, and the best score of those that ended.
        ended: how many trials came to their end.
    """

    seconds: list[float]
    best: list[float]
    ended: int

    def until(self, score: float) -> float | None:
        """CPU seconds until a score is reached; None: it never is."""
        return next((s for s, best in zip(self.seconds, self.best, strict=True) if best >= score), None)


def record(numbers: range, out: Path) -> None:
    """Trains the trials that are not there yet."""
    data, recipe = labelled(DATASET, LABELS, "dev", out), load_recipe(RECIPE, [f"select={OBJECTIVE}", "rounds=1"])
    space = load(SPACE).for_recipe(recipe)
    work = Work(recipe, data.root, str(out / "store"), out / "pruning", 0, Resources(), looks=True)
    for number in numbers:
        path = out / "pruning" / f"{number:04d}.json"
        if path.is_file():
            continue
        trial = optuna.create_study(sampler=sampler("random", number)).ask()
        values = None if number == AS_IT_IS else space.suggest(trial)
        told: list[dict[str, Any]] = []
        last = evaluate(work, number, values, told.append)
        if not last.get("finished"):
            raise SystemExit(f"trial {number}: {last.get('failed')}")
        steps, values = ([t[name] for t in told] for name in ("step", "value"))
        seconds = [t["cpu_seconds"] - t["looked"] for t in told]
        write_json(path, {"steps": steps, "values": values, "seconds": seconds})
        print(f"trial {number}: {last['value']:.4f} in {seconds[-1]:.0f} CPU s", flush=True)


def read(out: Path) -> list[Recorded]:
    found = [Recorded(**read_json(path)) for path in sorted((out / "pruning").glob("*.json"))]
    if not found or any(trial.steps[-1] != LOOKS for trial in found):
        raise SystemExit(f"{out / 'pruning'}: no trials with {LOOKS} looks; train them with --trials")
    return found


def replayed(trials: Sequence[Recorded], order: Sequence[int], pruner: optuna.pruners.BasePruner) -> Study:
    """The trials one after the other, each stopped where the scheduler says so."""
    study = optuna.create_study(direction="maximize", sampler=sampler("random", 0), pruner=pruner)
    seconds, best, ended = [0.0], [0.0], 0
    for number in order:
        trial, kept = study.ask(), trials[number]
        for step, value, cost in zip(kept.steps, kept.values, kept.seconds, strict=True):
            spent = seconds[-1] + cost
            trial.report(value, step)
            if step < LOOKS and number != AS_IT_IS and trial.should_prune():
                break
        whole = step == LOOKS
        study.tell(trial, kept.values[-1] if whole else None, None if whole else TrialState.PRUNED)
        ended += whole
        seconds.append(spent)
        best.append(max(best[-1], kept.values[-1]) if whole else best[-1])
    return Study(seconds, best, ended)


def orders(trials: int, studies: int) -> list[list[int]]:
    """The recipe itself, then the others in an order of their own for each study."""
    return [[AS_IT_IS, *(1 + np.random.default_rng(seed).permutation(trials - 1))] for seed in range(studies)]


def measured(trials: Sequence[Recorded], studies: int, within: float) -> str:
    """The table: one row for each scheduler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rows = []
    each = orders(len(trials), studies)
    plain = [replayed(trials, order, pruner("none", LOOKS)) for order in each]
    for name in SCHEDULERS:
        found = [replayed(trials, order, pruner(name, LOOKS)) for order in each]
        needed = [(p.until(p.best[-1]), f.until(p.best[-1] - within)) for p, f in zip(plain, found, strict=True)]
        ratios = [p / f for p, f in needed if p is not None and f is not None]
        lost = [100 * (p.best[-1] - f.best[-1]) for p, f in zip(plain, found, strict=True)]
        rows.append(
            [
                name,
                f"{np.mean([f.ended for f in found]):.1f}",
                f"{np.mean([f.seconds[-1] for f in found]) / 60:.0f}",
                f"{np.mean([p.seconds[-1] / f.seconds[-1] for p, f in zip(plain, found, strict=True)]):.2f}",
                f"{len(ratios)} of {studies}",
                f"{np.median(ratios):.2f} ({', '.join(f'{r:.1f}' for r in ratios[:3])})" if ratios else "",
                f"{np.mean(lost):.2f}",
            ]
        )
    heads = [
        "scheduler",
        "trials that ended",
        "CPU min",
        "less compute for all trials",
        "studies that reach the best score",
        "less compute until then, median (first three)",
        "score lost [points]",
    ]
    return table(heads, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="trials, store and datasets")
    parser.add_argument("--trials", type=int, nargs="+", metavar="N", help="train this many, or those from N to N")
    parser.add_argument("--studies", type=int, default=100, help="orders of the trials [100]")
    parser.add_argument("--within", type=float, default=0.001, help="of the best score; a fraction [.001]")
    options = parser.parse_args()
    if options.trials:
        record(range(*options.trials), options.out.resolve())
    print(measured(read(options.out.resolve()), options.studies, options.within))
