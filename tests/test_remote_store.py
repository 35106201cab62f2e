"""Datasets and stores in buckets, on a real S3 server."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from pyarrow import fs

from distributed.store import Store
from tad.cli import main
from tad.data.dataset import Dataset
from tad.errors import DataError, RunError
from tests.nodes import free_port, nodes
from tests.tiny import tiny_dataset

RECIPE = str(Path(__file__).parent / "tiny.yaml")


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


def main_(*arguments: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert end.value.code == 0


@pytest.mark.slow
@pytest.mark.ray
def test_a_run_on_ray_with_data_and_store_in_buckets(s3, data, server, tmp_path):
    """Doctor, two training workers and the mapping actors, each process with the bucket from its environment."""
    with nodes(2, 1, **environment(server, tmp_path / "nodes")) as cluster:
        run = ["run", RECIPE, "--rounds", 0, "--workers", 2, "--data", "s3://lab/tiny", "--store", "s3://lab/store"]
        run += ["--set", "proposer.training.batch_size=2", "--placement", "spread"]
        result = cluster.run("-m", "tad", *run, "--tracking", "none", "--out", tmp_path / "run")
        assert result.returncode == 0, result.stderr[-3000:]
    assert "doctor: 2 nodes in order" in result.stderr
    assert "Ray: 2 nodes, 2 training workers, 3 mapping actors" in result.stderr
    assert result.stderr.count(": 1 training worker, ") == 2
    stored = [i.base_name for i in s3.get_file_info(fs.FileSelector("lab/store", recursive=True))]
    assert {"model.pt", "segments.parquet", "meta.json"} <= set(stored)


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
