"""Dataset folders: what is read, and what each broken file says."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import numpy as np
import pytest
import yaml

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.prepare.check import check

MANIFEST = {
    "name": "toy",
    "classes": ["jump", "throw"],
    "subsets": {"training": "train", "validation": "test"},
    "grid": {"fps": 25, "stride": 16, "window": 16, "dim": 4},
}
VIDEOS = {
    "a": {
        "subset": "training",
        "duration": 6.4,
        "fps": 30.0,
        "annotations": [{"segment": [1.0, 3.0], "label": "jump"}],
    },
    "b": {"subset": "training", "duration": 12.8, "annotations": []},
    "c": {"subset": "validation", "duration": 6.4, "annotations": [{"segment": [2.0, 4.0], "label": "throw"}]},
    "d": {"subset": "unused", "duration": 6.4, "annotations": []},
}
POINTS = "video_id,label,time\na,throw,5\na,jump,2.0\nb,throw,12.8\n"


@pytest.fixture
def folder(tmp_path) -> Path:
    root = tmp_path / "toy"
    (root / "features").mkdir(parents=True)
    (root / "dataset.yaml").write_text(yaml.safe_dump(MANIFEST))
    (root / "annotations.json").write_text(json.dumps({"database": VIDEOS}))
    (root / "points.csv").write_text(POINTS)
    for video_id, rows in (("a", 10), ("b", 20), ("c", 10)):
        np.save(root / "features" / f"{video_id}.npy", np.ones((rows, 4), dtype=np.float32))
    return root


def test_reads_videos_points_features(folder):
    data = Dataset.open(folder)
    assert data.videos("train") == ["a", "b"]
    assert data.videos("test") == ["c"]
    assert data.videos("dev") == []
    assert data.points("a").time.tolist() == [2.0, 5.0]
    assert data.points("a").label.tolist() == [0, 1]
    assert len(data.points("c").time) == 0
    assert data.video_classes("a").tolist() == [0, 1]
    assert data.features("b").shape == (20, 4)
    assert data.grid("a").row(6.3) == 9


def test_ignored_videos_have_no_role(folder):
    (folder / "dataset.yaml").write_text(yaml.safe_dump(MANIFEST | {"ignored": ["b"]}))
    assert Dataset.open(folder).videos("train") == ["a"]


def test_pickles_as_its_path(folder):
    data = Dataset.open(folder)
    assert data.__reduce__() == (Dataset.open, (folder.resolve(),))
    assert copy.copy(data).videos("train") == ["a", "b"]


def test_fingerprint_sees_points_and_features_but_no_boundaries(folder):
    before = Dataset.open(folder).fingerprint("train")
    moved = json.loads(json.dumps(VIDEOS))
    moved["a"]["annotations"][0]["segment"] = [0.0, 6.0]
    (folder / "annotations.json").write_text(json.dumps({"database": moved}))
    assert Dataset.open(folder).fingerprint("train") == before
    (folder / "points.csv").write_text(POINTS.replace("2.0", "2.1"))
    with_point = Dataset.open(folder).fingerprint("train")
    assert with_point != before
    np.save(folder / "features" / "a.npy", np.zeros((10, 4), dtype=np.float32))
    assert Dataset.open(folder).fingerprint("train") not in (before, with_point)


def manifest(**changes):
    return yaml.safe_dump(MANIFEST | changes)


def videos(**changes):
    return json.dumps({"database": VIDEOS | changes})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("dataset.yaml", None, "dataset.yaml: missing"),
        ("dataset.yaml", "a: [", "not a YAML file"),
        ("dataset.yaml", "!!python/object/apply:os.getcwd []", "not a YAML file"),
        ("dataset.yaml", manifest(classes=["jump", "jump"]), "classes listed twice: jump"),
        ("dataset.yaml", manifest(classes=[]), "classes: "),
        ("dataset.yaml", manifest(colour="red"), "colour: Extra inputs"),
        ("dataset.yaml", manifest(subsets={"training": "teach"}), "subsets.training: Input should be 'train'"),
        ("dataset.yaml", manifest(grid={"dim": 0, "stride": -1}), r"(?s)2 problems.*grid.stride.*grid.dim"),
        ("dataset.yaml", manifest(subsets={"x": "train"}), "found the subsets training, unused, validation"),
        ("annotations.json", None, "annotations.json: missing"),
        ("annotations.json", "[1", "not a JSON file"),
        ("annotations.json", "[]", "expected"),
        ("annotations.json", videos(**{"../x": VIDEOS["a"]}), "unsafe as a file name"),
        ("annotations.json", videos(e={"subset": "training"}), "video e: needs subset, duration"),
        ("annotations.json", videos(e={"subset": "training", "duration": 0}), "duration 0.0 s"),
        ("annotations.json", videos(e={"subset": "training", "duration": 1, "fps": -1}), "fps -1"),
        ("annotations.json", videos(e={"subset": "training", "duration": True}), "video e: .*True is not a number"),
        ("annotations.json", videos(e={"subset": "training", "duration": 10**400}), "duration inf s"),
        ("annotations.json", videos(e={"subset": "training", "duration": "1_0"}), "'1_0' is not a number"),
        (
            "annotations.json",
            videos(e={"subset": "training", "duration": 3e6}),
            "duration 3000000.0 s; must be .*30 days",
        ),
        ("annotations.json", videos(e={"subset": "training", "duration": 1e-320}), "must be 0.001 to"),
        ("annotations.json", videos(e={"subset": "training", "duration": 1, "fps": 1e9}), "fps 1000000000.0; must be"),
        ("annotations.json", videos(e={"subset": None, "duration": 1}), "video e: needs subset"),
        ("annotations.json", videos(e={"subset": ["training"], "duration": 1}), "video e: needs subset"),
        ("annotations.json", videos(e=["training"], f=None), "(?s)2 problems.*video e: needs.*video f: needs"),
        ("annotations.json", videos(**{"a" * 201: VIDEOS["a"]}), "unsafe as a file name"),
        ("annotations.json", videos(**{".a": VIDEOS["a"], "a b": VIDEOS["a"], "a/b": VIDEOS["a"]}), "3 problems"),
        ("annotations.json", videos()[:-1] + ', "database": {}}', "key 'database': appears twice in one object"),
        ("annotations.json", videos()[:-2] + ', "a": {}, "b": {}}}', "(?s)2 problems.*key 'a'.*key 'b'"),
        ("annotations.json", "[" * 200_000, "nested too deeply"),
        ("points.csv", "video,label,time\n", "the header must be video_id,label,time"),
        ("points.csv", "video_id,label,time,start\n", "the header must be video_id,label,time"),
        ("points.csv", POINTS + "a,jump,soon\n", "line 5, video a: time 'soon' is not a number"),
        ("points.csv", POINTS + "a,jump,6.5\n", "line 5, video a: 6.5 s is outside 0..6.4 s"),
        ("points.csv", POINTS + "a,jump,nan\n", "line 5, video a: time 'nan'"),
        ("points.csv", POINTS + "a,swim,1\n", "line 5, video a: class not in dataset.yaml: 'swim'"),
        ("points.csv", POINTS + "a,jump,1,2\n", "line 5: 4 fields, but the header has 3"),
        ("points.csv", POINTS + "a,jump,1_0\n", "line 5, video a: time '1_0' is not a number"),
        ("points.csv", POINTS + "a,Jump,1\n", "video a: class not in dataset.yaml: 'Jump' .but there is 'jump'"),
        ("points.csv", POINTS + "a," + "x" * 200_000 + ",1\n", "line 5: field larger than field limit"),
        ("points.csv", POINTS + "zz,jump,1\nzz,jump,2\n", "(?s)2 problems.*line 5, video zz.*line 6"),
        (
            "points.csv",
            POINTS + "a\nb,throw,x\n",
            "(?s)2 problems.*line 5: 1 fields, but the header has 3.*line 6, .*'x'",
        ),
    ],
)
def test_broken_files(folder, file, content, message):
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_text(content)
    with pytest.raises(DataError, match=message) as raised:
        Dataset.open(folder)
    assert file in str(raised.value)


def test_a_grid_that_makes_absurdly_many_rows_is_refused(folder):
    (folder / "dataset.yaml").write_text(manifest(grid={"dim": 4, "fps": 1e6, "stride": 0.01}))
    with pytest.raises(DataError, match=r"(?s)3 problems.*video a: 639998\d+ rows of 6.4 s on the feature grid"):
        Dataset.open(folder)


@pytest.mark.parametrize("file", ["dataset.yaml", "annotations.json", "points.csv", "labels.csv", "full_labels.csv"])
def test_pipes_and_folders_are_no_files(folder, file):
    for make, says in ((os.mkfifo, "is a named pipe, not a file"), (os.mkdir, "is a folder, not a file")):
        (folder / file).unlink(missing_ok=True)
        make(folder / file)
        with pytest.raises(DataError, match=f"{file}: {says}"):
            Dataset.open(folder)
        assert any(says in f.detail for f in check(folder) if f.severity == "error"), says


def test_files_of_windows_and_blanks_are_read_as_others(folder):
    """A byte order mark, CR LF, blanks around names and empty lines."""
    right = Dataset.open(folder)
    for name in ("dataset.yaml", "annotations.json", "points.csv"):
        text = (folder / name).read_text().replace("\n", "\r\n")
        if name == "points.csv":
            text = text.replace(",throw,", ", throw ,").replace("a,", " a\t,") + "\r\n  \r\n"
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
    data = Dataset.open(folder)
    assert data.fingerprint("train") == right.fingerprint("train") and data.points("a").label.tolist() == [0, 1]
    assert not [f for f in check(folder) if f.severity == "error"]


def test_videos_of_subsets_without_a_role_may_be_incomplete(folder):
    """As those of ActivityNet's published file, which have no duration."""
    (folder / "annotations.json").write_text(videos(e={"subset": "testing", "duration": None}))
    assert Dataset.open(folder).videos("train") == ["a", "b"]
    assert [(f.severity, f.kind, f.where) for f in check(folder) if "testing" in f.where] == [
        ("warning", "subset without role", "subset testing")
    ]


