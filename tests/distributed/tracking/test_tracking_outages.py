"""A tracking server that goes away: MLflow's own application in a thread, and as a process."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import distributed.tracking.outbox
from distributed.tracking.outbox import Spool
from distributed.tracking.replay import replay
from tad.errors import RunError
from tests.support.tracked_run import Page, nothing, two_rounds

pytest_plugins = ["tests.support.tracked"]


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


def test_a_server(start, server, tmp_path, warnings, check_two_rounds):
    two_rounds(start(server.uri), tmp_path, nothing, nothing)
    check_two_rounds(server.uri, tmp_path)
    assert warnings == []


def test_a_server_that_goes_away_and_comes_back(
    start, server, request, tmp_path, warnings, monkeypatch, check_two_rounds
):
    monkeypatch.setattr(distributed.tracking.outbox, "RETRY_SECONDS", 0.0)
    monkeypatch.setattr(distributed.tracking.outbox, "PATIENCE", 0.0)

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
    check_two_rounds(server.uri, tmp_path)
    told = " / ".join(warnings)
    assert len(re.findall("does not answer", told)) == 2 and len(re.findall("MLflow is back", told)) == 2, told
    assert not (tmp_path / "run" / "spool.jsonl").exists() and not (tmp_path / "run" / "spool").exists()


def test_a_server_that_stays_away_until_later(start, server, tmp_path, warnings, check_two_rounds):
    def goes(moment):
        if moment == "within the stage":
            server.stop()

    begun = time.monotonic()
    two_rounds(start(server.uri), tmp_path, goes, nothing)
    assert time.monotonic() - begun < 10, "a dead server does not hold up the run"
    assert len(warnings) == 2 and "does not answer" in warnings[0]
    assert f"tad ui --tracking {server.uri} --replay {tmp_path / 'run'}" in warnings[1]
    with pytest.raises(RunError, match="no MLflow server answers"):
        replay(tmp_path / "run", server.uri, warnings.append)
    with pytest.raises(RunError, match="wait for http"):
        start()  # another store: the waiting operations would be lost
    server.start()
    waiting = len(Spool(tmp_path / "run"))
    assert replay(tmp_path / "run", server.uri, warnings.append).sent == waiting > 10
    check_two_rounds(server.uri, tmp_path)
    with pytest.raises(RunError, match="nothing waits"):
        replay(tmp_path / "run", server.uri, warnings.append)


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


@pytest.mark.slow
def test_a_server_process_that_hangs_and_one_that_dies(
    start, database, tmp_path, warnings, monkeypatch, check_two_rounds
):
    monkeypatch.setattr(distributed.tracking.outbox, "RETRY_SECONDS", 1.0)
    monkeypatch.setattr(distributed.tracking.outbox, "PATIENCE", 0.0)
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
        check_two_rounds(uri, tmp_path)
    finally:
        for page in pages:
            page.stop(signal.SIGTERM)
    assert len(re.findall("does not answer", " / ".join(warnings))) == 2, warnings
    assert not (tmp_path / "run" / "spool.jsonl").exists()
