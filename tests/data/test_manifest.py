"""dataset.yaml: which values are accepted, and how the others are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tad.data.manifest import Manifest, parse_manifest, read_manifest
from tad.errors import DataError
from tad.prepare.check import check

TEXT = "name: x\nclasses: [a, b]\nsubsets: {t: train}\ngrid: {dim: 4}\n"
RANGE = "must be native or a number of 0.0001 to 1e[+]06, not"


def read(folder: Path, old: str, new: str) -> Manifest:
    assert old in TEXT
    (folder / "dataset.yaml").write_text(TEXT.replace(old, new), encoding="utf-8")
    return read_manifest(folder)


@pytest.mark.parametrize(
    ("grid", "says"),
    [
        ("dim: true", "grid.dim: must be a number; true and false are none"),
        ("dim: 2000000", "grid.dim: .*less than or equal to 1000000"),
        ("dim: " + "9" * 400, "grid.dim: .*less than or equal to 1000000, not 999.* [.]{3}$"),
        ("dim: 4, stride: .inf", "grid.stride: .*finite number, not inf"),
        ("dim: 4, stride: 1e9", "grid.stride: .*less than or equal to 1000000"),
        ("dim: 4, stride: 1e-9", "grid.stride: .*greater than or equal to 0.001"),
        ("dim: 4, window: .nan", "grid.window: .*finite number, not nan"),
        ("dim: 4, window: yes", "grid.window: must be a number"),
        ("dim: 4, offset: 1e300", "grid.offset: .*less than or equal to 1000000"),
        ("dim: 4, offset: -.inf", "grid.offset: .*finite number"),
        ("dim: 4, length: 1000000000000", "grid.length: .*less than or equal to 1000000, not 1000000000000"),
        ("dim: 4, length: 0", "grid.length: .*greater than or equal to 1"),
        ("dim: 4, fps: true", f"grid.fps: {RANGE} True"),
        ("dim: 4, fps: -25", f"grid.fps: {RANGE} -25"),
        ("dim: 4, fps: .inf", f"grid.fps: {RANGE} inf"),
        ("dim: 4, fps: " + "9" * 400, f"grid.fps: {RANGE} 999"),
        ("dim: 4, fps: naive", f"grid.fps: {RANGE} 'naive'"),
        ("dim: 4, dtype: float64", "grid.dtype: .*'float16' or 'float32'"),
        ("dim: 0, stride: -1, fps: 0", "3 problems.*grid.fps.*grid.stride.*grid.dim"),
    ],
)
def test_grids_beyond_sense(tmp_path, grid, says):
    with pytest.raises(DataError, match=f"(?s)dataset.yaml: .*{says}"):
        read(tmp_path, "dim: 4", grid)


@pytest.mark.parametrize(
    "grid",
    ["fps: 48000, stride: 480", "fps: 0.01, stride: 1", "offset: -8", "length: 2304", "stride: 0.5", "fps: native"],
)
def test_grids_that_are_rare_and_right(tmp_path, grid):
    assert read(tmp_path, "dim: 4", f"dim: 4, {grid}").grid.dim == 4


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("../x", r"name: '../x' cannot be part of a folder's name"),
        ("a/b", "cannot be part"),
        ("a\\b", "cannot be part"),
        ("..", "cannot be part"),
        (".hidden", "cannot be part"),
        ("' '", "name: '' cannot be part"),
        ('"a\\0b"', "cannot be part"),
        ('"a\\nb"', "cannot be part"),
        ("x" * 101, "name: has 101 bytes; at most 100"),
        ("é" * 51, "name: has 102 bytes"),
        ("12", "name: Input should be a valid string, not 12; put it in quotes"),
        ("[a]", "name: Input should be a valid string$"),
    ],
)
def test_names_that_could_lead_out_of_the_runs_folder(tmp_path, name, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, "name: x", f"name: {name}")


def test_names_of_real_datasets(tmp_path):
    for name in ("thumos14-pooled-fold-3", "EPIC Kitchens 100 (verb)", "my däta 1", "HACS_v1.1+", "x" * 100):
        assert read(tmp_path, "name: x", f"name: '{name} '").name == name


@pytest.mark.parametrize(
    ("classes", "says"),
    [
        ("[]", "classes: "),
        ("['', ' ']", "'' is no class name"),
        ('["a\\nb"]', r"'a\\nb' holds a line break or control character"),
        ('["a\\u2028b"]', "holds a line break"),
        ('["a\\x1b[2J"]', "holds a line break or control character"),
        ("[a, 'a ', b, b, c]", "classes listed twice: a, b"),
        ('["caf\\u00e9", "cafe\\u0301"]', "'café' appears twice, in two Unicode forms"),
        ("[%s]" % ("x" * 501), "xxx.* is longer than 500 characters"),
        ("[no, 1]", r"(?s)classes.0: .*not False; put it in quotes.*classes.1: .*not 1; put it in quotes"),
        ("{a: 1}", "classes: Input should be a valid list"),
    ],
)
def test_class_names(tmp_path, classes, says):
    with pytest.raises(DataError, match=says):
        read(tmp_path, "[a, b]", classes)


def test_blanks_around_class_names_are_cut_off(tmp_path):
    assert read(tmp_path, "[a, b]", "[' FrisbeeCatch ', \"b\\t\"]").classes == ["FrisbeeCatch", "b"]


@pytest.mark.parametrize("key", ["ambiguous", "held_out"])
def test_other_files_are_beside_the_manifest(tmp_path, key):
    """An error shows nothing of a file of elsewhere."""
    secret = tmp_path / "secret.csv"
    secret.write_text("root:hush:0:0\n")
    data = tmp_path / "data"
    data.mkdir()
    (data / "annotations.json").write_text('{"database": {"v": {"subset": "t", "duration": 9, "annotations": []}}}')
    (data / "link.csv").symlink_to(secret)
    (data / "own.csv").symlink_to(data / "real.csv")
    (data / "real.csv").write_text("video_id,start,end\n" if key == "ambiguous" else "video_id,label,time\n")
    for file in (str(secret), "../secret.csv", "./../secret.csv", "a/b.csv", "''", ".", '"a\\0"'):
        (data / "dataset.yaml").write_text(TEXT + f"{key}: {file}\n")
        with pytest.raises(DataError, match=f"{key}: .* must be the name of a file beside dataset.yaml"):
            read_manifest(data)
    for file, says in (("link.csv", "is a link out of the dataset folder"), ("none.csv", f"names it under `{key}`")):
        (data / "dataset.yaml").write_text(TEXT + f"{key}: {file}\n")
        (found,) = [f for f in check(data) if f.where == file]
        assert found.severity == "error" and says in found.detail and "hush" not in found.detail
    (data / "dataset.yaml").write_text(TEXT + f"{key}: own.csv\n")
    assert not [f for f in check(data) if f.where == "own.csv"]
    assert Dataset.open(data).manifest.model_dump()[key] == "own.csv"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "must hold the keys name, classes, subsets and grid"),
        ("- a\n", "must hold the keys"),
        (TEXT + "name: y\nclasses: [c]\n", "2 problems.*line 5: the key 'name' appears.*line 6: the key 'classes'"),
        ("[" * 100_000, "nested too deeply"),
        ("name: \x00", "not a YAML file"),
    ],
)
def test_what_is_no_manifest(tmp_path, content, says):
    (tmp_path / "dataset.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"(?s)dataset.yaml: .*{says}"):
        read_manifest(tmp_path)
    assert [f for f in check(tmp_path) if f.kind == "dataset.yaml"]


def test_a_folder_in_place_of_the_manifest_is_told(tmp_path):
    (tmp_path / "dataset.yaml").mkdir()
    with pytest.raises(DataError, match=r"dataset.yaml: is a folder, not a file"):
        read_manifest(tmp_path)


def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path):
    (tmp_path / "dataset.yaml").write_bytes(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode())
    assert read_manifest(tmp_path) == parse_manifest({"name": "x", "classes": ["a", "b"]} | REST, "here")


REST = {"subsets": {"t": "train"}, "grid": {"dim": 4}}


def test_a_manifest_that_is_to_be_written_is_checked_alike():
    with pytest.raises(DataError, match=r"(?s)^out/dataset.yaml: 2 problems.*name: 'a/b'.*classes: "):
        parse_manifest({"name": "a/b", "classes": [], **REST}, "out/dataset.yaml")
