"""Fits a stage in this process, alone or as one of several workers. All go on from the same checkpoint."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from distributed.engine.checkpoint import Checkpoint, State
from distributed.engine.disk import need
from distributed.engine.locks import Tell, note
from distributed.engine.loop import OtherTraining, Worker, fit
from distributed.engine.precision import Precision
from distributed.engine.unfinished import Partial
from tad.errors import RunError
from tad.stages import Context, FitStage

READERS = 2
"""Threads that read ahead for a GPU. A CPU that trains has no time to spare for them."""

Progress = Callable[[int, int, dict[str, float]], None]
"""Called in the driver after each epoch: epoch (from 0), the number of all epochs, and metrics."""

Made = TypeVar("Made")


def fit_here(
    stage: FitStage,
    context: Context,
    partial: Partial,
    progress: Progress,
    tell: Tell = note,
    precision: Precision = "fp32",
) -> State:
    """Trains in this process, on its GPU if there is one; a checkpoint after every epoch."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    worker = Worker(device=device, readers=readers(device), precision=precision)
    return fit_as(worker, stage, context, Checkpoint(partial, tell), progress)


def fit_as(worker: Worker, stage: FitStage, context: Context, checkpoint: Checkpoint, progress: Progress) -> State:
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


def readers(device: torch.device) -> int:
    return READERS if device.type == "cuda" else 0
