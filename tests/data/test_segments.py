"""Segments: files and back, filter, partition by video, invariants."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.segments import SCHEMA, Segments
from tad.errors import DataError

rows = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "video_1"]),
        st.floats(0, 1000),
        st.floats(0.001, 100),
        st.sampled_from(["jump", "Clean and jerk", "ü"]),
        st.floats(-10, 10),
        st.one_of(st.none(), st.floats(0, 1000)),
    ),
    max_size=20,
)


def table(drawn) -> Segments:
    if not drawn:
        return Segments.empty()
    ids, start, length, labels, scores, points = zip(*drawn, strict=True)
    points = [math.nan if p is None else p for p in points]
    return Segments.of(ids, start, np.add(start, length), labels, scores, points, source="test/0")


def same(a: Segments, b: Segments) -> None:
    assert a.video_ids == b.video_ids
    assert a.labels == b.labels
    for name in ("start", "end", "score", "point"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@settings(deadline=None, max_examples=50)
@given(rows)
def test_parquet_round_trip(tmp_path_factory, drawn):
    path = tmp_path_factory.mktemp("segments") / "s.parquet"
    segments = table(drawn)
    segments.to_parquet(path)
    back = Segments.from_file(path)
    same(segments, back)
    assert back.table.schema == SCHEMA
    assert back.digest() == segments.digest()


def test_scores_of_older_files_are_read(tmp_path):
    """Scores were float32 once; such a file gives the same numbers."""
    segments = Segments.of("v", [0.0, 1.0], [1.0, 2.0], "jump", [0.1, 0.5])
    column = SCHEMA.get_field_index("score")
    older = segments.table.set_column(column, "score", segments.table.column("score").cast(pa.float32(), safe=False))
    pq.write_table(older, tmp_path / "s.parquet")
    back = Segments.from_file(tmp_path / "s.parquet")
    assert back.table.schema == SCHEMA
    assert back.score.tolist() == [float(np.float32(0.1)), 0.5]


@settings(deadline=None, max_examples=50)
@given(rows)
def test_json_round_trip_keeps_rows_of_each_video(drawn):
    segments = table(drawn)
    back = Segments.from_results_json(json.loads(json.dumps(segments.to_results_json())))
    ours, theirs = segments.by_video(), back.by_video()
    assert list(ours) == list(theirs)
    for video_id in ours:
        same(ours[video_id], theirs[video_id])


@settings(deadline=None, max_examples=50)
@given(rows, st.data())
def test_filter_and_take_agree(drawn, data):
    segments = table(drawn)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(segments), max_size=len(segments))), dtype=bool)
    same(segments.filter(mask), segments.take(np.flatnonzero(mask)))
    assert len(segments.filter(mask)) == mask.sum()


@settings(deadline=None, max_examples=50)
@given(rows, st.data())
def test_rows_that_another_table_has_too_are_left_out(drawn, data):
    segments = table(drawn)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(segments), max_size=len(segments))), dtype=bool)
    gone = {row[:5] for row, taken in zip(drawn, mask, strict=True) if taken}
    other = segments.filter(mask).replace(source="elsewhere", point=1.0)
    same(segments.without(other), segments.filter(np.array([row[:5] not in gone for row in drawn], dtype=bool)))
    same(segments.without(Segments.empty()), segments)


@settings(deadline=None, max_examples=50)
@given(rows)
def test_by_video_is_a_partition_in_order(drawn):
    segments = table(drawn)
    parts = segments.by_video()
    assert list(parts) == list(dict.fromkeys(segments.video_ids))
    order = [i for v in parts for i, other in enumerate(segments.video_ids) if other == v]
    same(Segments.concat(parts.values()), segments.take(np.array(order, dtype=np.int64)))


@pytest.mark.parametrize(
    ("start", "end", "score"),
    [(2.0, 1.0, 1.0), (1.0, 1.0, 1.0), (-0.1, 1.0, 1.0), (math.nan, 1.0, 1.0), (0.0, math.inf, 1.0), (0, 1, math.nan)],
)
def test_bad_rows_are_named(start, end, score):
    with pytest.raises(DataError, match=r"1 of 3 segments.*row 1 \(video bad\)"):
        Segments.of(["ok", "bad", "ok"], [0, start, 0], [1, end, 1], "jump", [1, score, 1])


def test_missing_values_are_named():
    columns = Segments.of(["a", "b"], [0, 1], [1, 2], "jump").table
    broken = columns.set_column(3, "label", pa.array(["jump", None]))
    with pytest.raises(DataError, match="row 1: label is missing"):
        Segments(broken)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected"),
        ({"results": {"v": {"segment": [0, 1]}}}, "video v: expected a list"),
        ({"results": {"v": [{"segment": [0, 1]}]}}, "video v, row 0: label is missing"),
        ({"results": {"v": [{"segment": [0], "label": "x"}]}}, r"video v, row 0: segment \[0\] is not"),
        ({"results": {"v": [{"segment": [0, "x"], "label": "x"}]}}, "video v, row 0: end 'x' is not a number"),
        ({"results": {"v": [{"segment": [3, 2], "label": "x"}]}}, r"video v, row 0: segment \[3.0, 2.0\]"),
        ({"results": {"v": [{"segment": [1, 2], "label": 7}]}}, "1 rows name their class by an id, the first label 7"),
        ({"results": {"v": [{"segment": [1, 2], "label": "x", "score": None}]}}, "video v, row 0: score is missing"),
    ],
)
def test_malformed_results(document, message):
    with pytest.raises(DataError, match=message):
        Segments.from_results_json(document)


def test_all_malformed_rows_are_listed_at_once():
    bad = {"results": {"v": [{"segment": [2, 1], "label": "x"}, {"segment": [0, 1], "label": "x"}], "w": 3}}
    with pytest.raises(DataError, match=r"(?s)2 problems.*video v, row 0.*video w"):
        Segments.from_results_json(bad)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.json", b"{", "not a JSON file"),
        ("x.json", b"\xff\xfe", "is UTF-16"),
        ("x.parquet", b"PAR1", "cannot be read as Parquet"),
    ],
)
def test_unreadable_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Segments.from_file(tmp_path / name)


def test_a_few_bytes_of_parquet_that_would_fill_the_memory(tmp_path):
    path = tmp_path / "x.parquet"
    values = {"string": "v", "double": 0.5}
    rows = pa.Table.from_pydict({name: pa.repeat(pa.scalar(values[t], t), 1_000_000) for name, t in KINDS})
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(11):
            writer.write_table(rows)
    with pytest.raises(DataError, match="cannot be 11,000,000 rows"):
        Segments.from_file(path)
    long = pa.DictionaryArray.from_arrays(pa.array([0] * 100_000, "int32"), ["v" * 1_000_000])
    for stored in (False, True):  # whether Arrow's own type is written, too
        pq.write_table(rows.slice(0, 100_000).set_column(0, "video_id", long), path, store_schema=stored)
        assert path.stat().st_size < 2_000_000
        with pytest.raises(DataError, match=r"video_id: 100,000 texts of up to 1,000,000 bytes are too many"):
            Segments.from_file(path)


KINDS = [("video_id", "string"), ("start", "double"), ("end", "double"), ("label", "string"), ("score", "double")]


def test_parquet_of_something_else(tmp_path):
    pq.write_table(pa.table({"video_id": ["a"]}), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="lacks the columns start, end"):
        Segments.from_file(tmp_path / "x.parquet")


def test_label_index():
    segments = Segments.of("v", [0, 1, 2], [1, 2, 3], ["b", "z", "a"])
    assert segments.label_index(["a", "b"]).tolist() == [1, -1, 0]


def test_a_million_rows_are_quick():
    """1,000,000 rows of 5,000 videos: construction and partition, about 1 s of one core; the bound is generous."""
    rng = np.random.default_rng(0)
    start = rng.random(1_000_000) * 100
    ids = pa.array([f"v{i}" for i in range(5000)]).take(pa.array(rng.integers(0, 5000, len(start))))
    began = time.process_time()
    parts = Segments.of(ids, start, start + 1, "jump", rng.random(len(start))).by_video()
    assert time.process_time() - began < 4
    assert sum(map(len, parts.values())) == len(start)
