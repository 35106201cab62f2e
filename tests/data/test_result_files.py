"""Files of detections and pseudo-labels: all forms give the same score; results are written whole."""

from __future__ import annotations

import csv
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from tad.commands.evaluate import evaluate as command
from tad.commands.evaluate import quality
from tad.data.class_list import read_classes
from tad.data.detections import Detections
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tests.support.annotated import annotated

ROWS = [
    ("a", 0.0, 10.0, "jump", 0.9),
    ("a", 20.0, 29.0, "kick", 0.8),
    ("b", 3.0, 3.0, "jump", 0.7),
    ("b", 4.0, 9.0, "jump", 0.6),
]
CLASSES = ["jump", "kick"]
IDS = dict(enumerate(CLASSES))


def by_video(item):
    found = {}
    for row in ROWS:
        found.setdefault(row[0], []).append(item(*row))
    return found


def lists_by_video():
    found = {}
    for video, start, end, label, score in ROWS:
        entry = found.setdefault(video, {"segments": [], "scores": [], "labels": []})
        entry["segments"].append([start, end])
        entry["scores"].append(score)
        entry["labels"].append(CLASSES.index(label))
    return found


def columns(ids=True):
    video, start, end, label, score = map(list, zip(*ROWS, strict=True))
    label = [CLASSES.index(x) for x in label] if ids else label
    return {"video-id": video, "t-start": start, "t-end": end, "label": label, "score": score}


JSON_FORMS = {
    "ActivityNet results": {"results": by_video(lambda _, s, e, c, q: {"segment": [s, e], "label": c, "score": q})},
    "ActivityNet results, no envelope": by_video(lambda _, s, e, c, q: {"segment": [s, e], "label": c, "score": q}),
    "ActivityNet results, ids": {
        "database": by_video(lambda _, s, e, c, q: {"segment": [s, e], "label_id": CLASSES.index(c), "scores": q})
    },
    "ActivityNet results, numbers as text": {
        "results": by_video(lambda _, s, e, c, q: {"segment": [str(s), str(e)], "label": c, "score": str(q)})
    },
    "lists by video": {"results": lists_by_video()},
    "ActionFormer's columns": columns(),
    "ActionFormer's columns, names": columns(ids=False),
    "EPIC-KITCHENS challenge, verb": {
        "version": "0.2",
        "challenge": "action_detection",
        "sls_pt": 2,
        "results": by_video(
            lambda _, s, e, c, q: {
                "verb": CLASSES.index(c),
                "noun": 1,
                "action": f"{CLASSES.index(c)},1",
                "score": q,
                "segment": [s, e],
            }
        ),
    },
}


def same(path, form, classes=IDS, task=None):
    found = Detections.from_file(path, classes, task)
    assert found.form == form and found.scored and len(found) == 4
    rows = zip(
        *(found.table.column(n).to_pylist() for n in ("video_id", "start", "end", "label", "score")), strict=True
    )
    assert list(rows) == ROWS


@pytest.mark.parametrize("name", JSON_FORMS)
def test_json(tmp_path, name):
    (tmp_path / "found.json").write_text(json.dumps(JSON_FORMS[name]), encoding="utf-8-sig")
    form = name if name.startswith("EPIC") else name.split(", ")[0]
    same(tmp_path / "found.json", form, task="verb" if name.startswith("EPIC") else None)


def test_epic_actions_are_pairs(tmp_path):
    path = tmp_path / "found.json"
    path.write_text(json.dumps(JSON_FORMS["EPIC-KITCHENS challenge, verb"]))
    assert Detections.from_file(path, task="action").codes("label")[1] == ["0,1", "1,1"]
    assert Detections.from_file(path, IDS, task="noun").codes("label")[1] == ["kick"]
    with pytest.raises(DataError, match="a verb, a noun and an action; choose by --task"):
        Detections.from_file(path, IDS)


@pytest.mark.parametrize("header", ["video_id,start,end,label,score", "video-id,t-start,t-end,label,score"])
def test_csv(tmp_path, header):
    for name, label in (("names", lambda c: c), ("ids", CLASSES.index)):
        with (tmp_path / f"{name}.csv").open("w", newline="", encoding="utf-8-sig") as file:
            writer = csv.writer(file)  # CR LF
            writer.writerow(header.split(","))
            writer.writerows((v, s, e, label(c), q) for v, s, e, c, q in ROWS)
        same(tmp_path / f"{name}.csv", "CSV")


