"""Ended by signals: `tad run` as a process, its state on disk, and the exit status."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from distributed.run.identity import Identity
from distributed.run.replay import replay
from distributed.run.signals import Interrupted, as_interrupts, in_order
from tests.support.tiny import RECIPE, tiny_dataset
from tests.support.tracked_run import client


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("signals") / "data", videos=4, classes=2, dim=8)


def heed() -> None:
    """A child of a job in the background would ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Driver:
    """`tad run` as a process that trains for very long; `start` is the code that starts it."""

    def __init__(
        self, data, folder: Path, *more: str, start: str = "from tad.cli import main; main()", **popen
    ) -> None:
        self.folder = folder
        command = [sys.executable, "-c", start, "run", RECIPE, "--data", str(data.root)]
        command += ["--set", "proposer.training.epochs=9999", *(more or ["--local"])]
        command += ["--out", str(folder / "run"), "--store", str(folder / "store")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed}
        self.process = subprocess.Popen(command, text=True, **(pipes | popen))

    def wait_for_an_epoch(self) -> None:
        events = self.folder / "run" / "events.jsonl"
        deadline = time.monotonic() + 120
        while not (events.exists() and '"epoch"' in events.read_text()):
            assert self.process.poll() is None, self.process.stderr.read()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    @property
    def document(self) -> dict:
        return json.loads((self.folder / "run" / "run.json").read_text())


def test_the_first_signal_ends_a_run_in_order(data, tmp_path):
    driver = Driver(data, tmp_path)
    driver.wait_for_an_epoch()
    assert driver.document["state"] == "running"
    assert Identity(**driver.document["driver"]).pid == driver.process.pid
    driver.process.send_signal(signal.SIGTERM)
    said = driver.process.communicate(timeout=60)[1]
    assert driver.process.returncode == 128 + signal.SIGTERM, said
    assert "SIGTERM: stopping in order" in said and "interrupted; the same command continues here" in said
    assert "Traceback" not in said and "Aborted" not in said
    assert (driver.document["state"], driver.document["signal"]) == ("interrupted", "SIGTERM")
    assert driver.document["seconds"] > 0
    assert "Interrupted" in (tmp_path / "run" / "report.html").read_text()
    assert list((tmp_path / "store").glob("*.partial/checkpoint.pt")), "the next start goes on from here"


def test_a_closed_terminal_ends_it_in_order(data, tmp_path):
    """With a progress bar on a terminal that goes away, and all that is said at the end with it."""
    ours, theirs = os.openpty()

    def attach() -> None:
        os.setsid()
        fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    driver = Driver(data, tmp_path, preexec_fn=attach, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    driver.wait_for_an_epoch()
    os.close(ours)
    assert driver.process.wait(timeout=60) == 128 + signal.SIGHUP
    assert (driver.document["state"], driver.document["signal"]) == ("interrupted", "SIGHUP")
    assert (tmp_path / "run" / "report.html").is_file()


def test_a_signal_that_is_ignored_stays_ignored():
    """As with nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    told: list[str] = []
    try:
        with in_order(told.append):
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(0.01)
        assert not told and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


SLOW_END = """
import time
import distributed.run.session as session
from tad.cli import main

def slow(*arguments):
    print("slow", flush=True)
    time.sleep(600)

session._report = slow
main()
"""


def test_a_second_signal_ends_at_once_and_the_state_is_true(data, tmp_path):
    uri = f"sqlite:///{tmp_path}/m.db"
    driver = Driver(data, tmp_path, "--local", "--tracking", uri, start=SLOW_END)
    driver.wait_for_an_epoch()
    driver.process.send_signal(signal.SIGINT)
    assert driver.process.stdout.readline() == "slow\n"
    driver.process.send_signal(signal.SIGTERM)
    driver.process.communicate(timeout=10)
    assert driver.process.returncode == 128 + signal.SIGTERM
    assert (driver.document["state"], driver.document["signal"]) == ("interrupted", "SIGINT")
    replay(tmp_path / "run", uri)  # a busy machine may have taken MLflow for away
    reader = client(uri)
    runs = reader.search_runs([e.experiment_id for e in reader.search_experiments()])
    assert len(runs) == 3 and {run.info.status for run in runs} == {"KILLED"}
    assert driver.document["tracking"]["run_id"] in {run.info.run_id for run in runs}


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_with_workers_they_end_too(tmp_path, number):
    """Ray's own handlers would print a stack and abort (SIGTERM), or exit with 0 (SIGINT)."""
    data = tiny_dataset(tmp_path / "data", videos=24, classes=2, dim=8)
    driver = Driver(data, tmp_path, "--workers", "2", "--tracking", "none")
    driver.wait_for_an_epoch()
    started = psutil.Process(driver.process.pid).children(recursive=True)
    assert any("ray::" in " ".join(process.cmdline()) for process in started)
    driver.process.send_signal(number)
    said = driver.process.communicate(timeout=100)[1]
    assert driver.process.returncode == 128 + number, said
    assert "received at time" not in said and "Traceback" not in said
    assert (driver.document["state"], driver.document["signal"]) == ("interrupted", number.name)
    assert (tmp_path / "run" / "report.html").is_file()
    assert not psutil.wait_procs(started, timeout=30)[1]


WAIT = """
import time
from tad import cli

@cli.tad.command()
def wait():
    print("now", flush=True)
    time.sleep(60)

cli.COMMANDS["wait"] = ("__main__", "wait", "Wait.")
cli.main(["wait"])
"""


def test_without_a_run_a_command_ends_as_any_other():
    for number, status in ((signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)):
        process = subprocess.Popen(
            [sys.executable, "-c", WAIT], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed
        )
        assert process.stdout.readline() == "now\n"
        process.send_signal(number)
        said = process.communicate(timeout=20)[1]
        assert process.returncode == status and "Traceback" not in said


def test_handlers_are_given_back_and_nobody_replaces_them_within():
    before, change, told = signal.getsignal(signal.SIGTERM), signal.signal, []
    with pytest.raises(Interrupted) as caught, in_order(told.append):
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))  # as ray.init does
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    assert told == ["SIGTERM"] and caught.value.number == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before and signal.signal is change


def test_a_search_takes_sigterm_for_an_interrupt_whoever_handles_that():
    heard: list[int] = []
    closed = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup ignores it
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))  # as Ray Tune does
    try:
        with as_interrupts() as came:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.01)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            with pytest.raises(Interrupted):
                os.kill(os.getpid(), signal.SIGHUP)
                time.sleep(5)
    finally:
        signal.signal(signal.SIGINT, before)
        signal.signal(signal.SIGHUP, closed)
    assert heard == [signal.SIGINT] and came == [signal.SIGTERM, signal.SIGHUP]


def test_what_is_told_may_fail():
    def told(name: str) -> None:
        raise OSError("the disk is full")

    with pytest.raises(Interrupted), in_order(told):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
