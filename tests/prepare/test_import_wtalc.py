"""W-TALC's arrays become a dataset: THUMOS14's truth written in that layout, and what can be wrong with it."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands.importing import import_ as command
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_wtalc import import_wtalc
from tests.support.wtalc import SMALL, layout, objects


@pytest.fixture
def small(tmp_path):
    layout(tmp_path / "src", SMALL, ["jump", "kick"])
    return tmp_path / "src"


def test_small(small, tmp_path):
    (small / "Mine-Annotations" / "Ambiguous_test.txt").write_text("v_c  30.0 35.0\n")
    done = import_wtalc(small, tmp_path / "out")
    data = Dataset.open(tmp_path / "out")
    assert (
        data.videos("train") == ["v_-a", "v_b"] and data.videos("test") == ["v_c"] and data.classes == ["jump", "kick"]
    )
    assert (tmp_path / "out" / "labels.csv").read_text().splitlines() == ["video_id,label", "v_-a,jump", "v_-a,kick"]
    assert (tmp_path / "out" / "ambiguous.csv").read_text().splitlines()[1:] == ["v_c,30.0,35.0"]
    assert ground_truth(data, "train").spans.tolist() == [[1, 5], [10, 12.5]]
    assert data.manifest.grid.fps == 25 and data.manifest.grid.stride == 16 and data.manifest.grid.dim == 8
    assert data.features("v_c").shape == (75, 8) and np.asarray(data.features("v_c"))[0, 0] == 2
    assert done.features == 3 and "dropped 1 segments of no length: video v_-a, row 2: [20, 20]" in done.notes
    assert any("taken out of Mine-I3D-JOINTFeatures.npy, as float32" in note for note in done.notes)


def test_thumos14(shared, tmp_path):
    """The same dataset as the HR-Pro layout gives, but for what W-TALC does not know."""
    database = json.loads(shared("data", "thumos14", "gt_full.json").read_text())["database"]
    videos = [
        (v, e["subset"].lower(), e["duration"], [(*a["segment"], a["label"]) for a in e["annotations"]])
        for v, e in database.items()
    ]
    classes = sorted({label for *_, rows in videos for *_, label in rows})
    layout(tmp_path / "src", videos, classes, width=0)
    clicks = shared("data", "human_points", "Thumos14", "THUMOS1.txt")
    arguments = ["wtalc", str(tmp_path / "src"), str(tmp_path / "out"), "--features", "none", "--points", str(clicks)]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "20 classes in the order of classlist.npy: BaseballPitch" in result.output
    import_hrpro(shared("data", "thumos14"), tmp_path / "hrpro", features="none")
    ours, theirs = Dataset.open(tmp_path / "out"), Dataset.open(tmp_path / "hrpro")
    assert sorted(ours.videos("train")) == sorted(theirs.videos("train")) and ours.classes == theirs.classes
    a, b = (ground_truth(data, "train").by_video() for data in (ours, theirs))
    assert {v: s.spans.tolist() for v, s in a.items()} == {v: s.spans.tolist() for v, s in b.items()}
    lines = [line.split(",") for line in clicks.read_text().splitlines() if line.strip()]
    assert sum(len(ours.points(v).time) for v in ours.videos("train")) == len(lines)
    first = [float(time) for video, time, _ in lines if video == lines[0][0]]
    assert ours.points(lines[0][0]).time.tolist() == sorted(first)


def test_features_of_each_video_and_none(small, tmp_path):
    os.unlink(small / "Mine-I3D-JOINTFeatures.npy")
    (small / "features").mkdir()
    for video, _, duration, _ in SMALL:
        np.save(small / "features" / f"{video}.npy", np.ones((int(duration * 25 / 16), 4), dtype="f4"))
    assert import_wtalc(small, tmp_path / "out").features == 3
    assert Dataset.open(tmp_path / "out").manifest.grid.dim == 4
    assert import_wtalc(small, tmp_path / "none", features="none").features == 0


def replace(folder, name, array):
    np.save(folder / "Mine-Annotations" / f"{name}.npy", array, allow_pickle=True)


class Evil:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


def cycle():
    own: list = []
    own.append(own)
    return own


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("classlist", np.array([b"jump", b"jump"]), "class b?'jump' appears 2 times"),
        ("classlist", np.array([b"jump"]), "video v_-a: class 'kick' is not in classlist.npy"),
        ("classlist", objects([["jump"], 3]), "int in place of text|list in place of text"),
        ("classlist", np.array([b"\xff", b"kick"]), "classlist.npy: .*decode.*expected text"),
        ("videoname", np.array([b"a", b"a", b"c"]), "video a appears 2 times"),
        ("videoname", np.array([b"../../x", b"b", b"c"]), r"video '../../x': unsafe as a file name"),
        ("subset", np.array([b"test"]), "1 in place of one item for each of 3 videos"),
        ("subset", np.array([b"odd", b"odd", b"test"]), "no training subset among odd, test"),
        ("duration", np.array([64.0, np.inf, 48]), "video v_b: duration inf s"),
        ("duration", objects(["x", 1, 2]), "'x' is not a number; expected numbers"),
        ("duration", objects([cycle(), 1, 2]), "list is not a number"),
        ("extracted_fps", np.array([25, 0, 25]), r"video v_b: fps 0\.0; must be"),
        ("segments", objects([[[1, 5]], [], [[2, 9]]]), "video v_-a: 1 segments, but 3 labels"),
        ("segments", objects([[[1, 5], [9, 7], [20, 21]], [], [[2, 9]]]), r"segment \[9, 7\] must be \[start, end\]"),
        ("segments", objects([[[1, 5], [9], [20, 21]], [], [[2, 9]]]), r"segment 1 is not \[start, end\]"),
        ("segments", objects([[[1, 5], [9, "x"], [20, 21]], [], [[2, 9]]]), "'x' is not a number"),
        ("segments", objects([1, 2, 3]), "item 0 is int, not a list"),
        ("labels", objects([cycle() * 3, [], ["kick"]]), "list in place of text"),
        ("labels_all", objects([[Evil()], [], []]), r"holds the name (posix|nt)\.system; nothing but arrays"),
    ],
)
def test_bad_arrays(small, tmp_path, monkeypatch, name, array, message):
    monkeypatch.chdir(tmp_path)
    replace(small, name, array)
    with pytest.raises(DataError, match=message):
        import_wtalc(small, tmp_path / "out")
    assert not (tmp_path / "out").exists() and not (tmp_path / "PWNED").exists()


def test_lists_that_hold_each_other(small, tmp_path, monkeypatch):
    """Ten references a level, ten levels: a kilobyte that stands for 10^10 items."""
    items: list = ["jump"] * 10
    for _ in range(10):
        items = [items] * 10
    replace(small, "labels", objects([items, items, items]))
    with pytest.raises(DataError, match=r"list in place of text|segments, but"):
        import_wtalc(small, tmp_path / "out")
    monkeypatch.setattr("tad.prepare.import_wtalc.MOST_ITEMS", 1000)
    long = ["jump"] * 400
    replace(small, "labels", objects([long, long, long]))
    with pytest.raises(DataError, match="more than 1,000 items in all"):
        import_wtalc(small, tmp_path / "out")


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (objects([np.ones((9, 4), "f4")] * 2), "2 in place of one array for each of 3 videos"),
        (
            objects([np.ones((9, 4), "f4"), np.ones((9, 5), "f4"), np.ones((8, 4), "f4")]),
            r"several widths: 4 \(2 files\), 5 \(1 files\)",
        ),
        (
            objects([np.ones((9, 4), "f4"), np.ones(4, "f4"), np.ones((9, 4), "f4")]),
            r"video v_b: shape \[4\], expected \[T, D\]",
        ),
        (objects([np.ones((9, 4), "i4"), [1], np.ones((9, 4), "f4")]), "v_b: list is no.*int32"),
        (objects([np.ones((900, 4), "f4")] * 3), "several videos refer to the same array"),
    ],
)
def test_bad_features(small, tmp_path, features, message):
    np.save(small / "Mine-I3D-JOINTFeatures.npy", features, allow_pickle=True)
    with pytest.raises(DataError, match=f"(?s){message}"):
        import_wtalc(small, tmp_path / "out")


def test_folders_that_are_none(small, tmp_path):
    with pytest.raises(DataError, match=r"expected classlist.npy, videoname.npy and more.*found none"):
        import_wtalc(tmp_path, tmp_path / "out")
    os.unlink(small / "Mine-Annotations" / "segments.npy")
    with pytest.raises(DataError, match=r"segments\.npy: missing"):
        import_wtalc(small, tmp_path / "out")
