"""Published files that spell ids, names and numbers in other ways, and what is said where they mean something else."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path

import pytest

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.feature_files import Lookup
from tad.prepare.import_csv import import_csv
from tad.prepare.import_epic import _seconds
from tad.prepare.import_hrpro import import_hrpro
from tad.prepare.import_opentad import default_roles, import_opentad
from tests.support.sources import hrpro_source, opentad_source


@pytest.mark.parametrize(
    "spelling", ["{}.npy", "{}.mp4", "features/train/{}.npy", "features\\train\\{}.npy", "v_{}"], ids=str
)
def test_lists_name_videos_by_files_or_with_a_prefix(tmp_path, spelling):
    """Split lists, points and ambiguous intervals, and annotations whose keys have the prefix."""
    src = hrpro_source(tmp_path / "src")
    import_hrpro(src, tmp_path / "plain")
    for name in ("split_train.txt", "split_test.txt"):
        ids = (src / name).read_text().split()
        (src / name).write_text("".join(spelling.format(v) + "\r\n" for v in ids))
    points = next((src / "point_labels").glob("*.csv"))
    with points.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with points.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(row | {"video_id": spelling.format(row["video_id"])} for row in rows)
    import_hrpro(src, tmp_path / "out")
    for name in ("annotations.json", "points.csv"):
        assert (tmp_path / "out" / name).read_text() == (tmp_path / "plain" / name).read_text()


def test_class_names_in_two_unicode_forms_are_one(tmp_path):
    src = opentad_source(tmp_path / "src")
    path = src / "anno.json"
    document = json.loads(path.read_text())
    rows = [row for entry in document["database"].values() for row in entry["annotations"]]
    for row, form in zip(rows, ("NFC", "NFD") * len(rows), strict=False):
        row["label"] = unicodedata.normalize(form, "café")
    path.write_text(json.dumps(document))
    (src / "category_idx.txt").write_text(unicodedata.normalize("NFD", "café") + "\n", encoding="utf-8")
    import_opentad(src, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").classes == ["café"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda row: row.update(label_id=[1]), None),
        (lambda row: row.update(label=" "), "row 0: label '' must be a class name"),
        (lambda row: row.update(segment=[1e5, 2e5]), "segments lie beyond the end of their video.*are these frames"),
    ],
)
def test_odd_rows(tmp_path, change, says):
    src = opentad_source(tmp_path / "src")
    path = src / "anno.json"
    document = json.loads(path.read_text())
    for entry in document["database"].values():
        for row in entry["annotations"]:
            change(row)
    path.write_text(json.dumps(document))
    if says is None:
        import_opentad(src, tmp_path / "out")
        return
    with pytest.raises(DataError, match=rf"(?s)anno.json.*{says}"):
        import_opentad(src, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"annotations": [1]}, 'a.json: no training subset: no video has a "subset"'),
        ({"subset": "training", "annotations": []}, "a.json: no training subset: no video has annotations"),
    ],
)
def test_why_no_subset_trains(entry, says):
    with pytest.raises(DataError, match=says):
        default_roles({"v": entry}, Path("a.json"))


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (Lookup(pattern="x_{id}.npy"), r"no video has a file named x_\{id\}.npy; videos are called"),
        (Lookup("anno.json"), "anno.json: is no folder of features, nor one file of all videos"),
        (Lookup("/dev/null"), "/dev/null: is a device, not a file"),
    ],
)
def test_features_that_were_asked_for_and_are_not_there(tmp_path, files, says):
    with pytest.raises(DataError, match=says):
        import_opentad(opentad_source(tmp_path / "src"), tmp_path / "out", files=files)


def test_names_that_fit_no_video_are_shown_beside_the_videos(tmp_path):
    src = opentad_source(tmp_path / "src")
    document = json.loads((src / "anno.json").read_text())
    renamed = {f"{v}.mp4": entry for v, entry in document["database"].items()}
    (src / "anno.json").write_text(json.dumps({"database": renamed}))
    with pytest.raises(DataError, match=r"none named after a video: .*; videos are called .*\.mp4"):
        import_opentad(src, tmp_path / "out")


TABLE = "video,label,start,end,duration,fps,subset\na,jump,1.5,4,40,25,train\nb,kick,7.25,19.5,20,25,test\n"
EXCEL = "sep=;\n" + TABLE.replace(",", ";").replace(".", ",").replace("\n", ";;\r\n")


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        EXCEL,
        TABLE.replace("1.5,4", '0:00:01.5,"0:00:04,000"').replace("7.25,19.5", "0:07.25,0:19.5"),
        TABLE.replace("a,", "C:\\clips\\a.MP4,", 1).replace("b,k", "features/b.npy,k"),
        TABLE.replace("jump", unicodedata.normalize("NFD", "jump")),
    ],
    ids=["plain", "Excel with commas", "clocks", "files", "names"],
)
def test_tables_of_spreadsheets(tmp_path, content):
    (tmp_path / "m.csv").write_text(content, encoding="utf-8", newline="")
    import_csv(tmp_path / "m.csv", tmp_path / "out")
    data = Dataset.open(tmp_path / "out")
    rows = [r for role in ("train", "test") for r in ground_truth(data, role).rows()]
    assert [(r["video_id"], r["label"], r["start"], r["end"]) for r in rows] == [
        ("a", "jump", 1.5, 4.0),
        ("b", "kick", 7.25, 19.5),
    ]


def test_a_comma_in_a_table_of_commas_is_no_decimal_one(tmp_path):
    (tmp_path / "m.csv").write_text(TABLE.replace("1.5", '"1,500"'))
    with pytest.raises(DataError, match="line 2: video a: '1,500' is not a number"):
        import_csv(tmp_path / "m.csv", tmp_path / "out")


def test_rows_may_name_classes_by_their_ids(tmp_path):
    (tmp_path / "m.csv").write_text(TABLE.replace("jump", "2").replace("kick", "1"))
    (tmp_path / "c.txt").write_text("1 kick\n2 jump\n")
    import_csv(tmp_path / "m.csv", tmp_path / "out", classes=tmp_path / "c.txt")
    data = Dataset.open(tmp_path / "out")
    assert data.classes == ["kick", "jump"]
    assert [r["label"] for r in ground_truth(data, "train").rows()] == ["jump"]


def test_a_sign_is_not_lost_in_a_clock():
    assert _seconds("00:00:01.5") == 1.5
    with pytest.raises(ValueError, match="-00"):
        _seconds("-00:00:01")


def test_the_options_of_the_grid_are_named_in_our_words(tmp_path):
    with pytest.raises(DataError, match=r"the feature grid cannot be so: 1 problem:\n  stride: .*, not 0") as caught:
        import_opentad(opentad_source(tmp_path / "src"), tmp_path / "out", stride=0)
    assert "pydantic" not in str(caught.value)
