"""MLflow tracking in a SQLite file."""

from __future__ import annotations

import getpass
import signal
import socket
import sqlite3
import subprocess
import sys
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import Metric

import distributed.tracking.follow
from distributed.tracking.address import address
from distributed.tracking.database import TrackingStore
from distributed.tracking.names import clean, distinct, flatten
from tad.errors import RunError
from tests.support.tracked_run import client, history, nothing, two_rounds

pytest_plugins = ["tests.support.tracked"]


def test_a_run_as_it_should_be(start, database, tmp_path, capfd, tree, check_two_rounds):
    tracked = start(config={"recipe": {"rounds": 2, "proposer": {"classes": ["a", "b"], "margin": None}}, "seed": 3})
    parent = tracked.follower.run_id()
    assert tracked.uri == f"sqlite:///{database}"
    two_rounds(tracked, nothing, nothing)
    check_two_rounds(tracked.uri, tmp_path)
    run, _ = tree(tracked.uri)["pser seed 3"]
    assert run.info.run_id == parent
    assert run.data.params == {
        "recipe.rounds": "2",
        "recipe.proposer.classes": '["a", "b"]',
        "recipe.proposer.margin": "None",
        "seed": "3",
    }
    assert run.data.tags["tad.kind"] == "self-training" and run.data.tags["recipe"] == "pser"
    assert run.data.tags["mlflow.user"] == getpass.getuser()
    kept = list((database.parent / "mlartifacts").rglob("labels-*.json"))
    assert len(kept) == 2, "artifacts lie beside the database, wherever the process runs"
    assert tracked.warnings() == []
    output = capfd.readouterr()
    assert output.out == "" and output.err == "", "MLflow's own lines stay off the console"


def test_a_live_run_is_sent_without_being_asked_and_knows_its_runs(start, monkeypatch, tree):
    monkeypatch.setattr(distributed.tracking.follow, "POLL_SECONDS", 0.05)
    tracked = start()
    with tracked.record.round(1), tracked.record.stage("train", {}, {"role": "train"}, 1, "epoch"):
        stage = tracked.record.run_id()
        tracked.record.epoch("train", 0, {"loss": 0.5}, 1)
        deadline = time.monotonic() + 20
        while not (run := tree(tracked.uri)["train"][0]).data.metrics:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert run.info.run_id == stage and run.data.metrics == {"loss": 0.5} and run.info.status == "RUNNING"
    assert tracked.record.run_id() == tree(tracked.uri)["pser seed 3"][0].info.run_id
    tracked.finish()


def test_numbers_that_are_none_and_large_batches(start, tree):
    tracked = start(config={f"p{i}": i for i in range(250)} | {"long": "x" * 9000, "odd": "\0 \ud800"})
    numbers = {f"m{i}": float(i) for i in range(2500)} | {"loss": float("nan"), "grad": float("inf")}
    tracked.record.metrics(numbers, 7)
    tracked.finish()
    run, _ = tree(tracked.uri)["pser seed 3"]
    assert len(run.data.params) == 252 and run.data.params["long"] == "x" * 6000 and run.data.params["odd"] == " ?"
    assert len(run.data.metrics) == 2500 and run.data.metrics["m2499"] == 2499
    assert run.data.tags["not finite"] == "loss = nan at step 7; grad = inf at step 7"


def test_flatten():
    assert flatten({"a": {"b": {"c": 1}, "d": (1, 2)}, "e": {}, "f": True, "g": None}) == {
        "a.b.c": "1",
        "a.d": "[1, 2]",
        "e": "{}",
        "f": "True",
        "g": "None",
    }


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(min_size=1, max_size=400), min_size=1, max_size=20))
def test_any_name_is_taken_once_cleaned(template, names):
    store = TrackingStore(f"sqlite:///{template}", "names")
    run = store.client.create_run(store.experiment_id).info.run_id
    names += ["mAP@0.5", "..", ".", "/", "//a", "a/../b", "Fall'n", "a..b"]
    store.client.log_batch(run, metrics=[Metric(name, 1.0, 5, 0) for name in {clean(n) for n in names}])
    store.client.delete_run(run)


def test_names_that_mlflow_takes_for_one_stay_apart(start, tree):
    names = ["class/a?b", "class/a*b", "class/a_b", "x" * 300, "x" * 299, "-ab", "=1+1", "new\nline", "</script>"]
    known = distinct(names)
    assert len(set(known.values())) == len(names) and known["class/a?b"] == "class/a_b"
    tracked = start()
    tracked.record.metrics({name: float(i) for i, name in enumerate(names)}, 0)
    tracked.finish()
    metrics = tree(tracked.uri)["pser seed 3"][0].data.metrics
    assert metrics == {known[name]: float(i) for i, name in enumerate(names)}


