"""The one training loop. It runs in this process, or as each worker of Ray Train; it knows nothing of Ray."""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader

from distributed.engine.checkpoint import State
from distributed.engine.precision import MixedPrecision, Precision
from distributed.engine.read_ahead import ReadAhead
from tad.errors import RunError, first_line
from tad.stages import Batch, Context, FitStage, FitTask

Report = Callable[[State | None, int, dict[str, float]], None]
"""Called after every epoch with the checkpoint (rank 0; None elsewhere), the number of all epochs, and metrics."""

REMEDY = "lower the learning rate, or look for NaN or huge values with `tad check`"
CHECKED = 16
"""Steps whose losses are checked together: a check waits until a GPU has done all that it was given."""


@dataclass(frozen=True)
class Worker:
    """Which of how many workers this is, and where its tensors live."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
    precision: Precision = "fp32"
    readers: int = 0
    """Threads that make batches ahead of the training; 0 makes each when it is needed."""
    expect: Callable[[int], None] = lambda count: None
    """Told before the first step how many bytes a checkpoint will have, about; what it raises ends the training."""


class OtherTraining(RunError):
    """A checkpoint is of a module or an optimiser of another shape."""


def seed_of(seed: int, name: str, *more: int) -> int:
    """A 63-bit seed from the run's seed, a stage's name and any numbers (epoch, rank)."""
    words = np.random.SeedSequence([seed, zlib.crc32(name.encode()), *more]).generate_state(2, np.uint32)
    return int(words[0]) << 31 | int(words[1]) >> 1


def batches(items: int, batch_size: int, seed: int, name: str, epoch: int) -> list[np.ndarray]:
    """The global batches of one epoch: a permutation, the last incomplete batch dropped unless it is the only one."""
    order = np.random.default_rng([seed, zlib.crc32(name.encode()), epoch]).permutation(items)
    if items <= batch_size:
        return [order]
    return [order[i : i + batch_size] for i in range(0, items - batch_size + 1, batch_size)]


def fit(stage: FitStage, context: Context, worker: Worker, resume: State | None, report: Report) -> State:
    """Trains a stage to its last epoch, from the start or from a checkpoint.

    The result does not depend on the number of workers beyond the order of floating-point sums and dropout masks:
    batches are formed over all workers, and losses are shares of global values (`FitTask.loss`).

    Returns:
        The last checkpoint: epoch, module, average (or None), optimiser, scheduler, settings, history.

    Raises:
        RunError: nothing to train on, fewer items than workers, or a loss or weight that is not finite.
        OtherTraining: `resume` does not fit the stage's module or optimiser.
    """
    name, seed = stage.name, context.seed
    torch.manual_seed(seed_of(seed, name))
    task = stage.open(context)
    budget = task.budget
    size = min(budget.batch_size, len(task))
    if len(task) == 0:
        raise RunError(f"stage {name}: nothing to train on; check the labels of the {len(context.videos)} videos")
    if size < worker.world:
        raise RunError(
            f"stage {name}: batches of {size} cannot be split among {worker.world} workers; "
            "raise its batch_size, or use fewer workers"
        )
    core = task.module.to(worker.device)
    per_epoch = len(batches(len(task), size, seed, name, 0))
    optimiser, scheduler = task.optimiser(core, budget.epochs * per_epoch)
    decay = budget.ema_decay
    average = copy.deepcopy(core).requires_grad_(False) if decay is not None else None
    history: list[dict[str, float]] = []
    if resume is not None:
        try:
            core.load_state_dict(resume["module"])
            optimiser.load_state_dict(resume["optimiser"])
            if scheduler is not None:
                scheduler.load_state_dict(resume["scheduler"])
            if average is not None:
                average.load_state_dict(resume["average"])
            history = list(resume["history"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise OtherTraining(f"it is not of this training ({first_line(error)})") from error
    worker.expect(_checkpoint_bytes(core, average))
    weights = list(core.parameters())  # once: each list walks all modules, which is work beside a small step
    pairs = None if average is None else _Pairs(average, core)
    module = worker.wrap(MixedPrecision(core) if worker.precision == "bf16" else core)
    state = resume
    for epoch in range(len(history), budget.epochs):
        torch.manual_seed(seed_of(seed, name, epoch, worker.rank))
        module.train()
        sums: dict[str, Tensor] = {}
        losses = _Losses(f"stage {name}", epoch)
        for batch in _loader(task, size, seed, name, epoch, worker):
            with losses.explaining():
                values = task.loss(module, batch, _total)
            losses.add(values["loss"])
            optimiser.zero_grad(set_to_none=True)
            (values["loss"] * worker.world).backward()  # DDP averages the gradients; shares have to be summed
            if budget.clip_norm is not None:
                nn.utils.clip_grad_norm_(weights, budget.clip_norm)
            optimiser.step()
            if scheduler is not None:
                scheduler.step()
            if pairs is not None and decay is not None:
                pairs.update(decay)
            for key, value in values.items():
                sums[key] = sums.get(key, 0.0) + value.detach()
        losses.check()
        if not _finite(core, average):  # the last step's weights, which no loss has seen
            raise RunError(f"stage {name}: weights are not finite after epoch {epoch}; {REMEDY}")
        metrics = {k: float(_total(v)) / per_epoch for k, v in sorted(sums.items())}
        history.append(metrics)
        state = {
            "module": core.state_dict(),
            "average": None if average is None else average.state_dict(),
            "optimiser": optimiser.state_dict(),
            "scheduler": None if scheduler is None else scheduler.state_dict(),
            "settings": dict(task.settings),
            "history": history,
        }
        report(state if worker.rank == 0 else None, budget.epochs, metrics)
    if state is None:
        raise RunError(f"stage {name}: {budget.epochs} epochs leave nothing to do; set at least 1")
    return state


def _checkpoint_bytes(core: nn.Module, average: nn.Module | None) -> int:
    """Of the weights, their average, and the two values for each weight that Adam keeps."""
    weights = sum(value.numel() * value.element_size() for value in core.state_dict().values())
    return weights * (3 if average is None else 4)


def _finite(core: nn.Module, average: nn.Module | None) -> bool:
    """Whether all weights, buffers and averages are; the same answer on every worker, so that all of them stop."""
    held = [value for module in (core, average) if module is not None for value in module.state_dict().values()]
    bad = torch.stack([~value.isfinite().all() for value in held if value.is_floating_point()]).sum()
    return int(_total(bad)) == 0


def final_model(state: State) -> dict[str, Any]:
    """What a fit artifact keeps: the averaged weights where there are any, else the last, and the settings."""
    weights = state["average"] if state["average"] is not None else state["module"]
    return {"state": {k: v.detach().cpu() for k, v in weights.items()}, "settings": state["settings"]}


def _loader(task: FitTask, size: int, seed: int, name: str, epoch: int, worker: Worker) -> Iterator[Batch]:
    """This worker's share of each batch. Augmentation depends on the seed, the stage, epoch and item, nothing else."""
    mine = [batch[worker.rank :: worker.world] for batch in batches(len(task), size, seed, name, epoch)]
    words = seed_of(seed, name)

    def make(indices: np.ndarray) -> Batch:
        batch = task.collate([task.item(int(i), np.random.default_rng([words, epoch, int(i)])) for i in indices])
        # Only from pinned memory does a copy go on beside the computation.
        return {k: v.pin_memory() for k, v in batch.items()} if worker.device.type == "cuda" else batch

    made = ReadAhead(make, mine, worker.readers)
    try:
        for batch in DataLoader(made, batch_size=None):
            yield {k: v.to(worker.device, non_blocking=True) for k, v in batch.items()}
    finally:
        made.close()


