"""Further features of a dataset: another grid and other files under the same videos and labels."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.prepare.check import check
from tad.prepare.check_features import require_features
from tad.prepare.split import split_holdout, split_kfold
from tad.prepare.synth import make_dataset, write_features


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two training videos and a test video with features of 16 and of every 4 frames."""
    folder = tmp_path_factory.mktemp("further") / "data"
    make_dataset(folder, videos=2, test=1, classes=2, dim=6, finer=4)
    return folder


@pytest.fixture
def data(made: Path, tmp_path: Path) -> Dataset:
    shutil.copytree(made, tmp_path / "data")
    return Dataset.open(tmp_path / "data")


def described(root: Path, **changes: object) -> None:
    """dataset.yaml with other values of the further features."""
    document = yaml.safe_load((root / "dataset.yaml").read_text())
    document["features"]["finer"] |= changes
    (root / "dataset.yaml").write_text(yaml.safe_dump(document))


def test_a_view_has_its_own_rows_at_the_same_times(data: Dataset) -> None:
    finer, video = data.reading("finer"), data.videos("train")[0]
    usual, grid = data.grid(video), finer.grid(video)
    assert grid.rate == 4 * usual.rate and len(finer.features(video)) == grid.length > 3.9 * usual.length
    row = 4 * np.arange(usual.length)
    assert grid.from_position(row) == pytest.approx(usual.from_position(np.arange(usual.length)))
    assert finer.feature_path(video) == data.root / "features-finer" / f"{video}.npy"
    assert finer.videos("train") == data.videos("train") and finer.duration(video) == data.duration(video)
    assert finer.points(video) is data.points(video) and finer.header(video).shape == finer.features(video).shape
    assert data.reading(None) is data


def test_it_travels_as_a_path_and_a_name(data: Dataset) -> None:
    held = data.videos("train")[:1]
    view = data.holding(held).reading("finer")
    sent = pickle.dumps(view)
    assert len(sent) < 500
    there = pickle.loads(sent)
    assert (there.read, there.videos("dev"), there.manifest.grid) == ("finer", held, data.manifest.features["finer"])
    assert there.fingerprint("dev") == view.fingerprint("dev") != data.holding(held).fingerprint("dev")


def test_the_fingerprint_is_of_what_is_read(data: Dataset) -> None:
    usual, finer = data.fingerprint("train"), data.reading("finer").fingerprint("train")
    path = data.reading("finer").feature_path(data.videos("train")[0])
    np.save(path, np.load(path) + 1)
    changed = Dataset.open(data.root)
    assert changed.fingerprint("train") == usual and changed.reading("finer").fingerprint("train") != finer
    described(data.root, offset=2)
    assert Dataset.open(data.root).fingerprint("train") == usual
    assert Dataset.open(data.root).reading("finer").fingerprint("train") != changed.reading("finer").fingerprint(
        "train"
    )


def test_features_that_are_not_there_are_named_with_their_file_and_key(data: Dataset) -> None:
    with pytest.raises(DataError, match=r"dataset.yaml: no features named 'fine' \(found: finer\).*features-fine/"):
        data.reading("fine")
    first, second = data.videos("train")
    view = data.reading("finer")
    view.feature_path(first).unlink()
    with pytest.raises(DataError, match=rf"features-finer/{first}.npy: no feature file"):
        view.features(first)
    with pytest.raises(
        DataError, match=rf"(?s)the features 'finer' of 1 of 2 videos .*features-finer/{first}.npy: missing"
    ):
        require_features(view, ["train"])
    require_features(data, ["train"])
    np.save(view.feature_path(second), np.zeros((3, 5), np.float32))
    for use in (lambda: view.features(second), lambda: require_features(view, ["train"])):
        with pytest.raises(DataError, match=r"(?s)expected \[T >= 1, 6\] \(features.finer.dim of dataset.yaml\)"):
            use()
    details = [f"{f.where}: {f.detail}" for f in check(data.root)]
    assert any(f"video {first}: no features-finer/{first}.npy" in text for text in details)
    assert any("check features.finer.fps, stride and window" in text for text in details)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"Finer": {"dim": 4}}, "'Finer' cannot be names of features"),
        ({"../x": {"dim": 4}}, "cannot be names of features"),
        ({"finer": {"stride": 4}}, "features.finer.dim: Field required"),
        ({"finer": {"dim": 4, "step": 4}}, "features.finer.step: Extra inputs"),
    ],
)
def test_a_malformed_description_is_refused(data: Dataset, features: dict, message: str) -> None:
    document = yaml.safe_load((data.root / "dataset.yaml").read_text()) | {"features": features}
    (data.root / "dataset.yaml").write_text(yaml.safe_dump(document))
    with pytest.raises(DataError, match=r"dataset\.yaml") as caught:
        Dataset.open(data.root)
    assert message in str(caught.value)


