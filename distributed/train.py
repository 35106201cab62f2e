"""Fits a stage: in this process, or by the workers of Ray Train."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from distributed.loop import State, Worker, fit
from distributed.partial import CHECKPOINT, WORKERS, Partial
from tad.errors import RunError
from tad.stage import Context, FitStage

READERS = 2
"""Threads that read ahead for a GPU. A CPU that trains has no time to spare for them."""

Progress = Callable[[int, dict[str, float]], None]
"""Called in the driver after each epoch: epoch (from 0) and its metrics."""


def fit_here(stage: FitStage, context: Context, partial: Partial, progress: Progress) -> State:
    """Trains in this process, on its GPU if there is one; a checkpoint after every epoch."""
    path = partial.folder / CHECKPOINT

    def report(state: State | None, metrics: dict[str, float]) -> None:
        assert state is not None  # rank 0 always holds it
        temporary = path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(path)
        partial.send([CHECKPOINT])
        progress(len(state["history"]) - 1, metrics)

    resume = torch.load(path, map_location="cpu", weights_only=True) if path.exists() else None
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return fit(stage, context, Worker(device=device, readers=_readers(device)), resume, report)


def _readers(device: torch.device) -> int:
    return READERS if device.type == "cuda" else 0


def fit_on_workers(
    stage: FitStage,
    context: Context,
    partial: Partial,
    progress: Progress,
    workers: int,
    gpus_per_worker: float,
    strategy: str = "PACK",
) -> State:
    """Trains with Ray Train: DDP over `workers` processes (gloo on CPUs, nccl on GPUs).

    A worker that dies is restarted from the last checkpoint, three times at most. Calling it again with the same
    `partial`, also after the driver was killed, resumes from the last checkpoint; with a bucket on any machine.

    Raises:
        RunError: the stage failed on the workers, or they cannot be placed on the cluster.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Here, beside the driver: on another node it would be lost with that node, and the run with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    storage_path, storage_filesystem = partial.for_train()
    reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"stage": stage, "context": context, "store": partial.store},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers,
            use_gpu=gpus_per_worker > 0,
            resources_per_worker={"GPU": gpus_per_worker} if gpus_per_worker > 0 else {"CPU": 1},
            placement_strategy=strategy,
        ),
        run_config=ray.train.RunConfig(
            name=WORKERS,
            storage_path=storage_path,
            storage_filesystem=storage_filesystem,
            failure_config=ray.train.FailureConfig(max_failures=3, controller_failure_limit=3),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
            callbacks=[_forward_to(reports)],
        ),
    )
    drained = threading.Thread(target=_drain, args=(reports, progress), daemon=True)
    drained.start()
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise RunError(f"stage {stage.name}: {_cause(error)}") from error
    finally:
        reports.put(None)
        drained.join(timeout=30)
        reports.shutdown()
    if result.return_value is not None:
        raise RunError(str(result.return_value))
    if result.checkpoint is None:
        raise RunError(f"stage {stage.name}: the workers reported no checkpoint")
    with result.checkpoint.as_directory() as directory:
        return _load(Path(directory))


def _worker(config: dict[str, Any]) -> str | None:
    """The training loop of one Ray Train worker.

    Returns:
        What is wrong, if training cannot go on. Raised, it would be taken for a crash and tried again.
    """
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    last = ray.train.get_checkpoint()
    resume = None
    if last is not None:
        with last.as_directory() as directory:
            resume = _load(Path(directory))

    def report(state: State | None, metrics: dict[str, float]) -> None:
        with tempfile.TemporaryDirectory() as directory:
            checkpoint = None
            if state is not None:
                torch.save(state, os.path.join(directory, CHECKPOINT))
                checkpoint = ray.train.Checkpoint.from_directory(directory)
                metrics = {"epoch": len(state["history"]) - 1, **metrics}
            ray.train.report(metrics, checkpoint=checkpoint)

    device = ray.train.torch.get_device()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=device,
        readers=_readers(device),
        wrap=ray.train.torch.prepare_model,
    )
    try:
        fit(config["stage"], config["store"].here(config["context"]), worker, resume, report)
    except RunError as error:
        return str(error)
    return None


def _load(directory: Path) -> State:
    state: State = torch.load(directory / CHECKPOINT, map_location="cpu", weights_only=True)
    return state


def _forward_to(reports: Any) -> Any:
    """A Ray Train callback that hands rank 0's metrics of each report to the driver.

    Result forgets the metrics of checkpoints that were not kept, so they travel by a queue; only the driver logs.
    """
    import ray.train

    class Forward(ray.train.UserCallback):
        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            reports.put(metrics[0])

    return Forward()


def _drain(reports: Any, progress: Progress) -> None:
    while (metrics := reports.get()) is not None:
        epoch = int(metrics.pop("epoch"))
        progress(epoch, metrics)


def _cause(error: BaseException) -> str:
    """The workers' own message, without Ray's layers."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = sorted(failures.items())[0]
        cause = getattr(first, "cause", None) or first
        return f"worker {rank} failed: {type(cause).__name__}: {cause}"
    return str(error)
