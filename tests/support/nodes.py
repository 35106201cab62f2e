"""Ray clusters of several nodes on one machine, each cluster in a process and a folder of its own.

As a program (`python -m tests.support.nodes`) it reads one JSON object a line, {"add": options} or {"kill": number},
and answers each with a line.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.structure import ROOT

MEMORY = 100 * 2**20


class Nodes:
    """A running cluster.

    Attributes:
        address: HOST:PORT.
        jobs: URL of the job API.
        environment: for processes that shall connect to it.
    """

    def __init__(self, process: subprocess.Popen[str], environment: dict[str, str]) -> None:
        self.process, self.environment = process, environment
        self.address = self.jobs = ""
        self.pids: list[int] = []
        """Of each node's raylet."""

    def add(self, cpus: int, gpus: int = 0, variables: Mapping[str, str] | None = None) -> None:
        """A node that advertises these, whether it has them or not; `variables` are its processes' environment."""
        answer = self._ask({"add": {"num_cpus": cpus, "num_gpus": gpus}, "variables": dict(variables or {})})
        self.address, self.jobs = answer["address"], f"http://{answer['jobs']}"
        self.pids.append(answer["pid"])
        self.environment |= {"RAY_ADDRESS": self.address, "RAY_API_SERVER_ADDRESS": self.jobs}

    def kill(self, number: int) -> None:
        """SIGKILL of all of a node's processes."""
        self._ask({"kill": number})

    def run(self, *command: Any, **variables: Any) -> subprocess.CompletedProcess[str]:
        """`python ...` with this cluster as RAY_ADDRESS."""
        environment = self.environment | {name: str(value) for name, value in variables.items()}
        arguments = [sys.executable, *map(str, command)]
        return subprocess.run(arguments, capture_output=True, text=True, env=environment, cwd=ROOT)

    def start(self, *command: Any) -> subprocess.Popen[str]:
        """The same, while the caller goes on."""
        arguments = [sys.executable, *map(str, command)]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(arguments, text=True, env=self.environment, cwd=ROOT, **pipes)

    def _ask(self, question: dict[str, Any]) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, "the cluster's process ended"
        return json.loads(answer)


@contextmanager
def nodes(*cpus: int, **variables: str) -> Iterator[Nodes]:
    """A cluster with one node for each number of CPUs, of which the first is the head; and its environment."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: sockets lie in it
    (folder / "ray").mkdir()
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        **variables,
    }
    command = [sys.executable, "-m", "tests.support.nodes"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, text=True, env=environment, cwd=ROOT, **pipes)
    try:
        cluster = Nodes(process, environment)
        for count in cpus:
            cluster.add(count)
        yield cluster
    finally:
        process.stdin.close()
        process.wait(timeout=60)
        process.stdout.close()
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def serve() -> None:
    """The cluster's process: its nodes end with it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # Ray prints, too
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    members: list[Any] = []
    for line in sys.stdin:
        question = json.loads(line)
        if "add" in question:
            # By itself Ray gives the agent, which takes jobs, one fixed port: a second Ray on this machine has none.
            ports = {"dashboard_agent_listen_port": 0} | ({} if members else {"dashboard_port": free_port()})
            before = dict(os.environ)
            os.environ.update(question["variables"])
            head = not members
            node = cluster.add_node(object_store_memory=MEMORY, include_dashboard=head, **question["add"], **ports)
            os.environ.clear()
            os.environ.update(before)
            members.append(node)
            pid = node.all_processes["raylet"][0].process.pid
            answers.write(json.dumps({"address": cluster.address, "jobs": cluster.webui_url, "pid": pid}) + "\n")
        else:
            cluster.remove_node(members[question["kill"]], allow_graceful=False)
            answers.write("{}\n")
    cluster.shutdown()


if __name__ == "__main__":
    serve()
