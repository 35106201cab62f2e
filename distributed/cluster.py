"""Connects to Ray, quietly, and says what there is to run on."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from distributed.engine import Resources
from tad.errors import RunError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a report waits for the next poll; the default of 2 s is an epoch
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # a busy laptop needs more than the default of 60
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_BACKEND_LOG_LEVEL": "fatal",  # errors of the workers reach the driver as exceptions
}


@contextmanager
def cluster(workers: int | None, gpus_per_worker: float | None) -> Iterator[Resources]:
    """A Ray cluster for the length of a run: that of RAY_ADDRESS, or a local one.

    Args:
        workers: training workers; None takes one for each GPU, or one on a machine without.
        gpus_per_worker: None gives each worker one GPU if there are any.

    Raises:
        RunError: Ray is not installed, the cluster cannot be reached, or it lacks the CPUs or GPUs asked for.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RunError(f"Ray is not installed ({error}); install it, or run in one process with --local") from error
    address = os.environ.get("RAY_ADDRESS", "local")
    try:
        # The dashboard process also cleans up after stopped training workers; without it they can leak.
        ray.init(address=address, include_dashboard=True, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, RuntimeError, OSError) as error:
        raise RunError(f"cannot connect to Ray at {address}: {error}") from error
    try:
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        yield plan(ray.cluster_resources(), workers, gpus_per_worker)
    finally:
        ray.shutdown()


def plan(available: dict[str, float], workers: int | None, gpus_per_worker: float | None) -> Resources:
    """How many workers and actors the cluster's resources carry.

    Raises:
        RunError: more CPUs or GPUs were asked for than there are: Ray would wait for ever.
    """
    cpus, gpus = int(available.get("CPU", 0)), available.get("GPU", 0.0)
    share = gpus_per_worker if gpus_per_worker is not None else (1.0 if gpus >= 1 else 0.0)
    if workers is None:
        workers = max(1, int(gpus / share)) if share else 1
    if share * workers > gpus:
        raise RunError(f"{workers} workers with {share:g} GPUs each need {share * workers:g}; the cluster has {gpus:g}")
    if not share and workers > cpus:
        raise RunError(f"{workers} workers need {workers} CPUs; the cluster has {cpus}")
    actors = max(1, int(gpus / share)) if share else max(1, cpus)
    return Resources(ray=True, workers=workers, gpus_per_worker=share, actors=actors)
