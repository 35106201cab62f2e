"""What a tracked run does, reading it back from a store, and `tad ui` as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

from distributed.tracking.address import mlflow

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


def nothing(moment):
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
