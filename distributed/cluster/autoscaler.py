"""Nodes that the autoscaler may still start: which they are, and waiting for them.

Ray tells nobody what its autoscaler may start. On a cluster of `ray up` the autoscaler's process on the head names the
file that it was given, and that is read there. Elsewhere (KubeRay) nothing is known, and nothing is waited for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from distributed.cluster.placement import Node
from tad.errors import DataError, RunError
from tad.files import read_yaml

PATIENCE = 1800.0
"""Seconds for nodes to come: a cloud may take minutes for a machine, and installing takes ten."""
EVERY = 30.0
"""Seconds from one line to the next while waiting."""


def startable(living: list[Node]) -> list[Node]:
    """The nodes that may still come to the connected cluster; none if that is not known.

    Args:
        living: its nodes, the head first.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    head = next((n["NodeID"] for n in ray.nodes() if n["Alive"] and "node:__internal_head__" in n["Resources"]), None)
    if head is None:
        return []
    if head == ray.get_runtime_context().get_node_id():
        config = _config()
    else:
        where = NodeAffinitySchedulingStrategy(head, soft=False)
        config = ray.get(ray.remote(_config).options(num_cpus=0, scheduling_strategy=where).remote())
    return may_start(config, living[1:]) if config else []


def may_start(config: dict[str, Any], workers: list[Node]) -> list[Node]:
    """Of a cluster's file, the worker nodes that are not there yet.

    Args:
        config: as `ray up` has it on the head.
        workers: that live; they are told apart by their CPUs and GPUs.
    """
    most, there = int(config.get("max_workers", 2)), list(workers)
    found: list[Node] = []
    for name, kind in config.get("available_node_types", {}).items():
        if name == config.get("head_node_type"):
            continue
        resources = kind.get("resources", {})
        cpus, gpus = int(resources.get("CPU", 0)), float(resources.get("GPU", 0))
        mine = sum((node.cpus, node.gpus) == (cpus, gpus) for node in there)
        found += [Node(f"a new {name}", cpus, gpus)] * max(0, int(kind.get("max_workers", most)) - mine)
    return found[: max(0, most - len(there))]


def wait_for(workers: list[dict[str, float]], strategy: str, nodes: int, say: Callable[[str], None]) -> None:
    """Asks for room for these workers as Ray Train will, and waits until it is there.

    The request is a placement group: it ends with this process, however that ends.

    Args:
        nodes: how many new ones are expected; for the message.

    Raises:
        RunError: the room was not there in time.
    """
    import ray
    from ray.util import placement_group, remove_placement_group

    start, before = time.monotonic(), len([n for n in ray.nodes() if n["Alive"]])
    group = placement_group(workers, strategy=strategy)
    try:
        while not group.wait(timeout_seconds=EVERY):
            waited, come = time.monotonic() - start, len([n for n in ray.nodes() if n["Alive"]]) - before
            if waited > PATIENCE:
                raise RunError(
                    f"{come} of {nodes} new nodes came in {waited / 60:.0f} minutes; `ray status` on the head says why "
                    "the autoscaler starts no more"
                )
            say(f"  {come} of {nodes} new nodes after {waited:.0f} s")
    finally:
        remove_placement_group(group)


def _config() -> dict[str, Any] | None:
    """The file of the autoscaler that runs on this machine, the head, for this process's cluster."""
    import ray

    port = ray.get_runtime_context().gcs_address.rpartition(":")[2]
    for process in psutil.process_iter(["cmdline"]):
        command = process.info["cmdline"] or []
        options = dict(part.split("=", 1) for part in command if part.startswith("--") and "=" in part)
        mine = options.get("--gcs-address", "").endswith(f":{port}")
        if mine and any(part.endswith("monitor.py") for part in command):
            file = options.get("--autoscaling-config")
            try:
                config = read_yaml(Path(file).expanduser()) if file else None
            except (OSError, DataError):
                return None
            return config if isinstance(config, dict) else None
    return None
