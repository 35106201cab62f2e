"""Fixtures of a tracked run; a test module that uses them names this one in pytest_plugins."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from distributed.tracking.database import TrackingStore
from tests.support.tracked_run import Tracked, client, history, runs_of


@pytest.fixture(scope="session")
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
def start(database, tmp_path, request):
    """start(uri, config=...) -> the tracked run of the folder tmp_path/run, in an experiment of the test's name."""

    def begin(uri: str | None = None, **beginning) -> Tracked:
        return Tracked(tmp_path / "run", uri or f"sqlite:///{database}", request.node.name, **beginning)

    return begin


@pytest.fixture
def tree(request):
    """tree(uri) -> runs of the test's experiment by name: (run, parent's name)."""
    return lambda uri: runs_of(uri, request.node.name)


@pytest.fixture
def check_two_rounds(tree):
    """check_two_rounds(uri, folder): whether the store has all that `two_rounds` told it; uses folder as scratch."""

    def check(uri, folder):
        runs = tree(uri)
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
            local = client(uri).download_artifacts(the_round.info.run_id, f"labels/labels-{number}.json", str(folder))
            assert json.loads(Path(local).read_text()) == {"round": number}
            assert the_round.info.start_time <= stage.info.start_time <= stage.info.end_time <= the_round.info.end_time

    return check
