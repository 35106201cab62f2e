"""What a tracked run does, reading it back from a store, and `tad ui` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

from distributed.engine.record import Record, events_of
from distributed.tracking.address import mlflow
from distributed.tracking.follow import Follower

DOCUMENT = {"recipe": {}, "dataset": {}, "seed": 0, "recipe_name": "x", "state": "running", "started": "today"}


def write(folder: Path, **values) -> Path:
    """A run's folder that holds run.json alone."""
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(DOCUMENT | values))
    return folder


def client(uri):
    return mlflow().MlflowClient(tracking_uri=uri, registry_uri=uri)


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


class Tracked:
    """A run that is tracked: its record, and who sends it."""

    def __init__(self, folder: Path, uri: str, experiment: str, **beginning: Any) -> None:
        self.record = Record(folder, quiet=True)
        beginning = {"name": "pser seed 3", "config": {"seed": 3}, "tags": {"recipe": "pser"}} | beginning
        self.follower = Follower(self.record, uri, experiment=experiment, **beginning)
        self.uri = self.follower.uri

    def finish(self, status: str = "FINISHED") -> None:
        self.record.event("end", status=status)
        self.follower.finish()

    def warnings(self) -> list[str]:
        return [event["text"] for _, _, event in events_of(self.record.path) if event["kind"] == "warning"]


def two_rounds(tracked: Tracked, first_outage: Any, second_outage: Any) -> None:
    """A self-training's calls; the two outages are started and ended by the functions given."""
    record, follower = tracked.record, tracked.follower
    for number, outage in ((1, first_outage), (2, second_outage)):
        outage("before the round")
        config, file = {"lr": 0.1, "optimizer": {"betas": [0.9, 0.99]}}, record.folder / f"labels-{number}.json"
        with record.round(number):
            with record.stage(f"train {number}", config, {"role": "train"}, 4, "epoch"):
                for epoch in range(4):
                    if epoch == 2:
                        outage("within the stage")
                    record.epoch(f"train {number}", epoch, {"loss": 1.0 / (epoch + 1)}, 4)
                    follower.catch_up()
            record.metrics({"mAP@0.5": 0.1 * number}, number)
            file.write_text(json.dumps({"round": number}))
            record.artifact(file, "labels")
        follower.catch_up()
        outage("after the round")
        record.metrics({"rounds": number}, number)
        follower.catch_up()
    tracked.finish()


def nothing(moment: str) -> None:
    pass


class Page:
    """`tad ui` as a process."""

    def __init__(self, uri: str, folder: Path, port: int) -> None:
        command = [
            sys.executable,
            "-P",
            "-c",
            "from tad.cli import main; main()",
            "ui",
            "--tracking",
            uri,
            "--port",
            str(port),
        ]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Tests started in the background ignore Ctrl-C, and their children would, too.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
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
