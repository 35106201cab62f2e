"""Asks every node of the cluster what it has and what it reaches, and says what would break a run there."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import shutil
import socket
import tempfile
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import fs

from distributed.cluster.connect import connected, is_local
from distributed.cluster.token import exposed
from tad.data.digests import cache_folder
from tad.data.remote import is_uri, opened, reason
from tad.errors import DataError, RunError
from tad.words import size

PACKAGES = ("tad", "distributed", "search_spaces")
SUFFIXES = (".py", ".yaml", ".html")
MAX_SKEW = 10.0
"""Seconds. Buckets refuse requests of a clock that is minutes off, and times in records would be out of order."""
MIN_DISK = 2 * 2**30
"""Bytes free in the work folder and in Ray's; Ray itself stops working on a disk that is 95 % full."""
PATIENCE = 60.0
"""Seconds for a node's answer; a cold one imports torch from a slow disk."""


@dataclass(frozen=True)
class Facts:
    """What one process finds on its machine; None where there is nothing to tell.

    Attributes:
        source: hash of the installed source of this project.
        gpus: that torch sees; None if it was not asked.
        disk: bytes free in the emptiest of the folders that are written.
        shm: bytes of /dev/shm.
        store, tracking: what is wrong with them, "" if nothing is, None if not tried.
        token: what is wrong with the rights of the token's file, "" if nothing is, None if there is no such file.
    """

    host: str
    python: str
    ray: str
    torch: str
    tad: str
    source: str
    gpus: int | None = None
    cuda: str | None = None
    disk: int | None = None
    shm: int | None = None
    store: str | None = None
    tracking: str | None = None
    token: str | None = None


@dataclass
class Finding:
    """A node, what it said, and everything that is wrong with it; nothing is wrong with a green one."""

    address: str
    head: bool = False
    gpus: float = 0.0
    """Advertised by Ray."""
    object_store: float = 0.0
    """Bytes."""
    facts: Facts | None = None
    skew: float | None = None
    """Seconds that its clock is ahead."""
    problems: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.facts.host if self.facts is not None else self.address


