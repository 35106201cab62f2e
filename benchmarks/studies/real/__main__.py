"""Labels, labelers and detectors on two real recordings: `python -m benchmarks.studies.real --out DIR`.

Gestures of hand skeletons (SHREC 2022) and activities of inertial sensors (SBHAR), with official test parts and
hand-marked boundaries: docs/results/real.md. The data are no part of the project: TAD_SHARED names the folder that
holds data/shrec22 and data/sbhar. A finished result is a file in DIR; the same command skips it. Rows share their
stages in one store. `--table DIR` prints what is there as Markdown, `--figure` draws it.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.studies.real import tables
from benchmarks.studies.real.data import Part, source
from benchmarks.studies.real.rows import Row, chosen
from tad.errors import TadError
from tad.files import write_json


def run(rows: Sequence[Row], seeds: Sequence[int], part: Part, out: Path) -> list[str]:
    """Makes all results that are missing; returns what failed."""
    for dataset in sorted({row.dataset for row in rows}):
        source(dataset)
    import torch  # here, so that --list and --table need not wait for it

    from benchmarks.studies.real.train import commit, place, result

    torch.set_num_threads(1)
    code = commit()  # now: it may change under rows that take hours
    todo = [(seed, row) for seed in seeds for row in rows if not place(out, row, seed, part).is_file()]
    print(f"{len(rows) * len(seeds) - len(todo)} results are there, {len(todo)} to do; code {code}", flush=True)
    failed = []
    for number, (seed, row) in enumerate(todo, 1):
        start = time.perf_counter()
        try:
            document = result(row, seed, part, out)
            path = place(out, row, seed, part)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, document)
            said = f"mAP {document['map']['mean']:.1f}, stages {document['seconds']:.0f} CPU s"
        except TadError as error:
            failed.append(f"{row.name} seed {seed}: {error}")
            said = f"failed: {error}"
        taken = time.perf_counter() - start
        print(f"[{number}/{len(todo)}] {row.name} seed {seed}, {part}: {said}; {taken:.0f} s", flush=True)
    return failed


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.real",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="results, store and datasets")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names of rows, such as 'shrec22/points/*'")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--part", choices=("dev", "test"), default="dev", help="which videos judge")
    parser.add_argument("--list", action="store_true", help="print the rows")
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the tables of the results in DIR")
    parser.add_argument(
        "--figure", nargs="?", type=Path, const=tables.FIGURE, metavar="PNG", help=f"with --table [{tables.FIGURE}]"
    )
    options = parser.parse_args()
    if options.list:
        print("\n".join(row.name for row in chosen(options.only)))
    elif options.table:
        results = tables.read(options.table)
        print(tables.markdown(results))
        if options.figure:
            tables.figure(results, options.figure)
    elif options.out:
        if failed := run(chosen(options.only), options.seeds, options.part, options.out.resolve()):
            raise SystemExit("failed:\n" + "\n".join(failed))
    else:
        parser.error("give --out, --table or --list")


if __name__ == "__main__":
    main()
