"""Runs every case and prints the table: `python -m tests.rough [AREA ...]`."""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.rough import dataset, features, folders, mistaken, options, places, runs
from tests.rough.harness import Outcome, make_base, run_case

CASES = [*dataset.CASES, *features.CASES, *options.CASES, *runs.CASES, *places.CASES, *folders.CASES, *mistaken.CASES]


def main(areas: list[str]) -> int:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        base = Path(place, "base")
        base.mkdir()
        make_base(base)
        for number, case in enumerate(c for c in CASES if not areas or c.area in areas):
            try:
                outcome = run_case(case, base, Path(place, str(number)))
            except Exception as error:  # the case itself is broken; the others still count
                outcome = Outcome("broken", None, 0.0, repr(error))
            counts[outcome.verdict] += 1
            if outcome.verdict != "right":
                said = " | ".join(outcome.text.strip().splitlines()[-4:])[-400:]
                print(f"{outcome.verdict:9} {case.area}: {case.what} (status {outcome.status}): {said}", flush=True)
    print(", ".join(f"{n} {verdict}" for verdict, n in counts.most_common()), f"of {sum(counts.values())}")
    return 0 if set(counts) <= {"right"} else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
