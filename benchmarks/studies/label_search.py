"""What a search of labelers' options is worth: `python -m benchmarks.studies.label_search --shared DIR [--json OUT]`.

`tad tune seeds` with proposer `file` on real proposals of THUMOS14's 200 training videos with four kinds of points
(benchmarks.references.point_protocols): options are chosen on 40 of the videos, the dev videos, and measured on the
other 160, for three seeds, which draw both the 40 videos and the sampler's suggestions. Of uniform points each seed has
a draw of its own. Prints Markdown; the searches' own words go to stderr.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.references.point_protocols import Protocol, protocols
from distributed.tuning.search import Options, tune
from search_spaces.load import load
from tad.data.dataset import Dataset
from tad.files import read_json
from tad.prepare.split import split_holdout
from tad.ranges import shown
from tad.recipe.recipe import load_recipe, options

SEEDS = (0, 1, 2)
DEV = 40
TRIALS: Mapping[str, int] = {"points": 18, "potloc": 8}
"""For each labeler; potloc has three rules to choose from."""
KINDS = ("released", "annotator 1", "annotator 2", "uniform")


def found(of: Protocol, proposals: Path, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """One search: mean tIoU by labeler as it is and best, on the dev videos and on the others."""
    start = time.process_time()
    name = f"{of.name}-{seed}".replace(" ", "")
    if not (folder / name).is_dir():
        split_holdout(of.data, DEV / len(of.videos), None, seed, folder / name)
    sets = ["rounds=1", "proposer.method=file", f"proposer.path={proposals}", f"labeler.method={method}"]
    study = folder / f"{name}-{method}"
    more = Options(name, study, TRIALS[method], store=str(folder / "store"), local=True)
    with contextlib.redirect_stdout(sys.stderr):
        result = tune(
            load_recipe("seeds", sets), load("labels"), Dataset.open(folder / name), "dev-quality", seed, more
        )
    assert result.recipe is not None and result.best is not None and result.chosen is not None

    def judged(trial: Any) -> dict[str, float]:
        row = read_json(study / "trials" / f"{trial.number:04d}" / "rounds.json")[1]
        return {"dev": trial.values[0], "rest": row["quality"]["mean_tiou"]}

    base, best = (
        options(load_recipe(str(study / "trials" / f"{t.number:04d}" / "recipe.yaml")))
        for t in (result.recipe, result.best)
    )
    return {
        "default": judged(result.recipe),
        "best": judged(result.best),
        "chosen": judged(result.chosen),
        "error": result.error,
        "options": {k.removeprefix("labeler."): v for k, v in best.items() if v != base[k]},
        "importances": dict(result.importances),
        "seconds": time.process_time() - start,
    }


def measure(shared: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Results by labeler and kind of points, one for each seed."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {m: {k: [] for k in KINDS} for m in TRIALS}
    proposals = shared / "data" / "potloc" / "base_proposals.json"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for of in protocols(shared, folder / "data"):
            kind, _, draw = of.name.partition(" ")
            seeds = (int(draw),) if kind == "uniform" else SEEDS
            for method in TRIALS:
                for seed in seeds:
                    key = kind if kind == "uniform" else of.name
                    results[method][key].append(found(of, proposals, method, seed, folder))
    return results


def table(results: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    """Mean tIoU on the 160 videos, as it is and searched, means over the seeds."""
    lines = ["| mean tIoU, other 160 videos | " + " | ".join(KINDS) + " |", "|---|" + "---:|" * len(KINDS)]
    for method, kinds in results.items():
        for name, which in (
            (f"`{method}` as it is", "default"),
            (f"`{method}`, best trial", "best"),
            (f"`{method}`, what the search chooses", "chosen"),
        ):
            means = [np.mean([r[which]["rest"] for r in kinds[k]]) for k in KINDS]
            lines.append(f"| {name} | " + " | ".join(f"{m:.3f}".lstrip("0") for m in means) + " |")
    return "\n".join(lines)


def gains(results: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    """The best trial's gain where options were chosen and where they were not, for every seed; bold where it counts."""
    lines = [
        "| labeler, points | gain on the 40, ± standard error (seeds 0, 1, 2) | gain on the 160 (seeds 0, 1, 2) |",
        "|---|---|---|",
    ]
    for method, kinds in results.items():
        for kind in KINDS:
            dev, rest = [], []
            for r in kinds[kind]:
                one, other = (f"{r['best'][part] - r['default'][part]:+.3f}" for part in ("dev", "rest"))
                mark = "**" if r["chosen"] != r["default"] else ""
                dev.append(f"{mark}{one} ± {r['error']:.3f}{mark}")
                rest.append(mark + other + mark)
            lines.append(f"| `{method}`, {kind} | {', '.join(dev)} | {', '.join(rest)} |")
    return "\n".join(lines)


def chosen(results: Mapping[str, Mapping[str, list[dict[str, Any]]]]) -> str:
    """The options of the best trials, and the most important parameter of each search."""
    lines = ["| labeler, points, seed | best options | most important |", "|---|---|---|"]
    for method, kinds in results.items():
        for kind in KINDS:
            for seed, r in zip(SEEDS, kinds[kind], strict=True):
                brief = {k: float(f"{v:.2g}") if isinstance(v, float) else v for k, v in r["options"].items()}
                options = ", ".join(f"{k} {shown(v)}" for k, v in brief.items())
                top = next(iter(r["importances"].items()), None)
                most = f"{top[0].split('.')[-1]} ({100 * top[1]:.0f} %)" if top else "-"
                lines.append(f"| `{method}`, {kind}, {seed} | {options or 'as it is'} | {most} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/thumos14 and data/potloc")
    parser.add_argument("--json", type=Path, help="write all results here")
    arguments = parser.parse_args()
    results = measure(arguments.shared)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=1))
    print(table(results), gains(results), chosen(results), sep="\n\n")
    seconds = {m: sum(r["seconds"] for rs in kinds.values() for r in rs) for m, kinds in results.items()}
    print("\nCPU seconds: " + ", ".join(f"{m} {s:.0f}" for m, s in seconds.items()))


if __name__ == "__main__":
    main()