def examine(store: str | None = None, tracking: str | None = None, patience: float = PATIENCE) -> list[Finding]:
    """Examines every living node of the connected cluster from inside; the head comes first.

    Args:
        store: artifact store, a folder or URI; None is not tried.
        tracking: MLflow URI; only an http(s) one is tried from the nodes.
        patience: seconds to wait for the nodes.

    Raises:
        RunError: the store cannot be used from here, or MLflow cannot be reached from here.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    findings, probes = [], []
    token = uuid.uuid4().hex[:12]
    with _token(store, token):
        mine = facts(0, store, token, tracking)
        if wrong := [text for text in (mine.store, mine.tracking) if text]:
            raise RunError("; ".join(wrong))
        for node in (n for n in ray.nodes() if n["Alive"]):
            there = node["Resources"]
            findings.append(
                Finding(
                    node["NodeManagerAddress"],
                    "node:__internal_head__" in there,
                    there.get("GPU", 0.0),
                    there.get("object_store_memory", 0.0),
                )
            )
            where = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            probe = ray.remote(Probe).options(num_cpus=0, scheduling_strategy=where, max_restarts=0).remote()
            probes.append((probe, probe.facts.remote(findings[-1].gpus, store, token, tracking)))
        end = time.monotonic() + patience
        for finding, (probe, answer) in zip(findings, probes, strict=True):
            _hear(finding, probe, answer, end)
            ray.kill(probe)
    cudas = {f.facts.cuda for f in findings if f.facts is not None and f.gpus}
    for finding in findings:
        finding.problems += judge(finding, mine, cudas)
    return sorted(findings, key=lambda f: (not f.head, f.name))


def judge(finding: Finding, driver: Facts, cudas: set[str | None]) -> list[str]:
    """What is wrong with a node that answered.

    Args:
        driver: what the process that starts runs has.
        cudas: the CUDA versions of all nodes with GPUs.
    """
    node = finding.facts
    if node is None:
        return []
    problems = []
    for what, there, here in (
        ("Python", node.python, driver.python),
        ("Ray", node.ray, driver.ray),
        ("torch", node.torch.split("+")[0], driver.torch.split("+")[0]),  # a head without GPUs may have the CPU build
        ("tad", node.tad, driver.tad),
    ):
        if there != here:
            problems.append(f"{what} is {there}, the driver's is {here}; install the same version on every node")
    if node.tad == driver.tad and node.source != driver.source:
        problems.append(
            f"tad's source differs from the driver's ({node.source[:8]}, not {driver.source[:8]}); install the same "
            "commit on every node, or send yours with `tad submit`"
        )
    if finding.gpus > (node.gpus or 0):
        build = "is a build without CUDA" if node.cuda is None else f"is a build for CUDA {node.cuda}; see nvidia-smi"
        problems.append(f"Ray has {finding.gpus:g} GPUs, torch sees {node.gpus or 0}: torch {node.torch} {build}")
    if finding.gpus and len(cudas) > 1:
        problems.append(f"CUDA {node.cuda}; the nodes differ: {', '.join(sorted(map(str, cudas)))}")
    if finding.skew is not None and abs(finding.skew) > MAX_SKEW:
        problems.append(f"its clock is {abs(finding.skew):.0f} s {'ahead' if finding.skew > 0 else 'behind'}; run NTP")
    if node.disk is not None and node.disk < MIN_DISK:
        problems.append(f"{size(node.disk)} of disk are free; {size(MIN_DISK)} are the least: make room")
    if node.shm is not None and node.shm < finding.object_store:
        problems.append(
            f"/dev/shm has {size(node.shm)}, Ray's object store {size(finding.object_store)}: it would lie on disk; "
            "enlarge it (docker: --shm-size), or start Ray with --object-store-memory"
        )
    return problems + [text for text in (node.token, node.store, node.tracking) if text]


def check_job(store: str, tracking: str | None) -> str | None:
    """What `tad run` and `tad tune` do before they begin on a cluster; nothing for a Ray of their own.

    Returns:
        A line to show.

    Raises:
        RunError: the cluster cannot be reached, or a node is red; names every problem of every node.
    """
    if is_local():
        return None
    start = time.monotonic()
    with connected():
        findings = examine(absolute(store), tracking)
    problems = [f"{finding.name}: {problem}" for finding in findings for problem in finding.problems]
    if problems:
        listing = "\n  ".join(problems)
        raise RunError(
            f"the cluster is not ready; --no-doctor begins nevertheless, `tad doctor` shows all:\n  {listing}"
        )
    return f"doctor: {len(findings)} node{'s' * (len(findings) != 1)} in order ({time.monotonic() - start:.1f} s)"


def facts(gpus: float, store: str | None, token: str, tracking: str | None) -> Facts:
    """Of the machine and process that calls it.

    Args:
        gpus: that Ray advertises here; without any, torch is not imported.
    """
    seen, cuda = _torch_gpus() if gpus else (None, None)
    folders = [*_cache(), Path("/tmp"), *([Path(store)] if store and not is_uri(store) else [])]
    shm = Path("/dev/shm")
    return Facts(
        host=socket.gethostname(),
        python=platform.python_version(),
        ray=_version("ray"),
        torch=_version("torch"),
        tad=_version("tad-selftrain"),
        source=source_hash(),
        gpus=seen,
        cuda=cuda,
        disk=min(shutil.disk_usage(_existing(folder)).free for folder in folders),
        shm=shutil.disk_usage(shm).total if shm.is_dir() else None,
        store=_try_store(store, token) if store else None,
        tracking=_try_tracking(tracking) if tracking and tracking.startswith("http") else None,
        token=exposed(),
    )


class Probe:
    """An actor on a node."""

    def clock(self) -> float:
        return time.time()

    def facts(self, gpus: float, store: str | None, token: str, tracking: str | None) -> dict[str, Any]:
        return asdict(facts(gpus, store, token, tracking))


def source_hash() -> str:
    """Hash of the project's source as this process imports it."""
    root = Path(__file__).resolve().parents[2]
    digest = hashlib.sha256()
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.suffix in SUFFIXES and "__pycache__" not in path.parts:
                digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def absolute(store: str) -> str:
    """A folder by its whole path, which is what the nodes are asked for; a URI as it is."""
    return store if is_uri(store) else str(Path(store).expanduser().resolve())


