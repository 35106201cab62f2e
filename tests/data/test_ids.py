"""Video ids that begin with - or _, as one in 32 of YouTube's does, through a whole run."""

from __future__ import annotations

import json

from click.testing import CliRunner

from tad.commands.evaluate import evaluate
from tad.commands.run import run
from tad.commands.stages import detect
from tad.data.segments import Segments
from tests.support.tiny import RECIPE, tiny_dataset


def test_a_run_on_ids_with_a_dash_in_front(tmp_path):
    made = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12)
    ids = {v: f"{'-_'[i % 2]}{i}aB-_c{i}" for i, v in enumerate(made.videos_by_id)}
    for name in ("annotations.json", "points.csv"):
        text = (made.root / name).read_text()
        for old, new in ids.items():
            text = text.replace(old, new)
        (made.root / name).write_text(text)
    for old, new in ids.items():
        (made.root / "features" / f"{old}.npy").rename(made.root / "features" / f"{new}.npy")
    store, out = tmp_path / "store", tmp_path / "run"

    def call(command, *arguments):
        result = CliRunner().invoke(command, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    where = ("--data", made.root, "--local", "--store", store)
    call(run, RECIPE, *where, "--rounds", 1, "--set", "proposer.training.epochs=2", "--out", out)
    report = (out / "report.html").read_text()
    assert any(new in report for new in ids.values())
    found = tmp_path / "found.json"
    call(detect, out, *where, "--out", found)
    results = json.loads(found.read_text())["results"]
    assert set(results) <= set(ids.values()) and any(v.startswith("-") for v in results)
    assert set(Segments.from_file(found).codes("video_id")[1]) == set(results)
    assert "mAP" in call(evaluate, found, "--data", made.root, "--subset", "test")
