"""The ablations of the papers: `python -m benchmarks.studies.papers --out DIR`.

HR-Pro (Table 3), POTLoc (Tables 2 and 3), GauFuse (what is known of its table), APL (Tables 3, 4, 5, Figure 3, S1, S4):
each row is a recipe with options changed (`--list` shows them), as `tad run RECIPE --set ...` does it. On the
recordings of benchmarks.studies.real (docs/results/real.md) the dev videos judge, never the test videos; with
`--out DIR` of that benchmark, stages are shared with it. On another dataset, `--data FOLDER`, its test videos do, by
the protocol of HR-Pro. A finished result is a file in DIR; the same command skips it. `--table DIR` prints the papers'
tables as Markdown.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
from pathlib import Path

from benchmarks.studies.papers import tables
from benchmarks.studies.papers.rows import WAYS, chosen
from benchmarks.studies.real.data import DATASETS, Part
from benchmarks.studies.real.rows import Row


def judged_by(dataset: str) -> Part:
    """The part of a dataset whose videos judge.

    Raises:
        SystemExit: it is a folder of the benchmark's recordings, whose test videos are not for this.
    """
    if dataset in DATASETS:
        return "dev"
    if (own := Path(dataset).name.split("-")[0]) in DATASETS:
        raise SystemExit(f"--data {dataset}: the test videos of {own} do not judge these rows; give --data {own}")
    return "test"


def command(row: Row) -> str:
    way = WAYS[row.way]
    changes = "".join(f" --set '{change}'" for change in way.changes)
    return f"{row.name}: tad run {way.recipe} --rounds {way.rounds}{changes}"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.papers",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="results, store and datasets")
    parser.add_argument("--data", default="shrec22", help="shrec22, sbhar or a folder with test videos [shrec22]")
    parser.add_argument("--only", nargs="+", metavar="PATTERN", help="names of rows, such as '*/full10/apl:*'")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--list", action="store_true", help="print the rows")
    parser.add_argument("--table", type=Path, metavar="DIR", help="print the tables of the results in DIR")
    options = parser.parse_args()
    if options.table:
        print(tables.markdown(tables.read(options.table)))
        return
    part, rows = judged_by(options.data), chosen(options.data, options.only)
    if options.list:
        print("\n".join(map(command, rows)))
    elif options.out:
        from benchmarks.studies.papers.train import result
        from benchmarks.studies.real.run import run

        if failed := run(rows, options.seeds, part, options.out.resolve(), result):
            raise SystemExit("failed:\n" + "\n".join(failed))
    else:
        parser.error("give --out, --table or --list")


if __name__ == "__main__":
    main()
