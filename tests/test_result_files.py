"""Files of detections and pseudo-labels: all forms give the same score, and bad values are named with their place."""

from __future__ import annotations

import csv
import datetime
import json
import os
from decimal import Decimal

import numpy as np
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
from tests.annotated import annotated

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
                "verb": CLASSES.index(c), "noun": 1, "action": f"{CLASSES.index(c)},1", "score": q, "segment": [s, e]
            }
        ),
    },
}  # fmt: skip


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

ONE = {"segment": [0, 10], "label": "jump", "score": 0.5}
BAD_JSON = [
    ("[" * 200_000, "nested too deeply"),
    ("", "not a JSON file"),
    ('{"results": {"a": [', "not a JSON file"),
    ("[]", "expected"),
    ('{"results": 3}', "expected"),
    ('{"a": [], "a": []}', "key 'a': appears twice in one object"),
    (json.dumps({"a": 3}), "video a: expected a list of segments, found int"),
    (json.dumps({"a": [3, ONE]}), "video a, row 0: expected an object, found 3"),
    (json.dumps({"a": [ONE, ONE | {"score": "high"}]}), "video a, row 1: score 'high' is not a number"),
    (json.dumps({"a": [ONE | {"score": True}]}), "video a, row 0: score True is not a number"),
    (json.dumps({"a": [ONE | {"score": [1]}]}), r"video a, row 0: score \[1\] is not a number"),
    (json.dumps({"a": [ONE | {"score": float("nan")}]}), "video a, row 0: score nan is not finite"),
    (json.dumps({"a": [ONE | {"segment": [0, float("inf")]}]}), "video a, row 0: end inf is not finite"),
    (json.dumps({"a": [ONE | {"segment": {"start": 0}}]}), r"row 0: segment \{'start': 0\} is not \[start, end\]"),
    (json.dumps({"a": [ONE | {"segment": [False, 3]}]}), "video a, row 0: start False is not a number"),
    (json.dumps({"a": [ONE | {"score": "x" * 10**6}]}), "score 'xxx"),
    ('{"a": [{"segment": [0, 1], "label": "jump", "score": 1' + "0" * 400 + "}]}", "row 0: score inf is not finite"),
    (json.dumps({"a": [ONE | {"point": float("-inf")}]}), "video a, row 0: point -inf is not finite"),
    (json.dumps({"a": [ONE | {"point": "x"}]}), "video a, row 0: point 'x' is not a number"),
    (json.dumps({"a": [ONE | {"label": None}]}), "video a, row 0: label is missing"),
    (json.dumps({"a": [ONE | {"label": True}]}), "video a, row 0: label True is not text"),
    (json.dumps({"a": [ONE | {"label": 2}]}), r"row 0: label 2 is not an id of the class list \(2 classes, 0 to 1\)"),
    (json.dumps({"a": [ONE | {"label": "\ud800"}]}), r"video a, row 0: label '\\ud800' holds half a character"),
    (json.dumps({"\udc00": [ONE]}), r"video \\udc00, row 0: video '\\udc00' holds half a character"),
    (json.dumps({"a": {"segments": [[0, 1]], "scores": [1], "labels": []}}), "video a: 1 segments, 1 scores, 0 labels"),
    (json.dumps({"a": {"segments": [0], "scores": [1], "labels": [1]}}), "video a: each of segments must be"),
    (json.dumps({"a": {"segments": [[0, 1]], "scores": [1]}}), "video a: expected the lists segments, scores"),
    (json.dumps({"a": {"annotations": []}}), "is an annotation file, not a file of detections"),
    (json.dumps(columns() | {"t-end": [1.0]}), "must be lists of one length; found video_id 4, start 4, end 1"),
    (json.dumps(columns() | {"score": [1, 2, 3, None]}), r"row 3 \(video b\): score is missing"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "message"), BAD_JSON)
def test_bad_json(tmp_path, text, message):
    (tmp_path / "found.json").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        Detections.from_file(tmp_path / "found.json", IDS)
    assert str(tmp_path / "found.json") in str(caught.value) and str(caught.value).isascii()
    assert len(str(caught.value)) < 1000


def test_parquet_columns_of_none(tmp_path):
    """As pandas writes points and sources that nobody gave; decimal numbers are numbers."""
    more = {"point": pa.nulls(2), "source": pa.nulls(2), "score": [Decimal("0.25"), Decimal(0)]}
    pq.write_table(pa.table(GOOD | more), tmp_path / "found.parquet")
    found = Segments.from_file(tmp_path / "found.parquet")
    assert np.isnan(found.point).all() and found.score.tolist() == [0.25, 0]
    assert found.table.column("source").to_pylist() == ["found", "found"]
    pq.write_table(pa.table(GOOD | {"end": [2**60 + 1, 2]}), tmp_path / "found.parquet")
    assert Segments.from_file(tmp_path / "found.parquet").end[0] == float(2**60)


