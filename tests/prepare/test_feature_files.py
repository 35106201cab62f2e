"""Feature files of other code bases: how they are found, what they may hold, and what is written of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tad.errors import DataError
from tad.prepare.feature_names import locate
from tests.support.brought import ROWS, bring, matrix, put


@pytest.mark.parametrize("kind", [".npy", ".npz", ".pt", ".pth", ".h5", ".hdf5"])
def test_every_kind_gives_the_same_features(tmp_path, kind):
    for video in ROWS:
        put(tmp_path / "src" / f"{video}{kind}", matrix(video))
    found, made, warnings = bring(tmp_path / "src", tmp_path / "out")
    assert (found.width, found.dtype, warnings) == (4, "float32", [])
    for video in ROWS:
        assert made[video].dtype == np.dtype("<f4")
        assert np.array_equal(made[video], matrix(video))
        assert (tmp_path / "out" / "features" / f"{video}.npy").is_symlink() == (kind == ".npy")


@pytest.mark.parametrize("header", ["", "f0,f1,f2,f3\n", "\ufefff0,f1,f2,f3\r\n"])
def test_tables_of_numbers(tmp_path, header):
    """As MMAction2 publishes its features of ActivityNet; a column of zeros only is read as integers."""
    (tmp_path / "src").mkdir()
    for video in ROWS:
        lines = [",".join(f"{x:g}" for x in row) for row in matrix(video) / 8 * [1, 1, 1, 0]]
        (tmp_path / "src" / f"v_{video}.csv").write_text(header + "\n".join(lines) + "\n", newline="")
    made = bring(tmp_path / "src", tmp_path / "out")[1]
    assert np.array_equal(made["b"], matrix("b") / 8 * np.array([1, 1, 1, 0], np.float32))
    (tmp_path / "src" / "v_a.csv").write_text(header + "1,2,x,4\n")
    with pytest.raises(DataError, match=r"column 3 holds more than numbers|not a plain .csv file"):
        bring(tmp_path / "src", tmp_path / "2")


def test_old_files_of_torch_are_read(tmp_path):
    (tmp_path / "src").mkdir()
    for video in ROWS:
        torch.save(torch.tensor(matrix(video)), tmp_path / "src" / f"{video}.pt", _use_new_zipfile_serialization=False)
    assert np.array_equal(bring(tmp_path / "src", tmp_path / "out")[1]["b"], matrix("b"))


@pytest.mark.parametrize("kind", [".npz", ".pt", ".h5"])
def test_one_of_several_arrays_is_chosen_by_its_key(tmp_path, kind):
    for video in ROWS:
        put(tmp_path / "usual" / f"{video}{kind}", matrix(video), probs=matrix(video, 7))
        put(tmp_path / "other" / f"{video}{kind}", matrix(video), features=matrix(video, 7), mine=matrix(video, 5))
    found, made, _ = bring(tmp_path / "usual", tmp_path / "1")
    assert np.array_equal(made["a"], matrix("a")) and "the array 'feats' of each file is taken" in found.notes
    with pytest.raises(DataError, match=r"expected one array, found feats, features, mine; choose one with --key"):
        bring(tmp_path / "other", tmp_path / "2")
    assert np.array_equal(bring(tmp_path / "other", tmp_path / "3", key="mine")[1]["a"], matrix("a", 5))
    with pytest.raises(DataError, match=r"holds no array 'x'; it has feats, features, mine"):
        bring(tmp_path / "other", tmp_path / "4", key="x")


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (lambda x: x.astype(np.float16), "float16"),
        (lambda x: x.astype(np.float64), "float32"),
        (lambda x: x.astype(">f4"), "float32"),
        (np.asfortranarray, "float32"),
        (lambda x: x[:, None, None, :], "float32"),
        (lambda x: x[None], "float32"),
        (lambda x: x[None].astype(np.float16), "float16"),
        (lambda x: x.astype(np.longdouble), "float32"),
    ],
    ids=["half", "double", "big-endian", "by-column", "T11D", "1TD", "half-1TD", "long"],
)
def test_types_and_shapes_are_brought_to_one(tmp_path, change, kept):
    for video in ROWS:
        put(tmp_path / "src" / f"{video}.npy", change(matrix(video)))
    found, made, _ = bring(tmp_path / "src", tmp_path / "out")
    assert found.dtype == kept
    for video in ROWS:
        assert made[video].dtype == np.dtype(kept) and np.array_equal(made[video], matrix(video))
    linked = (tmp_path / "out" / "features" / "a.npy").is_symlink()
    assert linked == (not any("converted" in note for note in found.notes))
    if change(matrix("a")).dtype == np.float64:
        assert "float64 becomes float32" in " ".join(found.notes)


def test_a_tensor_of_bfloat16_and_one_that_was_trained(tmp_path):
    (tmp_path / "src").mkdir()
    for video in ROWS:
        torch.save(torch.tensor(matrix(video)[:, :2]).bfloat16().requires_grad_(), tmp_path / "src" / f"{video}.pt")
    made = bring(tmp_path / "src", tmp_path / "out")[1]
    assert np.array_equal(made["a"], matrix("a")[:, :2])


def test_a_single_row_stays_a_row(tmp_path):
    put(tmp_path / "src" / "a.npy", np.ones((1, 1, 1, 6), np.float32))
    assert bring(tmp_path / "src", tmp_path / "out", videos=("a",))[1]["a"].shape == (1, 6)


@pytest.mark.parametrize(
    ("names", "pattern"),
    [
        ("{id}.npy", "{id}.npy"),
        ("v_{id}.npy", "v_{id}.npy"),
        ("{id}_rgb.npz", "{id}_rgb.npz"),
        ("i3d/{id}.pt", "i3d/{id}.pt"),
        ("a/b/feature-{id}.npy", "a/b/feature-{id}.npy"),
        ("{id}/{id}.npy", "{id}/{id}.npy"),
        ("{id}/clip.npy", "{id}/clip.npy"),
    ],
)
def test_one_pattern_that_explains_the_files_is_found(tmp_path, names, pattern):
    videos = ["-AbC_1", "v_12", "12", "2", "Ünïcode", "x y"]
    for video in videos:
        put(tmp_path / names.replace("{id}", video), np.ones((3, 4), np.float32))
    (tmp_path / "README.txt").write_text("12")
    problems: list[str] = []
    located = locate(tmp_path, videos, None, problems)
    assert (located.pattern, problems, located.files.keys()) == (pattern, [], set(videos))
    given = locate(tmp_path, videos, names, problems)
    assert (given.files, problems) == (located.files, [])
    assert located.files["2"][0].path == tmp_path / names.replace("{id}", "2")


@pytest.mark.parametrize("name", ["all.h5", "all.npz"])
def test_one_file_that_holds_all_videos(tmp_path, name):
    arrays = {f"v_{video}": matrix(video) for video in ROWS}
    put(tmp_path / "src" / name, arrays["v_a"], **arrays)
    for i, folder in enumerate((tmp_path / "src", tmp_path / "src" / name)):
        found, made, warnings = bring(folder, tmp_path / str(i))
        assert np.array_equal(made["b"], matrix("b")) and not warnings
        assert f"feature files are named {name}/v_{{id}}" in found.notes
    assert np.array_equal(bring(tmp_path / "src", tmp_path / "given", pattern=f"{name}/v_{{id}}")[1]["a"], matrix("a"))


def test_groups_of_an_hdf5_file(tmp_path):
    """The layout of ActivityNet's C3D features: VIDEO/c3d_features."""
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    with h5py.File(tmp_path / "sub_activitynet_v1-3.c3d.hdf5", "w") as file:
        for video in ROWS:
            file[f"v_{video}/c3d_features"] = matrix(video)
    assert np.array_equal(bring(tmp_path, tmp_path / "out")[1]["b"], matrix("b"))


