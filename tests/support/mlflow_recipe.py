"""clusters/mlflow without Docker: PostgreSQL from the system's packages, and the server by the command of its file."""

from __future__ import annotations

import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from tests.support.nodes import ROOT, free_port

COMPOSE = ROOT / "clusters" / "mlflow" / "compose.yaml"
PORT_IN_CONTAINER = "5000"


def binaries() -> Path | None:
    """The folder of PostgreSQL's programs, of the newest version here."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: int(path.parts[4]))
    return found[-1].parent if found else None


def missing() -> str | None:
    """Why the recipe cannot run here, or None."""
    if binaries() is None:
        return "needs PostgreSQL's server: apt-get install postgresql"
    if find_spec("psycopg2") is None:
        return "needs the driver of the recipe: pip install psycopg2-binary"
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        return "needs setpriv (util-linux): PostgreSQL does not run as root"
    return None


class Postgres:
    """The service `database`, as its image sets it up: one user with a password, asked for over TCP."""

    def __init__(self, folder: Path, password: Path) -> None:
        self.folder, self.port, self.log = folder / "database", free_port(), folder / "postgres.log"
        self.sockets = folder / "sockets"
        self._as: list[str] = []
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            self._as = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
        for path in (self.folder, self.sockets):
            path.mkdir()
            if self._as:
                shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
        service = yaml.safe_load(COMPOSE.read_text())["services"]["database"]["environment"]
        self.user, self.name = service["POSTGRES_USER"], service["POSTGRES_DB"]
        self._run("initdb", "-D", self.folder, "-U", self.user, "--pwfile", password, "--auth=scram-sha-256")
        self._password = password.read_text()
        self.start()
        self.query(f"create database {self.name}", database="postgres")

    def start(self) -> None:
        options = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.sockets)]
        command = [*self._as, str(_bin("postgres")), "-D", str(self.folder), *options]
        with self.log.open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        ready = [str(_bin("pg_isready")), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: at once, connections are cut; SIGQUIT: as after a crash."""
        self.process.send_signal(how)
        self.process.wait(timeout=30)

    def query(self, statement: str, database: str | None = None) -> list[tuple[Any, ...]]:
        import psycopg2

        where = {"host": "127.0.0.1", "port": self.port, "dbname": database or self.name}
        connection = psycopg2.connect(user=self.user, password=self._password, **where)
        connection.autocommit = True
        try:
            cursor = connection.cursor()
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _run(self, program: str, *arguments: Any) -> None:
        command = [*self._as, str(_bin(program)), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, cwd="/")
        assert done.returncode == 0, done.stderr


class MlflowServer:
    """The service `mlflow`: its command and its environment, with this machine's places for the container's."""

    def __init__(self, folder: Path, database: Postgres, password: Path) -> None:
        self.port, self.log, self.artifacts = free_port(), folder / "mlflow.log", folder / "artifacts"
        self.uri = f"http://127.0.0.1:{self.port}"
        self.artifacts.mkdir()
        service = yaml.safe_load(COMPOSE.read_text())["services"]["mlflow"]
        text = service["command"][-1].replace("$$", "$")
        for there, here in {
            "/run/secrets/password": str(password),
            "@database/": f"@127.0.0.1:{database.port}/",
            "--host 0.0.0.0": "--host 127.0.0.1",
            f"--port {PORT_IN_CONTAINER}": f"--port {self.port}",
            "--artifacts-destination /artifacts": f"--artifacts-destination {self.artifacts}",
        }.items():
            assert text.count(there) == 1, f"{there} in the command of {COMPOSE}"
            text = text.replace(there, here)
        self.command = [*service["command"][:-1], text]
        self.variables = {name: interpolated(value) for name, value in service["environment"].items()}
        self.start()

    def start(self) -> float:
        """Starts the server; the seconds until it answers."""
        began = time.monotonic()
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment = inherited | self.variables | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, env=environment, stdout=log, stderr=log, start_new_session=True, cwd=self.artifacts
            )
        while self.status("/health") != 200:
            assert self.process.poll() is None and time.monotonic() - began < 180, self.log.read_text()[-3000:]
            time.sleep(0.2)
        return time.monotonic() - began

    def kill(self) -> None:
        """SIGKILL of all its processes."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=30)

    def stop(self) -> None:
        try:
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait(timeout=30)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            if self.process.poll() is None:
                self.kill()

    def status(self, path: str, method: str = "GET", **headers: str) -> int:
        """The HTTP status of a request; 0: no answer."""
        request = urllib.request.Request(self.uri + path, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0


def interpolated(value: str) -> str:
    """A value of a compose file as Compose gives it where no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def new_password(folder: Path) -> Path:
    path = folder / "password"
    path.write_text(secrets.token_hex(24))
    path.chmod(0o644)  # PostgreSQL's user reads it, too
    return path


def _bin(program: str) -> Path:
    folder = binaries()
    assert folder is not None
    return folder / program
