"""The study of what generated features show of boundaries: its rows are there, and clear boundaries show."""

from __future__ import annotations

import pytest

from benchmarks.studies import boundary_cues as study
from tad.recipe.recipe import load_recipe


@pytest.mark.parametrize("name", study.LABELS)
def test_every_row_is_a_recipe_beside_another_row(name):
    row = study.LABELS[name]
    recipe = load_recipe(row.recipe, row.changes)
    assert row.against in ("", *study.LABELS)
    assert row.kind in ("labels", "seeds", "anew")
    assert row.kind != "anew" or recipe.labeler.method == "pser"


def test_the_table_has_both_settings(tmp_path, monkeypatch, capsys):
    few = ("`pser-seed`", "`points`", "`pser`, rows always believed", "rows, no margins")
    monkeypatch.setattr(study, "LABELS", {name: study.LABELS[name] for name in few})
    monkeypatch.setattr(study, "VIDEOS", 8)
    monkeypatch.setattr("sys.argv", ["boundary_cues", "--out", str(tmp_path), "--seeds", "0"])
    study.main()
    lines = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.startswith("| labels |"))
    rows = {cells[1]: cells[2:-1] for cells in ([c.strip() for c in line.split("|")] for line in lines[head + 2 :])}
    assert list(rows) == [study.SHOWN, *few, study.TAUGHT]
    assert float(rows["`pser-seed`"][1]) < float(rows["`pser-seed`"][4])  # clear boundaries give better labels
    assert float(rows[study.SHOWN][4]) > 0.9 > 0.8 > float(rows[study.SHOWN][1])
    gain = float(rows["`points`"][1]) - float(rows["`pser-seed`"][1])
    assert float(rows["`points`"][2].split()[0]) == pytest.approx(gain, abs=2e-3)
