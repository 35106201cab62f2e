"""`tad resize`: rows at evenly spaced times, everything else as it was."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.check import check
from tad.prepare.resize import interpolated, resize
from tad.prepare.split import split_holdout
from tests.support.tiny import tiny_dataset


@pytest.fixture
def data(tmp_path) -> Dataset:
    return tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=8, finer=2)


@pytest.mark.parametrize("source", [SnippetGrid(25, 16, 16, 40), SnippetGrid(30, 4, 16, 90, offset=-8)])
def test_a_feature_that_is_the_time_is_the_time_on_the_new_grid(source):
    seconds = source.from_position(np.arange(source.length, dtype=np.float64))
    for rows in (7, 40, 300):
        target = SnippetGrid.resized(float(seconds[-1]) + 0.3, rows)
        wanted = target.from_position(np.arange(rows, dtype=np.float64))
        found = interpolated(seconds[:, None].astype(np.float32), source, target)[:, 0]
        np.testing.assert_allclose(found, np.clip(wanted, seconds[0], seconds[-1]), atol=1e-5)


def test_as_many_rows_are_what_they_were():
    features = np.random.default_rng(0).random((50, 3)).astype(np.float16)
    grid = SnippetGrid.resized(20.0, 50)
    np.testing.assert_allclose(interpolated(features, grid, grid), features, atol=1e-6)


def test_one_row_of_a_long_video_and_many_of_one_row():
    long, short = SnippetGrid.resized(9.0, 3), SnippetGrid.resized(9.0, 1)
    assert interpolated(np.array([[0.0], [1.0], [4.0]]), long, short).tolist() == [[1.0]]
    assert interpolated(np.array([[5.0]]), short, long).tolist() == [[5.0]] * 3


def test_the_dataset_is_another_in_its_features_alone(data, tmp_path):
    split_holdout(data, 0.25, 0.3, 0, tmp_path / "split")
    split = Dataset.open(tmp_path / "split")
    assert str(resize(split, 20, tmp_path / "out")) == f"{tmp_path / 'out'}: 6 feature files of 20 rows"
    made = Dataset.open(tmp_path / "out")
    assert not [f for f in check(made.root) if f.severity == "error"]
    assert made.name == f"{split.name}-20" and made.manifest.grid.length == 20
    assert made.manifest.split == split.manifest.split and made.manifest.features == split.manifest.features
    for role in ("train", "dev", "test"):
        assert made.videos(role) == split.videos(role)
        assert ground_truth(made, role).digest() == ground_truth(split, role).digest()
        for video in made.videos(role):
            assert made.features(video).shape == (20, 8) and made.features(video).dtype == split.features(video).dtype
            assert not made.feature_path(video).is_symlink()
            assert made.reading("finer").feature_path(video).is_symlink()
    for name in ("points.csv", "held_out.csv"):
        assert (made.root / name).read_bytes() == (split.root / name).read_bytes()


def test_files_that_do_not_fit_are_refused(data, tmp_path):
    video = data.videos("train")[0]
    path = data.feature_path(video)
    np.save(path, data.features(video)[: len(data.features(video)) // 2])
    with pytest.raises(DataError, match=rf"(?s)features of 1 of 6 videos.*{video}.*feature length"):
        resize(data, 20, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert resize(data, 20, tmp_path / "out", check=False).files == 6
    path.unlink()
    assert resize(data, 20, tmp_path / "out", check=False, force=True).files == 5
    shutil.rmtree(data.root / "features")
    with pytest.raises(DataError, match="no feature files to resize"):
        resize(data, 20, tmp_path / "none", check=False)


def test_the_command(data, tmp_path):
    def run(*more: str):
        return CliRunner().invoke(commands.resize, [str(data.root), str(tmp_path / "out"), *more])

    result = run("--rows", "12")
    assert result.exit_code == 0, result.output
    assert result.output == f"{tmp_path / 'out'}: 6 feature files of 12 rows\n"
    assert "length: 12\n" in (tmp_path / "out" / "dataset.yaml").read_text()
    assert run().exit_code == 2 and run("--rows", "0").exit_code == 2
