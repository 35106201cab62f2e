"""The engine in one process: caching, resuming, failing videos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from distributed.engine.chunks import PART_SCHEMA, chunk_size, chunks, collect, open_chunk_function
from distributed.engine.store import Store
from tad.errors import RunError
from tad.stages import Context
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("engine") / "data", videos=6)


def test_a_finished_stage_is_not_run_again(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    first = engine.fit(ToyFit(ToyConfig()))
    again = TinyEngine(data, 0, tmp_path).fit(ToyFit(ToyConfig()))
    assert first == again
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert kinds.count("stage") == 1 and kinds.count("stage-cached") == 1


@pytest.mark.parametrize("change", ["config", "seed", "version", "input", "round"])
def test_everything_that_determines_an_artifact_is_in_its_fingerprint(data, tmp_path, change):
    engine = TinyEngine(data, 0, tmp_path)
    stage, inputs = ToyMap(ToyMapConfig()), {}
    base = engine.map(stage, inputs)
    if change == "config":
        stage = ToyMap(ToyMapConfig(segments=3))
    if change == "version":
        stage = ToyMap(ToyMapConfig(), version=2)
    if change == "input":
        inputs = {"model": engine.fit(ToyFit(ToyConfig(epochs=1)))}
    if change == "seed":
        engine = TinyEngine(data, 1, tmp_path)
    assert engine.map(stage, inputs, number=int(change == "round")).fingerprint != base.fingerprint


def test_segments_come_in_the_order_of_the_videos(data, tmp_path):
    segments = TinyEngine(data, 0, tmp_path).map(ToyMap(ToyMapConfig())).segments()
    assert segments.codes("video_id")[1] == data.videos("train")
    assert set(segments.codes("source")[1]) == {"toy/map@0"}


def test_arrays_are_kept_by_key_and_video(data, tmp_path):
    artifact = TinyEngine(data, 0, tmp_path).map(ToyMap(ToyMapConfig(), output="arrays"))
    video = data.videos("train")[0]
    np.testing.assert_allclose(artifact.array("mean", video), data.features(video).mean(0), rtol=1e-5)
    assert sorted(p.name for p in artifact.path.iterdir()) == ["arrays", "meta.json"]
    with pytest.raises(FileNotFoundError):
        artifact.array("mean", "another")


@dataclass(frozen=True)
class Ones(ToyMap):
    """Two arrays a video, whatever the dataset has."""

    def open(self, context: Context) -> Any:
        return lambda video: {"one": np.ones(2), "two": np.ones((3, 2))}


def test_many_videos_make_few_files(data, tmp_path):
    """Two a chunk while the map runs; at the end one a chunk, their index and meta.json."""
    store, every = Store(tmp_path), chunks([f"v{i}" for i in range(100)])
    partial, run = (
        store.partial("0" * 24),
        open_chunk_function(Ones(ToyMapConfig(), output="arrays"), Context(data, {}, [], 0)),
    )
    for chunk in every:
        run(chunk, partial)
    assert len(every) == 25 and len([p for p in partial.folder.rglob("*") if p.is_file()]) == 50
    assert collect(partial.folder, every) == (0, {})
    made = store.commit("0" * 24, {})
    assert len([p for p in made.path.rglob("*") if p.is_file()]) == 27
    assert [made.array(key, "v99").shape for key in ("one", "two")] == [(2,), (3, 2)]
    assert 2 * len(chunks([str(i) for i in range(20_000)])) < 700


def test_failed_videos_are_named_after_the_others_are_written_and_only_they_are_tried_again(data, tmp_path):
    videos = data.videos("train")
    engine = TinyEngine(data, 0, tmp_path)
    broken = ToyMap(ToyMapConfig(broken=(videos[1], videos[4])))
    with pytest.raises(RunError) as caught:
        engine.map(broken)
    for video in (videos[1], videos[4]):
        assert f"video {video}: ValueError: cannot read {video}" in str(caught.value)
    assert "failed for 2 of 6 videos" in str(caught.value)
    (partial,) = (tmp_path / "store").glob("*.partial")
    assert len(list((partial / "chunks").glob("*.parquet"))) == 4
    assert set(json.loads((partial / "failures.json").read_text())) == {videos[1], videos[4]}


def test_a_map_resumes_with_the_chunks_that_are_missing(data, tmp_path):
    context = Context(data, {}, data.videos("train"), 0)
    every = chunks(list(context.videos))
    partial = Store(tmp_path / "store").partial("0" * 24)
    done = open_chunk_function(ToyMap(ToyMapConfig()), context)(every[0], partial)
    assert done[:3] == (1, 2, 0) and done.bytes > 500
    table = pq.read_table(partial.folder / "chunks" / "000000.parquet")
    assert table.schema.equals(PART_SCHEMA) and table.num_rows == 2


def test_chunks_depend_on_the_number_of_videos_only():
    assert [len(c.videos) for c in chunks(list("abc"))] == [1, 1, 1]
    assert [chunk_size(n) for n in (1, 19, 20, 200, 20_000, 500_000)] == [1, 1, 2, 6, 63, 316]
    assert {len(c.videos) for c in chunks([str(i) for i in range(5120)])} == {32}
    assert sum(len(c.videos) for c in chunks([str(i) for i in range(1001)])) == 1001
