"""MLflow tracking against real stores: a SQLite file, MLflow's own server in a thread, and `tad ui` as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import distributed.spool
from distributed.spool import Spool
from distributed.tracking import MlflowTracker, clean, connect, flatten, replay
from distributed.tracking_store import TrackingStore, address, mlflow
from tad.errors import RunError


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A migrated database: making one takes seconds, copying it none."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    TrackingStore(f"sqlite:///{path}", "unused")
    return path


@pytest.fixture
def database(template, tmp_path):
    """An empty database in a folder of its own, whose name has a space."""
    path = tmp_path / "my runs" / "mlflow.db"
    path.parent.mkdir()
    with sqlite3.connect(template) as source, sqlite3.connect(path) as target:
        source.backup(target)
    return path


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def start(database, tmp_path, warnings, request):
    """start(uri, resume_run_id=...) -> tracker of the run folder tmp_path/run, in an experiment of the test's name."""

    def begin(uri: str | None = None, **more) -> MlflowTracker:
        arguments = {"params": {"seed": 3}, "tags": {"recipe": "pser"}, "run_folder": tmp_path / "run"} | more
        uri = uri or f"sqlite:///{database}"
        return connect(uri, request.node.name, "pser seed 3", warn=warnings.append, **arguments)

    return begin


def client(uri):
    return mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


@pytest.fixture
def tree(request):
    """tree(uri) -> runs of the test's experiment by name: (run, parent's name)."""
    return lambda uri: runs_of(uri, request.node.name)


def runs_of(uri, experiment):
    reader = client(uri)
    runs = reader.search_runs([reader.get_experiment_by_name(experiment).experiment_id], max_results=500)
    names = {run.info.run_id: run.info.run_name for run in runs}
    assert len(set(names.values())) == len(runs), "a run is there twice"
    return {run.info.run_name: (run, names.get(run.data.tags.get("mlflow.parentRunId"))) for run in runs}


def history(uri, run, name):
    return [
        (m.step, m.value) for m in sorted(client(uri).get_metric_history(run.info.run_id, name), key=lambda m: m.step)
    ]


def two_rounds(tracker, folder, first_outage, second_outage):
    """A self-training's calls; the two outages are started and ended by the functions given."""
    for number in (1, 2):
        (first_outage, second_outage)[number - 1]("before the round")
        tracker.open("round", f"round {number}", {"round": number}, {})
        tracker.open("stage", f"train {number}", {"lr": 0.1, "optimizer": {"betas": [0.9, 0.99]}}, {"role": "train"})
        for epoch in range(4):
            if epoch == 2:
                (first_outage, second_outage)[number - 1]("within the stage")
            tracker.metrics({"loss": 1.0 / (epoch + 1)}, epoch)
        tracker.close()
        tracker.metrics({"mAP@0.5": 0.1 * number}, number)
        scratch = folder / "labels.json"
        scratch.write_text(json.dumps({"round": number}))
        tracker.artifact(scratch, "labels")
        scratch.unlink()  # what waits must not depend on the file
        tracker.close()
        (first_outage, second_outage)[number - 1]("after the round")
        tracker.metrics({"rounds": number}, number)
    tracker.finish()


def check_two_rounds(runs, uri, folder):
    assert {name: parent for name, (_, parent) in runs.items()} == {
        "pser seed 3": None,
        "round 1": "pser seed 3",
        "train 1": "round 1",
        "round 2": "pser seed 3",
        "train 2": "round 2",
    }
    assert {run.info.status for run, _ in runs.values()} == {"FINISHED"}
    assert history(uri, runs["pser seed 3"][0], "rounds") == [(1, 1.0), (2, 2.0)]
    for number in (1, 2):
        stage, the_round = runs[f"train {number}"][0], runs[f"round {number}"][0]
        assert stage.data.params == {"lr": "0.1", "optimizer.betas": "[0.9, 0.99]"}
        assert stage.data.tags["role"] == "train" and stage.data.tags["tad.kind"] == "stage"
        assert history(uri, stage, "loss") == [(e, 1.0 / (e + 1)) for e in range(4)]
        assert the_round.data.params == {"round": str(number)}
        assert the_round.data.metrics == {"mAP_0.5": pytest.approx(0.1 * number)}
        local = client(uri).download_artifacts(the_round.info.run_id, "labels/labels.json", str(folder))
        assert json.loads(Path(local).read_text()) == {"round": number}
        assert the_round.info.start_time <= stage.info.start_time <= stage.info.end_time <= the_round.info.end_time


