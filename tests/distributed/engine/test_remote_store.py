"""Datasets and stores in buckets, on a real S3 server."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import fs

from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.remote import cache_of
from tad.errors import DataError, RunError
from tad.stages import Context
from tests.support.nodes import ROOT, free_port, nodes
from tests.support.runs import wait_for
from tests.support.tiny import RECIPE, TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyMap, ToyMapConfig, ToyTask


@pytest.fixture(scope="module")
def server():
    """moto: S3 over HTTP, in memory."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            break
        except OSError:
            assert process.poll() is None, "moto's server ended; install moto[s3] and flask-cors"
            time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.wait()


@pytest.fixture
def s3(server, tmp_path, monkeypatch):
    """An environment in which s3://lab is a bucket of the server, and the cache a folder of the test."""
    for name, value in environment(server, tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{server}/moto-api/reset", method="POST"))
    parts = {"endpoint_override": server.removeprefix("http://"), "scheme": "http", "region": "us-east-1"}
    bucket = fs.S3FileSystem(access_key="key", secret_key="secret", allow_bucket_creation=True, **parts)
    bucket.create_dir("lab")
    return bucket


def environment(server: str, cache: Path) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": server,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TAD_CACHE": str(cache),
    }


@pytest.fixture
def data(s3, tmp_path):
    """The same dataset here and at s3://lab/tiny."""
    made = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12)
    fs.copy_files(str(made.root), "lab/tiny", destination_filesystem=s3)
    return made


def test_a_remote_dataset_is_the_local_one_and_features_come_when_they_are_read(s3, data, tmp_path):
    remote = Dataset.open("s3://lab/tiny/")
    assert remote.place == "s3://lab/tiny" and remote.videos("train") == data.videos("train")
    assert remote.fingerprint("train") == data.fingerprint("train")
    assert not (remote.root / "features").exists()
    video = data.videos("train")[0]
    assert np.array_equal(remote.features(video), data.features(video))
    assert [p.name for p in (remote.root / "features").iterdir()] == [f"{video}.npy"]
    again = pickle.loads(pickle.dumps(remote))
    assert again.place == remote.place and again.fingerprint("test") == data.fingerprint("test")
    assert len(pickle.dumps(remote)) < 200


def test_what_changes_in_the_bucket_is_fetched_again_and_what_is_gone_is_gone(s3, data):
    first, second = data.videos("train")[:2]
    remote = Dataset.open("s3://lab/tiny")
    before = remote.features(first)
    for video in (first, second):
        np.save(data.feature_path(video), data.features(video) + 1)
    s3.delete_file(f"lab/tiny/features/{second}.npy")
    time.sleep(1.1)  # S3 keeps whole seconds
    fs.copy_files(str(data.feature_path(first)), f"lab/tiny/features/{first}.npy", destination_filesystem=s3)
    s3.delete_file("lab/tiny/points.csv")
    remote = Dataset.open("s3://lab/tiny")
    assert np.array_equal(remote.features(first), before + 1)
    assert len(remote.points(first).time) == 0
    with pytest.raises(DataError, match=f"s3://lab/tiny/features/{second}.npy: no feature file for video {second}"):
        remote.features(second)


def test_a_whole_run_with_data_and_store_in_buckets(s3, data, tmp_path, monkeypatch, capsys):
    """The result is that of a run on folders; a machine with an empty cache runs no stage again."""
    run = ["run", RECIPE, "--local", "--rounds", "1", "--data"]
    main_(*run, "s3://lab/tiny", "--store", "s3://lab/store", "--out", tmp_path / "remote")
    main_(*run, data.root, "--store", tmp_path / "store", "--out", tmp_path / "local")
    rows = [json.loads((tmp_path / name / "rounds.json").read_text()) for name in ("remote", "local")]
    assert [r["model"] for r in rows[0]] == [r["model"] for r in rows[1]], "fingerprints of data, stages and labels"
    document = json.loads((tmp_path / "remote" / "run.json").read_text())
    assert document["dataset"]["root"] == "s3://lab/tiny" and document["store"] == "s3://lab/store"
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "other"))
    monkeypatch.setenv("TAD_STORE", "s3://lab/store")
    main_(*run, "s3://lab/tiny", "--out", tmp_path / "again")
    events = [json.loads(line) for line in (tmp_path / "again" / "events.jsonl").read_text().splitlines()]
    kinds = {event["kind"] for event in events}
    assert "stage-cached" in kinds and not kinds & {"stage", "epoch"}


