"""ActivityNet's and HACS's official files: order of the taxonomy, subsets, YouTube's ids, real annotations."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands.importing import import_ as command
from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.import_activitynet import import_activitynet

NODES = [
    ("Root", None),
    ("Sports", "Root"),
    ("Zumba", "Sports"),
    ("Archery", "Sports"),
    ("Home", "Root"),
    ("Cooking", "Home"),
]
TAXONOMY = [
    {"nodeName": name, "nodeId": i, "parentName": parent, "parentId": 0} for i, (name, parent) in enumerate(NODES)
]


def video(subset, *rows, duration=40.0):
    annotations = [{"segment": [s, e], "label": label} for s, e, label in rows]
    return {
        "subset": subset,
        "duration": duration,
        "resolution": "640x360",
        "url": "https://x",
        "annotations": annotations,
    }


DATABASE = {
    "-AbCdEfGhIj": video("training", (3.0, 9.5, "Zumba"), (12.0, 12.0, "Zumba")),
    "_bCdEfGhIjK": video("training", (1.0, 2.0, "Cooking")),
    "-0aBcDeFgHi": video("validation", (5.0, 50.0, "Archery")),
    "testTesting": video("testing"),
}


def source(folder, database=DATABASE, taxonomy=TAXONOMY, name="activity_net.v1-3.min.json"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(json.dumps({"version": "VERSION 1.3", "taxonomy": taxonomy, "database": database}))
    return folder


def test_official_file(tmp_path):
    src = source(tmp_path / "src")
    (src / "features").mkdir()
    for v in list(DATABASE)[:3]:
        np.save(src / "features" / f"v_{v}.npy", np.ones((100, 16), dtype=np.float32))
    arguments = ["activitynet", str(src), str(tmp_path / "out"), "--length", "100"]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "3 classes in the order of the taxonomy: Zumba, Archery, Cooking" in result.output
    assert (
        "1 videos of subset testing have no role" in result.output
        and "dropped 1 segments of no length" in result.output
    )
    data = Dataset.open(tmp_path / "out")
    assert data.classes == ["Zumba", "Archery", "Cooking"] and data.videos("test") == ["-0aBcDeFgHi"]
    assert data.videos("train") == ["-AbCdEfGhIj", "_bCdEfGhIjK"] and data.features("-AbCdEfGhIj").shape == (100, 16)
    assert ground_truth(data, "test").spans.tolist() == [[5, 40]]


def test_hacs_and_the_order_of_classes(tmp_path):
    """A class beside the taxonomy comes last; without a taxonomy the alphabet counts; a list goes before both."""
    database = DATABASE | {"x": video("validation", (1, 2, "Yodel"))}
    src = source(tmp_path / "src", database, name="HACS_segments_v1.1.1.json")
    done = import_activitynet(src, tmp_path / "out", length=100, features="none")
    assert Dataset.open(tmp_path / "out").classes == ["Zumba", "Archery", "Cooking", "Yodel"]
    assert any("1 classes are not in the taxonomy and come last: Yodel" in text for text in done.warnings)
    src = source(tmp_path / "plain", DATABASE, [])
    import_activitynet(src, tmp_path / "plain-out", length=100, features="none")
    assert Dataset.open(tmp_path / "plain-out").classes == ["Archery", "Cooking", "Zumba"]
    (tmp_path / "classes.txt").write_text("Cooking\nZumba\nArchery\n")
    import_activitynet(src, tmp_path / "listed", length=100, features="none", classes=tmp_path / "classes.txt")
    assert Dataset.open(tmp_path / "listed").classes == ["Cooking", "Zumba", "Archery"]
    with pytest.raises(DataError, match="class 'Yodel' is not in"):
        src = tmp_path / "src"
        import_activitynet(src, tmp_path / "no", length=100, features="none", classes=tmp_path / "classes.txt")


def test_real_file(shared, tmp_path):
    """All published ids are taken, those with a leading hyphen, too; videos without a duration are counted."""
    src = tmp_path / "src"
    src.mkdir()
    (src / "activity_net.json").symlink_to(shared("data", "activitynet13", "activitynet13_val_full_gt.json"))
    done = import_activitynet(src, tmp_path / "out", subsets={"validation": "train"}, length=100, features="none")
    assert done.videos == {"train": 4728}
    assert any("198 videos without a duration were left out" in warning for warning in done.warnings)
    data = Dataset.open(tmp_path / "out")
    dashed = [v for v in data.videos("train") if v.startswith("-")]
    assert len(data.classes) == 200 and len(dashed) > 50 and data.duration(dashed[0]) > 0
    assert len(ground_truth(data, "train")) > 7000


def test_blocked_videos_are_ignored(tmp_path):
    src = source(tmp_path / "src")
    (src / "missing_files.txt").write_text("v_-AbCdEfGhIj\n")
    done = import_activitynet(src, tmp_path / "out", length=100, features="none")
    assert Dataset.open(tmp_path / "out").manifest.ignored == ["-AbCdEfGhIj"] and "ignored videos: 1" in done.notes[-1]


@pytest.mark.parametrize(
    ("database", "options", "message"),
    [
        (DATABASE, {}, "the file tells no frame rates; say how the features were made: with --length ROWS"),
        ({}, {"length": 9}, "expected"),
        ({"a": 3}, {"length": 9}, "no training subset|needs subset"),
        (DATABASE | {"a/b": video("training", (1, 2, "Zumba"))}, {"length": 9}, "video 'a/b': unsafe"),
        (DATABASE | {"a": video("training", (9, 2, "Zumba"))}, {"length": 9}, r"video a, row 0: segment \[9, 2\]"),
        (DATABASE | {"a": video("training", duration=-1)}, {"length": 9}, "video a: duration -1 must be positive"),
        (
            DATABASE | {"a": video("training", duration="long")},
            {"length": 9},
            "video a: duration: 'long' is not a number",
        ),
        (
            DATABASE,
            {"length": 9, "subsets": {"trian": "train"}},
            "no video is in subset trian; found testing, training",
        ),
    ],
)
def test_bad_files(tmp_path, database, options, message):
    src = source(tmp_path / "src", database)
    with pytest.raises(DataError, match=message):
        import_activitynet(src, tmp_path / "out", features="none", **options)
    assert not (tmp_path / "out").exists()
