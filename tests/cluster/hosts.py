"""Machines for a real `ray up`, made of namespaces by hosts.sh; commands on them; their sudden death."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NEEDED = ["sshd", "ssh-keygen", "rsync", "ip", "nsenter", "unshare", "bash"]


def missing() -> str | None:
    """Why there can be no hosts here, or None."""
    if sys.platform != "linux":
        return "needs Linux: hosts are made of its namespaces"
    if os.geteuid() != 0:
        return "needs root, to make namespaces"
    path = os.environ["PATH"] + ":/usr/sbin:/sbin"
    absent = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if absent:
        return f"needs {', '.join(absent)}: apt-get install openssh-server rsync iproute2 util-linux"
    tried = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "true"], capture_output=True, text=True)
    return None if tried.returncode == 0 else f"namespaces are not allowed here: {tried.stderr.strip()}"


class Hosts:
    """A launcher, where the user sits, and `count` hosts with sshd and nothing else.

    Args:
        folder: everything they write.
        count: hosts, at 10.200.0.11 and on.
    """

    def __init__(self, folder: Path, count: int) -> None:
        self.folder, self.count = folder, count
        self.shared = folder / "shared"
        self.key = folder / "key"

    def __enter__(self) -> Hosts:
        arguments = [self.folder, self.count, sys.prefix, sys.base_prefix]
        self._root = subprocess.Popen(
            ["bash", REPOSITORY / "tests/cluster/hosts.sh", *map(str, arguments)],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._root.stdout is not None
        if self._root.stdout.readline() != "ready\n":
            self.__exit__()
            raise RuntimeError("the hosts did not start")
        self._launcher = int(Path(f"/proc/{self._root.pid}/task/{self._root.pid}/children").read_text())
        return self

    def __exit__(self, *_: object) -> None:
        assert self._root.stdin is not None
        self._root.stdin.close()  # the first process of the launcher ends, and with it all others
        try:
            self._root.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._root.kill()
            self._root.wait()

    def address(self, host: int) -> str:
        return f"10.200.0.{10 + host}"

    def launcher(self, *command: str, check: bool = True, timeout: float = 300) -> str:
        """Runs a command where the user sits, in the repository; its output, both streams together."""
        return self._run(self._inside("launcher"), [*command], check, timeout)

    def start_on_launcher(self, *command: str) -> subprocess.Popen[str]:
        whole = [*self._inside("launcher"), *command]
        return subprocess.Popen(
            whole, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def on(self, host: int, script: str, check: bool = True, timeout: float = 60) -> str:
        """Runs a shell script on a host, not by ssh, so that it works when nothing else does."""
        return self._run(self._inside(str(host)), ["bash", "-c", script], check, timeout)

    def ray_processes(self, host: int) -> dict[int, str]:
        """Process ids, as the host sees them, and command lines of all that Ray runs there."""
        listed = self.on(
            host, "for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\\0' ' ' < $p/cmdline); done", check=False
        )
        rows = [line.split(" ", 1) for line in listed.splitlines() if " " in line]
        words = ("ray::", "/ray/", "/ray start", "raylet", "gcs_server")
        found = {int(pid): command for pid, command in rows if any(w in command for w in words)}
        return {pid: command for pid, command in found.items() if "cmdline" not in command and pid != 1}

    def kill_ray(self, host: int) -> int:
        """SIGKILL to every process of Ray on a host, at once; how many there were."""
        pids = self.ray_processes(host)
        self.on(host, f"kill -{signal.SIGKILL.value} {' '.join(map(str, pids))}", check=False)
        return len(pids)

    def _inside(self, name: str) -> list[str]:
        enter = ["nsenter", "-m", "-u", "-i", "-n", "-p", "-t"]
        entered = [*enter, str(self._launcher)]
        if name != "launcher":
            entered += [*enter, (self.folder / f"{name}.pid").read_text().strip()]
        variables = {
            "HOME": str(self.folder / name / "home"),
            "PATH": f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "TERM": "dumb",
            "USER": "root",
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        here = ["sh", "-c", 'cd "$0" && exec "$@"', str(REPOSITORY if name == "launcher" else self.folder)]
        return [*entered, "env", "-i", *(f"{k}={v}" for k, v in variables.items()), *here]

    def _run(self, prefix: list[str], command: list[str], check: bool, timeout: float) -> str:
        done = subprocess.run(
            [*prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
            errors="replace",
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-6000:]}")
        return done.stdout
