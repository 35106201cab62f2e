"""What ablations share: every row with every seed, results kept as they come, a Markdown table at the end.

A row is a recipe with some options changed: `tad run RECIPE --set CHANGE ... --data DIR` does the same.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.evaluation.subset import Subset
from tad.recipe.rounds import Rounds


class Row(NamedTuple):
    """One combination of options; the detections of its last round are measured."""

    name: str
    recipe: str
    changes: tuple[str, ...] = ()
    """`key.path=value`."""
    paper: float | None = None
    """The paper's mAP, on real features."""


def arguments(description: str, work: str) -> argparse.ArgumentParser:
    """The options of every ablation."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--data", type=Path, required=True, help="dataset folder with test videos")
    parser.add_argument("--work", type=Path, default=Path(work), help="store and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="names of rows; all by default")
    parser.add_argument("--version", default="", help="label of the results file, for runs side by side")
    return parser


def run(rows: Sequence[Row], rounds_of: Callable[[Row, Engine], Rounds], options: argparse.Namespace) -> None:
    """Evaluates rows with seeds, which share stages in one store; it can be stopped and run again."""
    data = Dataset.open(options.data)
    path = options.work / f"results{options.version}.json"
    results: dict[str, dict[int, list[float]]] = {}
    for seed in options.seeds:
        record = Record(options.work / f"seed-{seed}{options.version}")
        engine = Engine(data, Store(options.work / "store"), record, seed)
        for row in rows:
            if options.rows is None or row.name in options.rows:
                results.setdefault(row.name, {})[seed] = map_on_test(rounds_of(row, engine))
                path.write_text(json.dumps(results, indent=1))
                print(f"seed {seed}, {row.name}: {results[row.name][seed][-1]:.2f}", flush=True)
    print(table(rows, results))


def map_on_test(rounds: Rounds) -> list[float]:
    """Test mAP [%] of the last round at the protocol's thresholds, and their mean."""
    found = rounds.detections(rounds.recipe.rounds, "test").segments()
    result = Subset.of_dataset(rounds.engine.data, "test").evaluate(found, protocol="hrpro")
    return [100 * float(x) for x in result.mean_ap] + [100 * float(result.average)]


def table(rows: Sequence[Row], results: Mapping[str, Mapping[int, list[float]]]) -> str:
    """Markdown: mean over the seeds at each threshold, and the spread of the average."""
    lines = ["| row | .1 | .2 | .3 | .4 | .5 | .6 | .7 | mean | least to most | paper |", "|" + "---|" * 11]
    for row in rows:
        seeds = results.get(row.name)
        if seeds:
            means = [statistics.mean(values) for values in zip(*seeds.values(), strict=True)]
            averages = [values[-1] for values in seeds.values()]
            spread = f"{min(averages):.1f} to {max(averages):.1f} ({len(seeds)})"
            cells = [row.name, *(f"{m:.1f}" for m in means), spread, f"{row.paper}" if row.paper else ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
