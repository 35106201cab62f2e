"""Recipes of published datasets whose features are not here, run whole on an invented dataset."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.prepare.relabel import split_labelled
from tad.prepare.resize import resize
from tad.recipe.recipe import load_recipe
from tests.support.tiny import tiny_dataset

PYRAMID = ["width=16", "levels=3"]
ENCODER = [
    "proposer.pretrain.epochs=1",
    *(f"{role}.training.{one}" for role in ("proposer", "detector") for one in PYRAMID),
]
LABELS = ["labeler.selection.d1=0.01", "labeler.icd.training.steps=10"]
QUICK = {
    "apl-anet": [*ENCODER, *LABELS, "proposer.training.epochs=2", "detector.training.epochs=2"],
    "apl-epic": [*ENCODER, *LABELS, "proposer.training.steps=8", "detector.training.epochs=1"],
    "apl-bmn-anet": [
        *LABELS,
        "proposer.training.epochs=2",
        *("detector.pretrain.epochs=1", "detector.training.epochs=1", "detector.training.samples=4"),
    ],
    "potloc-anet": [
        "proposer.training.epochs=2",
        *("detector.training.epochs=2", "detector.training.width=16", "detector.training.levels=3"),
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("whole") / "whole", videos=8, classes=2, dim=12)


@pytest.fixture(scope="module")
def resized(whole: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """32 rows of every video."""
    folder = tmp_path_factory.mktemp("resized")
    resize(whole, 32, folder / "resized")
    return Dataset.open(folder / "resized")


def few(data: Dataset, share: float, folder: Path) -> Dataset:
    split_labelled(data, share, "stratified", 0, folder)
    return Dataset.open(folder)


@pytest.mark.parametrize("name", QUICK)
def test_they_run(name: str, whole: Dataset, resized: Dataset, tmp_path: Path) -> None:
    data = whole if name == "apl-epic" else resized
    data = few(data, 0.5, tmp_path / "few") if name.startswith("apl") else data
    recipe = load_recipe(name, QUICK[name])
    self_train(name, recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == list(range(recipe.rounds + 1))
    assert all(row["test_map"]["average"] >= 0 for row in rows)


@pytest.mark.parametrize("name", ["apl-anet", "apl-epic"])
def test_proposer_and_detector_are_one_network(name: str) -> None:
    """The second goes on from the first."""
    recipe = load_recipe(name)
    first, second = recipe.proposer.training.model_dump(), recipe.detector.training.model_dump()
    assert {key: second[key] for key in first.keys() & second.keys() - {"epochs"}} == {
        key: first[key] for key in first.keys() & second.keys() - {"epochs"}
    }
    assert recipe.proposer.postprocess == recipe.detector.postprocess
    assert recipe.proposer.decode.max_detections == recipe.detector.decode.max_detections


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_apl_takes_any_share_of_labelled_videos(share: float, whole: Dataset, tmp_path: Path) -> None:
    """With the same steps on labelled videos, and as many joint ones as the others fill."""
    data = few(whole, share, tmp_path / "few")
    sets = [*ENCODER, *LABELS, "proposer.training.steps=8", "detector.training.epochs=2", "rounds=1"]
    self_train("apl", load_recipe("apl", sets), data, Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    models = [json.loads((tmp_path / "store" / row["model"] / "history.json").read_text()) for row in rows]
    labelled = round(share * 8)
    assert len(models[0]["epochs"]) == round(8 / max(1, labelled // 2)) and len(models[1]["epochs"]) == 2
