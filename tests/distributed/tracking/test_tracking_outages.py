"""A tracking server that goes away: MLflow's own application in a thread, and as a process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

import distributed.tracking.follow
from distributed.run.replay import replay
from distributed.tracking.database import TrackingStore
from distributed.tracking.mirror import Mirror, Unsent
from tad.errors import RunError
from tests.support.tracked_run import Page, client, history, nothing, runs_of, two_rounds

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


@pytest.fixture(autouse=True)
def by_hand(monkeypatch):
    """What is sent when: by the calls of the tests, and at once again after an outage."""
    monkeypatch.setattr(distributed.tracking.follow, "POLL_SECONDS", 600.0)
    monkeypatch.setattr(distributed.tracking.follow, "RETRY_SECONDS", 600.0)


def test_a_server(start, server, tmp_path, check_two_rounds):
    tracked = start(server.uri)
    two_rounds(tracked, nothing, nothing)
    check_two_rounds(server.uri, tmp_path)
    assert tracked.warnings() == []


def test_a_server_that_goes_away_and_comes_back(start, server, tmp_path, check_two_rounds):
    tracked = start(server.uri)

    def within(moment):
        if moment == "within the stage":
            server.stop()
        elif moment == "after the round":
            assert tracked.record.run_id() is None
            server.start()

    def all_along(moment):
        if moment == "before the round":
            server.stop()
        elif moment == "after the round":
            server.start()

    two_rounds(tracked, within, all_along)
    check_two_rounds(server.uri, tmp_path)
    told = " / ".join(tracked.warnings())
    assert len(re.findall("does not answer", told)) == 2 and len(re.findall("MLflow is back", told)) == 2, told


def test_a_server_that_stays_away_until_later(start, server, tmp_path, check_two_rounds):
    def goes(moment):
        if moment == "within the stage":
            server.stop()

    tracked, begun = start(server.uri), time.monotonic()
    two_rounds(tracked, goes, nothing)
    assert time.monotonic() - begun < 10, "a dead server does not hold up the run"
    first, last = tracked.warnings()
    assert "does not answer" in first
    assert f"tad ui --tracking {server.uri} --replay {tmp_path / 'run'}" in last
    with pytest.raises(RunError, match="no MLflow server answers"):
        replay(tmp_path / "run", server.uri)
    server.start()
    assert replay(tmp_path / "run", server.uri) > int(last.split(" ")[0]) > 10, "the last warning itself, too"
    check_two_rounds(server.uri, tmp_path)
    assert replay(tmp_path / "run", server.uri) == 0


def test_a_driver_killed_while_the_server_is_away(start, server, tree):
    tracked = start(server.uri)
    parent = tracked.record.run_id()
    server.stop()
    byte = tracked.record.event("round", name="round 1", config={"round": 1})
    tracked.record.event("metrics", run=byte, step=0, metrics={"loss": 0.5})
    assert tracked.record.run_id() is None
    with tracked.record.path.open("a") as lines:
        lines.write('{"time": 5, "kind": "metrics", "ru')  # the kill
    server.start()
    start(server.uri).finish()
    runs = tree(server.uri)
    assert runs["pser seed 3"][0].info.run_id == parent
    assert runs["round 1"][0].info.status == "KILLED" and runs["round 1"][0].data.metrics == {"loss": 0.5}


def test_the_record_holds_what_another_store_needs(start, server, tmp_path, check_two_rounds):
    """A run that began in one store and goes on in another is whole there."""

    class Killed(Exception):
        pass

    def killed(moment):
        if moment == "within the stage":
            raise Killed

    with pytest.raises(Killed):
        two_rounds(start(server.uri), killed, nothing)
    tracked = start()
    tracked.finish()
    runs = runs_of(tracked.uri, "test_the_record_holds_what_another_store_needs")
    assert {name: run.info.status for name, (run, _) in runs.items()} == {
        "pser seed 3": "FINISHED",
        "round 1": "FAILED",
        "train 1": "FAILED",
    }
    assert history(tracked.uri, runs["train 1"][0], "loss") == [(0, 1.0), (1, 0.5)]


class Lossy:
    """A client of MLflow whose connection breaks: a request is carried out, and its answer gets lost."""

    def __init__(self, client, after: int) -> None:
        self._client, self._left = client, after

    def __getattr__(self, name):
        def call(*given, **named):
            answer = getattr(self._client, name)(*given, **named)
            self._left -= 1
            if self._left == 0:
                raise ConnectionError("the answer was lost")
            return answer

        return call


def test_an_answer_lost_at_any_request_loses_nothing_and_doubles_nothing(start, template, database, request):
    """And so does a process that is killed there: what it did not note in MLflow is sent again."""
    experiment = request.node.name

    def seen(uri):
        runs = runs_of(uri, experiment)
        return {
            name: (parent, run.info.status, run.data.params, run.data.tags.keys(), history(uri, run, "loss"))
            for name, (run, parent) in runs.items()
        }

    tracked = start(tags={"recipe": "pser"})
    with tracked.record.round(1), tracked.record.stage("train", {"lr": 0.1}, {"role": "train"}, 2, "epoch"):
        for epoch in range(2):
            tracked.record.epoch("train", epoch, {"loss": 1.0 / (epoch + 1)}, 2)
    (tracked.record.folder / "report.html").write_text("the report")
    tracked.record.artifact(tracked.record.folder / "report.html")
    tracked.record.cached("detect", {"role": "test"})
    tracked.finish()
    whole, requests = seen(tracked.uri), -1
    assert len(whole) == 4 and whole["train"][4] == [(0, 1.0), (1, 0.5)]
    while True:
        requests += 2  # every second one, for the time it takes
        path = database.with_name(f"{requests}.db")
        shutil.copyfile(template, path)
        store = TrackingStore(f"sqlite:///{path}", experiment)
        mirror, client = Mirror(store, tracked.record), store.client
        store.client = lossy = Lossy(client, requests)
        with contextlib.suppress(Unsent):
            mirror.catch_up(tries=1)
        if lossy._left > 0:
            break
        store.client = client
        mirror.catch_up()
        assert seen(store.uri) == whole, f"after request {requests}"
    assert requests > 15


def test_what_the_store_refuses_is_told_and_holds_up_nothing(start, tree):
    tracked = start()
    with tracked.record.round(1):
        client(tracked.uri).delete_run(tracked.record.run_id())
        tracked.record.metrics({"loss": 1.0}, 0)
    with tracked.record.round(2):
        tracked.record.metrics({"loss": 0.5}, 0)
        tracked.record.event("artifact", path="absent.png", folder="")
    tracked.finish()
    assert tree(tracked.uri)["round 2"][0].data.metrics == {"loss": 0.5}
    told = tracked.warnings()
    assert "does not take all" in told[0] and "Current state is deleted" in told[0]
    assert re.fullmatch("MLflow did not take [34] things in all", told[1]) and len(told) == 2


def test_a_file_that_the_store_cannot_keep_holds_up_nothing(start, database, tree):
    """For example since the place of the artifacts may not be written."""
    (database.parent / "mlartifacts").write_text("a file")
    tracked = start()
    (tracked.record.folder / "report.html").write_text("the report")
    tracked.record.artifact(tracked.record.folder / "report.html")
    tracked.record.metrics({"loss": 0.5}, 0)
    tracked.finish()
    [(run, _)] = tree(tracked.uri).values()
    assert run.data.metrics == {"loss": 0.5} and run.info.status == "FINISHED"
    assert "report.html" in tracked.warnings()[0] and len(tracked.warnings()) == 1


@pytest.mark.slow
def test_a_server_process_that_hangs_and_one_that_dies(start, database, tmp_path, monkeypatch, check_two_rounds):
    monkeypatch.setattr(distributed.tracking.follow, "RETRY_SECONDS", 1.0)
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

    tracked = start(uri)
    try:
        two_rounds(tracked, hangs, dies)
        check_two_rounds(uri, tmp_path)
    finally:
        for page in pages:
            page.stop(signal.SIGTERM)
    assert len(re.findall("does not answer", " / ".join(tracked.warnings()))) == 2, tracked.warnings()