def test_without_h5py_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    (tmp_path / "a.h5").write_bytes(b"x")
    with pytest.raises(DataError, match=r"need h5py: pip install 'tad-selftrain\[h5\]'"):
        bring(tmp_path, tmp_path / "out", videos=("a",))


@pytest.mark.parametrize(
    ("names", "pattern"), [("{stream}/{id}.npy", None), ("{id}_{stream}.npz", None), ("x_{stream}_{id}.pt", None)]
)
def test_streams_are_joined_rgb_first(tmp_path, names, pattern):
    for stream, begin, longer in (("rgb", 0, 0), ("flow", 1000, 1)):
        for video in ROWS:
            array = np.vstack([matrix(video, 3, begin), np.full((longer, 3), 7.0)])
            put(tmp_path / "src" / names.replace("{id}", video).replace("{stream}", stream), array.astype(np.float16))
    found, made, warnings = bring(tmp_path / "src", tmp_path / "out", pattern=pattern)
    assert found.width == 6 and found.dtype == "float16"
    assert f"feature files are named {names}" in found.notes
    for video in ROWS:
        assert np.array_equal(made[video], np.hstack([matrix(video, 3), matrix(video, 3, 1000)]))
        assert any(f"video {video}: {ROWS[video]} and {ROWS[video] + 1} rows, cut" in w for w in warnings)


def test_a_stream_that_is_missing_or_too_short_is_named(tmp_path):
    put(tmp_path / "src" / "rgb" / "a.npy", matrix("a"))
    put(tmp_path / "src" / "flow" / "a.npy", matrix("a")[:7])
    put(tmp_path / "src" / "rgb" / "b.npy", matrix("b"))
    with pytest.raises(DataError) as caught:
        bring(tmp_path / "src", tmp_path / "out")
    assert "video a: its streams have 9 and 7 rows" in str(caught.value)
    assert "video b: " in str(caught.value) and "flow/b.npy is missing" in str(caught.value)
    only = bring(tmp_path / "src", tmp_path / "rgb", pattern="rgb/{id}.npy")[0]
    assert only.width == 4


