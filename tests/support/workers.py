"""Two workers of a task, each in a process of its own."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable

import torch


def two_workers(worker: Callable[..., None], *arguments: object) -> None:
    """Calls worker(rank, *arguments) in two processes.

    They are forked from a server that has imported the slow modules once for all tests.
    """
    # torch._dynamo is what DistributedDataParallel imports when it is first used.
    multiprocessing.set_forkserver_preload(
        ["pytest", "distributed.engine.engine", "distributed.engine.loop", "torch._dynamo"]
    )
    torch.multiprocessing.start_processes(worker, arguments, nprocs=2, start_method="forkserver")
