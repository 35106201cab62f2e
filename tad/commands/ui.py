"""`tad ui`: MLflow's page on the store that the runs were tracked in."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import FrameType
from typing import IO

import click

from tad.commands.say import say
from tad.errors import RunError

START_SECONDS = 120.0


@click.command()
@click.option(
    "--tracking", default=None, metavar="URI", help="As given to `tad run`.  [default: sqlite:///mlflow.db, here]"
)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: other machines may look, too.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=5000,
    show_default=True,
    help="The next free one is taken if this is not.",
)
@click.option(
    "--replay",
    "run_folder",
    type=click.Path(path_type=Path),
    metavar="RUN",
    default=None,
    help="Send to --tracking what MLflow does not know yet of a run, mark what a killed one left open, and stop.",
)
def ui(tracking: str | None, host: str, port: int, run_folder: Path | None) -> None:
    """Open the MLflow page on the store of the runs; Ctrl-C stops it."""
    if run_folder is not None:
        from distributed.run.replay import replay

        say(f"{replay(run_folder, tracking)} events sent")
        return
    from distributed.tracking.address import address, sqlite_path

    uri = address(tracking)
    path = sqlite_path(uri)
    if path is None:
        say(f"{uri} is an MLflow server, which has the page already: open {uri}")
        return
    if not path.is_file():
        raise RunError(
            f"{path}: no such database. `tad run` makes it in the folder in which it is started; go there, or name it: "
            "tad ui --tracking sqlite:////FOLDER/mlflow.db"
        )
    _serve(uri, path, host, _free_port(host, port))


def _serve(uri: str, path: Path, host: str, port: int) -> None:
    """Runs the server until it ends or this process is told to stop."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--artifacts-destination", str(path.parent / "mlartifacts"), "--host", host, "--port", str(port)]
    # The job runner serves MLflow's language-model features; without it the page needs 2 processes, not 10.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"} | os.environ
    local = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    # Python, MLflow and uvicorn would import modules from the current folder, which may be somebody else's.
    with tempfile.TemporaryFile("w+") as log, tempfile.TemporaryDirectory() as empty:
        # A session of its own, so that Ctrl-C reaches this process alone and the server is stopped in order.
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, cwd=empty
        )
        try:
            say(f"starting MLflow on {path} ...", err=True)
            if not _answers(f"http://{local}:{port}/health", server):
                raise RunError(f"{path}: the MLflow page did not start: {_tail(log)}")
            say(f"http://{local}:{port}  (Ctrl-C stops it)")
            if server.wait() != 0:
                raise RunError(f"{path}: the MLflow page stopped: {_tail(log)}")
        except KeyboardInterrupt:
            say("stopped", err=True)
        finally:
            _stop(server)


def _answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Waits until the server is up; False if it ended or took too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=3):
                return True
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    return False


def _stop(server: subprocess.Popen[bytes]) -> None:
    """Ends the server and all its workers."""
    for number, seconds in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)):
        try:
            os.killpg(server.pid, number)
            server.wait(seconds)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def _free_port(host: str, wanted: int) -> int:
    """The wanted port or the next free one.

    Raises:
        RunError: the address is not one of this machine's, or 100 ports in a row are taken.
    """
    for port in range(wanted, min(wanted + 100, 65536)):
        try:
            with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                return port
        except PermissionError:
            continue
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise RunError(f"{host}: the MLflow page cannot be served there: {error}") from error
    raise RunError(f"no port from {wanted} on is free; give another: tad ui --port {wanted + 1000}")


def _tail(log: IO[str]) -> str:
    log.seek(0)
    lines = [line.strip() for line in log if line.strip()]
    if lines and "Exception: " in lines[-1]:  # the end of a traceback says it all
        return lines[-1].partition("Exception: ")[2]
    return " | ".join(lines[-5:])[-1500:] or "it wrote nothing"


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
