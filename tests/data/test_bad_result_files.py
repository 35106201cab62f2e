"""Files of detections and pseudo-labels that are wrong: every bad value is named."""

from __future__ import annotations

import datetime
import json
import os
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tad.data.detections import Detections
from tad.data.segments import Segments
from tad.errors import DataError

CLASSES = ["jump", "kick"]
IDS = dict(enumerate(CLASSES))
COLUMNS = {
    "video-id": ["a", "a", "b", "b"],
    "t-start": [0.0, 20.0, 3.0, 4.0],
    "t-end": [10.0, 29.0, 3.0, 9.0],
    "label": [0, 1, 0, 0],
    "score": [0.9, 0.8, 0.7, 0.6],
}


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
    (json.dumps(COLUMNS | {"t-end": [1.0]}), "must be lists of one length; found video_id 4, start 4, end 1"),
    (json.dumps(COLUMNS | {"score": [1, 2, 3, None]}), r"row 3 \(video b\): score is missing"),
]


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
        ("pipe.json", "named pipe"),
        ("pipe.parquet", "named pipe"),
        ("folder.parquet", "a folder"),
        ("no.csv", "missing"),
        ("x.pkl", "unpickling runs whatever code they hold"),
    ):
        with pytest.raises(DataError, match=message):
            Detections.from_file(tmp_path / name)
        with pytest.raises(DataError, match=message):
            Segments.from_file(tmp_path / name)
