"""Searches as processes: interrupted, killed, on Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest
from optuna.trial import TrialState

from distributed.tuning.trials import DRIVER, REASON, counts
from tests.support.search import command, complete, computed, study_of, wait_until


@pytest.mark.slow
def test_without_ray_it_is_interrupted_in_order_too(data, tmp_path):
    process = subprocess.Popen(command(data, tmp_path, 100, "--local"), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: complete(tmp_path) >= 2, process)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and "interrupted in order" in said and "Traceback" not in said, said[-3000:]
    trials = study_of(tmp_path).trials
    assert {t.state.name for t in trials} <= {"COMPLETE", "FAIL", "WAITING"}
    assert [t.user_attrs[REASON] for t in trials if t.state == TrialState.FAIL] in ([], ["interrupted"])


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_that_is_interrupted_and_killed_loses_and_repeats_nothing(finished, data, tmp_path):
    """Ctrl-C, then kill -9 of the driver, then to the end: three commands, one study of twelve trials."""
    folder = tmp_path
    interrupted = subprocess.Popen(command(data, folder, 12), stderr=subprocess.PIPE, text=True)
    wait_until(lambda: complete(folder) >= 2, interrupted)
    interrupted.send_signal(signal.SIGINT)
    _, said = interrupted.communicate(timeout=100)
    assert interrupted.returncode == 130 and "interrupted in order; the same command goes on" in said, said[-3000:]
    study = study_of(folder)
    assert not study.get_trials(states=(TrialState.RUNNING,))
    first = {t.number: t.value for t in study.trials if t.state == TrialState.COMPLETE}

    killed = subprocess.Popen(command(data, folder, 12), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_until(
        lambda: complete(folder) >= len(first) + 3 and study_of(folder).get_trials(states=(TrialState.RUNNING,)), killed
    )
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    second = {t.number: t.value for t in study_of(folder).trials if t.state == TrialState.COMPLETE}
    left = study_of(folder).get_trials(states=(TrialState.RUNNING,))

    last = subprocess.run(command(data, folder, 12), capture_output=True, text=True)
    assert last.returncode == 0, last.stderr[-3000:]
    trials = study_of(folder).trials
    done = {t.number: t.value for t in trials if t.state == TrialState.COMPLETE}
    assert first.items() <= second.items() <= done.items(), "no finished trial is lost or run again"
    assert sum(map(counts, trials)) == 12 == len(done)
    assert {t.state.name for t in trials} <= {"COMPLETE", "FAIL"}
    for trial in left:
        assert trials[trial.number].user_attrs[REASON] == "driver died" and not counts(trials[trial.number])
        again = [t for t in trials if t.number > trial.number and t.params == trials[trial.number].params]
        assert len(again) == 1 and again[0].state == TrialState.COMPLETE
    assert len({json.dumps(t.params) for t in trials if counts(t)}) == 12
    assert set(computed(folder / "study").values()) == {1}
    assert trials[0].value == study_of(finished).trials[0].value, "Ray and one process agree to the last digit"
    assert not list((folder / "study").glob(".tune-*"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_killed_while_it_computes_hands_the_work_on(data, tmp_path):
    """Two trials need the same proposer; the process that trains it is killed, the one that waited goes on."""
    slow = ["--concurrency", "2", "--set", "proposer.training.epochs=400", "--set", "proposer.training.batch_size=1"]
    process = subprocess.Popen(command(data, tmp_path, 2, *slow), stderr=subprocess.PIPE, text=True)

    def holder() -> int | None:
        """The process that holds the lock of an artifact in progress, while another trial waits for it."""
        started = list((tmp_path / "study" / "trials").glob("*/events.jsonl"))
        [checkpoint] = (tmp_path / "store").glob("*.partial/checkpoint.pt")
        inode = checkpoint.parent.with_suffix(".lock").stat().st_ino
        locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
        pids = [int(x[4]) for x in locks if x[1] == "FLOCK" and x[5].endswith(f":{inode}")]
        return pids[0] if len(started) == 2 and pids else None

    found = []
    wait_until(lambda: found.append(holder()) or found[-1], process)
    os.kill(found[-1], signal.SIGKILL)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-3000:]
    trials = study_of(tmp_path).trials
    assert [t.state.name for t in trials] == ["COMPLETE"] * 2, [t.user_attrs for t in trials]
    made = computed(tmp_path / "study")
    assert set(made.values()) == {1}, "each artifact is made once"
    lines = [
        json.loads(x)
        for f in (tmp_path / "study" / "trials").glob("*/events.jsonl")
        for x in f.read_text().splitlines()
    ]
    epochs = Counter(e["epoch"] for e in lines if e["kind"] == "epoch" and e["name"] == "snippet/train")
    assert max(epochs.values()) <= 2 and sum(n == 2 for n in epochs.values()) <= 2, "resumed from the checkpoint"
    assert trials[1].user_attrs[DRIVER]