def test_ids_as_youtube_has_them(folder):
    """A leading - or _ is in one of 32; a folder of such files, its links and its rows are read as others."""
    names = {"a": "-AbCdEfGhIj", "b": "_-0", "c": "--help"}
    (folder / "annotations.json").write_text(json.dumps({"database": {names.get(v, v): VIDEOS[v] for v in VIDEOS}}))
    (folder / "dataset.yaml").write_text(manifest(ignored=["-x", "_-0"]))
    (folder / "points.csv").write_text(POINTS.replace("a,", "-AbCdEfGhIj,").replace("b,", "_-0,"))
    for old, new in names.items():
        (folder / "features" / f"{old}.npy").rename(folder / "features" / f"{new}.npy")
    data = Dataset.open(folder)
    assert data.videos("train") == ["-AbCdEfGhIj"] and data.videos("test") == ["--help"]
    assert data.features("--help").shape == (10, 4) and data.points("-AbCdEfGhIj").time.tolist() == [2, 5]
    assert Dataset.open(folder.as_uri()).features("-AbCdEfGhIj").shape == (10, 4)
    found = [(f.kind, f.where) for f in check(folder) if f.kind != "subset without role"]
    assert found == [("unknown ignored video", "video -x")]


def test_ids_that_are_no_names_elsewhere_are_warnings(folder):
    more = dict.fromkeys(["A", "con", "Com1.x", "lpt9", "nul.tar.gz", "dot.", "console", "com10"], VIDEOS["a"])
    (folder / "annotations.json").write_text(videos(**more))
    found = [(f.severity, f.kind, f.where) for f in check(folder) if f.kind in ("id reserved on Windows", "ids alike")]
    reserved = [("warning", "id reserved on Windows", f"video {v}") for v in list(more)[1:6]]
    assert found == [*reserved, ("warning", "ids alike", "videos a, A")]
    assert len(Dataset.open(folder).videos("train")) == 10


def test_native_grids_need_the_rate_of_every_video_with_a_role(folder):
    (folder / "dataset.yaml").write_text(manifest(grid={"dim": 4, "fps": "native"}))
    with pytest.raises(DataError, match=r"(?s)annotations.json: 2 problems.*video b: no fps.*video c: no fps"):
        Dataset.open(folder)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (None, "no feature file for video a.*tad synth"),
        (b"", "not a plain .npy file"),
        (np.array([{}], dtype=object), "not a plain .npy file"),
        (np.zeros((10, 3), np.float32), r"shape \(10, 3\), expected \[T >= 1, 4\]"),
        (np.zeros((0, 4), np.float32), r"shape \(0, 4\)"),
        (np.zeros(10, np.float32), r"shape \(10,\)"),
    ],
)
def test_broken_features(folder, array, message):
    path = folder / "features" / "a.npy"
    path.unlink()
    if isinstance(array, bytes):
        path.write_bytes(array)
    elif array is not None:
        np.save(path, array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        Dataset.open(folder).features("a")


def test_no_folder(tmp_path):
    with pytest.raises(DataError, match="no such dataset folder"):
        Dataset.open(tmp_path / "nowhere")
