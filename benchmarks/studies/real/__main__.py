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
from pathlib import Path

from benchmarks.studies.real import tables
from benchmarks.studies.real.rows import chosen


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
        # Here, for they load torch, and --list and --table need not wait for it.
        from benchmarks.studies.real.run import run
        from benchmarks.studies.real.train import result

        if failed := run(chosen(options.only), options.seeds, options.part, options.out.resolve(), result):
            raise SystemExit("failed:\n" + "\n".join(failed))
    else:
        parser.error("give --out, --table or --list")


if __name__ == "__main__":
    main()