DRIVER = """
import os, signal, sys
from pathlib import Path
from tests.support.tracked_run import Tracked
tracked = Tracked(Path(sys.argv[2]), sys.argv[1], sys.argv[3], config={"seed": 3, "rounds": 2})
with tracked.record.round(1), tracked.record.stage("train 1", {}, {}, 2, "epoch"):
    tracked.record.epoch("train 1", 0, {"loss": 0.5}, 2)
    print(tracked.record.run_id(), flush=True)
    tracked.record.epoch("train 1", 1, {"loss": 0.25}, 2)  # not sent yet
    with tracked.record.path.open("a") as file:
        file.write('{"time": 5, "kind": "epoch", "na')
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_run_goes_on(start, database, tmp_path, tree):
    uri = f"sqlite:///{database}"
    command = [sys.executable, "-c", DRIVER, uri, str(tmp_path / "run"), "test_a_killed_run_goes_on"]
    killed = subprocess.run(command, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    before = tree(uri)
    assert {run.info.status for run, _ in before.values()} == {"RUNNING"}
    parent = before["pser seed 3"][0].info.run_id
    assert killed.stdout.strip() == before["train 1"][0].info.run_id

    tracked = start(config={"seed": 3, "rounds": 4, "added": "x"})
    assert tracked.record.run_id() == parent
    resumed = tree(uri)
    assert {name: run.info.status for name, (run, _) in resumed.items()} == {
        "pser seed 3": "RUNNING",
        "round 1": "KILLED",
        "train 1": "KILLED",
    }
    assert history(uri, resumed["train 1"][0], "loss") == [(0, 0.5), (1, 0.25)]
    with tracked.record.round(2):
        pass
    tracked.finish()
    run, _ = tree(uri)["pser seed 3"]
    assert run.info.status == "FINISHED" and run.info.end_time is not None
    assert run.data.params == {"seed": "3", "rounds": "2", "added": "x"}
    assert run.data.tags["changed.rounds"] == "4"
    assert tree(uri)["round 2"][1] == "pser seed 3"


@pytest.mark.parametrize("status", ["FAILED", "KILLED"])
def test_a_run_that_fails_ends_with_all_that_is_below_it(start, tree, status):
    tracked = start()
    with (
        pytest.raises(KeyboardInterrupt if status == "KILLED" else ValueError),
        tracked.record.round(1),
        tracked.record.stage("train", {}, {}, 1, "epoch"),
    ):
        raise KeyboardInterrupt if status == "KILLED" else ValueError
    tracked.finish(status)
    (tracked.record.folder / "report.html").write_text("why")
    tracked.record.artifact(tracked.record.folder / "report.html")
    tracked.follower.catch_up()
    runs = tree(tracked.uri)
    assert {run.info.status for run, _ in runs.values()} == {status} and len(runs) == 3
    [file] = client(tracked.uri).list_artifacts(runs["pser seed 3"][0].info.run_id)
    assert file.path == "report.html"


def test_a_run_deleted_on_the_page_is_back_when_it_goes_on(start, tree):
    tracked = start()
    tracked.record.metrics({"loss": 0.5}, 0)
    tracked.finish("KILLED")
    client(tracked.uri).delete_run(tracked.follower.run_id())
    assert tree(tracked.uri) == {}
    start().finish()
    [(run, _)] = tree(tracked.uri).values()
    assert run.data.metrics == {"loss": 0.5} and run.info.status == "FINISHED"


def test_the_default_store_is_a_file_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert address(None) == f"sqlite:///{tmp_path}/mlflow.db" == address("sqlite:///mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://lab:5000/")
    assert address(None) == "http://lab:5000"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("mlruns", "no longer writes to folders"),
        ("./mlruns", "--tracking none"),
        ("file:///tmp/mlruns", "migrate-filestore"),
        ("sqlite://", "name a file"),
        ("sqlite:///:memory:", "name a file"),
        ("sqlite:////tmp/100%/mlflow.db", "cannot hold"),
        ("postgresql://host/db", "not an address of an MLflow server"),
        ("http://ann:secret@lab:5000", "MLFLOW_TRACKING_USERNAME"),
        ("sqlite:////proc/none/mlflow.db", "cannot be used as MLflow's database"),
        ("sqlite:///FOLDER", "is a folder, not a database file"),
        ("sqlite:///FOLDER/text.db", "file is not a database"),
        ("http://127.0.0.1:9", "no MLflow server answers there .*refused.*start it"),
        ("http://no-such-host.invalid:5000", "no MLflow server answers there"),
    ],
)
def test_a_store_that_cannot_be_used_is_told_before_training(start, tmp_path, uri, message):
    (tmp_path / "text.db").write_text("not a database, but a text that is long enough to have a header " * 20)
    begun = time.monotonic()
    with pytest.raises(RunError, match=message) as caught:
        start(uri.replace("FOLDER", str(tmp_path)))
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert time.monotonic() - begun < 10


def test_a_listening_port_that_never_answers_is_told(start):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(RunError, match=r"no MLflow server answers there .*timed out"),
    ):
        start(f"http://127.0.0.1:{silent.getsockname()[1]}")


def test_a_database_of_another_version(start, database):
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0584bdc529eb'")
    with pytest.raises(RunError, match=r"another version of MLflow .*python -m mlflow db upgrade"):
        start()


def test_a_deleted_experiment(start, database):
    start().finish()
    reader = client(f"sqlite:///{database}")
    reader.delete_experiment(reader.get_experiment_by_name("test_a_deleted_experiment").experiment_id)
    with pytest.raises(RunError, match="was deleted; bring it back"):
        start()


@pytest.mark.slow
def test_drivers_that_make_the_database_together(tmp_path):
    code = (
        "import sys; from distributed.tracking.database import *; print(TrackingStore(sys.argv[1], 'x').experiment_id)"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(*driver.communicate(timeout=120), driver.returncode) for driver in drivers]
    assert ends == [("1\n", "", 0)] * 2
