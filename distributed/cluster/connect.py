"""Connects to Ray, quietly, and says what will run where."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from distributed.cluster.autoscaler import startable, wait_for
from distributed.cluster.own_ray import own_ray
from distributed.cluster.placement import Node, enough, fits, listed, plan, share_of
from distributed.cluster.token import check_token
from distributed.engine.engine import STRATEGY, Placement, Resources
from distributed.engine.workers import release_workers
from tad.errors import RunError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a busy laptop needs more than the default of 60
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors of the workers reach the driver as exceptions
}


@contextmanager
def cluster(
    workers: int | None,
    gpus_per_worker: float | None,
    placement: Placement | None = None,
    say: Callable[[str], None] = print,
) -> Iterator[Resources]:
    """A Ray cluster for the length of a run: that of RAY_ADDRESS, or one of this machine, which starts when needed.

    Args:
        workers: training workers, for which the autoscaler may start nodes; None takes one for each GPU that is there,
            or one on a machine without.
        gpus_per_worker: None gives each worker one GPU if there are any.
        placement: of the training workers; None packs them on few nodes, where they fit.
        say: told about what is waited for.

    Raises:
        RunError: Ray is not installed, the cluster cannot be reached, or it lacks the CPUs or GPUs asked for.
    """
    if is_local():
        with ExitStack() as stack:

            @cache
            def start() -> None:
                say("starting Ray")
                stack.enter_context(connected())
                quiet()

            yield replace(plan([_this_machine()], workers, gpus_per_worker, placement), start=start)
        return
    with connected():
        quiet()
        there = nodes()
        if workers is not None:
            there, gpus_per_worker = _grown(there, workers, gpus_per_worker, placement, say)
        yield plan(there, workers, gpus_per_worker, placement)


def quiet() -> None:
    """Nothing but errors from Ray's libraries."""
    import ray.data

    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False


def _this_machine() -> Node:
    """What a Ray that is started here will find.

    Raises:
        RunError: Ray is not installed.
    """
    _ray()
    import torch
    from ray._private.utils import get_num_cpus

    return Node(socket.gethostname(), int(get_num_cpus()), float(torch.cuda.device_count()))


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """A connection to Ray: at `address`, or that of RAY_ADDRESS, or a local Ray that ends with it.

    Args:
        address: HOST:PORT, "auto" (the one that runs on this machine) or "local".

    Raises:
        RunError: Ray is not installed, nothing answers there (after seconds, not minutes), or others can read the
            token's file.
    """
    ray = _ray()
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    with ExitStack() as stack:
        more = {}
        if address == "local":
            more = stack.enter_context(own_ray())
        else:
            _reach(address)
            check_token()
        # The dashboard process also cleans up after stopped training workers; without it they can leak.
        options = {"include_dashboard": True, "logging_level": logging.ERROR, "log_to_driver": False}
        try:
            with _own_modules():
                ray.init(address=address, **options, **more)
        except Exception as error:  # Ray's are of many kinds, plain Exception among them
            raise RunError(f"cannot connect to Ray at {address}: {_why(error)}") from error
        stack.callback(ray.shutdown)
        stack.callback(release_workers)
        yield


def _ray() -> Any:
    """Ray, with an environment in which it is quiet.

    Raises:
        RunError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as error:
        raise RunError(f"Ray is not installed ({error}); install it, or run in one process with --local") from error
    return ray


@contextmanager
def _own_modules() -> Iterator[None]:
    """Within, the current folder is that of this package.

    Ray's workers import modules from the folder in which Ray was started, before all others; a dataset's or run's
    folder of somebody else may hold a torch.py. Where this process itself imports from the current folder (`python -m`,
    a notebook, a script that lies there), workers do so, too.
    """
    own = Path(__file__).resolve().parents[2]
    try:
        here = os.getcwd()
    except FileNotFoundError:  # it was removed
        os.chdir(own)
        yield
        return
    if here in {os.path.abspath(folder) for folder in sys.path}:
        yield
        return
    os.chdir(own)
    try:
        yield
    finally:
        os.chdir(here)


def nodes() -> list[Node]:
    """The living nodes of the connected cluster, the head first."""
    import ray

    living = [node for node in ray.nodes() if node["Alive"]]
    living.sort(key=lambda node: "node:__internal_head__" not in node["Resources"])
    return [
        Node(n["NodeManagerAddress"], int(n["Resources"].get("CPU", 0)), n["Resources"].get("GPU", 0.0)) for n in living
    ]


def _grown(
    there: list[Node],
    workers: int,
    gpus_per_worker: float | None,
    placement: Placement | None,
    say: Callable[[str], None],
) -> tuple[list[Node], float]:
    """The nodes once there is room for the workers, for which the autoscaler may have to start some, and their GPUs.

    Raises:
        RunError: they have no room, also on all that may be started; or the nodes did not come.
    """
    share = share_of(there, gpus_per_worker)
    if fits(there, workers, share, placement) and (share or gpus_per_worker is not None):
        return there, share
    others = startable(there)
    share = share_of(there + others, gpus_per_worker)
    if more := enough(there, others, workers, share, placement):
        plan(there + more, workers, share, placement)
        say(f"waiting for nodes, which the autoscaler starts: {listed(more)}")
        each = {"GPU": share} if share else {"CPU": 1.0}
        wait_for([each] * workers, STRATEGY[placement], len(more), say)
        return nodes(), share
    return there, share


def is_local() -> bool:
    """Whether a run starts its own Ray on this machine."""
    return os.environ.get("RAY_ADDRESS", "local") in ("", "local")


def _reach(address: str) -> None:
    """Ray itself tries an address that does not answer for a minute."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except OSError as error:
        raise RunError(
            f"no Ray answers at {address} ({error}); is the cluster up (`ray up cluster.yaml`), and is this one of its "
            "machines? From another one use `tad submit`"
        ) from error


def _why(error: BaseException) -> str:
    text = " ".join(str(error).split())[:600]
    if "Version mismatch" in text:
        return f"{text}; install the cluster's versions here, or unset RAY_ADDRESS for a Ray of this process's own"
    if "Failed to connect" in text or "auth" in text.lower():  # something listens there, see _reach
        text += (
            "; is it the port of Ray (6379), and does the cluster ask for a token? Then set RAY_AUTH_MODE=token and "
            "RAY_AUTH_TOKEN_PATH to the file that it was started with"
        )
    return text
