"""Fits a stage: in this process, or by the workers of Ray Train. Both go on from the same checkpoint."""

from __future__ import annotations

import io
import tempfile
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from distributed.engine.checkpoint import Checkpoint, State
from distributed.engine.disk import need
from distributed.engine.locks import Tell, note
from distributed.engine.loop import OtherTraining, Worker, fit
from distributed.engine.unfinished import CHECKPOINT, Partial
from tad.errors import RunError
from tad.stages import Context, FitStage

READERS = 2
"""Threads that read ahead for a GPU. A CPU that trains has no time to spare for them."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called in the driver after each epoch: epoch (from 0), the number of all epochs, and metrics."""

Made = TypeVar("Made")


def fit_here(stage: FitStage, context: Context, partial: Partial, progress: Progress, tell: Tell = note) -> State:
    """Trains in this process, on its GPU if there is one; a checkpoint after every epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return _fit(stage, context, Worker(device=device, readers=_readers(device)), Checkpoint(partial, tell), progress)


def _fit(stage: FitStage, context: Context, worker: Worker, checkpoint: Checkpoint, progress: Progress) -> State:
    """The training of one worker, from the checkpoint of whoever trained before. Rank 0 reads and writes it."""

    def report(state: State | None, epochs: int, metrics: dict[str, float]) -> None:
        def save() -> int:
            assert state is not None  # rank 0 always holds it
            checkpoint.save(state)
            return len(state["history"]) - 1

        progress(_agreed(worker, save), epochs, metrics)

    def expect(count: int) -> None:
        folder, what = checkpoint.partial.folder, f"stage {stage.name}"
        _agreed(worker, lambda: need(folder, 2 * count, what))  # the last one stays until the next is written

    worker = replace(worker, expect=expect)
    resume = _unpacked(_agreed(worker, lambda: _packed(checkpoint.load(), worker)))
    try:
        return fit(stage, context, worker, resume, report)
    except OtherTraining as error:
        problem = str(error)
        _agreed(worker, lambda: checkpoint.set_aside(problem))
        return fit(stage, context, worker, None, report)


def _agreed(worker: Worker, make: Callable[[], Made]) -> Made:
    """What rank 0 makes, on every rank; its RunError, too: a rank that went on without the others would wait for ever.

    Raises:
        RunError: as rank 0 raised it.
    """
    if worker.world == 1:
        return make()
    box: list[Any] = [None, None]
    if worker.rank == 0:
        try:
            box[0] = make()
        except RunError as error:
            box[1] = str(error)
    dist.broadcast_object_list(box, src=0, device=worker.device)
    if box[1] is not None:
        raise RunError(box[1])
    made: Made = box[0]
    return made


def _packed(state: State | None, worker: Worker) -> State | bytes | None:
    """As bytes where it travels to other ranks: tensors would be sent by pickle."""
    if state is None or worker.world == 1:
        return state
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


def _unpacked(state: State | bytes | None) -> State | None:
    if not isinstance(state, bytes):
        return state
    found: State = torch.load(io.BytesIO(state), map_location="cpu", weights_only=True)
    return found


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
    `partial`, also after the driver was killed or with other workers, goes on from there; with a bucket on any machine.

    Raises:
        RunError: the stage failed on the workers, or they cannot be placed on the cluster.
    """
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.util.queue import Queue
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    # Here, beside the driver: on another node it would be lost with that node, and the run with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    reports = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    told: set[int] = set()

    def once(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        told.add(epoch)
        progress(epoch, epochs, metrics)

    with tempfile.TemporaryDirectory(prefix="tad-") as notes:  # Ray's, of this attempt; the checkpoint is ours
        trainer = TorchTrainer(
            _worker,
            train_loop_config={"stage": stage, "context": context, "partial": partial},
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers,
                use_gpu=gpus_per_worker > 0,
                resources_per_worker={"GPU": gpus_per_worker} if gpus_per_worker > 0 else {"CPU": 1},
                placement_strategy=strategy,
            ),
            run_config=ray.train.RunConfig(
                name="training",
                storage_path=notes,
                failure_config=ray.train.FailureConfig(max_failures=3, controller_failure_limit=3),
                callbacks=[_forward_to(reports)],
            ),
        )
        drained = threading.Thread(target=_drain, args=(reports, once), daemon=True)
        drained.start()
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            raise RunError(f"stage {stage.name}: {_cause(error)}") from error
        finally:
            reports.put(None)
            drained.join(timeout=30)
            reports.shutdown()
    if isinstance(result.return_value, str):
        raise RunError(result.return_value)
    epochs = int(result.return_value)

    def last() -> State | None:
        state = Checkpoint(partial).load()
        return state if state is not None and len(state["history"]) >= epochs else None

    state = partial.patiently(last)
    if state is None:
        raise RunError(f"stage {stage.name}: the workers' last checkpoint is not in {partial.store.uri}")
    for epoch in range(min(told, default=epochs), epochs):
        if epoch not in told:  # its report was lost with a worker
            progress(epoch, epochs, state["history"][epoch])
    return state


def _worker(config: dict[str, Any]) -> str | int:
    """The training loop of one Ray Train worker.

    Returns:
        The number of epochs; or what is wrong, if training cannot go on: raised, that would be taken for a crash.
    """
    import ray.train
    import ray.train.torch

    context = ray.train.get_context()
    device = ray.train.torch.get_device()
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        device=device,
        readers=_readers(device),
        wrap=ray.train.torch.prepare_model,
    )

    def progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        ray.train.report({"epoch": epoch, "epochs": epochs, **metrics})

    given: Partial = config["partial"]
    try:
        with given.aside() as partial:
            if worker.rank == 0:
                partial.receive(only=CHECKPOINT)
            state = _fit(config["stage"], given.store.here(config["context"]), worker, Checkpoint(partial), progress)
    except RunError as error:
        return str(error)
    return len(state["history"])


def _forward_to(reports: Any) -> Any:
    """A Ray Train callback that hands rank 0's metrics of each report to the driver, which alone logs."""
    import ray.train

    class Forward(ray.train.UserCallback):
        def after_report(self, run_context: Any, metrics: list[dict[str, Any]], checkpoint: Any) -> None:
            reports.put(metrics[0])

    return Forward()


def _drain(reports: Any, progress: Progress) -> None:
    while (metrics := reports.get()) is not None:
        epoch, epochs = int(metrics.pop("epoch")), int(metrics.pop("epochs"))
        progress(epoch, epochs, metrics)


def _cause(error: BaseException) -> str:
    """The workers' own message, without Ray's layers."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = sorted(failures.items())[0]
        cause = getattr(first, "cause", None) or first
        return f"worker {rank} failed: {type(cause).__name__}: {cause}"
    return str(error)