@dataclass(frozen=True)
class CutMap(ToyMap):
    """Ends like a killed process at the fourth video, unless the file `mended` is there; keeps what it mapped."""

    mended: Path = Path()
    error: type[BaseException] = KeyboardInterrupt

    def open(self, context: Context) -> Any:
        function, mapped = super().open(context), self.mended.with_name("mapped")

        def run(video: str) -> Any:
            if video == context.videos[3] and not self.mended.exists():
                raise self.error
            with mapped.open("a") as lines:
                lines.write(f"{video}\n")
            return function(video)

        return run


@dataclass(frozen=True)
class CutFit(ToyFit):
    """Ends like a killed process in the fourth epoch of the run in this folder."""

    run: Path = Path()

    def open(self, context: Context) -> ToyTask:
        task, item = super().open(context), ToyTask.item

        def cut(index: int, rng: np.random.Generator) -> Any:
            if epochs(self.run) == [0, 1, 2]:
                raise KeyboardInterrupt
            return item(task, index, rng)

        task.item = cut
        return task


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError], ids=["killed", "failed"])
@pytest.mark.parametrize("output", ["segments", "arrays"])
def test_another_machine_maps_only_what_is_not_in_the_bucket(s3, data, tmp_path, monkeypatch, output, error):
    stage = CutMap(ToyMapConfig(), output=output, mended=tmp_path / "mended", error=error)
    videos = data.videos("train")
    with pytest.raises(RunError if error is ValueError else KeyboardInterrupt):
        engine(data, tmp_path / "one").map(stage)
    here = videos[:3] if error is KeyboardInterrupt else [v for v in videos if v != videos[3]]
    assert (tmp_path / "mapped").read_text().split() == here
    (tmp_path / "mended").touch()
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "other"))
    made = engine(data, tmp_path / "two").map(stage)
    assert (tmp_path / "mapped").read_text().split() == here + [v for v in videos if v not in here]
    assert made.path.is_relative_to(tmp_path / "other")
    alone = TinyEngine(data, 0, tmp_path / "alone").map(ToyMap(ToyMapConfig(), output=output))
    assert made.fingerprint == alone.fingerprint and contents(made.path) == contents(alone.path)
    assert not [name for name in stored(s3) if ".partial" in name]


def test_another_machine_trains_on_from_the_checkpoint_in_the_bucket(s3, data, tmp_path, monkeypatch):
    config = ToyConfig(epochs=6)
    with pytest.raises(KeyboardInterrupt):
        engine(data, tmp_path / "one").fit(CutFit(config, run=tmp_path / "one"))
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "other"))
    made = engine(data, tmp_path / "two").fit(CutFit(config, run=tmp_path / "two"))
    assert epochs(tmp_path / "two") == [3, 4, 5]
    alone = TinyEngine(data, 0, tmp_path / "alone").fit(ToyFit(config))
    assert made.fingerprint == alone.fingerprint and contents(made.path) == contents(alone.path)
    assert not [name for name in stored(s3) if ".partial" in name]


def test_what_is_damaged_in_the_bucket_or_the_cache_is_found(s3, data, tmp_path, monkeypatch):
    """A damaged copy here is fetched again; a damaged artifact there is set aside there and made again."""
    stage = ToyFit(ToyConfig(epochs=2))
    made = engine(data, tmp_path / "one").fit(stage)
    content, key = contents(made.path), made.fingerprint
    (made.path / "model.pt").write_bytes(b"")
    again = engine(data, tmp_path / "two").fit(stage)
    assert contents(again.path) == content and (made.path.with_name(f"{key}.damaged-1") / "model.pt").exists()
    assert not epochs(tmp_path / "two"), "it was fetched, not made"
    with s3.open_output_stream(f"lab/store/{key}/model.pt") as file:
        file.write(content["model.pt"][:-100])
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "other"))
    third = engine(data, tmp_path / "three").fit(stage)
    assert contents(third.path) == content and epochs(tmp_path / "three") == [0, 1]
    assert f"{key}.damaged-1/model.pt" in stored(s3)
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "fourth"))
    assert not epochs_of_found(engine(data, tmp_path / "four"), stage)


