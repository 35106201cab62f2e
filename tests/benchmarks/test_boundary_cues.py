"""The study of what generated features show of boundaries runs by its command; clear boundaries show."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.support.structure import ROOT

ROWS = ("`pser-seed`", "`points`", "`pser`, rows always believed", "rows, no margins")
FIRST, LAST = "where the features begin and end", "rows taught by the true boundaries, no votes"


def test_the_table_has_both_settings(tmp_path):
    words = ("--out", tmp_path, "--seeds", 0, "--videos", 8, "--rows", *ROWS)
    made = subprocess.run(
        [sys.executable, "-m", "benchmarks.studies.boundary_cues", *map(str, words)],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert made.returncode == 0, made.stderr
    lines = made.stdout.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| labels |"))
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in lines[head + 2 :])}
    assert list(rows) == [FIRST, *ROWS, LAST]
    assert float(rows[FIRST][4]) > 0.9 > 0.8 > float(rows[FIRST][1])
    assert float(rows["`pser-seed`"][4]) > float(rows["`pser-seed`"][1])  # clear boundaries give better labels
    for setting in (1, 4):
        gain = float(rows["`points`"][setting]) - float(rows["`pser-seed`"][setting])
        assert float(rows["`points`"][setting + 1].split()[0]) == pytest.approx(gain, abs=2e-3)