def test_files_of_a_real_extractor(shared, tmp_path):
    """Beside rgb and flow it writes rates and timestamps, which are no matrices."""
    real = shared("data", "features", "untrimmed")
    video = "v_GGSY1Qvo990"
    found, made, _ = bring(real, tmp_path / "out", videos=(video,))
    parts = [np.load(real / f"i3d__{video}_None_raft_24_12_15_{stream}.npy") for stream in ("rgb", "flow")]
    assert made[video].shape == (21, 2048) and np.array_equal(made[video], np.hstack(parts).astype(np.float32))
    assert found.notes[0].endswith("i3d__{id}_None_raft_24_12_15_{stream}.npy")
    assert "converted feature files: 1 (172 kB); float64 becomes float32" in found.notes
    shapes = {v: a.shape for v, a in bring(real, tmp_path / "2", videos=("highjump", "tennis26"))[1].items()}
    assert shapes == {"highjump": (164, 2048), "tennis26": (89, 2048)}


def test_what_fits_as_well_must_be_chosen(tmp_path):
    for video in ROWS:
        put(tmp_path / "src" / "i3d" / f"{video}.npy", matrix(video))
        put(tmp_path / "src" / "tsp" / f"{video}.npy", matrix(video, 5))
    with pytest.raises(DataError, match=r"i3d/\{id\}.npy \(2 videos\), tsp/\{id\}.npy \(2 videos\); choose"):
        bring(tmp_path / "src", tmp_path / "out")
    assert bring(tmp_path / "src", tmp_path / "1", pattern="tsp/{id}.npy")[0].width == 5
    for video in ROWS:
        put(tmp_path / "src" / f"{video}.npy", matrix(video, 3))
        put(tmp_path / "src" / f"{video}.npz", matrix(video, 3))
    assert bring(tmp_path / "src", tmp_path / "2")[0].width == 3, "ID.npy is the plainest name"


def test_missing_files_are_listed_with_those_that_fit_nothing(tmp_path):
    put(tmp_path / "src" / "v_a.npy", matrix("a"))
    put(tmp_path / "src" / "clip7.npy", matrix("a"))
    found, _, warnings = bring(tmp_path / "src", tmp_path / "out")
    assert len(found) == 1
    assert warnings == [
        "features: no file for 1 of 2 videos: b; files are named v_{id}.npy; these belong to no video: clip7.npy"
    ]


@pytest.mark.parametrize(
    ("file", "lookup", "message"),
    [
        ("c10.npy", {}, r"1 feature files, none named after a video: c10.npy; .*--feature-pattern"),
        ("a12.npy", {}, "none named after a video: a12.npy"),  # of neither a nor 1
        ("a.mat", {}, "no features of a kind that can be read .*a.mat"),
        ("a.npy", {"pattern": "x.npy"}, "must hold {id}"),
        ("a.npy", {"pattern": "{id}{nr}.npy"}, "no other braces"),
        ("a.npy", {"pattern": "{id}.pkl"}, "must end with a kind of file that can be read"),
    ],
)
def test_files_that_do_not_fit(tmp_path, file, lookup, message):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / file).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        bring(tmp_path / "src", tmp_path / "out", videos=("a", "1"), **lookup)


def test_transposed_files_are_named_and_turned(tmp_path):
    for video in ROWS:
        put(tmp_path / "src" / f"{video}.npy", matrix(video).T)
    with pytest.raises(DataError, match=r"look transposed.*video a has \[4, 9\].*give --transpose"):
        bring(tmp_path / "src", tmp_path / "0")
    assert np.array_equal(bring(tmp_path / "src", tmp_path / "1", transpose=True)[1]["b"], matrix("b"))
    # Features resized in time are all alike: the rows that the grid expects tell.
    for video in ROWS:
        put(tmp_path / "resized" / f"{video}.pt", np.ones((1, 40, 10), np.float32))
    expected = dict.fromkeys(ROWS, 10)
    with pytest.raises(DataError, match=r"video a has \[40, 10\]; the feature grid expects 10 rows; give --transpose"):
        bring(tmp_path / "resized", tmp_path / "2", expected)
    assert bring(tmp_path / "resized", tmp_path / "3", expected, transpose=True)[0].width == 40
    with pytest.raises(DataError, match="leave out --transpose"):
        bring(tmp_path / "resized", tmp_path / "4", dict.fromkeys(ROWS, 40), transpose=True)


def test_widths_that_differ_are_counted(tmp_path):
    put(tmp_path / "src" / "a.npy", matrix("a", 3))
    put(tmp_path / "src" / "b.npy", matrix("b", 4))
    with pytest.raises(DataError, match=r"several widths: 3 \(1 files\), 4 \(1 files\)"):
        bring(tmp_path / "src", tmp_path / "out")


def test_values_that_are_no_numbers_are_named(tmp_path):
    broken = matrix("a").astype(np.float64)
    broken[0, 0], broken[1, 1], broken[2, 2] = np.nan, np.inf, 1e300  # the last is beyond float32
    put(tmp_path / "src" / "a.npz", broken)
    put(tmp_path / "src" / "b.npz", matrix("b"))
    warnings = bring(tmp_path / "src", tmp_path / "out")[2]
    assert len(warnings) == 1
    assert "features with NaN or Inf: 1 problem" in warnings[0] and "video a: 3 of 36 values" in warnings[0]