def epochs_of_found(engine: Engine, stage: ToyFit) -> list[int]:
    engine.fit(stage)
    return epochs(engine.record.folder)


def test_passing_folders_of_killed_processes_go(tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    store = Store(f"file://{tmp_path / 'bucket'}")
    for name, hours in ((".node-old", 25), (".node-new", 1)):
        (store.root / name).mkdir()
        os.utime(store.root / name, (0, time.time() - hours * 3600))
    with store.partial("0" * 24).aside() as aside:
        assert aside.folder.name.startswith(".node-")
    assert {path.name for path in store.root.glob(".node-*")} == {".node-new"}


BAD = ["../../PWN.sh", "..", "a/../../PWN", "/etc/PWN", "a//b", "a\\b", "a\nb", "a\x1b[2Jb", "./x"]


@pytest.mark.parametrize("name", BAD)
def test_keys_that_leave_the_folder_are_refused(tmp_path, monkeypatch, name):
    """A server may list any key; the names are handed on as a hostile one would give them."""
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    store = Store(f"file://{tmp_path / 'bucket'}")
    key, partial = "0" * 24, "1" * 24
    for folder, file in ((key, "meta.json"), (f"{partial}.partial", "checkpoint.pt")):
        (tmp_path / "bucket" / folder).mkdir()
        (tmp_path / "bucket" / folder / file).write_text("{}")

    class Hostile:
        def __init__(self, files: fs.FileSystem) -> None:
            self.files = files

        def get_file_info(self, selector: Any) -> Any:
            found = self.files.get_file_info(selector)
            return [*found, fs.FileInfo(f"{selector.base_dir}/{name}", type=fs.FileType.File, size=2)]

        def __getattr__(self, name: str) -> Any:
            return getattr(self.files, name)

    assert store.bucket is not None
    store.bucket = replace(store.bucket, files=Hostile(store.bucket.files))
    for ask in (store.find, store.require):
        with pytest.raises(RunError, match="which is no file of an artifact; nothing was copied"):
            ask(key)
    with pytest.raises(RunError, match="which is no file of an artifact") as caught:
        store.partial(partial)
    assert repr(name)[1:-1] in str(caught.value).replace("\\\\", "\\") or repr(name) in str(caught.value)
    assert not list(tmp_path.rglob("PWN*"))


@pytest.mark.parametrize("uri", ["s3://lab/store?endpoint_override=127.0.0.1:9", "s3://me:pa55@lab/store"])
def test_a_store_that_names_a_server_or_credentials_is_refused(uri):
    with pytest.raises(RunError) as caught:
        Store(uri)
    assert "pa55" not in str(caught.value) and "127.0.0.1" not in str(caught.value)


def engine(data: Dataset, folder: Path) -> Engine:
    return Engine(data, Store("s3://lab/store"), Record(folder))


def epochs(run: Path) -> list[int]:
    """Those that a run's record tells, in order."""
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    return [event["epoch"] for event in events if event["kind"] == "epoch"]


def stored(s3: Any) -> list[str]:
    """Names in the bucket's store."""
    found = s3.get_file_info(fs.FileSelector("lab/store", recursive=True))
    return [info.path.removeprefix("lab/store/") for info in found]


def contents(folder: Path) -> dict[str, bytes]:
    """The files of an artifact; its meta.json knows how long it took."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "meta.json"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def main_(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0


MAPPED_BY_RAY = "from distributed.engine import mapping; from tad.cli import main; mapping.START = 0; main()"


@pytest.mark.slow
@pytest.mark.ray
def test_nodes_that_share_nothing_but_the_bucket(s3, data, server, tmp_path):
    """Two nodes and the driver, each with a cache of its own; the driver is killed in its third epoch.

    The same command with another cache and run folder, as on another machine, goes on from the bucket. All artifacts
    are those of an uninterrupted run on a folder, to the byte.
    """

    def command(name: str, place: object, store: object) -> list[object]:
        run = ["-c", MAPPED_BY_RAY, "run", RECIPE, "--rounds", 0, "--workers", 2, "--placement", "spread"]
        run += ["--set", "proposer.training.batch_size=2", "--set", "proposer.training.epochs=12"]
        return [*run, "--data", place, "--store", store, "--tracking", "none", "--out", tmp_path / name]

    with nodes(**environment(server, tmp_path / "driver")) as cluster:
        for name in ("a", "b"):
            cluster.add(1, variables={"TAD_CACHE": str(tmp_path / name)})
        whole = cluster.run(*command("whole", data.root, tmp_path / "store"), "--no-doctor")
        assert whole.returncode == 0, whole.stderr[-3000:]
        remote = [str(part) for part in command("killed", "s3://lab/tiny", "s3://lab/store")]
        killed = subprocess.Popen([sys.executable, *remote, "--no-doctor"], env=cluster.environment, cwd=ROOT)
        wait_for(tmp_path / "killed" / "events.jsonl", "snippet/train", 2, killed)
        killed.kill()
        killed.wait()
        remote[-1] = str(tmp_path / "again")
        again = cluster.run(*remote, TAD_CACHE=tmp_path / "other")
        assert again.returncode == 0, again.stderr[-3000:]
    assert "doctor: 2 nodes in order" in again.stderr
    assert "Ray: 2 nodes, 2 training workers, 2 mapping workers" in again.stderr
    assert again.stderr.count(": 1 training worker, ") == 2
    assert epochs(tmp_path / "again")[0] >= 2 and epochs(tmp_path / "again")[-1] == 11
    store = tmp_path / "other" / cache_of("s3://lab/store").name
    keys = {path.parent.name for path in (tmp_path / "store").glob("*/meta.json")}
    assert keys == {name.removesuffix("/meta.json") for name in stored(s3) if name.endswith("/meta.json")}
    for key in keys:
        assert contents(store / key) == contents(tmp_path / "store" / key)
    assert not [name for name in stored(s3) if ".partial" in name]
    for node in ("a", "b"):  # each fetched the model that it applied, and keeps nothing of what it made
        there = [path.name for path in (tmp_path / node / store.name).iterdir() if path.is_dir()]
        there = [name for name in there if not name.startswith(".node-")]  # a killed worker's, which goes a day later
        assert there and set(there) < keys


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("s3://nowhere/tiny", "s3://nowhere/tiny: there is no such bucket"),
        ("s3://lab/nothing", "s3://lab/nothing: no such dataset: nothing is there"),
        ("s4://lab/tiny", "s4://lab/tiny: Unrecognized filesystem type"),
    ],
)
def test_what_is_not_there_is_told_before_anything_runs(s3, data, uri, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["run", RECIPE, "--local", "--data", uri, "--out", str(tmp_path / "run")])
    assert message in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_store_without_its_bucket_is_told_before_anything_runs(s3, data, tmp_path, capsys):
    arguments = ["--local", "--data", str(data.root), "--store", "s3://nowhere/store", "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main(["run", RECIPE, *arguments])
    assert (
        "s3://nowhere/store: the artifact store cannot be written: there is no such bucket" in capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


def test_refused_credentials_and_a_server_that_is_down_are_told(s3, data, server, monkeypatch):
    refused = "(the access key is unknown|the credentials are refused)"
    check_credentials(server, after=0)
    try:
        with pytest.raises(DataError, match=f"s3://lab/tiny: {refused}"):
            Dataset.open("s3://lab/tiny")
        with pytest.raises(RunError, match=f"cannot be written: {refused}"):
            Store("s3://lab/store")
    finally:
        check_credentials(server, after=10**9)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(DataError, match="the server cannot be reached; see AWS_ENDPOINT_URL"):
        Dataset.open("s3://lab/tiny")


def check_credentials(server: str, after: int) -> None:
    """The server knows no user, so it refuses everybody after this many requests."""
    url, kind = f"{server}/moto-api/reset-auth", {"Content-Type": "text/plain"}
    urllib.request.urlopen(urllib.request.Request(url, str(after).encode(), kind, method="POST"))


def test_a_folder_by_its_file_uri_is_a_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    made = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=12)
    assert Dataset.open(f"file://{made.root}").fingerprint("train") == made.fingerprint("train")