def _hear(finding: Finding, probe: Any, answer: Any, end: float) -> None:
    """Waits for a node's facts and compares its clock; what goes wrong becomes its problem."""
    import ray
    import ray.exceptions

    try:
        finding.facts = Facts(**ray.get(answer, timeout=max(1.0, end - time.monotonic())))
        finding.skew = _skew(probe)
    except ray.exceptions.GetTimeoutError:
        finding.problems.append("no answer; is the machine overloaded or cut off? See `ray status`")
    except TypeError:
        finding.problems.append("another version of tad answers there; install the same version on every node")
    except ray.exceptions.RayError as error:
        text = str(error)
        missing = next((line.strip() for line in text.splitlines() if "ModuleNotFoundError" in line), None)
        if missing is not None:
            finding.problems.append(f"tad does not work there ({missing}); install it, or send yours with `tad submit`")
        else:
            last = [line.strip() for line in text.splitlines() if line.strip()][-1]
            finding.problems.append(f"it went away or cannot start a process: {last[:300]}")


def _skew(probe: Any) -> float:
    """Seconds that a node's clock is ahead, by the fastest of a few exchanges."""
    import ray

    best, ahead = float("inf"), 0.0
    for _ in range(3):
        sent = time.time()
        there = ray.get(probe.clock.remote(), timeout=10)
        back = time.time()
        if back - sent < best:
            best, ahead = back - sent, there - (sent + back) / 2
    return ahead


def _torch_gpus() -> tuple[int, str | None]:
    """GPUs that torch could use here, and the CUDA version it was built for."""
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # Ray hides them from a process that did not reserve one
    import torch

    return (torch.cuda.device_count() if torch.cuda.is_available() else 0), torch.version.cuda


class _token:
    """Puts a small file into the store while the nodes are asked: one that does not see it sees another folder."""

    def __init__(self, store: str | None, token: str) -> None:
        self.store, self.name = store, f".doctor-{token}"

    def __enter__(self) -> None:
        if self.store is None:
            return
        try:
            if is_uri(self.store):
                self.bucket, prefix = opened(self.store)
                self.path = f"{prefix}/{self.name}"
                self.bucket.create_dir(prefix, recursive=True)
            else:
                self.bucket, self.path = fs.LocalFileSystem(), f"{self.store}/{self.name}"
                Path(self.store).mkdir(parents=True, exist_ok=True)
            with self.bucket.open_output_stream(self.path) as stream:
                stream.write(self.name.encode())
        except (OSError, DataError) as error:
            raise RunError(f"{self.store}: the artifact store cannot be written: {reason(error)}") from error

    def __exit__(self, *_: Any) -> None:
        if self.store is not None:
            self.bucket.delete_file(self.path)


def _try_store(store: str, token: str) -> str:
    """Reads what the driver wrote, writes something and removes it; what is wrong, or "" ."""
    try:
        bucket, folder = opened(store) if is_uri(store) else (fs.LocalFileSystem(), store)
        with bucket.open_input_file(f"{folder}/.doctor-{token}") as file:
            file.read()
    except FileNotFoundError:
        return f"the store {store} is not the folder that the driver sees; use one that all nodes share, or s3://"
    except (OSError, DataError) as error:
        return f"the store {store} cannot be read: {reason(error)}"
    path = f"{folder}/.doctor-{token}-{uuid.uuid4().hex[:8]}"
    try:
        with bucket.open_output_stream(path) as stream:
            stream.write(b"x" * 4096)
        bucket.delete_file(path)
    except OSError as error:
        return f"the store {store} cannot be written: {reason(error)}"
    return _try_cache() if is_uri(store) else ""


def _cache() -> list[Path]:
    try:
        return [cache_folder()]
    except DataError:  # `_try_cache` says so where it matters
        return []


def _try_cache() -> str:
    """With a bucket, inputs and work in progress lie in each machine's own cache; what is wrong with it, or "" ."""
    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=cache_folder()):
            return ""
    except DataError as error:
        return str(error)
    except OSError as error:
        return f"{cache_folder()}, this machine's cache, cannot be written: {error}; set TAD_CACHE to another folder"


def _try_tracking(uri: str) -> str:
    from distributed.tracking.address import reach

    try:
        reach(uri)
    except RunError as error:
        return str(error)
    return ""


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # uploaded source, on machines with the dependencies only
        return "not installed"


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
