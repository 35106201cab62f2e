"""Maps a stage over videos: in this process, or by processes of Ray Data."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from distributed.engine.chunks import Chunk, Done, open_chunk_function
from distributed.engine.unfinished import Partial
from tad.errors import RunError, TadError
from tad.stages import Context, MapStage

Progress = Callable[[Done], None]

START = 15.0
"""Seconds that Ray's processes take until they map their first video, about: they import torch and the methods."""


def map_here(stage: MapStage, context: Context, partial: Partial, todo: list[Chunk], progress: Progress) -> None:
    """One chunk after the other, in this process."""
    run = open_chunk_function(stage, context)
    for chunk in todo:
        progress(run(chunk, partial))


def map_what_is_short(
    stage: MapStage, context: Context, partial: Partial, todo: list[Chunk], progress: Progress, workers: int
) -> list[Chunk]:
    """Maps in this process for as long as it will be done before mapping workers, which take START seconds to begin.

    The first chunk also loads what is compiled, so two chunks are timed. Where a chunk is mapped changes nothing in
    what is written: Ray's processes have one thread, and so has this one meanwhile.

    Returns:
        The chunks that are left for the workers.
    """
    if START <= 0:
        return todo
    seconds, videos = 0.0, 0
    with _one_thread():
        run = open_chunk_function(stage, context)
        for done, chunk in enumerate(todo, 1):
            began = time.perf_counter()
            progress(run(chunk, partial))
            taken = time.perf_counter() - began
            if done == 1 and taken < START:
                continue
            seconds, videos = seconds + taken, videos + len(chunk.videos)
            left = seconds / videos * sum(len(c.videos) for c in todo[done:])
            if left - left / workers > START:
                return todo[done:]
    return []


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch and for NumPy's linear algebra: sums of more threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def map_on_ray(
    stage: MapStage,
    context: Context,
    partial: Partial,
    todo: list[Chunk],
    progress: Progress,
    workers: int,
    gpus: float,
) -> None:
    """Streams the chunks through mapping workers, processes of Ray Data, each of which opens the stage once.

    Without GPUs they are tasks: Ray keeps their processes, with all that these have imported, for the next map. With
    GPUs they are actors, whose end gives the memory back; a process of a task would keep it.

    Results go straight to the parts in the folder, or in the bucket, of `partial`; only counts travel back, so the
    driver's memory stays flat.

    Args:
        gpus: of each worker; 0: it has a CPU.

    Raises:
        RunError: the stage cannot be opened, or a worker keeps dying; finished parts stay.
    """
    import ray.data
    import ray.exceptions

    # A reference: of other arguments Ray Data takes the repr as a key, which it holds and sends, the whole dataset's.
    work = ray.put((stage, context, partial))
    rows = [{"chunk": chunk.number, "videos": chunk.videos} for chunk in todo]
    how: dict[str, Any]
    if gpus > 0:
        pool = ray.data.ActorPoolStrategy(size=min(workers, len(rows)))
        how = {"fn": _ChunkActor, "fn_constructor_kwargs": {"work": [work]}, "compute": pool, "num_gpus": gpus}
    else:
        tasks = ray.data.TaskPoolStrategy(size=workers)
        how = {"fn": _map_chunks, "fn_kwargs": {"work": [work]}, "compute": tasks, "num_cpus": 1}
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(batch_size=1, **how)
    try:
        for row in dataset.iter_rows():
            progress(Done(**{name: int(row[name]) for name in Done._fields}))
    except ray.exceptions.RayError as error:
        raise RunError(f"stage {stage.name}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The process's own message, without Ray's layers."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TadError):
            return str(inner)
        inner = getattr(inner, "cause", None) or inner.__cause__
    return f"the mapping workers failed: {[line.strip() for line in str(error).splitlines() if line.strip()][-1]}"


class _ChunkActor:
    """What a process of Ray Data holds: the opened stage."""

    def __init__(self, work: list[Any]) -> None:
        import ray

        stage, context, self.partial = ray.get(work[0])
        self.run = open_chunk_function(stage, self.partial.store.here(context))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        done = []
        for index, videos in zip(batch["chunk"], batch["videos"], strict=True):
            with self.partial.aside() as partial:
                done.append(self.run(Chunk(int(index), [str(v) for v in videos]), partial))
        return {name: [getattr(d, name) for d in done] for name in Done._fields}


_open: dict[str, _ChunkActor] = {}
"""In a process of Ray: the stage of the map of which it had a chunk last, by the reference to the work."""


def _map_chunks(batch: dict[str, Any], work: list[Any]) -> dict[str, list[int]]:
    key = work[0].hex()
    if key not in _open:
        _open.clear()
        _open[key] = _ChunkActor(work)
    return _open[key](batch)
