"""Maps a stage over videos: in this process, or by an actor pool of Ray Data."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distributed.engine.chunks import Chunk, Done, open_chunk_function
from distributed.engine.unfinished import Partial
from tad.errors import RunError, TadError
from tad.stages import Context, MapStage

Progress = Callable[[Done], None]


def map_here(stage: MapStage, context: Context, partial: Partial, todo: list[Chunk], progress: Progress) -> None:
    """One chunk after the other, in this process."""
    run = open_chunk_function(stage, context)
    for chunk in todo:
        progress(run(chunk, partial))


def map_on_actors(
    stage: MapStage,
    context: Context,
    partial: Partial,
    todo: list[Chunk],
    progress: Progress,
    actors: int,
    gpus_per_actor: float,
) -> None:
    """Streams the chunks through `actors` Ray Data actors, each of which opens the stage once.

    Results go straight to the parts in the folder, or in the bucket, of `partial`; only counts travel back, so the
    driver's memory stays flat.

    Raises:
        RunError: the stage cannot be opened, or an actor keeps dying; finished parts stay.
    """
    import ray.data
    import ray.exceptions

    # A reference: of other arguments Ray Data takes the repr as a key, which it holds and sends, the whole dataset's.
    work = ray.put((stage, context, partial))
    rows = [{"chunk": chunk.number, "videos": chunk.videos} for chunk in todo]
    dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
        _ChunkActor,
        fn_constructor_kwargs={"work": work},
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(actors, len(rows))),
        num_cpus=None if gpus_per_actor > 0 else 1,
        num_gpus=gpus_per_actor or None,
    )
    try:
        for row in dataset.iter_rows():
            progress(Done(**{name: int(row[name]) for name in Done._fields}))
    except ray.exceptions.RayError as error:
        raise RunError(f"stage {stage.name}: {_cause(error)}") from error


def _cause(error: BaseException) -> str:
    """The actor's own message, without Ray's layers."""
    inner: BaseException | None = error
    while inner is not None:
        if isinstance(inner, TadError):
            return str(inner)
        inner = getattr(inner, "cause", None) or inner.__cause__
    return f"the mapping actors failed: {[line.strip() for line in str(error).splitlines() if line.strip()][-1]}"


class _ChunkActor:
    """What a Ray Data actor holds: the opened stage."""

    def __init__(self, work: Any) -> None:
        import ray

        stage, context, self.partial = ray.get(work)
        self.run = open_chunk_function(stage, self.partial.store.here(context))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        done = []
        for index, videos in zip(batch["chunk"], batch["videos"], strict=True):
            with self.partial.aside() as partial:
                done.append(self.run(Chunk(int(index), [str(v) for v in videos]), partial))
        return {name: [getattr(d, name) for d in done] for name in Done._fields}
