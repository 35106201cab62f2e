"""HR-Pro as whole runs on tiny data: by default, faithful, composed with PseR; blind to boundaries."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from distributed.run.session import Options, self_train
from tad.commands.stages import detect
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.recipe.recipe import load_recipe
from tests.support.tiny import tiny_dataset

SHORT = ["proposer.training.epochs=4", "proposer.training.heads=4", "detector.training.epochs=2", "stop.change=1.0"]
FAITHFUL = ["proposer.faithful=true", "labeler.faithful=true", "detector.faithful=true"]
MORE = {"default": ["rounds=2"], "faithful": ["proposer.training.attention_layers=2", *FAITHFUL]}
NAMES = ["round-1/labels", "round-1/detections", "round-1/detections-test", "round-0/proposals-test"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("hrpro") / "data", videos=8, classes=2, dim=16)


def run(data: Dataset, folder: Path, overrides: list[str], recipe: str = "hrpro-small") -> Path:
    options = Options(folder / "run", folder / "store", local=True)
    self_train(recipe, load_recipe(recipe, SHORT + overrides if recipe == "hrpro-small" else overrides), data, options)
    return folder / "run"


def digests(run: Path) -> dict[str, str]:
    return {name: Segments.from_parquet(run / f"{name}.parquet").digest() for name in NAMES}


@pytest.mark.parametrize("mode", MORE)
def test_both_stages_run_and_never_see_a_boundary(mode: str, data: Dataset, tmp_path: Path) -> None:
    seen = run(data, tmp_path / "seen", MORE[mode])
    rows = json.loads((seen / "rounds.json").read_text())
    assert [row["round"] for row in rows] == ([0, 1, 2] if mode == "default" else [0, 1])
    assert all(0 <= row["test_map"]["average"] <= 1 for row in rows)
    detections = Segments.from_parquet(seen / "round-1/detections-test.parquet")
    assert set(detections.codes("source")[1]) == {"hrpro-instance/detect@1"}

    blind = tmp_path / "data"
    shutil.copytree(data.root, blind)
    document = json.loads((blind / "annotations.json").read_text())
    for video in data.videos("train"):
        entry = document["database"][video]
        entry["annotations"] = [
            {"label": a["label"], "segment": [0.0, entry["duration"] / 7]} for a in entry["annotations"][:1]
        ]
    (blind / "annotations.json").write_text(json.dumps(document))
    assert digests(run(Dataset.open(blind), tmp_path / "blind", MORE[mode])) == digests(seen)


def test_detect_repeats_the_runs_own_detections(data: Dataset, tmp_path: Path) -> None:
    folder = run(data, tmp_path, [])
    out = tmp_path / "detections.parquet"
    command = [folder, "--data", data.root, "--local", "--store", tmp_path / "store", "--out", out]
    result = CliRunner().invoke(detect, list(map(str, command)))
    assert result.exit_code == 0, result.output
    mine = Segments.from_parquet(folder / "round-1/detections-test.parquet")
    found = Segments.from_parquet(out)
    columns = ["video_id", "start", "end", "label", "score"]  # the source names another round
    assert found.table.select(columns).equals(mine.table.select(columns))


def test_labelers_and_detectors_mix(data: Dataset, tmp_path: Path) -> None:
    """PseR on HR-Pro's proposals and embedding, its pseudo-labels for HR-Pro's instance model."""
    overrides = [
        "proposer.training.epochs=3",
        "proposer.training.heads=4",
        "labeler.heads.epochs=2",
        "rounds=1",
        "detector.method=hrpro-instance",
        "detector.training.epochs=2",
    ]
    folder = run(data, tmp_path, overrides, "pser-hrpro")
    assert len(Segments.from_parquet(folder / "round-1/labels.parquet")) == sum(
        len(data.points(v).time) for v in data.videos("train")
    )
    assert (folder / "report.html").stat().st_size > 10_000