@pytest.mark.parametrize("text", [pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
@pytest.mark.parametrize("number", [pa.float64(), pa.string()])
def test_parquet_of_others(tmp_path, text, number):
    video, start, end, label, score = zip(*ROWS, strict=True)
    times = [start, end, score] if number == pa.float64() else [map(str, x) for x in (start, end, score)]
    start, end, score = (pa.array(list(x), number) for x in times)
    ids = pa.array([CLASSES.index(c) for c in label], pa.int16())
    for name, labels in (("names", pa.array(label, pa.string()).cast(text)), ("ids", ids)):
        made = pa.table(
            {"score": score, "end": end, "t-start": start, "video": pa.array(video), "label": labels, "x": ids}
        )
        pq.write_table(made, tmp_path / f"{name}.parquet")
        same(tmp_path / f"{name}.parquet", "Parquet")


def test_strict_segments_refuse_what_evaluation_scores(tmp_path):
    (tmp_path / "found.json").write_text(json.dumps(JSON_FORMS["ActivityNet results"]))
    with pytest.raises(
        DataError, match=r"1 problem:\n  video b, row 0: segment \[3.0, 3.0\]; a segment needs 0 <= start"
    ):
        Segments.from_file(tmp_path / "found.json")


# -- scores ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def data(tmp_path):
    annotated(
        tmp_path / "data",
        [("a", "jump", 0, 10), ("a", "kick", 20, 29), ("b", "jump", 4, 9)],
        roles={"a": "test", "b": "test"},
    )
    return tmp_path / "data"


def run(path, data, *more):
    arguments = [str(path), "--data", str(data), "--subset", "test", "--tiou", "0.5", *more]
    return CliRunner().invoke(command, arguments, catch_exceptions=False)


def test_empty_and_early_rows_are_scored_as_they_are(tmp_path, data):
    """An empty row is a false positive ahead of the last hit; [-10, 10] has tIoU 1/2 with [0, 10]."""
    (tmp_path / "found.json").write_text(json.dumps(JSON_FORMS["ActivityNet results"]))
    result = run(tmp_path / "found.json", data, "--json", str(tmp_path / "out.json"))
    assert "found.json: ActivityNet results, 4 rows\n" in result.output
    assert "1 detections of no length (start >= end): false positives" in result.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["per_class"]["jump"]["ap"]["0.5"] == pytest.approx((1 + 2 / 3) / 2)
    assert document["counts"]["detections_empty"] == 1 and document["counts"]["detections_before_start"] == 0
    for start, ap in ((-10.0, 1.0), (-10.5, 0.0)):
        row = {"segment": [start, 10], "label": "jump", "score": 0.9}
        other = {"segment": [4, 9], "label": "jump", "score": 0.1}
        (tmp_path / "early.json").write_text(json.dumps({"a": [row], "b": [other, {**other, "segment": [9, 4]}]}))
        result = run(tmp_path / "early.json", data, "--json", str(tmp_path / "out.json"))
        assert "1 detections begin before 0 s: scored as they are" in result.output
        document = json.loads((tmp_path / "out.json").read_text())
        assert document["per_class"]["jump"]["ap"]["0.5"] == pytest.approx((1 + ap) / 2 if ap else 0.25)


def test_names_cannot_command_the_terminal(tmp_path):
    """Escape codes of a class name are shown, not obeyed."""
    name = "jump\x1b[2J\x1b]0;title\x07"
    rows = [{"segment": [0, 10], "label": name}]
    (tmp_path / "gt.json").write_text(json.dumps({"database": {"a": {"subset": "test", "annotations": rows}}}))
    (tmp_path / "found.json").write_text(json.dumps({"a": [rows[0] | {"score": 1}]}))
    arguments = [str(tmp_path / "found.json"), "--annotations", str(tmp_path / "gt.json"), "--subset", "test"]
    output = CliRunner().invoke(command, arguments, catch_exceptions=False).output
    assert "\x1b" not in output and "\x07" not in output and r"jump\x1b[2J" in output


def test_class_lists(tmp_path, data):
    (tmp_path / "found.json").write_text(json.dumps(columns()))
    assert "mAP       91.67" in run(tmp_path / "found.json", data).output
    (tmp_path / "turned.txt").write_text("kick\njump\n")
    assert "mAP        0.00" in run(tmp_path / "found.json", data, "--classes", str(tmp_path / "turned.txt")).output
    bare = [str(tmp_path / "found.json"), "--annotations", str(data / "annotations.json"), "--subset", "test"]
    with pytest.raises(DataError, match=r"4 rows name their class by an id, the first label 0.*--classes FILE"):
        CliRunner().invoke(command, bare, catch_exceptions=False)
    document = json.loads((data / "annotations.json").read_text())
    for entry in document["database"].values():
        for row in entry["annotations"]:
            row["label_id"] = CLASSES.index(row["label"])
    (tmp_path / "ids.json").write_text(json.dumps(document))
    bare[2] = str(tmp_path / "ids.json")
    assert "mAP " in CliRunner().invoke(command, bare, catch_exceptions=False).output
    (tmp_path / "one.txt").write_text("jump\n")
    with pytest.raises(
        DataError, match=r"row 1 \(video a\): label 1 is not an id of the class list \(1 classes, 0 to 0\)"
    ):
        run(tmp_path / "found.json", data, "--classes", str(tmp_path / "one.txt"))


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("c.txt", "\ufeffjump\r\nkick\r\n", {0: "jump", 1: "kick"}),
        ("c.txt", "7 Baseball Pitch\n9 BasketballDunk\n", {7: "Baseball Pitch", 9: "BasketballDunk"}),
        ("c.csv", "id,key,instances\n0,take,[]\n1,put,[]\n", {0: "take", 1: "put"}),
        ("c.json", '["jump", "kick"]', {0: "jump", 1: "kick"}),
        ("c.txt", "jump\njump\n", "class 'jump' appears 2 times"),
        ("c.txt", "1 jump\n1 kick\n", "id 1 appears 2 times"),
        ("c.txt", "jump\n\nkick\n", "line 2 is empty"),
        ("c.txt", "\n", "holds no class"),
        ("c.csv", "number,name\n0,x\n", "expected the columns id and key"),
        ("c.csv", "id,key\nx,y\n", "line 2: id 'x'"),
        ("c.json", "{}", "expected a list of names"),
    ],
)
def test_class_list_files(tmp_path, name, content, expected):
    (tmp_path / name).write_text(content, encoding="utf-8")
    if isinstance(expected, dict):
        assert read_classes(tmp_path / name) == expected
    else:
        with pytest.raises(DataError, match=expected):
            read_classes(tmp_path / name)


