"""Long tests of a cluster that is killed: `make test-all`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import pytest

from tests.support.runs import digests, events, wait_for
from tests.support.tiny import RECIPE, tiny_dataset

pytestmark = [pytest.mark.slow, pytest.mark.ray]


def test_driver_killed_while_two_workers_train(tmp_path):
    """kill -9 of the driver in epoch 3 of the proposer; the same command resumes from the workers' checkpoint.

    Two workers see other dropout masks than one, so the reference is an uninterrupted run of two workers.
    """
    data = tiny_dataset(tmp_path / "data", videos=8, classes=2, dim=16)
    names = ["round-0/proposals-test", "round-1/labels", "round-1/detections-test"]

    def command(name: str) -> list[str]:
        where = ["--out", tmp_path / name, "--store", tmp_path / f"{name}-store", "--tracking", "none"]
        parts = [sys.executable, "-m", "tad", "run", RECIPE, "--data", data.root, "--workers", 2, "--rounds", 1, *where]
        parts += ["--set", "proposer.training.batch_size=4", "--set", "labeler.heads.batch_size=4"]
        return [str(p) for p in parts]

    whole = subprocess.run(command("whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr[-3000:]
    killed = subprocess.Popen(command("killed"), stderr=subprocess.DEVNULL, start_new_session=True)
    wait_for(tmp_path / "killed" / "events.jsonl", "snippet/train", 3, killed)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["state"] == "running"
    again = subprocess.run(command("killed"), capture_output=True, text=True)
    assert again.returncode == 0, again.stderr[-3000:]
    assert digests(tmp_path / "killed", names) == digests(tmp_path / "whole", names)
    epochs = [e["epoch"] for e in events(tmp_path / "killed" / "events.jsonl", "snippet/train")]
    assert epochs.count(0) == 1, "it resumed, it did not start again"
