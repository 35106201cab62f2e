"""Training workers of Ray Train: started once for a run, they train its stages one after the other.

Starting them takes longer than many trainings. Ray Train places them, makes their process group, watches them, and
starts all anew when one is lost; what they train next lies on a desk beside the driver.
"""

from __future__ import annotations

import asyncio
import tempfile
import threading
from contextlib import suppress
from dataclasses import replace
from typing import Any

from distributed.engine.checkpoint import Checkpoint, State
from distributed.engine.loop import Worker
from distributed.engine.precision import Precision
from distributed.engine.train import Progress, fit_as, readers
from distributed.engine.unfinished import CHECKPOINT, Partial
from tad.errors import RunError
from tad.stages import Context, FitStage

ATTEMPTS = 4
"""At one training: the first, and one after each of three losses of a worker."""
LOSSES = 12
"""After so many in all Ray Train gives up, also on workers that end before they begin to train."""
END_SECONDS = 60.0
"""How long it is waited for workers that were told to end."""


def fit_on_workers(
    stage: FitStage,
    context: Context,
    partial: Partial,
    progress: Progress,
    workers: int,
    gpus_per_worker: float,
    strategy: str = "PACK",
    precision: Precision = "fp32",
) -> State:
    """Trains with Ray Train: DDP over `workers` processes (gloo on CPUs, nccl on GPUs).

    The processes stay for the next training, until `release_workers`. One that dies is restarted from the last
    checkpoint, three times at most. Calling it again with the same `partial`, also after the driver was killed or with
    other workers, goes on from there; with a bucket on any machine.

    Raises:
        RunError: the stage failed on the workers, or they cannot be placed on the cluster.
    """
    global _group
    wanted = (workers, gpus_per_worker, strategy)
    if _group is None or _group.kind != wanted or not _group.lives():
        release_workers()
        _group = _Group(*wanted)
    told: dict[int, int] = {}

    def once(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        told[epoch] = epochs
        progress(epoch, epochs, metrics)

    def overtaken(state: State | None) -> None:
        """Tells of epochs whose reports were lost with a worker, or overtaken by another worker's error."""
        history = state["history"] if state is not None else []
        for epoch in range(min(told, default=len(history)), len(history)):
            if epoch not in told:
                progress(epoch, max(told.values()), history[epoch])

    try:
        epochs = _group.train(stage, context, partial, precision, once)
    except _Lost as error:
        _group = None
        raise RunError(f"stage {stage.name}: {error}") from error
    except BaseException:  # of this process: they still train
        _group.abort()
        _group = None
        raise
    if isinstance(epochs, str):
        overtaken(Checkpoint(partial).load())
        raise RunError(epochs)

    def last() -> State | None:
        state = Checkpoint(partial).load()
        return state if state is not None and len(state["history"]) >= epochs else None

    state = partial.patiently(last)
    if state is None:
        raise RunError(f"stage {stage.name}: the workers' last checkpoint is not in {partial.store.uri}")
    overtaken(state)
    return state


def release_workers() -> None:
    """Ends the workers of this process, if there are any: what they hold is free for others then."""
    global _group
    if _group is not None:
        _group.end()
        _group = None


class _Lost(Exception):
    """There are no workers any more; says why."""


class _Group:
    """The workers of this process, and the thread that waits for Ray Train's end."""

    def __init__(self, workers: int, gpus: float, strategy: str) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self.kind = (workers, gpus, strategy)
        # Here, beside the driver: on another node it would be lost with that node, and the run with it.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self.desk = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, args=(workers, gpus, strategy), daemon=True)
        self.thread.start()

    def lives(self) -> bool:
        return self.thread.is_alive()

    def train(
        self, stage: FitStage, context: Context, partial: Partial, precision: Precision, progress: Progress
    ) -> int | str:
        """The number of epochs; or the message of the RunError that a worker raised.

        Raises:
            _Lost: there are no workers, or they failed too often.
        """
        import ray

        # In a list: Ray would send what a bare reference stands for.
        ray.get(self.desk.put.remote([ray.put((stage, context, partial, precision))], stage.name))
        while True:
            news = self.desk.news.remote()
            while not ray.wait([news], timeout=1.0)[0]:
                if not self.lives():
                    raise _Lost(_cause(self.error) if self.error else "the workers ended")
            kind, *found = ray.get(news)
            if kind == "epoch":
                progress(*found)
            elif kind == "lost":
                self.abort()
                raise _Lost(found[0])
            else:
                ended: int | str = found[0]
                return ended

    def end(self) -> None:
        import ray
        from ray.exceptions import RayError

        with suppress(RayError):  # the cluster may be gone
            if self.lives():
                ray.get(self.desk.end.remote())
                self.thread.join(END_SECONDS)
            ray.kill(self.desk)

    def abort(self) -> None:
        """Ends workers that are in the middle of a training, without waiting for them."""
        import ray

        for worker in ray.get(self.desk.end.remote()):
            ray.kill(worker)  # Ray Train starts others, which find nothing to do

    def _run(self, workers: int, gpus: float, strategy: str) -> None:
        import ray.train
        from ray.train.torch import TorchTrainer

        with tempfile.TemporaryDirectory(prefix="tad-") as notes:  # Ray's; the checkpoint is ours
            trainer = TorchTrainer(
                _work,
                train_loop_config={"desk": self.desk},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=workers,
                    use_gpu=gpus > 0,
                    resources_per_worker={"GPU": gpus} if gpus > 0 else {"CPU": 1},
                    placement_strategy=strategy,
                ),
                run_config=ray.train.RunConfig(
                    name="training",
                    storage_path=notes,
                    failure_config=ray.train.FailureConfig(max_failures=LOSSES, controller_failure_limit=3),
                ),
            )
            try:
                trainer.fit()
            except BaseException as error:
                self.error = error


