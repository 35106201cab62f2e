"""`tad ui --replay`: what MLflow does not know yet of a run is sent, and nothing of elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distributed.engine.record import Record
from distributed.run.identity import Identity
from distributed.run.replay import replay
from distributed.run.run_folder import locked
from tad.errors import RunError
from tests.support.tracked_run import client, runs_of, write

pytest_plugins = ["tests.support.tracked"]

ID = "0" * 32


def told(folder: Path, *events: dict) -> Path:
    """A run's folder whose record holds these events, as somebody else may have written them."""
    folder.mkdir(exist_ok=True)
    beginning = {"kind": "start", "experiment": "replayed", "name": "a run", "config": {}, "tags": {}, "user": "ann"}
    lines = [{"time": 1.0, "kind": "began", "id": ID}, {"time": 1.0, **beginning}]
    lines += [{"time": 2.0, **event} for event in events]
    (folder / "events.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def files_of(uri: str) -> list[str]:
    [run] = [run for run, _ in runs_of(uri, "replayed").values()]
    return [artifact.path for artifact in client(uri).list_artifacts(run.info.run_id)]


def test_a_record_sends_files_of_its_own_folder_only(database, tmp_path):
    uri, secret, folder = f"sqlite:///{database}", tmp_path / "etc" / "secret", tmp_path / "run"
    secret.parent.mkdir()
    secret.write_text("mine")
    (folder / "round-1").mkdir(parents=True)
    (folder / "round-1" / "link").symlink_to(secret)
    (folder / "report.html").write_text("the report")
    paths = [str(secret), "/etc", "../etc/secret", "round-1/../../etc/secret", "round-1", "round-1/link", "gone", ""]
    files = [{"kind": "artifact", "path": path, "folder": ""} for path in [*paths, "report.html"]]
    assert replay(told(folder, *files, {"kind": "artifact", "path": "report.html", "folder": "../.."}), uri) >= 12
    assert files_of(uri) == ["report.html"]
    assert not list((database.parent / "mlartifacts").rglob("secret"))


OTHER_SHAPES: list[dict] = [
    {"kind": "end", "status": "GONE"},
    {"kind": "end", "run": "x' or '1", "status": 7},
    {"kind": "round", "run": [1], "name": 3},
    {"kind": "stage", "run": 12345, "name": "of nothing"},
    {"kind": "metrics", "step": "x", "metrics": {"a": 1.0}},
    {"kind": "metrics", "step": 1, "metrics": {"a": ["b"]}},
    {"kind": "metrics", "step": 1, "metrics": 7},
    {"kind": ["metrics"], "time": "now"},
    {"kind": "artifact", "path": 3},
    {"kind": "start", "config": 3},
    {},
]
NO_EVENTS = ["[]", "", "no json", "[" * 50_000, '{"time": 2.0, "kind": "metr']
"""Such as the half line of a process that was killed."""


def test_what_is_no_event_is_left_out(database, tmp_path):
    uri, folder = f"sqlite:///{database}", told(tmp_path / "run", *OTHER_SHAPES)
    with (folder / "events.jsonl").open("a") as file:
        file.write("\n".join(NO_EVENTS))
    Record(folder, quiet=True).metrics({"good": 1.0}, 2)
    replay(folder, uri)
    [(run, _)] = runs_of(uri, "replayed").values()
    assert run.data.metrics == {"good": 1.0} and run.info.status == "RUNNING"


def test_a_folder_that_was_moved_can_be_replayed(database, tmp_path):
    """By the one process that may; and once is enough."""
    uri = f"sqlite:///{database}"
    (tmp_path / "run" / "figures").mkdir(parents=True)
    (tmp_path / "run" / "figures" / "curve.png").write_text("a curve")
    record = Record(told(tmp_path / "run"), quiet=True)
    record.artifact(tmp_path / "run" / "figures" / "curve.png", "figures")
    folder = (tmp_path / "run").rename(tmp_path / "moved")
    with locked(folder), pytest.raises(RunError, match="another process works in this folder"):
        replay(folder, uri)
    assert (replay(folder, uri), replay(folder, uri)) == (3, 0)
    assert files_of(uri) == ["figures"]


def test_a_server_that_comes_late_is_sent_a_run_that_was_not_tracked(database, tmp_path):
    uri, record = f"sqlite:///{database}", Record(tmp_path / "run", quiet=True)
    record.start("late", "the run", {"seed": 3}, {"recipe": "pser"})
    with record.round(1), record.stage("train", {"lr": 0.1}, {"role": "train"}, 1, "epoch"):
        record.epoch("train", 0, {"loss": 0.5}, 1)
    record.event("end", status="FINISHED")
    assert replay(tmp_path / "run", uri) == 8
    runs = runs_of(uri, "late")
    assert {name: parent for name, (_, parent) in runs.items()} == {
        "the run": None,
        "round 1": "the run",
        "train": "round 1",
    }
    assert {run.info.status for run, _ in runs.values()} == {"FINISHED"}
    assert runs["train"][0].data.metrics == {"loss": 0.5} and runs["the run"][0].data.params == {"seed": "3"}


def test_what_a_killed_run_left_open_in_mlflow_is_closed(start, database, tmp_path, request, tree):
    """Not while it goes on, and without --tracking not on another store than its own."""
    tracked = start()
    for kind, name in (("round", "round 1"), ("stage", "train")):
        tracked.record._open.append(tracked.record.event(kind, name=name, config={}))
    tracked.follower.catch_up()
    uri, folder = tracked.uri, write(tmp_path / "run", driver=Identity.me()._replace(born=1)._asdict())
    other = Record(tmp_path / "other", quiet=True)
    other.start(request.node.name, "another", {}, {}, tracking=uri)
    assert replay(tmp_path / "other", uri) == 2
    with locked(folder), pytest.raises(RunError, match="another process works in this folder"):
        replay(folder, uri)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'other.db'}")
        with pytest.raises(RunError, match=rf"events.jsonl: was tracked in {uri}, and without --tracking"):
            replay(folder, None)
    assert not (tmp_path / "other.db").exists()
    assert (replay(folder, uri), replay(folder, uri)) == (1, 0)
    assert {name: run.info.status for name, (run, _) in tree(uri).items()} == {
        "pser seed 3": "KILLED",
        "round 1": "KILLED",
        "train": "KILLED",
        "another": "RUNNING",
    }
    tracked.follower._over.set()


def test_a_folder_without_a_record_is_told(database, tmp_path):
    (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match="no such file; nothing waits"):
        replay(tmp_path / "run", f"sqlite:///{database}")
    (tmp_path / "run" / "events.jsonl").write_text('{"time": 1.0, "kind": "epoch", "name": "a", "epoch": 1}\n')
    with pytest.raises(RunError, match="of an earlier version"):
        replay(tmp_path / "run", f"sqlite:///{database}")
