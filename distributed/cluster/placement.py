"""The plan of a run: how many training and mapping workers there are, and which node has room for them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import NamedTuple

from distributed.engine.engine import Placement, Resources
from tad.errors import RunError


class Node(NamedTuple):
    """A machine of the cluster; its host name or address, and what Ray may use of it."""

    host: str
    cpus: int
    gpus: float

    def __str__(self) -> str:
        return f"{self.host} ({_count(self.cpus, 'CPU')}" + (f", {_count(self.gpus, 'GPU')})" if self.gpus else ")")

    def room(self, share: float) -> int:
        """How many workers with one CPU, or with this share of GPUs, it carries. A share of one GPU is not split."""
        if not share:
            return self.cpus
        return int(self.gpus) * int(1 / share + 1e-9) if share <= 1 else int(self.gpus / share)


def fits(nodes: list[Node], workers: int, share: float, placement: Placement | None) -> bool:
    """Whether the nodes have room for workers with this share of GPUs each."""
    rooms = [n.room(share) for n in nodes]
    return (max(rooms) if placement == "pack" else sum(rooms)) >= workers


def enough(
    living: list[Node], startable: list[Node], workers: int, share: float, placement: Placement | None
) -> list[Node]:
    """As few of the startable nodes as give room for all workers, together with the living; all if none do."""
    more = sorted(startable, key=lambda n: -n.room(share))
    counts = (n for n in range(len(more)) if fits(living + more[:n], workers, share, placement))
    return more[: next(counts, len(more))]


def share_of(nodes: list[Node], gpus_per_worker: float | None) -> float:
    """GPUs of each worker: what was asked for, or one if there are any."""
    return gpus_per_worker if gpus_per_worker is not None else (1.0 if sum(n.gpus for n in nodes) >= 1 else 0.0)


def plan(
    nodes: list[Node], workers: int | None, gpus_per_worker: float | None, placement: Placement | None = None
) -> Resources:
    """How many training and mapping workers the nodes carry.

    Args:
        workers: None: as many as have a GPU, or one; with pack, as many as one node carries.
        gpus_per_worker: None: one GPU if there are any.
        placement: None packs the workers on few nodes, but takes what there is.

    Raises:
        RunError: what was asked for has no room: Ray would wait for ever.
    """
    cpus, gpus = sum(n.cpus for n in nodes), sum(n.gpus for n in nodes)
    share = share_of(nodes, gpus_per_worker)
    rooms = [n.room(share) for n in nodes]
    room = max(rooms) if placement == "pack" else sum(rooms)
    if workers is None:
        workers = max(1, room) if share else 1
    if workers > room:
        each = f" with {share:g} GPUs each" if share else ""
        need = _count(share * workers, "GPU") if share else _count(workers, "CPU")
        there = _count(gpus, "GPU") if share else _count(cpus, "CPU")
        if placement == "pack" and sum(rooms) >= workers:
            why = f"do not fit on one node (--placement pack): there is room for {room} at most; leave it out"
        elif share and share * workers <= gpus:
            why = f"do not fit: a worker's GPUs must be on one node, which leaves room for {room}"
        else:
            why = f"need {need}; the cluster has {there}"
        raise RunError(f"{workers} workers{each} {why}{f': {listed(nodes)}' if len(nodes) > 1 else ''}")
    planned = Resources(True, workers, share, max(1, sum(rooms)), placement)
    return replace(planned, plan=tuple(described(nodes, planned, layout(rooms, workers, placement))))


def layout(rooms: list[int], workers: int, placement: Placement | None) -> list[int]:
    """How many of the workers each node gets: Ray's rule, as far as nothing else runs there."""
    counts = [0] * len(rooms)
    if placement == "spread":
        for _ in range(workers):
            free = [i for i, room in enumerate(rooms) if counts[i] < room]
            counts[min(free, key=lambda i: counts[i])] += 1
        return counts
    for i in sorted(range(len(rooms)), key=lambda i: -rooms[i]):
        counts[i] = min(rooms[i], workers - sum(counts))
    return counts


def described(nodes: list[Node], resources: Resources, workers: list[int]) -> list[str]:
    """The plan in lines: the whole, then each node with its training workers."""
    share = resources.gpus_per_worker
    each = f" with {share:g} GPU{'s' if share != 1 else ''} each" if share else ""
    alone = resources.workers == 1 and not share
    training = "trains in this process" if alone else f"{_count(resources.workers, 'training worker')}{each}"
    lines = [f"Ray: {_count(len(nodes), 'node')}, {training}, {_count(resources.mappers, 'mapping worker')}"]
    if len(nodes) > 1:
        for node, here in zip(nodes, workers, strict=True):
            parts = [_count(here, "training worker")] if here and not alone else []
            parts += [_count(node.room(share), "mapping worker")] if node.room(share) else []
            lines.append(f"  {node}: {', '.join(parts) or 'nothing'}")
    return lines


def listed(nodes: list[Node]) -> str:
    """Nodes in words, equal ones together."""
    return ", ".join(node if n == 1 else f"{n} x {node}" for node, n in Counter(map(str, nodes)).items())


def _count(number: float, what: str) -> str:
    return f"{number:g} {what}{'' if number == 1 else 's'}"
