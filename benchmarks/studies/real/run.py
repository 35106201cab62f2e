"""Results of many rows: those that are missing are made and kept as they come."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.studies.real.data import Part, source
from benchmarks.studies.real.rows import Row
from benchmarks.studies.real.train import commit, place
from tad.errors import TadError
from tad.files import write_json


def run(
    rows: Sequence[Row],
    seeds: Sequence[int],
    part: Part,
    out: Path,
    result: Callable[[Row, int, Part, Path], dict[str, Any]],
) -> list[str]:
    """Makes all results that are missing, each by `result`; returns what failed."""
    for dataset in sorted({row.dataset for row in rows}):
        source(dataset)
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
