"""As many rows of every video: which are drawn, curves between them, and a run that sees no others."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.methods.gaufuse.drawn import drawn, middles, whole
from tad.methods.gaufuse.proposer import RskpProposer, load
from tad.methods.gaufuse.training import RskpTrain, RskpTraining
from tad.prepare.relabel import derive_labels, one_kind
from tad.prepare.split import split_holdout
from tad.recipe.recipe import load_recipe
from tad.stages import Context
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset

COUNT = 7


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Classes of videos, two of them dev videos."""
    folder = tmp_path_factory.mktemp("drawn")
    split_holdout(tiny_dataset(folder / "whole", videos=8, classes=3, dim=12), 0.25, None, 0, folder / "dev")
    points = Dataset.open(folder / "dev")
    derive_labels(points, one_kind(points, "classes"), folder / "classes")
    return Dataset.open(folder / "classes")


@pytest.mark.parametrize("length", [1, 3, 7, 75, 1000])
def test_one_row_of_each_part(length: int) -> None:
    rng = np.random.default_rng(0)
    found = np.stack([drawn(length, 75, rng) for _ in range(200)])
    part = np.arange(75) * length / 75
    assert (found >= np.floor(part)).all() and (found <= part + length / 75).all() and found.max() < length
    if length >= 75:
        assert (np.diff(found, axis=1) >= 0).all()
    assert set(found.ravel()) == set(range(length)), "every row has its chance"
    found = middles(length, 75)
    assert (np.diff(found) > 0).all()
    assert found.tolist() == list(range(length)) if length <= 75 else (found == np.floor(part + length / 150)).all()


def test_all_rows_are_the_rows() -> None:
    assert middles(75, 75).tolist() == list(range(75)) == drawn(75, 75, np.random.default_rng(1)).tolist()
    curve = np.random.default_rng(0).random((75, 3))
    assert whole(curve, 75) is curve


@pytest.mark.parametrize("length", [1, 5, 30, 200])
def test_a_straight_curve_stays_straight_between_the_drawn_rows(length: int) -> None:
    rows = middles(length, 10)
    line = np.stack([rows * 2.0, -1.0 * rows], axis=1).astype(np.float32)
    found, inside = whole(line, length), np.clip(np.arange(length), rows[0], rows[-1])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.stack([inside * 2.0, -1.0 * inside], axis=1), rtol=1e-6)
    assert whole(line[:, 0], length).shape == (length,)


def test_training_draws_anew_and_scoring_is_on_the_feature_grid(data: Dataset, tmp_path: Path) -> None:
    one = RskpTrain(RskpTraining(epochs=1, snippets=COUNT)).open(Context(data, {}, data.videos("train"), 0))
    first, again, other = (one.item(0, np.random.default_rng(seed))["features"] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other) and len(first) == len(other) == COUNT
    features = torch.from_numpy(np.array(data.features(one.videos[0])))
    assert torch.equal(first, features[torch.from_numpy(drawn(len(features), COUNT, np.random.default_rng(0)))])

    engine = TinyEngine(data, 0, tmp_path)
    proposer = RskpProposer(training=RskpTraining(epochs=2, snippets=COUNT))
    model = proposer.train(round_of(engine))
    video = data.videos("test")[0]
    out, length = load(Context(data, {"model": model}, [], 0))(video), len(data.features(video))
    assert out.own.attention.shape == (1, COUNT) and length > COUNT
    scores = proposer.score(round_of(engine, "test"), model)
    seen = 1 - scores.array("background", video)[middles(length, COUNT)]
    np.testing.assert_allclose(seen, out.own.attention[0], atol=1e-6)
    assert scores.array("cas", video).shape == (length, 3)
    assert proposer.embed(round_of(engine, "test"), model).array("embedding", video).shape == (length, 12)


def test_the_recipe_for_activitynet_runs(data: Dataset, tmp_path: Path) -> None:
    """Its 75 rows are fewer than most of these videos have, and more than some."""
    quick = ["proposer.training.epochs=2", "proposer.training.memory_epochs=1", "detector.schedule.epochs=[2]"]
    recipe = load_recipe("gaufuse-anet", [*quick, "detector.schedule.label_epochs=[1]"])
    assert recipe.proposer.training.snippets == recipe.detector.training.snippets == 75
    self_train("gaufuse-anet", recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1, 2] and all(row["test_map"] for row in rows)
