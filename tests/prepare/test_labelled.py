"""`tad split --labelled`: which videos get full labels, what the others are left with, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.relabel import annotated_classes, derive_labels, labelled_videos, one_kind, split_labelled
from tad.prepare.split import split_holdout
from tad.report.budget import label_budget
from tests.support.annotated import annotated
from tests.support.shared import shared_path
from tests.support.tiny import tiny_dataset


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    return tiny_dataset(tmp_path / "data", videos=10, classes=3, dim=8, dev=2)


@pytest.fixture(scope="module")
def thumos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("thumos") / "data"
    import_hrpro(shared_path("data", "thumos14"), folder, features="none")
    return Dataset.open(folder)


def rare(folder: Path) -> Dataset:
    """Sixteen videos of `often`, one of `rare` and `often`, one of `alone`, two without an action."""
    rows = [(f"v{i}", "often", 1.0, 2.0) for i in range(17)]
    rows += [("v16", "rare", 3.0, 4.0), ("v17", "alone", 3.0, 4.0), ("t", "rare", 1.0, 2.0)]
    return annotated(folder, rows, roles={"t": "test", "v18": "train", "v19": "train"})


def test_labelled_videos_have_their_boundaries_and_the_others_nothing(data: Dataset, tmp_path: Path) -> None:
    found = split_labelled(data, 0.4, "stratified", 0, tmp_path / "out")
    made = Dataset.open(tmp_path / "out")
    lists = json.loads((tmp_path / "out" / "labelled.json").read_text())
    kinds = {v: made.supervision(v) for v in made.videos("train")}
    assert [v for v in kinds if kinds[v] == "full"] == lists["labelled"] and len(lists["labelled"]) == 4
    assert [v for v in kinds if kinds[v] == "none"] == lists["unlabelled"] and len(lists["unlabelled"]) == 6
    assert (lists["share"], lists["mode"], lists["seed"]) == (0.4, "stratified", 0)
    truth = ground_truth(data, "train").by_video()
    for video in lists["labelled"]:
        assert np.array_equal(made.full_labels(video).spans, truth[video].spans)
        assert not len(made.points(video).time), "boundaries hold what points say"
    assert found.made.boundaries == sum(len(truth[v]) for v in lists["labelled"])
    assert made.videos("dev") == data.videos("dev") and made.videos("test") == data.videos("test")
    record = made.manifest.labels
    assert (record.kinds, record.seed, record.mode) == ({"full": 4, "none": 6}, 0, "stratified")
    budget = str(label_budget(made, "classes"))
    assert budget.startswith(
        f"full labels of 4 training videos with {found.made.boundaries} actions, no label of 6 others"
    )
    assert budget.endswith("(drawn from data by `tad split --labelled`: full 4, none 6; stratified, seed 0)")
    assert not [f for f in check(made.root) if f.severity == "error"]


def test_the_same_seed_labels_the_same_videos_whatever_the_labels_and_the_others(data: Dataset, tmp_path: Path) -> None:
    derive_labels(data, one_kind(data, "none"), tmp_path / "bare")
    bare, lists = Dataset.open(tmp_path / "bare"), []
    for i, (source, seed, others) in enumerate(
        [(data, 1, "none"), (bare, 1, "none"), (data, 1, "points"), (data, 1, "classes"), (data, 2, "none")]
    ):
        split_labelled(source, 0.4, "stratified", seed, tmp_path / str(i), others=others)  # type: ignore[arg-type]
        lists.append(json.loads((tmp_path / str(i) / "labelled.json").read_text())["labelled"])
    assert lists[0] == lists[1] == lists[2] == lists[3] != lists[4]
    pointed, classed = Dataset.open(tmp_path / "2"), Dataset.open(tmp_path / "3")
    for video in data.videos("train"):
        if video not in lists[0]:
            assert np.array_equal(pointed.points(video).time, data.points(video).time)
            assert pointed.supervision(video) == "points" and classed.supervision(video) == "classes"
            assert set(classed.video_classes(video)) == set(data.video_classes(video))


def test_every_class_gets_a_labelled_video_also_the_rarest(tmp_path: Path) -> None:
    data = rare(tmp_path / "data")
    classes = annotated_classes(data, data.videos("train"))
    assert classes["v16"] == {1, 2} and classes["v18"] == set()
    for seed in range(20):
        drawn = labelled_videos(data, classes, 0.1, "stratified", seed)
        assert len(drawn) == 2 and set().union(*(classes[v] for v in drawn)) == {0, 1, 2}
        assert len(labelled_videos(data, classes, 0.3, "stratified", seed)) == 6
    missed = [
        len(set().union(*(classes[v] for v in labelled_videos(data, classes, 0.1, "uniform", s)))) for s in range(20)
    ]
    assert min(missed) == 1 and max(missed) > 1, "a uniform draw leaves classes out"


def test_unseen_classes_are_named(tmp_path: Path) -> None:
    data = rare(tmp_path / "data")
    seed = next(
        s
        for s in range(20)
        if set(labelled_videos(data, annotated_classes(data, data.videos("train")), 0.1, "uniform", s))
        <= {f"v{i}" for i in range(16)}
    )
    arguments = [str(data.root), "--labelled", "0.1", "--mode", "uniform", "--seed", str(seed)]
    said = CliRunner().invoke(commands.split, [*arguments, "--out", str(tmp_path / "out")])
    assert said.exit_code == 0 and "classes without a labelled video: alone, rare" in said.output
    assert "full labels of 2 of 20 training videos with 2 actions" in said.output


def test_what_cannot_be_drawn_is_an_error(tmp_path: Path) -> None:
    data = rare(tmp_path / "data")
    with pytest.raises(DataError, match=r"a share of 0\.05 of 20 training videos is 1 labelled ones, and the 3 c"):
        split_labelled(data, 0.05, "stratified", 0, tmp_path / "out")
    with pytest.raises(DataError, match="is 0 labelled ones; both sides"):
        split_labelled(data, 0.01, "uniform", 0, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    empty = annotated(tmp_path / "empty", [], [("a", "run", 1.0), ("b", "run", 1.0)], {"a": "train", "b": "train"})
    with pytest.raises(DataError, match=r"no training video has a segment in annotations\.json"):
        split_labelled(empty, 0.5, "stratified", 0, tmp_path / "out")
    for wrong in (["--dev", "0.2", "--labelled", "0.5"], ["--kfold", "2", "--mode", "uniform"], ["--others", "none"]):
        said = CliRunner().invoke(commands.split, [str(data.root), *wrong, "--out", str(tmp_path / "out")])
        assert said.exit_code == 2 and "--labelled" in said.output


def test_a_second_split_takes_dev_videos_of_the_labelled_ones(tmp_path: Path) -> None:
    data = tiny_dataset(tmp_path / "data", videos=10, classes=3, dim=8)
    split_labelled(data, 0.6, "stratified", 0, tmp_path / "few")
    few = Dataset.open(tmp_path / "few")
    split_holdout(few, 0.34, None, 0, tmp_path / "dev")
    made, labelled = Dataset.open(tmp_path / "dev"), {v for v in few.videos("train") if few.supervision(v) == "full"}
    assert len(made.videos("dev")) == 2 and set(made.videos("dev")) < labelled
    assert {v for v in made.videos("train") if made.supervision(v) == "full"} == labelled - set(made.videos("dev"))
    assert made.manifest.labels == few.manifest.labels and made.manifest.split is not None
    budget = str(label_budget(made, "dev-map"))
    assert budget.startswith("full labels of 4 training videos") and "actions in 2 dev videos" in budget


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_thumos14(thumos: Dataset, share: float) -> None:
    """At 10 % there are 20 labelled videos for 20 classes; the whole set has about 1.1 classes a video."""
    classes = annotated_classes(thumos, thumos.videos("train"))
    for seed in range(3):
        drawn = labelled_videos(thumos, classes, share, "stratified", seed)
        counts = np.array([sum(c in classes[v] for v in drawn) for c in range(20)])
        whole = np.array([sum(c in own for own in classes.values()) for c in range(20)])
        assert len(drawn) == round(200 * share) and counts.min() >= 1
        assert np.abs(counts - share * whole).max() < 5
        uniform = labelled_videos(thumos, classes, share, "uniform", seed)
        assert len(uniform) == len(drawn)
        if share == 0.1:
            assert len(set().union(*(classes[v] for v in uniform))) < 18
