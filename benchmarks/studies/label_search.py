"""What a search of labelers' options is worth: `python -m benchmarks.studies.label_search --shared DIR [--json OUT]`.

`tad tune label-only` on real proposals of THUMOS14's 200 training videos with four kinds of points
(benchmarks.references.point_protocols): options are chosen on 40 of the videos and measured on the other 160, for three
seeds, which draw both the 40 videos and the sampler's suggestions. Of uniform points each seed has a draw of its own.
Prints Markdown; about four minutes on one core.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import json
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.references.point_protocols import Protocol, protocols
from distributed.tuning.label_only import search_labels
from tad.data.segments import Segments
from tad.ranges import shown

SEEDS = (0, 1, 2)
DEV = 40
TRIALS: Mapping[str, int] = {"points": 18, "potloc": 8}
"""For each labeler; potloc has three rules to choose from."""
KINDS = ("released", "annotator 1", "annotator 2", "uniform")


def found(of: Protocol, proposals: Segments, method: str, seed: int, folder: Path) -> dict[str, Any]:
    """One search: mean tIoU by labeler as it is and best, on the dev videos and on the others."""
    start = time.process_time()
    study = folder / f"{of.name}-{method}-{seed}".replace(" ", "")
    result = search_labels(method, proposals, of.data, TRIALS[method], seed, DEV, study, str(folder / "store"))
    default, best, chosen = result.default, result.best, result.chosen
    assert default.rest is not None and best.rest is not None and chosen.rest is not None
    return {
        "default": {"dev": default.dev["mean_tiou"], "rest": default.rest["mean_tiou"]},
        "best": {"dev": best.dev["mean_tiou"], "rest": best.rest["mean_tiou"]},
        "chosen": {"dev": chosen.dev["mean_tiou"], "rest": chosen.rest["mean_tiou"]},
        "error": result.error,
        "options": dict(best.options),
        "importances": dict(result.summary.importances),
        "trial": result.summary.best.number if result.summary.best else None,
        "seconds": time.process_time() - start,
    }


def measure(shared: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Results by labeler and kind of points, one for each seed."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = {m: {k: [] for k in KINDS} for m in TRIALS}
    proposals = Segments.from_file(shared / "data" / "potloc" / "base_proposals.json")
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
