"""The server of clusters/mlflow, run for real: several writers at once, and outages of the server and its database."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import optuna
import psutil
import pytest

import distributed.tracking.follow
from distributed.tracking.address import reach
from distributed.tracking.names import clean, flatten
from distributed.tuning.study import open_storage
from distributed.tuning.trials import VALUES
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import RunError
from tests.support.mlflow_recipe import MlflowServer, Postgres, missing, new_password
from tests.support.runs import wait_for
from tests.support.search import SPACE_FILE
from tests.support.tiny import RECIPE, tiny_dataset
from tests.support.tracked_run import client, two_rounds

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
pytest_plugins = ["tests.support.tracked"]
LOCKS = re.compile(r"deadlock|could not serialize|database is locked|lock timeout|QueuePool limit", re.IGNORECASE)


class Recipe(NamedTuple):
    database: Postgres
    server: MlflowServer


@pytest.fixture(scope="module")
def recipe() -> Iterator[Recipe]:
    if (reason := missing()) is not None:
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="tad-mlflow-", dir="/tmp"))
    folder.chmod(0o755)  # PostgreSQL's user has to get through
    password = new_password(folder)
    database = Postgres(folder, password)
    try:
        server = MlflowServer(folder, database, password)
        try:
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # all of it on one busy machine
                yield Recipe(database, server)
        finally:
            server.stop()
    finally:
        database.stop()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("served") / "data", videos=8, classes=2, dim=16)


def tad(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tad", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def a_run(uri: str, data: Dataset, folder: Path, seed: int) -> subprocess.Popen[str]:
    where = ["--out", folder / f"run-{seed}", "--store", folder / f"store-{seed}", "--tracking", uri]
    return tad("run", RECIPE, "--data", data.root, "--rounds", 2, "--local", "--seed", seed, *where)


def ended(process: subprocess.Popen[str], timeout: float = 900) -> str:
    said = process.communicate(timeout=timeout)[1]
    assert process.returncode == 0, said[-3000:]
    return said


def check_run(uri: str, folder: Path, scratch: Path) -> None:
    """Whether the server has what the run's own record has: rounds, stages, each number of each epoch, artifacts."""
    reader, run = client(uri), json.loads((folder / "run.json").read_text())
    parent = reader.get_run(run["tracking"]["run_id"])
    assert parent.info.status == "FINISHED" and parent.data.params["seed"] == str(run["seed"])

    def below(run_id: str) -> list:
        return reader.search_runs([parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")

    children = below(parent.info.run_id)
    rounds = {int(r.data.params["round"]): r for r in children if r.data.tags["tad.kind"] == "round"}
    inner = [r for r in children if r.data.tags["tad.kind"] == "stage"]
    inner += [r for found in rounds.values() for r in below(found.info.run_id)]
    assert sorted(rounds) == [0, 1, 2] and len({r.info.run_id for r in children}) == len(children)
    assert {r.info.status for r in [*children, *inner]} == {"FINISHED"}
    stages = {r.data.tags["fingerprint"]: r for r in inner if not r.info.run_name.endswith("(cached)")}
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    begun = {e["fingerprint"] for e in events if e["kind"] == "stage"}
    assert stages.keys() == begun and len(inner) == sum(e["kind"] in ("stage", "stage-cached") for e in events)
    curves: dict[tuple[str, str], list[tuple[int, float]]] = {}
    at = ""
    for event in events:
        if event["kind"] == "stage":
            at = event["fingerprint"]
        elif event["kind"] == "epoch":
            for name, value in event["metrics"].items():
                curves.setdefault((at, clean(name)), []).append((event["epoch"], value))
    assert len(curves) > 10
    for (fingerprint, name), curve in curves.items():
        history = reader.get_metric_history(stages[fingerprint].info.run_id, name)
        assert sorted((m.step, m.value) for m in history) == curve, name
    for row in json.loads((folder / "rounds.json").read_text())[1:]:
        number = row["round"]
        assert rounds[number].data.metrics["scores/points"] == row["scores"]["points"]
        labels = reader.download_artifacts(rounds[number].info.run_id, "labels.parquet", str(scratch))
        written = Segments.from_parquet(folder / f"round-{number}" / "labels.parquet")
        assert Segments.from_parquet(Path(labels)).digest() == written.digest()
    report = Path(reader.download_artifacts(parent.info.run_id, "report.html", str(scratch)))
    assert report.read_bytes() == (folder / "report.html").read_bytes()


def check_study(uri: str, folder: Path, experiment: str, scratch: Path, trials: int) -> None:
    """Whether the server has the study and each of its trials, with parameters and numbers."""
    reader = client(uri)
    study = optuna.load_study(study_name="searched", storage=open_storage(f"sqlite:///{folder / 'study.db'}"))
    experiment_id = reader.get_experiment_by_name(experiment).experiment_id
    run_id = study.user_attrs["mlflow"]
    runs = reader.search_runs([experiment_id], f"tags.`mlflow.parentRunId` = '{run_id}'")
    assert len(runs) == trials == len(study.trials)
    by_number = {int(run.data.tags["trial"]): run for run in runs}
    for trial in study.trials:
        run = by_number[trial.number]
        assert trial.state.name == "COMPLETE" and run.info.status == "FINISHED"
        assert run.data.metrics["value"] == trial.value and run.data.metrics["seconds"] > 0
        assert run.data.params == flatten(trial.user_attrs[VALUES])
    assert reader.get_run(run_id).info.status == "FINISHED"
    best = reader.download_artifacts(run_id, "best.yaml", str(scratch))
    assert Path(best).read_text() == (folder / "best.yaml").read_text()


@pytest.mark.ray
def test_two_runs_and_a_study_at_once(recipe, data, tmp_path):
    """Two self-trainings and a search by Ray Tune, as three commands, write to the server at the same time."""
    uri, space = recipe.server.uri, tmp_path / "space.py"
    space.write_text(SPACE_FILE)
    before = recipe.server.log.stat().st_size
    where = ["--study", "searched", "--out", tmp_path / "study", "--store", tmp_path / "store", "--tracking", uri]
    search = ["--space", space, "--trials", 4, "--set", "rounds=1", "--concurrency", 1, *where]
    commands = [tad("tune", RECIPE, "--data", data.root, *search)]
    commands += [a_run(uri, data, tmp_path, seed) for seed in (1, 2)]
    try:
        for command in commands:
            said = ended(command)
            assert "does not answer" not in said and "does not take" not in said, said[-3000:]
    finally:
        for command in commands:
            command.kill()
    for seed in (1, 2):
        check_run(uri, tmp_path / f"run-{seed}", tmp_path)
    check_study(uri, tmp_path / "study", data.name, tmp_path, 4)
    logged = recipe.server.log.read_bytes()[before:].decode()
    assert not LOCKS.search(recipe.database.log.read_text() + logged) and "Traceback" not in logged, logged[-3000:]
    reader = client(uri)
    experiment = reader.get_experiment_by_name(data.name).experiment_id
    everything = reader.search_runs([experiment], max_results=500)
    parents = [run.info for run in everything if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 3
    assert max(run.start_time for run in parents) < min(run.end_time for run in parents), "all three at one time"
    counted = recipe.database.query(f"select count(*) from runs where experiment_id = {experiment}")
    assert counted == [(len(everything),)], "it is PostgreSQL that has them"


def test_a_server_killed_during_a_run_loses_nothing(recipe, data, tmp_path):
    process = a_run(recipe.server.uri, data, tmp_path, 3)
    wait_for(tmp_path / "run-3" / "events.jsonl", "snippet/train", 2, process)
    recipe.server.kill()
    said = ended(process)
    assert said.count("does not answer") == 1 and f"--replay {tmp_path / 'run-3'}" in said, said[-3000:]
    recipe.server.start()
    command = [sys.executable, "-m", "tad", "ui", "--tracking", recipe.server.uri, "--replay", str(tmp_path / "run-3")]
    replayed = subprocess.run(command, capture_output=True, text=True)
    assert replayed.returncode == 0 and "events sent" in replayed.stdout, replayed.stderr[-3000:]
    check_run(recipe.server.uri, tmp_path / "run-3", tmp_path)


def test_a_database_that_crashes_and_restarts_loses_nothing(recipe, start, tmp_path, monkeypatch, check_two_rounds):
    """The server answers all the while, only not with data: what it cannot take waits, and is not given up."""
    monkeypatch.setattr(distributed.tracking.follow, "RETRY_SECONDS", 1.0)

    def crashes(moment):
        if moment == "within the stage":
            recipe.database.stop(signal.SIGQUIT)
        elif moment == "after the round":
            assert recipe.server.status("/health") == 200
            recipe.database.start()

    def restarts(moment):
        if moment == "within the stage":
            recipe.database.stop()
            recipe.database.start()

    tracked = start(recipe.server.uri)
    two_rounds(tracked, crashes, restarts)
    check_two_rounds(recipe.server.uri, tmp_path)
    told = " / ".join(tracked.warnings())
    assert "MLflow is back" in told and "does not take" not in told, told


def test_the_server_answers_to_its_names_only_and_runs_nothing_for_others(recipe):
    server, page = recipe.server, "/api/3.0/mlflow/server-info"
    assert server.status(page) == 200
    assert server.status(page, Host="elsewhere.example") == 403
    creation = "/api/2.0/mlflow/experiments/create"
    assert server.status(creation, "POST", Origin="http://elsewhere.example") == 403
    with pytest.raises(RunError, match=f"127.1:{server.port}: the server refuses this host name"):
        reach(f"http://127.1:{server.port}")  # the same machine by another name
    below = psutil.Process(server.process.pid).children(recursive=True)
    assert not [p for p in below if any("mlflow.server.jobs" in word for word in p.cmdline())]
