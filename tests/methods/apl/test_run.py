"""Recipes with a few fully labelled videos, run whole on an invented dataset."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import RunError
from tad.prepare.relabel import split_labelled
from tad.recipe.recipe import load_recipe
from tad.report.html import render
from tad.report.run import Run
from tad.report.view import View
from tests.support.tiny import tiny_dataset

NETWORK = ["width=16", "window=5", "upsample=1", "levels=3", "drop_path=0.0", "max_length=64", "lr=3e-3"]
QUICK = [f"{part}.{option}" for part in ("proposer.training", "detector") for option in NETWORK]
QUICK += ["proposer.training.steps=40", "proposer.pretrain.epochs=1", "detector.training.epochs=3"]
LABELS = ["labeler.selection.d1=0.01", "labeler.icd.training.steps=40", "labeler.ignore=true"]


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Four of eight videos are labelled."""
    folder = tmp_path_factory.mktemp("few")
    split_labelled(tiny_dataset(folder / "whole", videos=8, classes=2, dim=16), 0.5, "stratified", 0, folder / "few")
    return Dataset.open(folder / "few")


def rows_of(run: Path) -> list[dict[str, Any]]:
    return json.loads((run / "rounds.json").read_text())


def train(name: str, sets: list[str], data: Dataset, folder: Path) -> Path:
    self_train(name, load_recipe(name, sets), data, Options(folder / "run", folder / "store", local=True))
    return folder / "run"


@pytest.fixture(scope="module")
def apl(few: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train("apl", [*QUICK, *LABELS], few, tmp_path_factory.mktemp("apl"))


def test_apl_labels_the_other_videos_and_keeps_the_given_labels(apl: Path, few: Dataset) -> None:
    full = [v for v in few.videos("train") if few.supervision(v) == "full"]
    rows = rows_of(apl)
    assert [row["round"] for row in rows] == [0, 1, 2] and all(row["test_map"]["average"] >= 0 for row in rows)
    for number in (1, 2):
        labels = Segments.from_parquet(apl / f"round-{number}" / "labels.parquet").by_video()
        assert len(full) == 4 and set(full) < set(labels)
        for video, found in labels.items():
            sources = set(found.codes("source")[1])
            given = few.full_labels(video)
            if given is not None:
                assert sources == {f"given@{number}"} and len(found) == len(given.label)
            else:
                assert sources <= {f"apl/label@{number}", f"apl/mined@{number}"}
    budget = json.loads((apl / "run.json").read_text())["labels"]
    assert (budget["full_videos"], budget["bare_videos"], budget["points"]) == (4, 4, 0)


def test_the_quality_of_pseudo_labels_is_measured_without_points(apl: Path, few: Dataset) -> None:
    first, second, third = rows_of(apl)
    assert first["instance_quality"] is None and second["quality"] is None
    for row, number in ((second, 1), (third, 2)):
        labels, zones = (Segments.from_parquet(apl / f"round-{number}" / f"{x}.parquet") for x in ("labels", "ignored"))
        others = labels.filter(np.array([few.supervision(v) == "none" for v in labels.video_ids]))
        assert len(zones) and row["instance_quality"]["labels"] == len(others)
        view = View.open(Run.open(apl), few, number, "train")
        assert view.labels is not None and len(view.labels) == len(labels), "zones are no labels"
        assert set(zones.codes("source")[1]) == {f"apl/ignore@{number}"}
    page = render(Run.open(apl))
    assert "actions<br>found" in page and "of the pseudo-labels are right" in page and ">missing<" not in page


def test_boundaries_of_unlabelled_videos_are_not_read(apl: Path, few: Dataset, tmp_path: Path) -> None:
    """The same models and labels if all their annotations are wrong."""
    shutil.copytree(few.root, tmp_path / "data", symlinks=True)
    path = tmp_path / "data" / "annotations.json"
    document = json.loads(path.read_text())
    for video, entry in document["database"].items():
        if video in few.videos("train") and few.supervision(video) == "none":
            entry["annotations"] = [{"label": few.classes[0], "segment": [0.0, 1.0]}]
    path.write_text(json.dumps(document))
    again = train("apl", [*QUICK, *LABELS], Dataset.open(tmp_path / "data"), tmp_path)
    assert [row["model"] for row in rows_of(again)] == [row["model"] for row in rows_of(apl)]
    for name in ("round-0/proposals-test", "round-2/labels", "round-2/detections-test"):
        assert (again / f"{name}.parquet").read_bytes() == (apl / f"{name}.parquet").read_bytes()
    assert rows_of(again)[0]["train_map"] != rows_of(apl)[0]["train_map"], "a diagnostic reads them"


def test_without_self_training_it_is_supervised(few: Dataset, tmp_path: Path) -> None:
    quick = [s for s in QUICK if s.startswith("proposer.training")]
    run = train("actionformer-full", quick, few, tmp_path)
    (row,) = rows_of(run)
    assert row["round"] == 0 and row["selected"] and row["test_map"]["average"] > 0


def test_the_snippet_model_may_be_the_first_teacher(few: Dataset, tmp_path: Path) -> None:
    quick = [*(s for s in QUICK if s.startswith("detector")), "proposer.training.epochs=20", "rounds=1"]
    run = train("snippet-apl", [*quick, "labeler.selection.d1=0.01", LABELS[1]], few, tmp_path)
    found = set(Segments.from_parquet(run / "round-1" / "labels.parquet").codes("source")[1])
    assert found == {"given@1", "apl/label@1"}, "nothing is mined"
    assert rows_of(run)[1]["test_map"]["average"] > 0


def test_points_on_the_other_videos(tmp_path: Path) -> None:
    whole = tiny_dataset(tmp_path / "whole", videos=6, classes=2, dim=16)
    split_labelled(whole, 0.34, "stratified", 0, tmp_path / "few", others="points")
    quick = [*(s for s in QUICK if s.startswith("detector")), "proposer.training.epochs=4", "rounds=1"]
    run = train("mixed-apl", quick, Dataset.open(tmp_path / "few"), tmp_path)
    labels = Segments.from_parquet(run / "round-1" / "labels.parquet")
    assert {source.split("/")[0] for source in labels.codes("source")[1]} == {"given@1", "pser"}
    assert rows_of(run)[1]["test_map"]["average"] > 0


@pytest.mark.parametrize("name", ["apl", "apl-small", "snippet-apl", "actionformer-full"])
def test_without_full_labels_they_are_refused_before_training(name: str, tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=8)
    with pytest.raises(RunError, match="none of the 4 training videos has full labels"):
        train(name, [], data, tmp_path)
    assert not list((tmp_path / "store").rglob("model.pt"))