def test_files_without_scores_say_so(tmp_path, data):
    rows = by_video(lambda _, s, e, c, q: {"segment": [s, e], "label": c})
    (tmp_path / "found.json").write_text(json.dumps(rows))
    assert "note: no row has a score; all count as 1" in run(tmp_path / "found.json", data).output
    rows["b"][1]["score"] = 0.5
    (tmp_path / "found.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match=r"(?s)3 problems.*video a, row 0: score is missing.*video b, row 0"):
        run(tmp_path / "found.json", data)


def test_quality_reads_class_ids(tmp_path):
    annotated(tmp_path / "data", [("a", "jump", 0, 10), ("a", "kick", 20, 29)], [("a", "kick", 24.0)])
    row = {"segment": [20, 29], "label_id": 1, "scores": 1, "point": 24.0}
    (tmp_path / "labels.json").write_text(json.dumps({"a": [row]}))
    arguments = [str(tmp_path / "labels.json"), "--data", str(tmp_path / "data"), "--json", str(tmp_path / "out.json")]
    CliRunner().invoke(quality, arguments, catch_exceptions=False)
    assert json.loads((tmp_path / "out.json").read_text())["mean_tiou"] == 1


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_results_that_cannot_be_written(tmp_path, data):
    """One sentence each; a link stays, and the file that it leads to is written."""
    (tmp_path / "found.json").write_text(json.dumps(JSON_FORMS["ActivityNet results"]))
    os.mkfifo(tmp_path / "pipe")
    for out, message in (
        (tmp_path / "found.json" / "below", "it lies below a file"),
        (tmp_path / "found.json" / "far" / "below", "it lies below a file"),
        (tmp_path / "pipe", "is a named pipe"),
        (tmp_path / ("x" * 300), "file name too long"),
    ):
        with pytest.raises(RunError, match=message):
            run(tmp_path / "found.json", data, "--json", str(out))
    (tmp_path / "link").symlink_to(tmp_path / "aim.json")
    run(tmp_path / "found.json", data, "--json", str(tmp_path / "link"))
    assert (tmp_path / "link").is_symlink() and json.loads((tmp_path / "aim.json").read_text())["protocol"] == "anet"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_devices_are_not_replaced(tmp_path, data):
    (tmp_path / "found.json").write_text(json.dumps(JSON_FORMS["ActivityNet results"]))
    with pytest.raises(RunError, match="is a device"):
        run(tmp_path / "found.json", data, "--json", "/dev/full")


def test_segments_are_written_whole(tmp_path):
    """What fails leaves the file that was there."""
    segments = Segments.of("v", [0.0], [1.0], "jump")
    for name, write in (("s.parquet", segments.to_parquet), ("s.json", segments.to_json_file)):
        write(tmp_path / name)
        assert len(Segments.from_file(tmp_path / name)) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.json", "s.parquet"]
    before = (tmp_path / "s.json").read_bytes()
    broken = Segments.of("v", [0.0], [1.0], "jump")
    broken.table = None
    for write, name in ((broken.to_parquet, "s.parquet"), (broken.to_json_file, "s.json")):
        with pytest.raises((AttributeError, TypeError)):
            write(tmp_path / name)
    assert (tmp_path / "s.json").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["s.json", "s.parquet"]