def test_points_that_are_none(tmp_path):
    rows = [ONE | {"point": None}, ONE | {"point": float("nan")}, ONE, ONE | {"point": 4}]
    (tmp_path / "found.json").write_text(json.dumps({"a": rows}))
    np.testing.assert_array_equal(Segments.from_file(tmp_path / "found.json").point, [np.nan, np.nan, np.nan, 4])


STAMP = datetime.datetime(2026, 1, 1)
GOOD = {"video_id": ["a", "b"], "start": [0.0, 1.0], "end": [1.0, 2.0], "label": ["jump", "kick"], "score": [0.5, 0.6]}
BAD_PARQUET = [
    ({"start": ["0", "x"]}, r"row 1 \(video b\): start 'x' is not a number"),
    ({"start": [STAMP, STAMP]}, r"column start is of type timestamp\[us\]; it must hold numbers"),
    ({"score": [True, False]}, "column score is of type bool; it must hold numbers"),
    (
        {"label": [{"a": 1}, {"a": 2}]},
        "column label is of type struct<a: int64>; it must hold class names or class ids",
    ),
    ({"label": [1.5, 2.5]}, "column label is of type double"),
    ({"video_id": [1, 2]}, "column video_id is of type int64; it must hold text|column video is of type int64"),
    ({"start": [0.0, None]}, r"row 1 \(video b\): start is missing"),
    ({"score": [0.5, float("nan")]}, r"row 1 \(video b\): score nan is not finite"),
    ({"label": ["jump", None]}, r"row 1 \(video b\): label is missing"),
    ({"video_id": [None, "b"]}, r"row 0 \(video None\): video is missing"),
    ({"score": pa.nulls(2)}, "column score is of type null"),
    ({"video": ["a", "b"]}, "the columns video_id and video are both video_id"),
]


@pytest.mark.parametrize(("change", "message"), BAD_PARQUET)
@pytest.mark.parametrize("classes", [None, IDS])
def test_bad_parquet(tmp_path, change, message, classes):
    pq.write_table(pa.table(GOOD | change), tmp_path / "found.parquet")
    with pytest.raises(DataError, match=message):
        Detections.from_file(tmp_path / "found.parquet", classes)


def test_broken_parquet(tmp_path):
    pq.write_table(pa.table(GOOD), tmp_path / "good.parquet")
    content = (tmp_path / "good.parquet").read_bytes()
    for name, broken in (
        ("empty", b""),
        ("cut", content[:-50]),
        ("other", b"{}"),
        ("middle", content[:40] + b"\xff" * 60 + content[100:]),
    ):
        (tmp_path / f"{name}.parquet").write_bytes(broken)
        with pytest.raises(DataError, match=r"\.parquet: "):
            Detections.from_file(tmp_path / f"{name}.parquet")
    doubled = pa.Table.from_arrays([pa.array(["a"]), pa.array(["a"])], names=["video_id", "video_id"])
    pq.write_table(doubled, tmp_path / "doubled.parquet")
    with pytest.raises(DataError, match="both video_id"):
        Detections.from_file(tmp_path / "doubled.parquet")
    raw = pa.table(GOOD | {"label": pa.array([b"jump", b"\xff"]).view(pa.string())})
    pq.write_table(raw, tmp_path / "bytes.parquet")
    with pytest.raises(DataError, match="not UTF-8"):
        Detections.from_file(tmp_path / "bytes.parquet")


def test_bad_lines(tmp_path):
    (tmp_path / "a.csv").write_text("video_id,start,end,label,score\na,0,1,jump,.5\na,,1,jump,x\n")
    with pytest.raises(
        DataError, match=r"(?s)2 problems.*line 3 \(video a\): start is missing.*score 'x' is not a number"
    ):
        Detections.from_file(tmp_path / "a.csv")
    (tmp_path / "b.csv").write_text("video_id,start,label\n")
    with pytest.raises(DataError, match="lacks the columns end; found video_id, start, label"):
        Detections.from_file(tmp_path / "b.csv")
    (tmp_path / "c.txt").write_text("v 0 1 7 .5\nv 0 1 7\n")
    with pytest.raises(DataError, match="line 2: 4 fields"):
        Detections.from_file(tmp_path / "c.txt", IDS)


def test_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    os.mkfifo(tmp_path / "pipe.parquet")
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04.")
    (tmp_path / "folder.parquet").mkdir()
    for name, message in (
        ("pipe.json", "named pipe"), ("pipe.parquet", "named pipe"), ("folder.parquet", "a folder"),
        ("no.csv", "missing"),
        ("x.pkl", "unpickling runs whatever code they hold"),
    ):  # fmt: skip
        with pytest.raises(DataError, match=message):
            Detections.from_file(tmp_path / name)
        with pytest.raises(DataError, match=message):
            Segments.from_file(tmp_path / name)


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