_group: _Group | None = None
"""Of this process: one run at a time trains."""


class _Desk:
    """An actor: what is to be trained, for the workers; what they tell, for the driver."""

    def __init__(self) -> None:
        self.changed = asyncio.Condition()
        self.told: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()
        self.number, self.work, self.name = -1, None, ""
        self.done, self.ended = True, False
        self.attempts, self.problem = 0, ""
        self.workers: dict[int, Any] = {}

    async def put(self, work: Any, name: str) -> None:
        async with self.changed:
            self.number, self.work, self.name = self.number + 1, work, name
            self.done, self.attempts, self.problem = False, 0, "they died"
            self.told = asyncio.Queue()
            self.changed.notify_all()

    async def take(self, rank: int, worker: Any, after: int) -> tuple[int, Any]:
        """The next work that is not done; None: there is no more."""
        self.workers[rank] = worker
        async with self.changed:
            await self.changed.wait_for(lambda: self.ended or (not self.done and self.number > after))
            if self.ended:
                return -1, None
            if rank == 0:
                self.attempts += 1
            if self.attempts > ATTEMPTS:
                self._close("lost", f"the workers failed {ATTEMPTS} times: {self.problem}")
        return (-1, None) if self.done else (self.number, self.work)

    async def tell(self, number: int, epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        if number == self.number and not self.done:
            self.told.put_nowait(("epoch", epoch, epochs, metrics))

    async def trained(self, number: int, epochs: int) -> None:
        if number == self.number and not self.done:
            self._close("trained", epochs)

    async def failed(self, number: int, problem: str) -> None:
        """Training cannot go on, and would not if it were tried again."""
        if number == self.number and not self.done:
            self._close("failed", problem)

    async def crashed(self, problem: str) -> None:
        """A worker is about to end by this error; all are started again."""
        self.problem = problem

    async def news(self) -> tuple[Any, ...]:
        return await self.told.get()

    async def end(self) -> list[Any]:
        """Lets the workers end, and returns them."""
        async with self.changed:
            self.ended = True
            self.changed.notify_all()
        return list(self.workers.values())

    def _close(self, kind: str, what: Any) -> None:
        self.done = True
        self.told.put_nowait((kind, what))


def _work(config: dict[str, Any]) -> None:
    """What each Ray Train worker does: one training after the other."""
    import ray
    import ray.train
    import ray.train.torch

    desk, number = config["desk"], -1
    place, device = ray.train.get_context(), ray.train.torch.get_device()
    worker = Worker(
        rank=place.get_world_rank(),
        world=place.get_world_size(),
        device=device,
        readers=readers(device),
        wrap=ray.train.torch.prepare_model,
    )
    me = ray.get_runtime_context().current_actor
    while True:
        number, work = ray.get(desk.take.remote(worker.rank, me, number))
        if work is None:
            return
        stage, context, given, precision = ray.get(work[0])
        as_told = replace(worker, precision=precision)
        try:
            epochs = _train(as_told, stage, context, given, lambda *told: desk.tell.remote(number, *told))  # noqa: B023
        except RunError as error:  # of every worker alike
            ray.get(desk.failed.remote(number, str(error)))
        except BaseException as error:
            ray.get(desk.crashed.remote(f"worker {worker.rank}: {type(error).__name__}: {error}"))
            raise
        else:
            if worker.rank == 0:
                ray.get(desk.trained.remote(number, epochs))


def _train(worker: Worker, stage: FitStage, context: Context, given: Partial, tell: Progress) -> int:
    with given.aside() as partial:
        if worker.rank == 0:
            partial.receive(only=CHECKPOINT)
        report: Progress = tell if worker.rank == 0 else lambda *told: None
        state = fit_as(worker, stage, given.store.here(context), Checkpoint(partial), report)
    return len(state["history"])


def _cause(error: BaseException) -> str:
    """The workers' own message, without Ray's layers."""
    failures = getattr(error, "worker_failures", None)
    if failures:
        rank, first = sorted(failures.items())[0]
        cause = getattr(first, "cause", None) or first
        return f"worker {rank} failed: {type(cause).__name__}: {cause}"
    return str(error)
