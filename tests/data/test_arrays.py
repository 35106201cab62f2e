"""Arrays of many videos in a few files: as they were, read-only, without pickles; damage is told."""

from __future__ import annotations

import numpy as np
import pytest

from tad.data.arrays import ALIGNED, INDEX, SMALL, Place, file_name, find, index_rows, message, write_index
from tad.data.artifact import Artifact
from tad.errors import DamagedError
from tad.files import write_json
from tests.support.artifacts import with_arrays


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "i8", "u1"])
def test_arrays_come_back_as_they_were(tmp_path, dtype):
    """Small and large, of any shape, rows or columns first, in any order of names."""
    values, large = np.arange(24).reshape(4, 6), np.ones((SMALL // 2, 2))
    shapes = [values, values[0], values[:, :1], values.T, values[::2], values[:0], values[0, 0], large]
    arrays = {f"key/v{i}": np.asarray(a).astype(dtype, order="K") for i, a in enumerate(shapes)}
    names = list(arrays)
    artifact = with_arrays(tmp_path / "x", *({n: arrays[n] for n in names[i::3][::-1]} for i in range(3)), {})
    for name, expected in arrays.items():
        key, video = name.split("/")
        found = artifact.array(key, video)
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        np.testing.assert_array_equal(found, expected)
        assert found.flags.f_contiguous or not expected.flags.f_contiguous, "sums keep their order"
        assert not found.flags.writeable
        assert find(artifact.path, key, video).offset % ALIGNED == 0
    for key, video in (("key", "v8"), ("key", "v"), ("other", "v0"), ("a", "v"), ("z", "v")):
        with pytest.raises(FileNotFoundError, match="v"):
            artifact.array(key, video)


@pytest.mark.parametrize("array", [np.zeros(2, ">f4"), np.zeros(2, bool), np.array([{}]), np.array(["a"])])
def test_what_would_not_come_back_is_refused(array):
    with pytest.raises(Exception, match=r"cannot be kept|Unsupported"):
        message(array)


@pytest.mark.parametrize("array", [np.arange(6.0), np.ones((SMALL, 2), "f2"), np.zeros((0, 3))])
def test_arrays_of_earlier_versions_are_read(tmp_path, array):
    """One .npy a video, without an index."""
    (tmp_path / "x" / "key").mkdir(parents=True)
    np.save(tmp_path / "x" / "key" / "v.npy", array)
    artifact = Artifact("f", tmp_path / "x")
    found = artifact.array("key", "v")
    assert (found.dtype, found.shape, found.flags.writeable) == (array.dtype, array.shape, False)
    np.testing.assert_array_equal(found, array)
    with pytest.raises(FileNotFoundError):
        artifact.array("key", "w")
    np.save(tmp_path / "x" / "key" / "v.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DamagedError, match=r"key/v.npy: .*allow_pickle=False.*moved to x.damaged-1"):
        artifact.array("key", "v")


def test_a_missing_file_is_damage_and_a_missing_array_is_not(tmp_path):
    for name in (INDEX, file_name(0)):
        artifact = with_arrays(tmp_path / name, {"key/v": np.zeros(3)})
        write_json(artifact.path / "meta.json", {"files": {INDEX: "1 a", file_name(0): "1 a"}})
        with pytest.raises(FileNotFoundError):
            artifact.array("key", "w")
        (artifact.path / name).unlink()
        with pytest.raises(DamagedError, match=f"in the store: {name}"):
            artifact.array("key", "v")


def cut(path, count=4):
    path.write_bytes(path.read_bytes()[:-count])


def test_a_file_that_ends_early_is_set_aside(tmp_path):
    for size, count in ((9, 100), (SMALL, 100), (9, 10**9)):
        artifact = with_arrays(tmp_path / f"{size}-{count}", {"key/v": np.zeros(size)})
        cut(artifact.path / file_name(0), count)
        with pytest.raises(DamagedError, match=r"arrays/000000.arrow: .*damaged-1"):
            artifact.array("key", "v")


def test_an_index_that_changed_is_read_again_and_a_damaged_one_is_set_aside(tmp_path):
    artifact = with_arrays(tmp_path / "x", {"key/v": np.zeros(9)})
    assert find(artifact.path, "key", "v") == Place(file_name(0), 0, size_of(9))
    (artifact.path / file_name(1)).write_bytes(message(np.ones(3)))
    write_index(artifact.path, [index_rows(1, {"key/v": (0, size_of(3))})])
    assert artifact.array("key", "v").tolist() == [1, 1, 1]
    cut(artifact.path / INDEX, 100)
    with pytest.raises(DamagedError, match=r"arrays/index.arrow: .*damaged-1"):
        artifact.array("key", "v")


def size_of(values: int) -> int:
    return message(np.zeros(values)).size
