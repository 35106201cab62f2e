"""One video's segments at a time: the same rows as of the whole table, from any Parquet file of segments."""

from __future__ import annotations

import threading

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.artifact import Artifact
from tad.data.segments import SCHEMA, Segments, group_size
from tad.errors import DamagedError


def rows_of(videos, seed=0):
    """One row for each id, with values that tell it from the others."""
    rng = np.random.default_rng(seed)
    start = rng.random(len(videos)) * 100
    labels = [f"class {i}" for i in rng.integers(0, 3, len(videos))]
    return Segments.of([str(v) for v in videos], start, start + 1, labels, rng.random(len(videos)), start, "a@0")


def same(found, expected):
    assert list(found) == list(expected) and len(found) == len(expected)
    for video, rows in expected.items():
        assert found[video].digest() == rows.digest() and found[video].table.schema == SCHEMA
    assert found.keys() & {"none"} == set() and found.get("none") is None and "none" not in found


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 5), max_size=30), st.integers(1, 7), st.booleans())
def test_the_rows_of_a_video_are_those_of_the_table(tmp_path_factory, videos, group, scattered):
    """Also where they lie in several row groups, or, as older files may have them, not side by side."""
    folder = tmp_path_factory.mktemp("x")
    segments = rows_of(videos) if scattered else rows_of(videos).grouped()
    pq.write_table(segments.table, folder / "segments.parquet", row_group_size=group)
    artifact = Artifact("f", folder)
    found = artifact.by_video()
    same(found, segments.by_video())
    assert found.labels == set(segments.labels)
    for video in np.random.default_rng(0).permutation(list(found)):
        assert found[str(video)].digest() == artifact.segments().by_video()[str(video)].digest()


def test_row_groups_are_few_and_small():
    """Of a file of one part, and of one that is put together of a map's parts."""
    assert [group_size(n) for n in (0, 1, 4096, 8192, 40_000, 10**8)] == [1, 1, 4096, 4096, 4445, 100_000]
    for videos, parts in ((2000, 100), (20_000, 318), (500_000, 1583)):
        rows = 200 * videos // parts
        groups = parts * -(-rows // group_size(rows, parts))
        assert groups <= max(1000, parts)


def test_threads_read_at_once(tmp_path):
    segments = rows_of(np.repeat(np.arange(200), 20))
    pq.write_table(segments.table, tmp_path / "segments.parquet", row_group_size=50)
    reader, expected, wrong = Artifact("f", tmp_path).by_video(), segments.by_video(), []

    def work(seed):
        for video in np.random.default_rng(seed).integers(0, 200, 200):
            if reader[str(video)].digest() != expected[str(video)].digest():
                wrong.append(video)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_scores_of_older_files_are_read(tmp_path):
    segments = rows_of([0, 0, 1])
    table = segments.table.set_column(4, "score", segments.table.column("score").cast(pa.float32()))
    pq.write_table(table, tmp_path / "segments.parquet")
    assert Artifact("f", tmp_path).by_video()["0"].score.dtype == np.float64


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def emptied(path):
    path.write_bytes(b"")


def other(path):
    pq.write_table(pa.table({"x": [1]}), path)


def without_ids(path):
    table = rows_of([0]).table
    pq.write_table(table.set_column(0, "video_id", pa.nulls(1, pa.string())), path)


def many(path):
    rows = pa.table(
        {name: pa.repeat(pa.scalar("v" if i in (0, 3, 6) else 0.5), 1_000_000) for i, name in enumerate(SCHEMA.names)}
    )
    with pq.ParquetWriter(path, rows.schema, compression="zstd") as writer:
        for _ in range(11):
            writer.write_table(rows)


@pytest.mark.parametrize("harm", [cut, emptied, other, without_ids, many], ids=lambda x: x.__name__)
def test_a_damaged_file_is_set_aside(tmp_path, harm):
    (tmp_path / "x").mkdir()
    rows_of([0]).to_parquet(path := tmp_path / "x" / "segments.parquet")
    harm(path)
    with pytest.raises(DamagedError, match=r"in the store: segments.parquet: .*damaged-1"):
        Artifact("f", tmp_path / "x").by_video()


def test_damage_that_comes_up_when_rows_are_read_is_told_then(tmp_path):
    (tmp_path / "x").mkdir()
    path = tmp_path / "x" / "segments.parquet"
    pq.write_table(rows_of(np.repeat(np.arange(9), 1000)).table, path, row_group_size=1000)
    found = Artifact("f", tmp_path / "x").by_video()
    content = path.read_bytes()
    path.write_bytes(content[:4] + bytes(len(content) - 4))
    with pytest.raises(DamagedError, match=r"in the store: segments.parquet: .*damaged-1"):
        found["4"]