def nothing(moment):
    pass


def test_a_run_as_it_should_be(start, database, tmp_path, warnings, capfd, tree):
    tracker = start(params={"recipe": {"rounds": 2, "proposer": {"classes": ["a", "b"], "margin": None}}, "seed": 3})
    parent = tracker.run_id()
    assert tracker.uri == f"sqlite:///{database}"
    (tmp_path / "out").mkdir()
    two_rounds(tracker, tmp_path / "out", nothing, nothing)
    check_two_rounds(tree(tracker.uri), tracker.uri, tmp_path / "out")
    run, _ = tree(tracker.uri)["pser seed 3"]
    assert run.info.run_id == parent
    assert run.data.params == {
        "recipe.rounds": "2",
        "recipe.proposer.classes": '["a", "b"]',
        "recipe.proposer.margin": "None",
        "seed": "3",
    }
    assert run.data.tags["tad.kind"] == "self-training" and run.data.tags["recipe"] == "pser"
    kept = list((database.parent / "mlartifacts").rglob("labels.json"))
    assert len(kept) == 2, "artifacts lie beside the database, wherever the process runs"
    assert warnings == [] and not list((tmp_path / "run").iterdir())
    output = capfd.readouterr()
    assert output.out == "" and output.err == "", "MLflow's own lines stay off the console"


def test_numbers_that_are_none_and_large_batches(start, database, tree):
    tracker = start(params={f"p{i}": i for i in range(250)} | {"long": "x" * 9000})
    tracker.metrics({f"m{i}": float(i) for i in range(2500)} | {"loss": float("nan"), "grad": float("inf")}, 7)
    tracker.finish()
    run, _ = tree(tracker.uri)["pser seed 3"]
    assert len(run.data.params) == 251 and run.data.params["long"] == "x" * 6000
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
    operation = {"op": "batch", "run": "it", "metrics": [[name, 1.0, 5, 0] for name in {clean(n) for n in names}]}
    store.ids["it"] = run
    store.apply(operation)
    store.client.delete_run(run)


DRIVER = """
import os, signal, sys
from pathlib import Path
from distributed.tracking import connect
tracker = connect(sys.argv[1], sys.argv[3], "pser seed 3", {"seed": 3, "rounds": 2}, {}, Path(sys.argv[2]))
tracker.open("round", "round 1", {}, {})
tracker.open("stage", "train 1", {}, {})
tracker.metrics({"loss": 0.5}, 0)
print(tracker.run_id(), flush=True)
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

    tracker = start(resume_run_id=parent, params={"seed": 3, "rounds": 4, "added": "x"})
    assert tracker.run_id() == parent
    resumed = tree(uri)
    assert {name: run.info.status for name, (run, _) in resumed.items()} == {
        "pser seed 3": "RUNNING", "round 1": "KILLED", "train 1": "KILLED",
    }  # fmt: skip
    tracker.open("round", "round 2", {}, {})
    tracker.finish()
    run, _ = tree(uri)["pser seed 3"]
    assert run.info.status == "FINISHED" and run.info.end_time is not None
    assert run.data.params == {"seed": "3", "rounds": "2", "added": "x"}
    assert run.data.tags["changed.rounds"] == "4"
    assert tree(uri)["round 2"][1] == "pser seed 3"

    again = start(resume_run_id="0" * 32)
    assert again.run_id() != parent
    assert client(uri).get_run(again.run_id()).data.tags["resumed_from"] == "0" * 32
    again.finish("KILLED")
    assert client(uri).get_run(again.run_id()).info.status == "KILLED"


def test_the_parent_is_closed_by_finish_only(start, tree):
    tracker = start()
    with pytest.raises(ValueError, match="finish"):
        tracker.close()
    tracker.finish("FAILED")
    assert tree(tracker.uri)["pser seed 3"][0].info.status == "FAILED"


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
    code = "import sys; from distributed.tracking_store import *; print(TrackingStore(sys.argv[1], 'x').experiment_id)"
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/mlflow.db"]
    drivers = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    ends = [(*driver.communicate(timeout=120), driver.returncode) for driver in drivers]
    assert ends == [("1\n", "", 0)] * 2


class Server:
    """MLflow's own web application in a thread: it stops and starts in no time, as a process does not."""

    def __init__(self, database: Path, environment: pytest.MonkeyPatch) -> None:
        from mlflow.server import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR, app
        from mlflow.server.handlers import initialize_backend_stores

        environment.setenv(ARTIFACTS_DESTINATION_ENV_VAR, str(database.parent / "served"))
        environment.setenv(SERVE_ARTIFACTS_ENV_VAR, "true")
        initialize_backend_stores(f"sqlite:///{database}", default_artifact_root="mlflow-artifacts:/")
        self.app, self.port = app, 0
        self.start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        from werkzeug.serving import make_server

        self.server = make_server("127.0.0.1", self.port, self.app, threaded=True)
        self.port = self.server.port
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture(scope="module")
def server(template):
    with pytest.MonkeyPatch.context() as environment:
        running = Server(template, environment)
        yield running
        running.stop()


