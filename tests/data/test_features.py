"""Feature files: what is refused by name, by the same rules when they are opened, by `tad check` and before a run."""

from __future__ import annotations

import io
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands.run import run
from tad.commands.stages import label
from tad.commands.tune import tune
from tad.data.dataset import Dataset
from tad.data.features import Unreadable, header_of, read_header
from tad.errors import DataError, TadError
from tad.prepare.check import check
from tad.prepare.check_features import require_features
from tests.support.tiny import RECIPE, tiny_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("features") / "toy", videos=3, classes=2, dim=4)


@pytest.fixture
def data(made, tmp_path) -> Dataset:
    """A dataset whose first training video may be broken: features of the others are links."""
    for path in made.root.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "features").mkdir()
    for path in (made.root / "features").iterdir():
        (tmp_path / "features" / path.name).symlink_to(path)
    return Dataset.open(tmp_path)


VIDEO = "train_0000"


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def claiming(text: str, body: int = 64) -> bytes:
    """A file whose header gives this shape and type."""
    head = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + b"\0" * body


def archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, np.zeros((3, 4), np.float32))
    return file.getvalue()


HEADER = "{{'descr': '<f4', 'fortran_order': False, 'shape': {}, }}"
BAD = {
    "nothing": (b"", "0 bytes"),
    "text": (b"hello, world", "it is no NumPy array; save the array alone"),
    "cut in the header": (saved(np.zeros((3, 4), np.float32))[:20], "its header is damaged"),
    "cut in the values": (saved(np.zeros((3, 4), np.float32))[:-1], "it is cut off: 175 bytes, 176 expected of shape"),
    "two arrays": (saved(np.zeros((3, 4), np.float32)) * 2, "there is more behind the array"),
    "absurd shape": (claiming(HEADER.format((10**30, 4))), "it is cut off"),
    "negative shape": (claiming(HEADER.format((-5, 4))), r"its header is damaged: shape \(-5, 4\)"),
    "flags as shape": (claiming(HEADER.format((True, 4))), "its header is damaged"),
    "code in the header": (claiming("{'descr': __import__('os').getcwd(), 'shape': (1, 4)}"), "its header is damaged"),
    "nested header": (claiming("(" * 100), "its header is damaged"),
    "npz": (archive(), r"it is a zip archive \(as .npz, .pt and spreadsheets are\)"),
    "pickle": (b"\x80\x04K\x00.", "it is a pickle"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
    "objects": (saved(np.array([{}], dtype=object)), "it holds Python objects, which are never unpacked"),
    "integers": (np.zeros((9, 4), np.int64), r"int64 values, expected float16 or float32; convert it: np.save"),
    "doubles": (np.zeros((9, 4)), r"float64 values, expected float16 or float32; convert it: np.save"),
    "flags": (np.zeros((9, 4), bool), "bool values, expected float16 or float32"),
    "complex": (np.zeros((9, 4), np.complex64), "complex64 values, expected float16 or float32"),
    "words": (np.full((9, 4), "1.5"), "str96 values, expected float16 or float32"),
    "records": (np.zeros((9, 4), [("a", "f4")]), "void32 values, expected float16 or float32"),
    "dates": (np.zeros((9, 4), "M8[s]"), "values, expected float16 or float32"),
    "a scalar": (np.float32(3), r"shape \(\), expected \[T >= 1, 4\]"),
    "three axes": (np.zeros((9, 1, 4), np.float32), r"shape \(9, 1, 4\), expected \[T >= 1, 4\]; squeeze it"),
    "no rows": (np.zeros((0, 4), np.float32), r"shape \(0, 4\), expected"),
    "another width": (np.zeros((9, 5), np.float32), r"shape \(9, 5\), expected \[T >= 1, 4\]"),
    "transposed": (np.zeros((4, 9), np.float32), r"shape \(4, 9\), .*it is transposed: save array.T"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_matrix_of_floats_is_refused_by_name(data, name):
    content, says = BAD[name]
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    path.write_bytes(content if isinstance(content, bytes) else saved(content))
    with pytest.raises(DataError, match=f"{VIDEO}.npy: .*{says}"):
        data.features(VIDEO)
    with pytest.raises(
        DataError, match=rf"1 of 4 videos cannot be used.*--no-check(?s:.*)features/{VIDEO}.npy: .*{says}"
    ):
        require_features(data)
    found = [f for f in check(data.root) if f.severity == "error"]
    assert {f.where for f in found} == {f"features/{VIDEO}.npy"}
    require_features(data, ["test"])


@pytest.mark.parametrize("kind", ["pipe", "folder", "device", "loop"])
def test_what_is_no_file_is_refused_and_not_waited_for(data, kind):
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero" if kind == "device" else path)
    says = "it cannot be opened" if kind == "loop" else "it is a folder, a named pipe or a device, not a file"
    for use in (lambda: data.features(VIDEO), lambda: require_features(data), lambda: data.fingerprint("train")):
        with pytest.raises(DataError, match=f"{VIDEO}.npy: (?s:.*){says}" if kind != "loop" else f"{VIDEO}.npy: "):
            use()
    assert ("unreadable feature file", f"features/{VIDEO}.npy") in [(f.kind, f.where) for f in check(data.root)]


@pytest.mark.parametrize(
    "make",
    [lambda x: np.asfortranarray(x), lambda x: x.astype(">f4"), lambda x: x.astype(np.float16), lambda x: x[:-1]],
    ids=["columns first", "other byte order", "half", "a row less"],
)
def test_what_published_files_may_be_is_read(data, make):
    right = np.array(data.features(VIDEO))
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    np.save(path, make(right))
    found = data.features(VIDEO)
    assert np.allclose(found, right[: len(found)], atol=1e-2) and found.dtype.isnative
    require_features(data)
    assert data.header(VIDEO).shape == found.shape


def test_a_header_of_another_version_is_read():
    file = io.BytesIO()
    np.lib.format.write_array(file, np.zeros((3, 4), np.float32), version=(3, 0))
    assert read_header(file.getvalue(), len(file.getvalue())).shape == (3, 4)
    with pytest.raises(Unreadable, match="its header is damaged"):
        read_header(b"\x93NUMPY\x09\x00" + file.getvalue()[8:], len(file.getvalue()))


@pytest.mark.parametrize(("rows", "kind"), [(0.8, "error"), (0.95, "warning"), (1.2, "error"), (10, "error")])
def test_rows_that_disagree_with_the_duration_stop_a_run_as_they_fail_the_check(data, rows, kind):
    right = np.array(data.features(VIDEO))
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    count = round(len(right) * rows)
    np.save(path, np.resize(right, (count, 4)))
    found = [f for f in check(data.root) if f.where == f"features/{VIDEO}.npy"]
    assert [(f.severity, f.kind) for f in found] == [(kind, "feature length")]
    if kind == "warning":
        require_features(data)
        return
    with pytest.raises(DataError) as refused:
        require_features(data)
    assert found[0].detail in str(refused.value) and f"{count} rows, {len(right)} expected" in str(refused.value)


def test_resized_features_have_the_length_that_the_grid_says(data):
    text = (data.root / "dataset.yaml").read_text()
    (data.root / "dataset.yaml").write_text(text.replace("  fps: 25", "  fps: 25\n  length: 7"))
    with pytest.raises(DataError, match="4 of 4 videos cannot be used") as refused:
        require_features(Dataset.open(data.root))
    assert "rows, grid.length says 7" in str(refused.value)


def test_missing_files_are_told_with_what_makes_them(data):
    for path in (data.root / "features").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"the features of 4 of 4 videos.*run `tad synth .*4 problems"):
        require_features(data)


def test_the_commands_refuse_such_a_dataset_unless_they_are_told_not_to_check(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    np.save(path, np.zeros((1, 4), np.float32))
    where = ["--data", str(data.root), "--local"]
    commands = {
        run: [RECIPE, *where],
        tune: [RECIPE, "--space", "rounds", "--trials", "1", *where],
        label: ["pser", "--proposals", "none.json", "--out", "o.json", *where],
    }
    for command, arguments in commands.items():
        for more in ([], ["--no-check"]):
            if more and command in (run, tune):
                continue  # they would train
            result = CliRunner().invoke(command, [*arguments, *more])
            assert isinstance(result.exception, TadError), result.output
            refused = f"features/{VIDEO}.npy: feature length: 1 rows, " in str(result.exception)
            assert refused == (not more), (command.name, more, result.exception)
    assert not (tmp_path / "runs").exists()


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_named(data):
    path = data.root / "features" / f"{VIDEO}.npy"
    path.unlink()
    path.write_bytes(b"x")
    path.chmod(0)
    with pytest.raises(DataError, match="permission denied"):
        data.features(VIDEO)


def test_headers_are_read_in_threads(tmp_path):
    """Python 3.11 may fail when two threads parse Python text at once, as numpy parses headers."""
    for i in range(32):
        np.save(tmp_path / f"{i}.npy", np.zeros((i + 1, 4), np.float32))
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda i: header_of(tmp_path / f"{i % 32}.npy").shape[0], range(6400)))
    assert found == [i % 32 + 1 for i in range(6400)]