def test_frames_of_the_video_need_its_rate(data: Dataset) -> None:
    described(data.root, fps="native")
    text = (data.root / "annotations.json").read_text().replace('"fps"', '"rate"')
    (data.root / "annotations.json").write_text(text)
    with pytest.raises(DataError, match="the feature grid counts frames of the video"):
        Dataset.open(data.root)


def test_check_tells_of_a_folder_that_is_not_described_and_of_one_without_files(data: Dataset) -> None:
    assert check(data.root) == []
    (data.root / "features-finer").rename(data.root / "features-fine")
    found = [(f.severity, f.kind, f.where) for f in check(data.root)]
    assert found == [("error", "no features", "features-finer"), ("warning", "extra folder", "features-fine")]


def test_datasets_made_of_it_have_both(data: Dataset, tmp_path: Path) -> None:
    split_holdout(data, 0.5, None, 0, tmp_path / "dev")
    split_kfold(data, 2, 0, tmp_path / "folds")
    for folder in (tmp_path / "dev", tmp_path / "folds" / "fold-1"):
        assert not [f for f in check(folder) if f.severity == "error"]
        made = Dataset.open(folder).reading("finer")
        for video in made.videos_by_id:
            assert np.array_equal(made.features(video), data.reading("finer").features(video))


def test_a_uri_gives_both(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    (data.root / "features-finer" / "x.npy").write_bytes(b"")
    (data.root / "other").mkdir()
    remote = Dataset.open(f"file://{data.root}")
    assert check(remote.place) == check(data.root) and [f.kind for f in check(data.root)] == ["extra file"]
    (data.root / "features-finer" / "x.npy").unlink()
    assert check(remote.place) == [], "what is gone there goes here, too"
    for name in (None, "finer"):
        there, here = remote.reading(name), data.reading(name)
        assert there.fingerprint("train") == here.fingerprint("train")
        video = here.videos("train")[0]
        assert np.array_equal(there.features(video), here.features(video)) and there.header(video) == here.header(video)


def test_synth_writes_what_is_described(data: Dataset) -> None:
    before = {name: data.reading(name).fingerprint("train") for name in (None, "finer")}
    described(data.root, dim=9)
    write_features(data.root, dim=5, force=True)
    made = Dataset.open(data.root)
    assert (made.manifest.grid.dim, made.manifest.features["finer"].dim) == (5, 9) and check(data.root) == []
    described(data.root, dim=6)
    write_features(data.root, dim=6, force=True)
    again = Dataset.open(data.root)
    assert {name: again.reading(name).fingerprint("train") for name in (None, "finer")} == before


def test_finer_features_leave_the_usual_ones_alone(data: Dataset, tmp_path: Path) -> None:
    plain = make_dataset(tmp_path / "plain", videos=2, test=1, classes=2, dim=6)
    assert plain.fingerprint("train") == data.fingerprint("train")
    with pytest.raises(DataError, match="finer features cannot have 1 rows"):
        make_dataset(tmp_path / "other", videos=2, finer=1)
