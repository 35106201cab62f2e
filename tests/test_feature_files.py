"""Feature files of other code bases: how they are found, what they may hold, and what is written of them."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tad.data.feature_files import Features, Lookup, find
from tad.data.feature_names import locate
from tad.errors import DataError

ROWS = {"a": 9, "b": 11}
"""Rows of each video; the values are all different and exact in float16."""


def matrix(video: str, width: int = 4, begin: int = 0) -> np.ndarray:
    return (np.arange(ROWS[video] * width).reshape(-1, width) % 512 + begin).astype(np.float32)


def put(path: Path, array: Any, **more: Any) -> None:
    """Writes one file of the kind that its name says; more arrays go beside the first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, array)
    elif path.suffix == ".npz":
        np.savez_compressed(path, **{"feats": array} | more)
    elif path.suffix in (".pt", ".pth"):
        tensors = {k: torch.tensor(v) for k, v in ({"feats": array} | more).items()}
        torch.save(tensors if more else tensors["feats"], path)
    else:
        h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
        with h5py.File(path, "w") as file:
            for key, value in ({"feats": array} | more).items():
                file[key] = value


def bring(
    folder: Path, out: Path, rows: dict[str, int] | None = None, videos: tuple[str, ...] = ("a", "b"), **lookup: Any
) -> tuple[Features, dict[str, np.ndarray], list[str]]:
    """Finds and writes; the features, the files' content and all warnings.

    Raises:
        DataError: the problems, one a line.
    """
    problems: list[str] = []
    warnings: list[str] = []
    found = find(dict.fromkeys(videos, folder), Lookup(**lookup), rows or {}, problems, warnings)
    if problems:
        raise DataError("\n".join(problems))
    out.mkdir()
    warnings += found.write(out, "link")
    return found, {p.stem: np.load(p, allow_pickle=False) for p in sorted((out / "features").glob("*.npy"))}, warnings


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


def test_an_hdf5_file_leads_to_no_other_file(tmp_path):
    h5py = pytest.importorskip("h5py", reason="HDF5 files need h5py")
    (tmp_path / "src").mkdir()
    put(tmp_path / "secret.h5", matrix("a"))
    layout = h5py.VirtualLayout(shape=(9, 4), dtype="f4")
    layout[:] = h5py.VirtualSource(tmp_path / "secret.h5", "feats", shape=(9, 4))
    cases = {
        "external": lambda file: file.__setitem__("feats", h5py.ExternalLink(str(tmp_path / "secret.h5"), "/feats")),
        "soft": lambda file: file.__setitem__("feats", h5py.SoftLink("/x")),
        "virtual": lambda file: file.create_virtual_dataset("feats", layout),
        "raw": lambda file: file.create_dataset(
            "feats", (9, 4), "f4", external=[(str(tmp_path / "secret.h5"), 0, h5py.h5f.UNLIMITED)]
        ),
        "unwritten": lambda file: file.create_dataset("feats", (10**9, 10**3), "f4", chunks=(1000, 1000)),
    }
    for name, make in cases.items():
        with h5py.File(tmp_path / "src" / "a.h5", "w") as file:
            make(file)
        with pytest.raises(DataError, match=r"link|other files|bytes are there"):
            bring(tmp_path / "src", tmp_path / name, videos=("a",))
        assert not (tmp_path / name).exists()


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
        assert any(f"video {video}: streams of {ROWS[video]} and {ROWS[video] + 1} rows, cut" in w for w in warnings)


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
    assert "converted feature files: 1 (0.2 MB); float64 becomes float32" in found.notes
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
    with pytest.raises(DataError, match="leave --transpose away"):
        bring(tmp_path / "resized", tmp_path / "4", dict.fromkeys(ROWS, 40), transpose=True)


def test_widths_that_differ_are_counted(tmp_path):
    put(tmp_path / "src" / "a.npy", matrix("a", 3))
    put(tmp_path / "src" / "b.npy", matrix("b", 4))
    with pytest.raises(DataError, match=r"several widths: 3 \(1 files\), 4 \(1 files\)"):
        bring(tmp_path / "src", tmp_path / "out")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.ones((3, 4), bool), r"true or false \(bool\)"),
        (np.ones((3, 4), np.uint8), r"integers \(uint8\)"),
        (np.ones((3, 4), np.int64), r"integers \(int64\)"),
        (np.ones((3, 4), np.complex64), r"complex numbers \(complex64\)"),
        (np.full((3, 4), "x"), "text"),
        (np.full((3, 4), b"x"), "text"),
        (np.zeros((3, 4), [("t", "f4")]), "records"),
        (np.zeros((3, 4), "M8[s]"), "M"),
        (np.ones(4, np.float32), r"shape \[4\], expected \[T, D\]"),
        (np.ones((), np.float32), r"shape \[\], expected"),
        (np.ones((3, 4, 7, 7), np.float32), r"shape \[3, 4, 7, 7\], expected"),
        (np.ones((0, 4), np.float32), r"is empty: shape \[0, 4\]"),
    ],
    ids=lambda value: None if isinstance(value, str) else f"{value.dtype.kind}{value.ndim}",
)
@pytest.mark.parametrize("kind", [".npy", ".npz"])
def test_what_cannot_be_features_is_refused_by_name(tmp_path, array, message, kind):
    put(tmp_path / "src" / f"a{kind}", array)
    with pytest.raises(DataError, match=rf"a\{kind}.*{message}"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))
    assert not (tmp_path / "out").exists()


class Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.marker),)


def test_nothing_is_unpickled(tmp_path):
    evil = np.array([[Evil(tmp_path / "ran")]], dtype=object)
    (tmp_path / "src").mkdir()
    np.save(tmp_path / "src" / "a.npy", evil, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects, which are never unpacked"):
        bring(tmp_path / "src", tmp_path / "1", videos=("a",))
    np.savez(tmp_path / "src" / "b.npz", feats=evil, allow_pickle=True)
    with pytest.raises(DataError, match="Python objects"):
        bring(tmp_path / "src", tmp_path / "2", videos=("b",), pattern="{id}.npz", key="feats")
    for name, new in (("c.pt", True), ("d.pth", False)):
        torch.save({"feats": Evil(tmp_path / "ran")}, tmp_path / "src" / name, _use_new_zipfile_serialization=new)
        with pytest.raises(DataError, match="holds more than tensors, which could run code"):
            bring(tmp_path / "src", tmp_path / "3", videos=(name[0],), pattern=f"{{id}}{Path(name).suffix}")
    assert not (tmp_path / "ran").exists()


def test_values_that_are_no_numbers_are_named(tmp_path):
    broken = matrix("a").astype(np.float64)
    broken[0, 0], broken[1, 1], broken[2, 2] = np.nan, np.inf, 1e300  # the last is beyond float32
    put(tmp_path / "src" / "a.npz", broken)
    put(tmp_path / "src" / "b.npz", matrix("b"))
    warnings = bring(tmp_path / "src", tmp_path / "out")[2]
    assert len(warnings) == 1
    assert "features with NaN or Inf: 1 problem" in warnings[0] and "video a: 3 of 36 values" in warnings[0]


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    (tmp_path / "src").mkdir()
    os.mkfifo(tmp_path / "src" / "a.npy")
    (tmp_path / "src" / "b.npy").symlink_to("/dev/zero")
    with pytest.raises(DataError, match=r"(?s)a.npy: is a named pipe.*b.npy: is a device"):
        bring(tmp_path / "src", tmp_path / "out")


def bomb(path: Path) -> None:
    """100 MB of zeros in a file of 100 KB."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("feats.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (25_000, 1_000)})
        for _ in range(100):
            file.write(bytes(10**6))


def header(shape: str) -> bytes:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + bytes(64)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.npy", lambda p: p.write_bytes(b""), "not a plain .npy file"),
        ("a.npy", lambda p: p.write_bytes(b"\x93NUMPY\x01\x00v\x00{"), "not a plain .npy file"),
        ("a.npy", lambda p: p.write_bytes(header("(10, 4)")), "it is cut off: 192 bytes, 288 expected"),
        ("a.npy", lambda p: p.write_bytes(header(f"({10**30}, 16)")), "it is cut off"),
        ("a.npy", lambda p: p.write_bytes(header("(-5, 16)")), "its header is damaged"),
        ("a.npy", lambda p: np.savez(p.open("wb"), x=np.ones(3)), "not a plain .npy file"),
        ("a.npz", lambda p: p.write_bytes(b"PK\x03\x04"), "not a plain .npz file"),
        ("a.npz", bomb, "more than 200 times"),
        ("a.pt", lambda p: p.write_bytes(b"\x80\x02."), "not a plain .pt file|more than tensors"),
        ("a.pt", lambda p: torch.save([1, 2], p), "no plain tensor"),
        ("a.pt", lambda p: torch.save(torch.ones(1, 1).expand(10**9, 1000), p), "cut off or damaged"),
        ("a.pt", lambda p: torch.save(torch.eye(4).to_sparse(), p), "no plain tensor"),
    ],
)
def test_damaged_and_hostile_files_end_in_one_sentence(tmp_path, name, write, message):
    (tmp_path / "src").mkdir()
    write(tmp_path / "src" / name)
    with pytest.raises(DataError, match=rf"{name}.*({message})"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))


def test_damage_behind_the_header_is_found_when_it_is_read(tmp_path):
    put(tmp_path / "src" / "a.npz", np.random.default_rng(0).normal(size=(9, 400)).astype(np.float32))
    content = bytearray((tmp_path / "src" / "a.npz").read_bytes())
    content[len(content) // 2] ^= 255
    (tmp_path / "src" / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a.npz: not a plain .npz file"):
        bring(tmp_path / "src", tmp_path / "out", videos=("a",))
