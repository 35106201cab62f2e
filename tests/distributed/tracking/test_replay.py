"""`tad ui --replay`: what waits in a run folder is sent, and nothing of elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed.run.identity import Identity
from distributed.run.run_folder import locked
from distributed.tracking.mlflow_tracker import connect
from distributed.tracking.replay import Replayed, replay
from tad.errors import RunError
from tests.support.tracked_run import client, write

pytest_plugins = ["tests.support.tracked"]


TOKEN = "0" * 32


def spooled(folder: Path, uri: str, **operation) -> Path:
    folder.mkdir(exist_ok=True)
    header = {"uri": uri, "experiment": "replayed"}
    create = {"op": "create", "run": TOKEN, "parent": None, "name": "a run", "tags": {}, "time": 1}
    lines = [header, create, {"op": "artifact", "run": TOKEN, "folder": ""} | operation]
    (folder / "spool.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_spool_sends_files_of_its_own_only(database, tmp_path):
    uri, secret, folder = f"sqlite:///{database}", tmp_path / "etc" / "secret", tmp_path / "run"
    secret.parent.mkdir()
    secret.write_text("mine")
    (folder / "spool" / "1").mkdir(parents=True)
    (folder / "spool" / "2").mkdir()
    (folder / "spool" / "1" / "link").symlink_to(secret)
    (folder / "spool" / "2" / "figures").mkdir()
    (folder / "spool" / "2" / "figures" / "link").symlink_to(secret)
    for path, message in {
        str(secret): "is not below",
        "/etc": "is not below",
        f"{folder}/spool/../../etc/secret": "is not below",
        f"{folder}/spool": "is not below",
        f"{folder}/spool/1/link": "is not below",
        f"{folder}/spool/2/figures": "is a link",
    }.items():
        spooled(folder, uri, path=path)
        for send in (
            lambda: replay(folder, uri, print),
            lambda: connect(uri, "replayed", "x", {}, {}, folder, warn=print),
        ):
            with pytest.raises(RunError, match=message):
                send()
    assert client(uri).get_experiment_by_name("replayed") is None


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "end", "run": "x' or '1", "status": "FAILED", "time": 1},
        {"op": "end", "run": TOKEN, "status": "GONE", "time": 1},
        {"op": "delete", "run": TOKEN},
        {"op": "batch", "run": TOKEN, "metrics": [["a", "b", "c"]]},
        {"op": "artifact", "path": 3},
    ],
)
def test_operations_of_other_shapes_are_refused(database, tmp_path, operation):
    spooled(tmp_path / "run", f"sqlite:///{database}", **operation)
    with pytest.raises(RunError, match=r"not a spool of MLflow operations .*move the file away"):
        replay(tmp_path / "run", f"sqlite:///{database}", print)


def test_a_folder_that_was_moved_can_be_replayed(database, tmp_path):
    """Once, by the one process that may."""
    uri, folder = f"sqlite:///{database}", tmp_path / "moved"
    (folder / "spool" / "17").mkdir(parents=True)
    (folder / "spool" / "17" / "report.html").write_text("the report")
    spooled(folder, uri, path="/home/earlier/run/spool/17/report.html")
    with locked(folder), pytest.raises(RunError, match="another process works in this folder"):
        replay(folder, uri, print)
    assert replay(folder, uri, print).sent == 2
    reader = client(uri)
    [run] = reader.search_runs([reader.get_experiment_by_name("replayed").experiment_id])
    assert [artifact.path for artifact in reader.list_artifacts(run.info.run_id)] == ["report.html"]
    assert not (folder / "spool.jsonl").exists()


def test_what_a_killed_run_left_open_in_mlflow_is_closed(database, tmp_path):
    """Not while it goes on, not on another store, and not what its folder only claims."""
    uri, folder = f"sqlite:///{database}", tmp_path / "run"
    tracker = connect(uri, "toy", "killed", {}, {}, folder, warn=print)
    parent = tracker.run_id()
    tracker.open("round", "round 1", {}, {})
    tracker.open("stage", "train", {}, {})
    other = connect(uri, "toy", "another", {}, {}, tmp_path / "other", warn=print)
    dead = Identity.me()._replace(born=1)._asdict()
    known = {"dataset": {"name": "toy"}, "driver": dead, "tracking": {"uri": uri, "run_id": parent}}
    write(folder, **known)
    with locked(folder), pytest.raises(RunError, match="another process works in this folder"):
        replay(folder, uri, print)
    with pytest.raises(RunError, match=rf"run.json: it was tracked in {uri}, and you named"):
        replay(folder, f"sqlite:///{tmp_path / 'other.db'}", print)
    for wrong in ("0" * 32, "x' or '1", "../x"):
        write(folder, **known | {"tracking": {"uri": uri, "run_id": wrong}})
        assert replay(folder, uri, print) == Replayed(0, 0)
    write(folder, **known)
    assert replay(folder, uri, print) == Replayed(0, 3)
    runs = client(uri).search_runs([client(uri).get_experiment_by_name("toy").experiment_id])
    assert {run.info.run_name: run.info.status for run in runs} == {
        "killed": "KILLED",
        "round 1": "KILLED",
        "train": "KILLED",
        "another": "RUNNING",
    }
    assert replay(folder, uri, print) == Replayed(0, 0)
    other.finish()