def test_a_server(start, server, tmp_path, warnings, tree):
    two_rounds(start(server.uri), tmp_path, nothing, nothing)
    check_two_rounds(tree(server.uri), server.uri, tmp_path)
    assert warnings == []


def test_a_server_that_goes_away_and_comes_back(start, server, request, tmp_path, warnings, monkeypatch, tree):
    monkeypatch.setattr(distributed.spool, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(distributed.spool, "PATIENCE", 0.0)

    def within(moment):
        if moment == "within the stage":
            server.stop()
        elif moment == "after the round":
            server.start()

    def all_along(moment):
        if moment == "before the round":
            server.stop()
        elif moment == "after the round":
            assert Spool(tmp_path / "run").store == {"uri": server.uri, "experiment": request.node.name}
            server.start()

    two_rounds(start(server.uri), tmp_path, within, all_along)
    check_two_rounds(tree(server.uri), server.uri, tmp_path)
    told = " / ".join(warnings)
    assert len(re.findall("does not answer", told)) == 2 and len(re.findall("MLflow is back", told)) == 2, told
    assert not (tmp_path / "run" / "spool.jsonl").exists() and not (tmp_path / "run" / "spool").exists()


def test_a_server_that_stays_away_until_later(start, server, tmp_path, warnings, tree):
    def goes(moment):
        if moment == "within the stage":
            server.stop()

    begun = time.monotonic()
    two_rounds(start(server.uri), tmp_path, goes, nothing)
    assert time.monotonic() - begun < 10, "a dead server does not hold up the run"
    assert len(warnings) == 2 and "does not answer" in warnings[0]
    assert f"tad ui --replay {tmp_path / 'run'}" in warnings[1]
    with pytest.raises(RunError, match="no MLflow server answers"):
        replay(tmp_path / "run", warnings.append)
    with pytest.raises(RunError, match="wait for http"):
        start()  # another store: the waiting operations would be lost
    server.start()
    waiting = len(Spool(tmp_path / "run"))
    assert replay(tmp_path / "run", warnings.append) == waiting > 10
    check_two_rounds(tree(server.uri), server.uri, tmp_path)
    with pytest.raises(RunError, match="nothing waits"):
        replay(tmp_path / "run", warnings.append)


def test_a_driver_killed_while_the_server_is_away(start, server, tmp_path, warnings, tree):
    tracker = start(server.uri)
    parent = tracker.run_id()
    server.stop()
    tracker.open("round", "round 1", {"round": 1}, {})
    assert tracker.run_id() == json.loads((tmp_path / "run" / "spool.jsonl").read_text().split("\n")[1])["run"]
    tracker.metrics({"loss": 0.5}, 0)
    with (tmp_path / "run" / "spool.jsonl").open("a") as lines:
        lines.write('{"op": "batch", "run": "half a li')  # the kill
    server.start()
    start(server.uri, resume_run_id=parent).finish()
    runs = tree(server.uri)
    assert runs["pser seed 3"][0].info.run_id == parent
    assert runs["round 1"][0].info.status == "KILLED" and runs["round 1"][0].data.metrics == {"loss": 0.5}


def test_a_creation_whose_answer_was_lost_is_not_repeated(start, database, tree):
    tracker = start()
    tracker.open("round", "round 1", {}, {})
    creation = {"op": "create", "run": tracker._open[-1], "parent": tracker._open[0], "name": "round 1"}
    before = tracker.run_id()
    tracker._outbox.store.ids.pop(tracker._open[-1])
    tracker._outbox.store.apply({**creation, "tags": {}, "time": 5, "tries": 1})
    assert tracker.run_id() == before
    tracker.finish()
    assert set(tree(tracker.uri)) == {"pser seed 3", "round 1"}


def test_what_the_store_refuses_is_kept_aside(start, tmp_path, warnings, tree):
    tracker = start()
    tracker.open("round", "round 1", {"round": 1}, {})
    tracker._outbox.send({"op": "batch", "run": tracker._open[-1], "params": {"round": "2"}})
    tracker.metrics({"loss": 1.0}, 0)
    tracker.artifact(tmp_path / "absent.png")
    tracker.finish()
    assert tree(tracker.uri)["round 1"][0].data.metrics == {"loss": 1.0}
    [line] = (tmp_path / "run" / "spool-refused.jsonl").read_text().splitlines()
    assert json.loads(line)["params"] == {"round": "2"} and "Changing param" in json.loads(line)["reason"]
    assert "refuses" in warnings[0] and "absent.png: no such file" in warnings[1] and "refused 1" in warnings[2]


def test_a_broken_spool_is_named(start, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "spool.jsonl").write_text("no json\n")
    with pytest.raises(RunError, match=r"spool\.jsonl: not a spool .*move the file away"):
        start()


class Page:
    """`tad ui` as a process."""

    def __init__(self, uri: str, folder: Path, port: int) -> None:
        command = [
            sys.executable,
            "-c",
            "from tad.cli import main; main()",
            "ui",
            "--tracking",
            uri,
            "--port",
            str(port),
        ]
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split(" ")[0]
        [self.server] = [int(pid) for pid in children(self.process.pid)]

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(f"{self.url}/{path}", timeout=20) as answer:
            return answer.read()

    def stop(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)
        self.process.communicate(timeout=30)


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def group_is_empty(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def test_ui_shows_runs_and_artifacts_and_stops(start, database, tmp_path):
    tracker = start()
    (tmp_path / "figure.svg").write_text("<svg/>")
    tracker.artifact(tmp_path / "figure.svg", "figures")
    tracker.finish()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        page = Page(tracker.uri, tmp_path, port)
    try:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", page.url) and int(page.url.split(":")[-1]) > port
        assert b"<title>MLflow</title>" in page.get("")
        assert page.get(f"get-artifact?run_uuid={tracker.run_id()}&path=figures/figure.svg") == b"<svg/>"
    finally:
        page.stop()
    assert page.process.returncode == 0
    assert group_is_empty(page.server)


def test_ui_without_a_page_to_start(database, tmp_path):
    from click.testing import CliRunner

    from tad.commands.ui import ui

    with pytest.raises(RunError, match=r"no such database.*tad run"):
        CliRunner().invoke(ui, ["--tracking", f"sqlite:///{tmp_path}/none.db"], catch_exceptions=False)
    assert "has the page already" in CliRunner().invoke(ui, ["--tracking", "http://lab:5000"]).output
    with pytest.raises(RunError, match="cannot be served there"):
        arguments = ["--tracking", f"sqlite:///{database}", "--host", "192.0.2.1"]
        CliRunner().invoke(ui, arguments, catch_exceptions=False)


@pytest.mark.slow
def test_a_server_process_that_hangs_and_one_that_dies(start, database, tmp_path, warnings, monkeypatch, tree):
    monkeypatch.setattr(distributed.spool, "RETRY_SECONDS", 1.0)
    monkeypatch.setattr(distributed.spool, "PATIENCE", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    pages = [Page(f"sqlite:///{database}", tmp_path, port)]
    uri = pages[0].url

    def hangs(moment):
        if moment == "before the round":  # so the creation of the round is sent, and its answer does not come
            os.killpg(pages[0].server, signal.SIGSTOP)
        elif moment == "after the round":
            os.killpg(pages[0].server, signal.SIGCONT)
            time.sleep(2)

    def dies(moment):
        if moment == "within the stage":
            os.killpg(pages[0].server, signal.SIGKILL)
            pages[0].process.wait(30)
        elif moment == "after the round":
            pages.append(Page(f"sqlite:///{database}", tmp_path, port))
            assert pages[1].url == uri

    try:
        two_rounds(start(uri), tmp_path, hangs, dies)
        check_two_rounds(tree(uri), uri, tmp_path)
    finally:
        for page in pages:
            page.stop(signal.SIGTERM)
    assert len(re.findall("does not answer", " / ".join(warnings))) == 2, warnings
    assert not (tmp_path / "run" / "spool.jsonl").exists()
