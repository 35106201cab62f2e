"""The trials of a study on Ray Tune: how many at a time, in which processes, and when they are stopped."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import optuna

from distributed.cluster.connect import connected, quiet
from distributed.engine.engine import Resources
from distributed.tuning.trial import Work, evaluate
from distributed.tuning.trials import AS_IT_IS, VALUES, Trials
from tad.errors import RunError

TRIES = 2
"""How often a trial whose process died is tried again: its finished stages are in the store."""
QUIET = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three log files for each trial, which nobody reads
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",  # a failed trial has no score
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",  # the study is what a search goes on from
}


class Slots(NamedTuple):
    """What one trial runs on, and how many run at a time."""

    resources: Resources
    gpus: float
    concurrency: int


def plan(available: dict[str, float], workers: int | None, gpus: float | None, concurrency: int | None) -> Slots:
    """How many trials the cluster carries at once, so that none waits for ever for its own workers.

    A trial of one worker runs in one process, which has all that it needs from the start. One of several workers only
    steers them and holds nothing itself: what is left over is theirs.

    Args:
        available: the cluster's resources.
        workers: training workers of a trial; None: one, or one for each of its GPUs.
        gpus: of a trial, a fraction is allowed; None: 1 if there are any.
        concurrency: None: as many as fit.

    Raises:
        RunError: what was asked for can never run.
    """
    cpus, there = int(available.get("CPU", 0)), available.get("GPU", 0.0)
    gpus = gpus if gpus is not None else (1.0 if there >= 1 else 0.0)
    workers = workers or max(1, int(gpus))
    share = gpus / workers
    if gpus > there:
        raise RunError(f"--gpus-per-trial {gpus:g}: the cluster has {there:g} GPUs")
    if share > 1:
        raise RunError(
            f"--gpus-per-trial {gpus:g} with --workers {workers}: a worker uses one GPU at most; leave out --workers"
        )
    if workers > cpus:
        raise RunError(f"--workers {workers}: every trial needs {workers} CPUs; the cluster has {cpus}")
    fits = cpus // workers
    if share:
        fits = min(fits, int(there) * int(1 / share) // workers)
    if concurrency is not None and concurrency > fits:
        what = f"{workers} CPU{'s' if workers > 1 else ''}" + (f" and {gpus:g} GPUs" if gpus else "")
        raise RunError(
            f"--concurrency {concurrency}: {fits} trials fit, each with {what}; the cluster has {cpus} CPUs"
            + (f" and {there:g} GPUs" if there else "")
        )
    alone = workers == 1
    resources = Resources() if alone else Resources(True, workers, share, workers)
    return Slots(resources, gpus, concurrency or fits)


@contextmanager
def slots(workers: int | None, gpus: float | None, concurrency: int | None) -> Iterator[Slots]:
    """Connects to Ray for the length of a search.

    Raises:
        RunError: no Ray, or a plan that cannot be.
    """
    with connected():
        import ray

        quiet()
        yield plan(ray.cluster_resources(), workers, gpus, concurrency)


def search(
    trial: Callable[[dict[str, Any]], None],
    trials: Trials,
    slots: Slots,
    run_id: Callable[[int], str | None],
    scratch: Path,
) -> bool:
    """Runs trials until none is left to ask for; whether it came so far (Ctrl-C ends it earlier).

    Args:
        trial: what runs in a trial's process (`trainable`).
        run_id: the MLflow run of a trial.
        scratch: a folder for Tune's own files, removed at the end.
    """
    from ray import tune

    from distributed.tuning.searcher import StudyScheduler, StudySearcher

    for name in ("ray.tune", "ray.train", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def config(trial: optuna.Trial) -> dict[str, Any]:
        as_it_is = bool(trial.user_attrs.get(AS_IT_IS))
        values = None if as_it_is else trial.user_attrs[VALUES]
        return {"number": trial.number, "values": values, "run_id": run_id(trial.number)}

    alone = not slots.resources.ray
    searcher = StudySearcher(trials, slots.concurrency, config)
    needs = {"cpu": 1, "gpu": slots.gpus} if alone else {"cpu": 0, "node:__internal_head__": 0.001}
    tuner = tune.Tuner(
        tune.with_resources(trial, {k: v for k, v in needs.items() if v or k == "cpu"}),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=StudyScheduler(trials),
            num_samples=-1,
            reuse_actors=alone,
            trial_name_creator=lambda trial: f"trial-{trial.config['number']}",
            trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}-{trial.trial_id}",
        ),
        run_config=tune.RunConfig(
            name="tune", storage_path=str(scratch), verbose=0, failure_config=tune.FailureConfig(max_failures=TRIES)
        ),
    )
    try:
        tuner.fit()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return not trials.running and searcher.asked_all


def trainable(work: Work) -> Callable[[dict[str, Any]], None]:
    """`evaluate` as a function trainable of Ray Tune."""

    def trial(config: dict[str, Any]) -> None:
        from ray import tune

        if not work.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        begun = time.time()
        last = evaluate(work, config["number"], config["values"], tune.report, config["run_id"])
        tune.report(last | {"begun": begun, "over": time.time()})

    return trial
