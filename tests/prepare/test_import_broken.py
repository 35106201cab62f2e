"""Values that no importer can use end in a sentence that names them; nothing is written that no command would read."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.prepare.check import check
from tad.prepare.import_epic import import_epic
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import import_opentad
from tests.support.shared import shared_path
from tests.support.sources import edited, hrpro_source, opentad_source

ROW = {"segment": [1, 2], "label": "throw"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"duration": 10**400}, "video a: duration inf must be positive"),
        ({"duration": True}, "video a: duration: True is not a number"),
        ({"duration": 1e15}, r"video a: duration 1000000000000000.0 s; must be 0.001 to 2.592e\+06"),
        ({"fps": 1e308}, r"video a: fps 1e\+308; must be"),
        ({"fps": [25]}, r"video a: fps: \[25\] is not a number"),
        ({"frame": "many"}, "video a: frame: 'many' is not a number"),
        ({"annotations": 5}, "video a: annotations must be a list"),
        ({"annotations": ["x"]}, "video a, row 0: 'x' must hold segment and label"),
        ({"annotations": [{"label": "throw"}]}, "video a, row 0: has no 'segment'"),
        ({"annotations": [ROW | {"segment": [1, 2, 3]}]}, r"row 0: segment \[1, 2, 3\] must be \[start, end\]"),
        ({"annotations": [ROW | {"segment": [float("nan"), 2]}]}, r"row 0: segment \[nan, 2\] must be"),
        ({"annotations": [ROW | {"segment": [False, 2]}]}, "row 0: False is not a number"),
        ({"annotations": [ROW | {"label": None}]}, "label None must be a class name"),
    ],
)
def test_values_of_opentad_annotations(tmp_path, changes, message):
    src = opentad_source(tmp_path / "src")
    edited(src / "anno.json", lambda document: document["database"]["a"].update(changes))
    with pytest.raises(DataError, match=message):
        import_opentad(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("anno.json", "[1, 2]", "anno.json: expected"),
        ("anno.json", '{"database": []}', 'expected {"database": {video: ...}}'),
        ("anno.json", '{"database": {"a": {}, "a": {}}}', "key 'a': appears twice in one object"),
        ("anno.json", '{"database": {"a": {}, " a": {}}}', "video a appears twice"),
        ("category_idx.txt", "throw\njump\nthrow", "class 'throw' appears 2 times"),
        ("category_idx.txt", "0 throw\n0 jump", "id 0 appears 2 times"),
        ("category_idx.txt", "jump", "class 'throw' of 2 annotations is not in the class list category_idx.txt"),
        ("blocked.json", "3", "blocked.json: expected a list of videos"),
    ],
)
def test_small_files_of_opentad(tmp_path, file, content, message):
    src = opentad_source(tmp_path / "src")
    (src / file).write_text(content)
    with pytest.raises(DataError, match=message):
        import_opentad(src, tmp_path / "out", subsets={"training": "train", "validation": "test"})


def test_class_names_that_no_dataset_can_have(tmp_path):
    src = opentad_source(tmp_path / "src")
    (src / "category_idx.txt").unlink()
    edited(src / "anno.json", lambda document: document["database"]["a"].update(annotations=[ROW | {"label": "a\nb"}]))
    with pytest.raises(DataError, match="holds a line break or control character"):
        import_opentad(src, tmp_path / "out")
    edited(src / "anno.json", lambda document: [e.update(annotations=[]) for e in document["database"].values()])
    with pytest.raises(DataError, match="classes: "):
        import_opentad(src, tmp_path / "out", subsets={"training": "train"})


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("split_train.txt", "", "split_train.txt: lists no video"),
        ("split_test.txt", "c\x00\n", r"video c\\x00 is not in gt_full.json"),
        ("Ambiguous_test.txt", "c nan 2\n", "line 1: 'c nan 2' is not `video start end`"),
        ("point_labels/points.csv", "class,class,video_id,point\n", "the header holds a name twice"),
        ("point_labels/points.csv", "class,video_id,point\njump,a\n", "line 2: 2 fields, but the header has 3"),
    ],
)
def test_small_files_of_hrpro(tmp_path, file, content, message):
    src = hrpro_source(tmp_path / "src")
    (src / file).write_text(content)
    with pytest.raises(DataError, match=message):
        import_hrpro(src, tmp_path / "out")


def test_ids_and_durations_of_hrpro(tmp_path):
    src = hrpro_source(tmp_path / "src")

    def change(document: Any) -> None:
        database = document["database"]
        database["a"]["duration"] = 1e9
        database["..b"] = database.pop("b")

    edited(src / "gt_full.json", change)
    (src / "split_train.txt").write_text("a\n..b\n")
    with pytest.raises(DataError, match=r"(?s)video a: duration 1000000000.0 s; .*video '..b': unsafe as a file name"):
        import_hrpro(src, tmp_path / "out")


def test_epics_list_of_videos(tmp_path):
    src = shutil.copytree(shared_path("cases", "04-epic-npz", "src"), tmp_path / "src")
    path = src / "EPIC_100_video_info.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines, lines[1], "P09_09,1e300,50,1x1", "../x,5,50,1x1"]))
    with pytest.raises(DataError) as caught:
        import_epic(src, tmp_path / "out", task="verb")
    for part in ("3 problems", "line 8: video P01_01 appears twice", "line 9: video P09_09: duration 1e+300", "'../x'"):
        assert part in str(caught.value), str(caught.value)
    path.write_text("\n".join(lines))
    (src / "EPIC_100_validation.csv").write_text((src / "EPIC_100_validation.csv").read_text().splitlines()[0])
    with pytest.raises(DataError, match=r"EPIC_100_validation.csv: holds no row"):
        import_epic(src, tmp_path / "out", task="verb")


def test_ids_as_youtube_has_them(tmp_path):
    src = shared_path("cases", "11-leading-dash-ids", "src")
    done = import_opentad(src, tmp_path / "out", length=100, dim=16)
    data = Dataset.open(tmp_path / "out")
    assert "-AbCdEfGhIj" in data.videos_by_id and sum(done.videos.values()) == len(data.videos_by_id)
    assert {f.kind for f in check(data.root) if f.severity == "error"} == {"no features"}
