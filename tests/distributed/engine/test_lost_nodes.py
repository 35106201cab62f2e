"""Nodes that die and nodes that are added while a cluster trains, maps and searches: the result is the undisturbed one.

Two nodes with one CPU each, so every test needs the one that it kills, and then the one that it adds.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import optuna
import pytest
import torch
from optuna.trial import TrialState

from distributed.engine.chunks import Chunk, Done, collect, part_name
from distributed.tuning.study import open_storage
from distributed.tuning.trial import stages_of
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.stages import Arrays, Context
from tests.support.nodes import Nodes, nodes
from tests.support.runs import events, wait_for
from tests.support.search import SPACE_FILE, wait_until
from tests.support.tiny import RECIPE, TinyEngine, tiny_dataset
from tests.support.toy import ToyMap, ToyMapConfig

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(1800)]
VIDEOS, EPOCHS, TRIALS = 40, 12, 8
TRAIN = """
import sys
from pathlib import Path
from distributed.cluster.connect import cluster
from tad.data.dataset import Dataset
from tests.support.tiny import TinyEngine
from tests.support.toy import ToyConfig, ToyFit
folder, data, epochs, seconds = Path(sys.argv[1]), Dataset.open(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
with cluster(2, None) as resources:
    engine = TinyEngine(data, 0, folder, resources)
    print(engine.fit(ToyFit(ToyConfig(epochs=epochs, batch_size=4, seconds=seconds))).path)
"""
MAP = """
import json, sys
from pathlib import Path
from distributed.cluster.connect import cluster
from distributed.engine.mapping import map_on_ray
from distributed.engine.chunks import chunks
from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.stages import Context
from tests.distributed.engine.test_lost_nodes import SlowMap
from tests.support.toy import ToyMapConfig
folder, data, done = Path(sys.argv[1]), Dataset.open(sys.argv[2]), []
every = chunks(data.videos("train"))
with cluster(1, None) as resources:
    context = Context(data, {}, data.videos("train"), 0, "toy/map@0")
    stage = SlowMap(ToyMapConfig(), notes=str(folder / "notes"))
    map_on_ray(stage, context, Store(folder).partial("0" * 24), every, done.append, resources.mappers, 0.0)
print(json.dumps([every, done]))
"""


@dataclass(frozen=True)
class SlowMap(ToyMap):
    """Half a second for each video; notes in a file which node began it."""

    notes: str = ""

    def open(self, context: Context) -> Callable[[str], Segments | Arrays]:
        import ray

        run, node = super().open(context), ray.get_runtime_context().get_node_id()

        def slowly(video: str) -> Segments | Arrays:
            with Path(self.notes).open("a") as notes:
                notes.write(f"{video} {node}\n")
            time.sleep(0.5)
            return run(video)

        return slowly


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(1, 1) as running:
        yield running


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("lost") / "data", videos=VIDEOS, classes=2, dim=12)


def lose_one_and_add_one(cluster: Nodes) -> None:
    """Kills the node that is not the head; then comes another."""
    cluster.kill(len(cluster.pids) - 1)
    time.sleep(2)
    cluster.add(1)


def output_of(process) -> str:
    said, complaints = process.communicate(timeout=900)
    assert process.returncode == 0, complaints[-3000:]
    return said.strip().splitlines()[-1]


def test_training_goes_on_where_it_was_with_the_same_result(cluster, data, tmp_path):
    """Two workers on two nodes; the reference is an undisturbed training by two workers."""
    whole = Path(output_of(cluster.start("-c", TRAIN, tmp_path / "whole", data.root, EPOCHS, 0)))
    process = cluster.start("-c", TRAIN, tmp_path / "lost", data.root, EPOCHS, 0.05)
    record = tmp_path / "lost" / "run" / "events.jsonl"
    wait_for(record, "toy/fit", 3, process)
    lose_one_and_add_one(cluster)
    lost = Path(output_of(process))
    a, b = (torch.load(path / "model.pt", weights_only=True)["state"] for path in (whole, lost))
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    counts = Counter(event["epoch"] for event in events(record, "toy/fit"))
    assert counts.keys() == set(range(EPOCHS)) and counts[0] == 1, "it did not start again from nothing"


def test_every_part_of_a_map_is_there_once_and_right(cluster, data, tmp_path):
    alone = TinyEngine(data, 0, tmp_path / "alone").map(ToyMap(ToyMapConfig())).segments()
    process = cluster.start("-c", MAP, tmp_path, data.root)
    notes = tmp_path / "notes"
    wait_until(lambda: len({line.split()[1] for line in notes.read_text().splitlines()}) == 2, process)
    lose_one_and_add_one(cluster)
    every, done = json.loads(output_of(process))
    every, done = [Chunk(*chunk) for chunk in every], [Done(*row) for row in done]
    assert len(every) == len(done) and sum(row.videos for row in done) == VIDEOS, "each is told of once"
    folder = tmp_path / f"{'0' * 24}.partial"
    assert all((folder / part_name(chunk.number)).exists() for chunk in every)
    rows, failures = collect(folder, every)
    assert failures == {} and rows == sum(row.segments for row in done)
    assert Segments.from_parquet(folder / "segments.parquet").digest() == alone.digest()
    begun = [line.split() for line in notes.read_text().splitlines()]
    assert {video for video, _ in begun} == set(data.videos("train"))
    assert len({node for _, node in begun}) == 3, "the head, the lost one and the added one"


def test_a_search_loses_no_trial_and_counts_none_twice(cluster, tmp_path):
    """The undisturbed reference is the same search without Ray: its first trials are drawn by the seed alone."""
    (tmp_path / "space.py").write_text(SPACE_FILE)
    small = tiny_dataset(tmp_path / "data", videos=6, classes=2, dim=12)
    given = [RECIPE, "--space", tmp_path / "space.py", "--data", small.root, "--trials", TRIALS, "--set", "rounds=1"]
    given += ["--set", "detector.training.epochs=20"]

    def command(name: str, *more: str) -> list:
        where = ["--study", name, "--out", tmp_path / name, "--store", tmp_path / f"{name}-store"]
        return ["-m", "tad", "tune", *given, *where, "--tracking", "none", "--objective", "points", *more]

    def study(name: str) -> optuna.Study:
        return optuna.load_study(study_name=name, storage=open_storage(f"sqlite:///{tmp_path / name / 'study.db'}"))

    output_of(cluster.start(*command("alone", "--local")))
    process = cluster.start(*command("lost", "--no-doctor"))

    def begun(number: int, stage: str) -> int:
        """How often a trial came to a stage, over its attempts."""
        lines = (tmp_path / "lost" / "trials" / f"{number:04d}" / "events.jsonl").read_text().splitlines()
        found = [json.loads(line) for line in lines if line.endswith("}")]
        return sum(e["kind"] in ("stage", "stage-cached") and e["name"] == stage for e in found)

    def both_nodes_train() -> bool:
        if not (tmp_path / "lost" / "study.json").is_file():
            return False
        running = [t.number for t in study("lost").trials if t.state == TrialState.RUNNING]
        return len(running) == 2 and all(begun(number, "actionformer/train") for number in running)

    wait_until(both_nodes_train, process)
    lose_one_and_add_one(cluster)
    output_of(process)
    expected, found = study("alone").trials, study("lost").trials
    assert [t.state.name for t in found] == ["COMPLETE"] * TRIALS
    assert [(t.number, t.params, t.value) for t in found] == [(t.number, t.params, t.value) for t in expected]
    attempts = sum(begun(trial.number, "snippet/train") for trial in found)
    assert attempts == TRIALS + 1, "one of the two was lost in the middle and tried again"
    uses = [use for folder in sorted((tmp_path / "lost" / "trials").iterdir()) for use in stages_of(folder)]
    made = Counter(use.fingerprint for use in uses if use.made)
    assert set(made.values()) == {1}, "no artifact is made twice"
