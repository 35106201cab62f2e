"""Sends commands to a cluster as Ray jobs, follows them, lists them.

Only the job API of the head is spoken to (port 8265), which `ray dashboard cluster.yaml` brings to this machine.
"""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from distributed.cluster.doctor import PACKAGES, SUFFIXES
from distributed.cluster.token import check_token
from tad.errors import RunError
from tad.words import size

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 50 * 2**20
"""Bytes of source that are uploaded at most; Ray itself refuses 100 MiB after the upload."""
KEEP = ("py.typed", *SUFFIXES)
PATIENCE = 60.0
"""Seconds for a head that has just begun to accept jobs."""
OVER = ("SUCCEEDED", "FAILED", "STOPPED")
SENT = "\0"
"""Stands in an argument before the number and name of a file that is sent along; no real argument holds it."""
UNPACKED = '"$OLDPWD"/sent/'
"""Where sent files are, for the job's shell, which has left the folder of the upload."""


class Job(NamedTuple):
    """A job as the cluster lists it; times in seconds since 1970."""

    id: str
    status: str
    command: str
    started: float | None
    ended: float | None
    exit_code: int | None
    """Of the command; None while it runs, or if it never began."""
    message: str


class Jobs:
    """The jobs of a cluster.

    Args:
        address: http://HOST:PORT of the head's job API; None: RAY_API_SERVER_ADDRESS, or http://127.0.0.1:8265.

    Raises:
        RunError: nothing answers there, it refuses the token, or others can read the token's file.
    """

    def __init__(self, address: str | None = None) -> None:
        address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or "http://127.0.0.1:8265"
        self.address = address if "://" in address else f"http://{address}"
        _reach(self.address)
        check_token()
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        try:
            self.client = JobSubmissionClient(self.address)
        except AuthenticationError as error:
            raise RunError(
                f"{self.address}: the cluster asks for its token, and refuses this one or none; set "
                "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to the file that the cluster was started with"
            ) from error
        except (ConnectionError, RuntimeError, OSError) as error:
            raise RunError(f"{self.address}: no job API of Ray there: {error}") from error

    def submit(self, arguments: list[str], variables: dict[str, str], files: Sequence[Path] = ()) -> str:
        """Sends `tad ARGUMENTS` with the project's source; its id.

        It runs on the head, in the home folder: relative paths are below that.

        Args:
            variables: of its environment, and of its workers'; whoever may list jobs sees them.
            files: sent along; SENT, the number of one and "/" and its name are its path in an argument.

        Raises:
            RunError: the source is too large, or the cluster has another Ray or refuses the job.
        """
        import ray

        there = getattr(self.client, "_server_ray_version", None)  # asked for when it connected
        if there is not None and there.split(".")[:2] != ray.__version__.split(".")[:2]:
            raise RunError(
                f"{self.address}: the cluster runs Ray {there}, this tad needs {ray.__version__}; start the cluster "
                "with that version, or send the job from an installation that fits"
            )
        command = f"cd && exec python -P -m tad {' '.join(map(_quoted, arguments))}"
        end = time.monotonic() + PATIENCE
        with package(files=files) as folder:
            environment = {"working_dir": str(folder), "env_vars": variables}
            while True:
                try:
                    return str(self.client.submit_job(entrypoint=command, runtime_env=environment))
                except (RuntimeError, ValueError, OSError) as error:
                    if "No available agent" not in str(error) or time.monotonic() > end:  # a head that just began
                        raise RunError(f"{self.address}: the job was not accepted: {error}") from error
                time.sleep(1)

    def follow(self, job: str, show: Callable[[str], None]) -> Job:
        """Shows a job's output from its beginning until it is over.

        Raises:
            RunError: no such job, or the cluster stopped answering.
        """
        shown = 0
        while True:
            over = self.info(job).status in OVER
            shown = asyncio.run(self._stream(job, show, shown))
            if over:
                return self.info(job)
            time.sleep(1)

    async def _stream(self, job: str, show: Callable[[str], None], skip: int) -> int:
        """Shows what comes after `skip` characters, until the job or the connection ends; how many there are now."""
        seen = 0
        try:
            async for text in self.client.tail_job_logs(job):
                seen += len(text)
                if seen > skip:
                    show(text[max(0, len(text) - (seen - skip)) :])
        except (RuntimeError, OSError):
            pass  # the connection was cut; `follow` asks whether the cluster is still there
        return max(seen, skip)

    def info(self, job: str) -> Job:
        """One job."""
        found = next((other for other in self.list() if other.id == job), None)
        if found is None:
            raise RunError(f"{self.address}: no job {job}; `tad jobs` lists them")
        return found

    def stop(self, job: str) -> None:
        """Ends a job; what its finished stages made stays."""
        self.info(job)
        self.client.stop_job(job)

    def list(self) -> list[Job]:
        """All submitted jobs, the newest last."""
        found = [d for d in self._call(self.client.list_jobs) if d.submission_id]
        rows = [
            Job(
                d.submission_id,
                str(d.status.value),
                re.sub(re.escape(UNPACKED) + "('?)[0-9]+/", r"\1", d.entrypoint.split(" -m ", 1)[-1]),
                _s(d.start_time),
                _s(d.end_time),
                d.driver_exit_code,
                d.message or "",
            )
            for d in found
        ]
        return sorted(rows, key=lambda row: row.started or float("inf"))

    def _call(self, request: Callable[[], Any]) -> Any:
        for wait in (1, 2, 4, None):
            try:
                return request()
            except (RuntimeError, OSError) as error:
                if wait is None:
                    raise RunError(f"{self.address}: the cluster stopped answering: {error}") from error
                time.sleep(wait)
        raise AssertionError


@contextmanager
def package(root: Path = ROOT, limit: int = LIMIT, files: Sequence[Path] = ()) -> Iterator[Path]:
    """A folder with the project's own source and these files, and nothing else: no data, no runs, no version control.

    Raises:
        RunError: it is larger than `limit` bytes; names the largest files.
    """
    with tempfile.TemporaryDirectory(prefix="tad-submit-") as temporary:
        folder = Path(temporary)
        source = [
            path
            for name in PACKAGES
            for path in sorted((root / name).rglob("*"))
            if path.is_file() and path.name.endswith(KEEP) and "__pycache__" not in path.parts
        ]
        sizes = {path: path.stat().st_size for path in source}
        if sum(sizes.values()) > limit:
            largest = sorted(source, key=lambda path: -sizes[path])[:5]
            names = ", ".join(f"{path.relative_to(root)} ({size(sizes[path])})" for path in largest)
            raise RunError(
                f"{root}: the source to upload has {size(sum(sizes.values()))}, {size(limit)} is the limit; move what "
                f"is not source elsewhere. The largest: {names}"
            )
        targets = [(path, folder / path.relative_to(root)) for path in source]
        targets += [(path, folder / "sent" / str(i) / path.name) for i, path in enumerate(files)]
        for path, target in targets:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
        yield folder


def _quoted(argument: str) -> str:
    """For the job's shell."""
    before, sent, after = argument.partition(SENT)
    if not sent:
        return shlex.quote(argument)
    return f"{shlex.quote(before) if before else ''}{UNPACKED}{_quoted(after)}"


def _reach(address: str) -> None:
    parts = urlsplit(address)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise RunError(f"{address}: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise RunError(f"{address}: not an address of a job API (http://HOST:8265)")
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError as error:
        raise RunError(
            f"{address}: no job API answers ({error}); is the cluster up, and does `ray dashboard cluster.yaml` run?"
        ) from error


def _s(milliseconds: int | None) -> float | None:
    return milliseconds / 1000 if milliseconds else None