def _total(value: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        value = value.detach().clone()
        dist.all_reduce(value)
    return value


class _Losses:
    """The losses of the last steps of an epoch, on their device until they are checked."""

    def __init__(self, where: str, epoch: int) -> None:
        self.where, self.epoch = where, epoch
        self.first, self.waiting = 0, list[Tensor]()

    def add(self, loss: Tensor) -> None:
        """This worker's share of the next step's loss.

        Raises:
            RunError: see `check`.
        """
        self.waiting.append(loss.detach())
        if len(self.waiting) == CHECKED:
            self.check()

    def check(self) -> None:
        """All workers check after the same step.

        Raises:
            RunError: a loss was not finite; on every worker alike, so that all of them stop.
        """
        if self.waiting:
            self._tell(_total(torch.stack(self.waiting)))
        self.first, self.waiting = self.first + len(self.waiting), []

    @contextmanager
    def explaining(self) -> Iterator[None]:
        """What a loss that is not finite did to the next step is not what a user should read.

        Raises:
            RunError: an earlier loss was not finite.
        """
        try:
            yield
        except Exception:
            if self.waiting:  # without the others, which may wait for this worker elsewhere
                self._tell(torch.stack(self.waiting))
            raise

    def _tell(self, losses: Tensor) -> None:
        for step, loss in enumerate(losses.tolist(), self.first):
            if not math.isfinite(loss):
                raise RunError(f"{self.where}: loss is {loss} in epoch {self.epoch}, step {step}; {REMEDY}")


class _Pairs:
    """The averaged weights and buffers, with those that they follow, which are only ever changed in place."""

    def __init__(self, average: nn.Module, core: nn.Module) -> None:
        self.averages, self.weights = list[Tensor](average.parameters()), list[Tensor](core.parameters())
        self.buffers = list(zip(average.buffers(), core.buffers(), strict=True))

    @torch.no_grad()
    def update(self, decay: float) -> None:
        torch._foreach_lerp_(self.averages, self.weights, 1.0 - decay)
        for mean, value in self.buffers:
            mean.copy_(value)
