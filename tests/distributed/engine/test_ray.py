"""The real Ray: workers agree with one process, killed workers come back, actors write what one process writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace

import psutil
import pytest

from distributed.cluster.connect import cluster
from distributed.cluster.own_ray import ray_folder
from distributed.cluster.token import exposed
from distributed.engine import mapping
from distributed.engine.engine import Resources
from tad.data.dataset import Dataset
from tad.errors import RunError
from tests.support.nodes import ROOT
from tests.support.tiny import RECIPE, TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("ray") / "data", videos=8, finer=2)


@pytest.fixture(scope="module")
def resources():
    """Every map on Ray, however small."""
    with pytest.MonkeyPatch.context() as patch, cluster(workers=2, gpus_per_worker=None) as found:
        patch.setattr(mapping, "START", 0)
        found.start()
        yield found


def difference(a, b):
    a, b = a.model()["state"], b.model()["state"]
    return max(float((a[k] - b[k]).abs().max()) for k in a)


def test_a_ray_of_ones_own_listens_on_this_machine_alone(resources):
    """Every door of every process, workers' too, is on 127.0.0.1; the folder is this user's alone."""
    import ray

    ray.get(ray.remote(lambda: None).remote())
    me = psutil.Process()
    doors = {
        (connection.laddr.ip.removeprefix("::ffff:"), process.name())
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert {"raylet", "gcs_server"} <= {name for _, name in doors} and any("ray::" in name for _, name in doors)
    assert {address for address, _ in doors} == {"127.0.0.1"}, doors
    assert (ray_folder() / "ray" / "session_latest").exists() and ray_folder().stat().st_mode & 0o777 == 0o700
    assert not exposed(), "the token is this user's alone"


def test_two_workers_agree_with_one_and_a_killed_worker_is_restarted_from_its_checkpoint(data, resources, tmp_path):
    """SIGKILL of rank 1 in epoch 5 of 8; the weights equal one process's to 1e-5 (order of sums only)."""
    config = ToyConfig(epochs=8, kill_at=10, flag=str(tmp_path / "killed"))
    alone = TinyEngine(data, 0, tmp_path / "one").fit(ToyFit(config.model_copy(update={"flag": ""})))
    together = TinyEngine(data, 0, tmp_path / "two", resources).fit(ToyFit(config))
    assert (tmp_path / "killed").exists()
    assert difference(alone, together) < 1e-5
    epochs = [
        event["epoch"]
        for line in (tmp_path / "two" / "run" / "events.jsonl").read_text().splitlines()
        if (event := json.loads(line))["kind"] == "epoch"
    ]
    assert sorted(set(epochs)) == list(range(8))
    assert epochs.count(0) == 1  # it did not start again from nothing
    history = [json.loads((a.path / "history.json").read_text())["epochs"] for a in (alone, together)]
    assert history[0][-1]["loss"] == pytest.approx(history[1][-1]["loss"], rel=1e-4)


def test_workers_train_with_the_precision_that_they_are_told(data, resources, tmp_path):
    low = replace(resources, precision="bf16")
    stage = ToyFit(ToyConfig(epochs=4))
    alone = TinyEngine(data, 0, tmp_path / "one", Resources(precision="bf16")).fit(stage)
    together = TinyEngine(data, 0, tmp_path / "two", low).fit(stage)
    whole = TinyEngine(data, 0, tmp_path / "three", resources).fit(stage)
    assert together.fingerprint == alone.fingerprint != whole.fingerprint
    assert difference(alone, together) < 1e-3 and difference(whole, together) > 0


@dataclass(frozen=True)
class Stops(ToyFit):
    """Ends with an error at the first item after so many of this worker."""

    after: int = 0

    def open(self, context):
        task, items = super().open(context), []
        item = task.item

        def counted(index, rng):
            items.append(index)
            if len(items) > self.after:
                raise RunError("stopped here")
            return item(index, rng)

        task.item = counted
        return task


