"""Synthetic data: same bytes for the same seed, each video on its own, hard in proportion to the knob."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.output import MARKER
from tad.prepare.synth import make_dataset, video_features, write_features
from tad.prepare.synth_annotations import invent
from tad.prepare.synth_video import _Clock, _correlated, _presence
from tad.prepare.synth_world import Levels, World, look_alikes
from tests.support.digests import digests


def test_an_invented_dataset_is_healthy(tmp_path):
    data = make_dataset(tmp_path / "d", videos=6, classes=3, dim=8, dev=2)
    assert check(tmp_path / "d") == []
    assert [len(data.videos(role)) for role in ("train", "dev", "test")] == [6, 2, 3]
    assert data.classes == ["jump", "throw", "kick"]
    truth = ground_truth(data, "train")
    assert sum(len(data.points(v).time) for v in data.videos("train")) == len(truth)
    for video_id, segments in truth.by_video().items():
        assert 30 <= data.duration(video_id) <= 120
        starts = np.sort(segments.start)
        assert (starts[1:] >= np.sort(segments.end)[:-1]).all()
        points = data.points(video_id)
        inside = (segments.start < points.time[:, None]) & (points.time[:, None] < segments.end)
        assert (inside.sum(1) == 1).all()
        assert (segments.label_index(data.classes)[inside.argmax(1)] == points.label).all()
    assert all(len(data.points(v).time) == 0 for v in data.videos("test"))


def test_same_seed_same_bytes(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        make_dataset(tmp_path / name, videos=2, classes=2, dim=6, seed=seed)
    a, b, c = (digests(tmp_path / name) for name in "abc")
    named = "dataset.yaml"  # holds the folder's name
    assert {k: v for k, v in a.items() if k != named} == {k: v for k, v in b.items() if k != named}
    assert all(a[k] != c[k] for k in a if k.endswith(".npy"))


def test_more_videos_do_not_change_the_first_ones(tmp_path):
    make_dataset(tmp_path / "few", videos=2, classes=2, dim=6)
    make_dataset(tmp_path / "many", videos=5, classes=2, dim=6, dev=1)
    few, many = digests(tmp_path / "few" / "features"), digests(tmp_path / "many" / "features")
    assert len(few) == 3
    assert few == {k: many[k] for k in few}


def test_invented_videos_teach_and_test_every_class():
    invented = invent({"train": 30, "test": 30}, 25, seed=3)
    assert len(set(invented.classes)) == 25
    shown = {(e["subset"], a["label"]) for e in invented.database.values() for a in e["annotations"]}
    assert shown == {(role, c) for role in ("train", "test") for c in invented.classes}
    assert {label for _, label, _ in invented.points} == set(invented.classes)


@pytest.mark.parametrize(
    "grid",
    [
        {"fps": "native", "stride": 4, "window": 16, "dim": 8},
        {"fps": 15, "stride": 8, "window": 24, "offset": -4, "dim": 8, "dtype": "float16"},
        {"length": 50, "dim": 8},
    ],
)
def test_any_grid(tmp_path, grid):
    make_dataset(tmp_path / "d", videos=2, classes=2, dim=4)
    document = yaml.safe_load((tmp_path / "d" / "dataset.yaml").read_text()) | {"grid": grid}
    (tmp_path / "d" / "dataset.yaml").write_text(yaml.safe_dump(document))
    assert write_features(tmp_path / "d", force=True) == 3
    assert check(tmp_path / "d") == []
    features = Dataset.open(tmp_path / "d").features("train_0000")
    assert features.shape[1] == 8
    assert features.dtype == grid.get("dtype", "float32")


def test_dim_is_written_to_the_manifest_and_comments_stay(tmp_path):
    make_dataset(tmp_path / "d", videos=2, classes=2, dim=4)
    path = tmp_path / "d" / "dataset.yaml"
    before = path.read_text()
    write_features(tmp_path / "d", dim=12, force=True)
    assert path.read_text() == before.replace("dim: 4", "dim: 12")
    assert Dataset.open(tmp_path / "d").features("train_0000").shape[1] == 12
    assert json.loads((tmp_path / "d" / "synth.json").read_text())["dim"] == 12


def test_what_is_there_is_kept(tmp_path):
    make_dataset(tmp_path / "d", videos=3, classes=2, dim=4)
    with pytest.raises(DataError, match="--force"):
        write_features(tmp_path / "d")
    with pytest.raises(DataError, match="--force"):
        make_dataset(tmp_path / "d", videos=1, classes=2, dim=4)
    make_dataset(tmp_path / "d", videos=2, classes=2, dim=4, force=True)
    assert check(tmp_path / "d") == []  # no file of the third training video stays behind
    (tmp_path / "d" / MARKER).unlink()
    with pytest.raises(DataError, match="was not written by `tad synth`"):
        make_dataset(tmp_path / "d", videos=1, classes=2, dim=4, force=True)


def test_a_linked_feature_file_is_replaced_and_not_written_through(tmp_path):
    make_dataset(tmp_path / "d", videos=1, classes=1, dim=4)
    place = tmp_path / "d" / "features" / "train_0000.npy"
    place.rename(tmp_path / "mine.npy")
    place.symlink_to(tmp_path / "mine.npy")
    (tmp_path / "d" / "features" / MARKER).unlink()
    (tmp_path / "d" / "features" / "test_0000.npy").unlink()
    mine = (tmp_path / "mine.npy").read_bytes()
    write_features(tmp_path / "d", seed=5, force=True)
    assert (tmp_path / "mine.npy").read_bytes() == mine
    assert not place.is_symlink() and np.load(place, allow_pickle=False).shape[1] == 4


IMPOSSIBLE = [
    {"videos": 0},
    {"classes": 0},
    {"dim": 1},
    {"difficulty": 1.5},
    {"dev": -1},
    {"videos": 10**9},
    {"test": 10**9},
    {"classes": 10**9},
    {"dim": 10**9},
    {"difficulty": float("nan")},
    {"videos": 10**6, "dim": 65_536},
]


@pytest.mark.parametrize("bad", IMPOSSIBLE)
def test_impossible_numbers(tmp_path, bad):
    with pytest.raises(DataError):
        make_dataset(tmp_path / "d", **({"videos": 1, "classes": 1, "dim": 4} | bad))
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize("option", ["--videos", "--test", "--dev", "--classes", "--dim", "--seed"])
def test_the_command_bounds_its_numbers(tmp_path, option):
    result = CliRunner().invoke(commands.synth, [str(tmp_path / "d"), option, "9" * 30])
    assert result.exit_code == 2 and "is not in the range" in result.output and not (tmp_path / "d").exists()


def test_features_of_impossible_videos_are_refused_before_anything_is_written(tmp_path):
    make_dataset(tmp_path / "d", videos=3, classes=2, dim=4)
    path = tmp_path / "d" / "annotations.json"
    document = json.loads(path.read_text())
    for video in ("train_0001", "test_0000"):
        document["database"][video]["duration"] = 2.5e6
    path.write_text(json.dumps(document))
    manifest = tmp_path / "d" / "dataset.yaml"
    manifest.write_text(manifest.read_text().replace("stride: 16", "stride: 4"))
    before = digests(tmp_path / "d")
    with pytest.raises(DataError, match=r"2 problems:\n  video train_0001: 2\.5e\+06 seconds are .* rows; 5"):
        write_features(tmp_path / "d", force=True)
    assert digests(tmp_path / "d") == before


def test_a_folder_whose_name_no_dataset_can_have(tmp_path):
    with pytest.raises(DataError, match=r"dataset.yaml, named like its folder: 1 problem:\n  name"):
        make_dataset(tmp_path / "a\x1bb", videos=2, classes=1, dim=4)
    assert list(tmp_path.iterdir()) == []


def test_levels_grow_with_difficulty():
    easy, hard = Levels.at(0), Levels.at(1)
    assert easy.noise == 0.5
    assert hard.noise == 1.3
    assert Levels.at(0.5).jitter == pytest.approx(0.16)


def test_look_alikes():
    assert look_alikes(["x0", "Diving", "x1", "x2", "CliffDiving", "x3", "x4"]) == [[1, 4], [0, 2, 3, 5], [6]]


def test_the_world_depends_on_seed_classes_and_difficulty_only():
    a, b = World(["x", "y"], 0, 0.5, 8), World(["x", "y"], 0, 0.5, 32)
    np.testing.assert_array_equal(a.motion, b.motion)
    assert not np.allclose(a.motion, World(["x", "y"], 1, 0.5, 8).motion)


def test_presence_is_the_covered_share():
    """Without smoothing to speak of: rows 2 and 3 of 1 s fully, half of row 4; the sum is the length."""
    from tad.data.grid import SnippetGrid

    clock = _Clock(SnippetGrid(1, 1, 1, 10))
    presence = _presence(clock, np.array([[2.0, 4.5]]), smooth=1e-6)[:, 0]
    np.testing.assert_allclose(presence, [0, 0, 1, 1, 0.5, 0, 0, 0, 0, 0], atol=1e-6)
    smooth = _presence(clock, np.array([[2.0, 4.5]]), smooth=1.0)[:, 0]
    assert smooth.sum() == pytest.approx(2.5, abs=1e-3)
    assert smooth.max() < 1


@pytest.mark.parametrize(("stride", "lag"), [(16, 1), (4, 4)])
def test_noise_has_the_same_memory_in_seconds_on_any_grid(stride, lag):
    from tad.data.grid import SnippetGrid

    clock = _Clock(SnippetGrid(25, stride, 16, 4000))
    noise = _correlated(np.random.default_rng(0), clock, 8, 0.6)
    assert noise.var() == pytest.approx(1, abs=0.05)
    assert (noise[lag:] * noise[:-lag]).mean() == pytest.approx(0.6, abs=0.04)


def separation(data: Dataset) -> float:
    """AUC of action against background on test videos, of a ridge fit on training videos."""

    def rows(role):
        truth = ground_truth(data, role).by_video()
        xs, ys = [], []
        for video_id in data.videos(role):
            x = np.asarray(data.features(video_id))
            centre = data.grid(video_id).from_position(np.arange(len(x), dtype=float))[:, None]
            spans = truth[video_id].spans
            xs.append(x)
            ys.append(((spans[:, 0] <= centre) & (centre < spans[:, 1])).any(1))
        return np.concatenate(xs), np.concatenate(ys)

    (x, y), (z, t) = rows("train"), rows("test")
    mean = x.mean(0)
    weights = np.linalg.solve((x - mean).T @ (x - mean) + 100 * np.eye(x.shape[1]), (x - mean).T @ (y - y.mean()))
    score = (z - mean) @ weights
    return float((score[t][:, None] > score[~t][None]).mean())


def test_the_features_tell_actions_and_the_knob_makes_it_harder(tmp_path):
    aucs = [
        separation(make_dataset(tmp_path / str(d), videos=16, classes=3, dim=48, difficulty=d)) for d in (0.0, 0.5, 1.0)
    ]
    assert aucs[0] > 0.85
    assert aucs[0] > aucs[1] + 0.05 > aucs[2] + 0.1
    assert aucs[2] > 0.5


def test_statistics_are_those_of_the_reference_features(shared, tmp_path):
    """The reference generator on the same annotations (60 + 60 videos, difficulty 0.5, seeds 0-2) has mean .358-.362,
    standard deviation .530-.536, 49.3-50.5 % zeros, and a correlation of .586-.591 at lag 1 within videos."""
    import_hrpro(shared("data", "thumos14"), tmp_path / "t", dim=64)
    data = Dataset.open(tmp_path / "t")
    truth = {**ground_truth(data, "train").by_video(), **ground_truth(data, "test").by_video()}
    world = World(data.classes, 0, 0.5, 64)
    ids = data.videos("train")[::8] + data.videos("test")[::8]
    videos = [video_features(world, data, v, truth.get(v, Segments.empty()), 0) for v in ids]
    every = np.concatenate(videos)
    assert every.min() == 0
    assert every.mean() == pytest.approx(0.36, abs=0.03)
    assert every.std() == pytest.approx(0.53, abs=0.03)
    assert (every == 0).mean() == pytest.approx(0.50, abs=0.03)
    centred = [x - x.mean(0) for x in videos]
    lag = np.mean([(x[1:] * x[:-1]).sum() / (x * x).sum() for x in centred])
    assert lag == pytest.approx(0.59, abs=0.03)


def test_command(tmp_path):
    run = CliRunner()
    arguments = [str(tmp_path / "d"), "--videos", "2", "--classes", "2", "--dim", "6", "--test", "1", "--dev", "1"]
    result = run.invoke(commands.synth, arguments)
    assert result.exit_code == 0, result.output
    assert "invented 4 videos of 2 classes" in result.output
    assert isinstance(run.invoke(commands.synth, arguments).exception, DataError)
    result = run.invoke(commands.synth, [str(tmp_path / "d"), "--dim", "4", "--force"])
    assert "wrote the features of 4 videos" in result.output
    assert Dataset.open(tmp_path / "d").features("dev_0000").shape[1] == 4
