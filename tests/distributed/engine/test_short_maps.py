"""A map begins in the driver, and leaves to workers what these would end sooner."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest
import torch

from distributed.engine import mapping
from distributed.engine.chunks import chunks
from distributed.engine.store import Store
from tad.stages import Context
from tests.support.tiny import tiny_dataset
from tests.support.toy import ToyMap, ToyMapConfig

VIDEOS = 12


@dataclass(frozen=True)
class Waits(ToyMap):
    """A tenth of a second for each video; notes how many threads it had."""

    threads: tuple[set[int], ...] = ()

    def open(self, context):
        run = super().open(context)

        def slowly(video):
            self.threads[0].add(torch.get_num_threads())
            time.sleep(0.1)
            return run(video)

        return slowly


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("short") / "data", videos=VIDEOS)


@pytest.mark.parametrize(
    ("start", "workers", "left"),
    [
        (0.0, 2, VIDEOS),  # every map on Ray
        (60.0, 2, 0),  # a second here is less than their start
        (0.4, 2, VIDEOS - 2),  # 10 videos of .1 s: two workers would save .5 s, for a start of .4
        (0.4, 1, 0),  # one worker saves nothing
    ],
)
def test_what_workers_would_end_sooner_is_left_to_them(data, tmp_path, monkeypatch, start, workers, left):
    monkeypatch.setattr(mapping, "START", start)
    every, done, threads = chunks(data.videos("train")), [], set()
    context = Context(data, {}, data.videos("train"), 0, "toy/map@0")
    stage, partial = Waits(ToyMapConfig(), threads=(threads,)), Store(tmp_path).partial("0" * 24)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        found = mapping.map_what_is_short(stage, context, partial, every, done.append, workers)
        assert torch.get_num_threads() == 2, "as it was"
    finally:
        torch.set_num_threads(before)
    assert found == every[len(every) - len(found) :]
    assert sum(len(chunk.videos) for chunk in found) == left
    assert sum(row.videos for row in done) == VIDEOS - left
    assert threads == ({1} if left < VIDEOS else set())
