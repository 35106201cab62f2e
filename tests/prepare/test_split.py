"""Folds: every video once, sizes and classes even, and each folder a dataset that only its roles may read."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ambiguous, ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.split import split_kfold
from tad.prepare.stratify import stratified_folds
from tests.support.tiny import tiny_dataset


@pytest.fixture
def data(tmp_path) -> Dataset:
    return tiny_dataset(tmp_path / "data", videos=7, classes=3, dim=8)


def folders(out: Path, k: int) -> list[Dataset]:
    return [Dataset.open(out / f"fold-{i}") for i in range(k)]


def add_rows(path: Path, rows: list[str]) -> None:
    path.write_text(path.read_text() + "".join(f"{row}\n" for row in rows))


def points_of_test_videos(data: Dataset) -> None:
    """Writes a point into every annotated action of the test videos, as an annotator would."""
    truth = ground_truth(data, "test")
    rows = zip(truth.video_ids, truth.labels, (truth.start + truth.end) / 2, strict=True)
    add_rows(data.root / "points.csv", [f"{v},{label},{time}" for v, label, time in rows])


def test_each_training_video_is_dev_in_one_fold_and_test_videos_stay(data, tmp_path):
    split_kfold(data, 3, 0, tmp_path / "out")
    folds = folders(tmp_path / "out", 3)
    assert sorted(v for fold in folds for v in fold.videos("dev")) == sorted(data.videos("train"))
    for fold in folds:
        assert fold.videos("test") == data.videos("test")
        assert sorted(fold.videos("train") + fold.videos("dev")) == sorted(data.videos("train"))
        assert fold.classes == data.classes and fold.manifest.grid == data.manifest.grid
        for video in data.videos("train"):
            assert fold.points(video).time.tolist() == data.points(video).time.tolist()
            assert fold.points(video).label.tolist() == data.points(video).label.tolist()
        assert not [f for f in check(fold.root) if f.severity == "error"]
    assert sorted(len(fold.videos("dev")) for fold in folds) == [2, 2, 3]
    assert [fold.name for fold in folds] == [f"{data.name}-fold-{i}" for i in range(3)]


def test_boundaries_and_features_are_those_of_the_source(data, tmp_path):
    split_kfold(data, 2, 0, tmp_path / "out")
    source = json.loads((data.root / "annotations.json").read_text())["database"]
    for fold in folders(tmp_path / "out", 2):
        database = json.loads((fold.root / "annotations.json").read_text())["database"]
        assert {v: e["annotations"] for v, e in database.items()} == {v: e["annotations"] for v, e in source.items()}
        for video in data.videos("train"):
            assert fold.feature_path(video).is_symlink()
            assert np.array_equal(fold.features(video), data.features(video))


def test_pooled_folds_test_on_every_video_once_and_keep_no_point_of_a_test_video(data, tmp_path):
    points_of_test_videos(data)
    data = Dataset.open(data.root)
    everything = data.videos("train") + data.videos("test")
    split_kfold(data, 4, 0, tmp_path / "out", pool=True)
    folds = folders(tmp_path / "out", 4)
    assert sorted(v for fold in folds for v in fold.videos("test")) == sorted(everything)
    for fold in folds:
        assert not fold.videos("dev") and len(fold.videos("train")) + len(fold.videos("test")) == len(everything)
        assert fold.points_by_id.keys() == set(fold.videos("train"))
        assert fold.name.startswith(f"{data.name}-pooled-fold-")


def test_points_of_test_videos_are_left_out_unpooled_too(data, tmp_path):
    points_of_test_videos(data)
    split_kfold(Dataset.open(data.root), 2, 0, tmp_path / "out")
    for fold in folders(tmp_path / "out", 2):
        assert fold.points_by_id.keys() == set(data.videos("train"))


def test_dev_videos_are_folded_with_the_training_videos(tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=5, dev=3, classes=2, dim=8)
    dev = data.videos("dev")
    if not all(len(data.points(v).time) for v in dev):
        truth = ground_truth(data, "dev")
        add_rows(
            data.root / "points.csv",
            [f"{v},{c},{t}" for v, c, t in zip(truth.video_ids, truth.labels, truth.start, strict=True)],
        )
    split_kfold(Dataset.open(data.root), 4, 0, tmp_path / "out")
    held = sorted(v for fold in folders(tmp_path / "out", 4) for v in fold.videos("dev"))
    assert held == sorted(data.videos("train") + dev)


def test_ignored_videos_and_ambiguous_intervals(data, tmp_path):
    gone, kept = data.videos("test")[0], data.videos("test")[1]
    manifest = (data.root / "dataset.yaml").read_text()
    (data.root / "dataset.yaml").write_text(
        manifest.replace("ignored: []", f"ignored: [{gone}]") + "ambiguous: ambiguous.csv\n"
    )
    (data.root / "ambiguous.csv").write_text(f"video_id,start,end\n{gone},1,2\n{kept},3,4\n")
    split_kfold(Dataset.open(data.root), 2, 0, tmp_path / "out")
    for fold in folders(tmp_path / "out", 2):
        assert gone not in fold.videos_by_id and ambiguous(fold) == {kept: [(3.0, 4.0)]}


def test_same_seed_same_folds_and_another_seed_others(data, tmp_path):
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        split_kfold(data, 3, seed, tmp_path / name)
    written = [[(tmp_path / name / f"fold-{i}" / "annotations.json").read_bytes() for i in range(3)] for name in "abc"]
    assert written[0] == written[1] != written[2]


@pytest.mark.parametrize("seed", range(5))
def test_sizes_differ_by_one_and_classes_are_even(seed):
    """Single-class videos can be spread perfectly, so they must be."""
    classes = {f"v{i:02}": {i % 4} for i in range(30)}  # classes 0, 1: 8 videos; 2, 3: 7
    folds = stratified_folds(classes, 4, seed)
    assert sorted(v for fold in folds for v in fold) == sorted(classes)
    assert sorted(map(len, folds)) == [7, 7, 8, 8]
    for c in range(4):
        count = [sum(c in classes[v] for v in fold) for fold in folds]
        assert max(count) - min(count) <= 1, (c, count)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_two_videos_is_never_missing_from_training(seed):
    rng = np.random.default_rng(seed)
    classes = {f"v{i:02}": set(rng.choice(5, 3, replace=False).tolist()) for i in range(20)}
    for i, c in enumerate((5, 6, 7)):
        classes[f"v{2 * i:02}"].add(c)
        classes[f"v{2 * i + 1:02}"].add(c)
    for k in (2, 3, 5):
        folds = stratified_folds(classes, k, seed)
        for c in (5, 6, 7):
            assert max(sum(c in classes[v] for v in fold) for fold in folds) == 1


def test_stratified_is_evener_than_chance():
    """Rarer and commoner classes, several a video: spread of the classes over the folds, against random folds."""
    rng = np.random.default_rng(0)
    share = np.linspace(0.03, 0.3, 20)
    classes = {f"v{i}": set(np.flatnonzero(rng.random(20) < share).tolist()) for i in range(60)}

    def spread(folds: list[list[str]]) -> float:
        count = np.array([[sum(c in classes[v] for v in fold) for c in range(20)] for fold in folds])
        return float(count.std(axis=0).sum())

    chance = [spread([list(part) for part in np.array_split(rng.permutation(list(classes)), 5)]) for _ in range(20)]
    ours = [spread(stratified_folds(classes, 5, seed)) for seed in range(5)]
    assert max(ours) < 0.8 * min(chance)


def test_what_cannot_be_split_is_told_and_nothing_is_written(data, tmp_path):
    out = tmp_path / "out"
    for k in (1, 8):
        with pytest.raises(DataError, match=f"{k} folds of 7 videos .* needs 2 to 7"):
            split_kfold(data, k, 0, out)
    lines = [line for line in (data.root / "points.csv").read_text().splitlines() if not line.startswith("train_0003")]
    (data.root / "points.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"needs a label: 1 problem:\n  video train_0003 \(train\) has none"):
        split_kfold(Dataset.open(data.root), 2, 0, out)
    assert not out.exists()


def test_a_filled_folder_needs_force_and_no_old_fold_stays_behind(data, tmp_path):
    split_kfold(data, 3, 0, tmp_path / "out")
    with pytest.raises(DataError, match=r"is not empty; .* --force"):
        split_kfold(data, 3, 1, tmp_path / "out")
    split_kfold(data, 2, 1, tmp_path / "out", force=True)
    split_kfold(data, 2, 1, tmp_path / "fresh")
    assert not (tmp_path / "out" / "fold-2").exists()
    one, two = folders(tmp_path / "out", 2), folders(tmp_path / "fresh", 2)
    assert [fold.videos("dev") for fold in one] == [fold.videos("dev") for fold in two]
    with pytest.raises(DataError, match="is the source"):
        split_kfold(data, 3, 1, data.root, force=True)


def test_the_command_prints_a_table(data, tmp_path):
    truth = Counter(c for v in data.videos("train") for c in set(data.points(v).label.tolist()))
    arguments = [str(data.root), "--kfold", "2", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(commands.split, arguments)
    assert result.exit_code == 0, result.output
    head, *lines = result.output.splitlines()
    assert head.split()[:2] == ["fold", "train"] and len(lines) == 2
    points = sum(len(data.points(v).time) for v in data.videos("train"))
    for i, line in enumerate(lines):
        name, train, train_points, held, held_points, role, *missing = line.split()
        fold = Dataset.open(tmp_path / "out" / f"fold-{i}")
        assert (name, role, int(train), int(held)) == (
            f"fold-{i}",
            "dev",
            len(fold.videos("train")),
            len(fold.videos("dev")),
        )
        assert int(train_points) == sum(len(fold.points(v).time) for v in fold.videos("train"))
        assert int(train_points) + int(held_points) == points
        taught = {c for v in fold.videos("train") for c in set(fold.points(v).label.tolist())}
        assert missing == [", ".join(n for c, n in enumerate(data.classes) if c in truth and c not in taught) or "-"]
    assert CliRunner().invoke(commands.split, [str(data.root), "--out", "x"]).exit_code == 2  # --kfold is required


def test_a_class_without_training_point_is_named(data, tmp_path):
    """A class of one video is missing where this video is held out."""
    path = data.root / "points.csv"
    rows = path.read_text().splitlines()
    rare, other = data.classes[0], data.classes[1]
    path.write_text("\n".join(r if "train_0000" in r else r.replace(f",{rare},", f",{other},") for r in rows) + "\n")
    add_rows(path, [f"train_0000,{rare},0.5"])
    folds = split_kfold(Dataset.open(data.root), 3, 0, tmp_path / "out")
    assert [rare in fold.missing for fold in folds] == [
        "train_0000" in d.videos("dev") for d in folders(tmp_path / "out", 3)
    ]
    assert sum(rare in fold.missing for fold in folds) == 1


@pytest.mark.parametrize(("name", "videos", "points"), [("gtea", (21, 7), 367), ("beoid", (46, 12), 594)])
def test_real_small_datasets(shared, tmp_path, name, videos, points):
    import_hrpro(shared("data", name), tmp_path / "data")
    data = Dataset.open(tmp_path / "data")
    for k in (3, 5):
        folds = split_kfold(data, k, 0, tmp_path / f"k{k}")
        assert {f.videos["test"] for f in folds} == {videos[1]}
        assert sum(f.hidden for f in folds) == points
        sizes = [f.videos["dev"] for f in folds]
        assert sum(sizes) == videos[0] and max(sizes) - min(sizes) <= 1
        assert not any(f.missing for f in folds)  # every class is in two videos or more
    with pytest.raises(DataError, match=f"(?s)needs a label: {videos[1]} problems:.*leave out --pool"):
        split_kfold(data, 4, 0, tmp_path / "pool", pool=True)
    points_of_test_videos(data)
    folds = split_kfold(Dataset.open(data.root), 4, 0, tmp_path / "pool", pool=True)
    assert sum(f.videos["test"] for f in folds) == sum(videos) and not any(f.missing for f in folds)


def test_gtea_has_points_on_a_clock_of_15_and_features_on_one_of_25(shared, tmp_path):
    """Features on the videos' own clock would be two fifths short; `tad check` says so."""
    source = shared("data", "gtea")
    import_hrpro(source, tmp_path / "data", dim=4)
    data = Dataset.open(tmp_path / "data")
    video = data.videos("train")[0]
    with (source / "point_labels" / "point_gaussian.csv").open(newline="") as file:
        frames = sorted(float(row["point"]) for row in csv.DictReader(file) if row["video_id"] == video)
    assert data.points(video).time == pytest.approx(np.array(frames) / 15)
    (data.root / "features").mkdir()
    for fps, wrong in ((25, 0), (15, 28)):
        for v in data.videos_by_id:
            rows = max(1, round(data.duration(v) * fps / 16))
            np.save(data.feature_path(v), np.ones((rows, 4), np.float32))
        errors = [f for f in check(data.root) if f.severity == "error"]
        assert len(errors) == wrong, errors[:2]