@pytest.mark.parametrize("began", ["alone", "together"])
def test_a_training_goes_on_when_workers_are_switched_on_or_off(data, resources, tmp_path, began):
    """Stopped after epoch 3 of 6 in one process or by two workers; the other goes on from the same checkpoint."""
    whole = TinyEngine(data, 0, tmp_path / "whole").fit(ToyFit(ToyConfig()))
    switched = {"alone": (None, resources), "together": (resources, None)}[began]
    with pytest.raises(RunError, match="stopped here"):
        TinyEngine(data, 0, tmp_path, switched[0]).fit(Stops(ToyConfig(), after=3 * 8 // (2 if switched[0] else 1)))
    found = TinyEngine(data, 0, tmp_path, switched[1]).fit(ToyFit(ToyConfig()))
    assert difference(whole, found) < 1e-5
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in events if event["kind"] == "epoch"] == list(range(6))


@pytest.mark.parametrize("features", [None, "finer"])
def test_actors_write_what_one_process_writes(data, resources, tmp_path, features):
    stage, view = ToyMap(ToyMapConfig()), data.reading(features)
    alone = TinyEngine(view, 0, tmp_path / "one").map(stage)
    together = TinyEngine(view, 0, tmp_path / "two", resources).map(stage)
    assert alone.segments().digest() == together.segments().digest()
    assert alone.fingerprint == together.fingerprint
    means = [abs(float(view.features(video).mean())) for video in alone.segments().video_ids]
    assert alone.segments().start[::2] == pytest.approx(means[::2], abs=1e-6), "of the features that the view reads"


def test_nobody_takes_the_repr_of_the_dataset(data, resources, tmp_path, monkeypatch):
    """Ray Data's key of an actor class is the repr of its arguments: 40 MB for a dataset of 500,000 videos."""

    def refuse(self):
        raise AssertionError("the repr of a dataset")

    monkeypatch.setattr(Dataset, "__repr__", refuse)
    assert len(TinyEngine(data, 0, tmp_path, resources).map(ToyMap(ToyMapConfig())).segments())


def test_failed_videos_are_named_by_the_cluster_too(data, resources, tmp_path):
    videos = data.videos("train")
    with pytest.raises(RunError, match=f"video {videos[2]}: ValueError: cannot read {videos[2]}"):
        TinyEngine(data, 0, tmp_path, resources).map(ToyMap(ToyMapConfig(broken=(videos[2],))))


def test_an_error_on_a_worker_comes_back_in_one_sentence(data, resources, tmp_path):
    with pytest.raises(RunError, match=r"toy/fit.*loss is (nan|inf)") as caught:
        TinyEngine(data, 0, tmp_path, resources).fit(ToyFit(ToyConfig(lr=1e30, epochs=50)))
    assert len(str(caught.value)) < 1000


@dataclass(frozen=True)
class Breaks(ToyFit):
    """No worker gets beyond its first item."""

    def open(self, context):
        task = super().open(context)

        def item(index, rng):
            raise ValueError("no such item")

        task.item = item
        return task


@pytest.mark.slow
def test_workers_that_fail_again_and_again_are_given_up_and_others_take_their_place(data, resources, tmp_path):
    with pytest.raises(
        RunError, match=r"stage toy/fit: the workers failed 4 times: worker \d: ValueError: no such item"
    ):
        TinyEngine(data, 0, tmp_path, resources).fit(Breaks(ToyConfig()))
    alone = TinyEngine(data, 0, tmp_path / "one").fit(ToyFit(ToyConfig()))
    assert difference(alone, TinyEngine(data, 0, tmp_path, resources).fit(ToyFit(ToyConfig()))) < 1e-5


@pytest.mark.slow
def test_nothing_is_imported_from_the_current_folder(tmp_path):
    """It may be somebody else's dataset. Ray's own processes and workers would import from it before all others."""
    tiny_dataset(tmp_path / "data", videos=8, classes=2, dim=8)
    for name in ("torch", "numpy", "pyarrow", "distributed", "tad", "pickle", "struct", "multiprocessing", "aiohttp"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'run-by-mistake')!r}, 'w')")
    command = [sys.executable, "-P", "-c", "from tad.cli import main; main()", "run", RECIPE]
    command += ["--data", "data", "--rounds", "0", "--workers", "2", "--set", "proposer.training.batch_size=4"]
    command += ["--tracking", "none", "--out", "run", "--store", "store"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run-by-mistake").exists()
