"""Runs stages: looks for the finished artifact, else computes it here or on the cluster, and keeps it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from distributed.engine.checkpoint import Checkpoint, save_whole
from distributed.engine.chunks import Chunk, Done, check_parts, chunks, collect, part_name, pending
from distributed.engine.disk import need, writing
from distributed.engine.loop import final_model
from distributed.engine.mapping import map_here, map_on_ray, map_what_is_short
from distributed.engine.precision import Precision
from distributed.engine.record import Record
from distributed.engine.store import Store, fingerprint
from distributed.engine.train import fit_here
from distributed.engine.unfinished import Partial
from distributed.engine.uses import Notes
from distributed.engine.workers import fit_on_workers, release_workers
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import RunError, listing
from tad.files import write_json
from tad.stages import Artifact, Context, Derived, FitStage, Inputs, MapStage

STRATEGY = {None: "PACK", "pack": "STRICT_PACK", "spread": "SPREAD"}
"""Ray's word for each placement."""

FORMAT = 1
"""Raised when the layout of artifacts changes: older ones are then not found."""


Placement = Literal["pack", "spread"]
"""Of training workers. pack: all on one node. spread: over as many nodes as there are."""


Watch = Callable[[FitStage, int, int, Callable[[], AbstractContextManager[Artifact]]], None]
"""Told after each epoch of a training: the stage, how many epochs it has had and will have, and how to come at the
model so far, which is gone afterwards. What it raises ends the training; its checkpoint stays."""


def nothing() -> None:
    """Where Ray runs already, or is not needed."""


@dataclass(frozen=True)
class Resources:
    """Where stages run.

    Attributes:
        ray: whether there is a cluster; without, everything runs in this process.
        workers: Ray Train workers of a fit; one worker without a GPU trains in this process, which starts at once.
        gpus_per_worker: GPUs of each training and mapping worker (a fraction is allowed).
        mappers: mapping workers, processes of Ray Data; a map that is short without them runs in this process.
        placement: None packs training workers on few nodes, where they fit.
        precision: of the training.
        plan: what will run where, in lines to be shown.
        start: starts Ray, where that was left until a stage needs it.
    """

    ray: bool = False
    workers: int = 1
    gpus_per_worker: float = 0.0
    mappers: int = 1
    placement: Placement | None = None
    precision: Precision = "fp32"
    plan: tuple[str, ...] = field(default=(), compare=False)
    start: Callable[[], None] = field(default=nothing, compare=False)


@dataclass
class Engine:
    """Implements tad.stages.Engine over a store."""

    data: Dataset
    store: Store
    record: Record
    seed: int = 0
    resources: Resources = field(default_factory=Resources)
    tags: dict[str, str] = field(default_factory=dict)
    """Of all its stages in the record."""
    watch: Watch | None = None
    _dataset_keys: dict[Role, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._notes = Notes(self.store, self.record)

    def over(self, data: Dataset, tags: dict[str, str] | None = None) -> Engine:
        """The same engine over another dataset; its stages have these tags in the record, or the same ones."""
        other = replace(self, data=data, tags=self.tags if tags is None else tags, _dataset_keys={})
        other._notes = self._notes  # of one run there is one list, or each would overwrite the other's
        return other

    def fit(self, stage: FitStage, inputs: Inputs = None, number: int = 0) -> Artifact:
        """The trained stage of a round: an artifact with model.pt and history.json.

        Raises:
            RunError: the stage failed; its checkpoints stay, and the same command resumes.
        """
        inputs = inputs or {}
        # As an option added later: the neutral value changes no fingerprint.
        precision = self.resources.precision
        more = {} if precision == "fp32" else {"precision": precision}
        key, tags = self._key(stage, inputs, "train", number, more)
        if isinstance(stage, Derived) and stage.reasons:
            config = stage.config.model_dump()
            self.record.derived(stage.name, {name: (config[name], why) for name, why in stage.reasons.items()}, tags)

        def make(partial: Partial) -> Artifact:
            context, start = self._context(stage, inputs, "train", number), time.perf_counter()
            with self.record.stage(stage.name, stage.config.model_dump(), tags, None, "epoch"):
                state = self._train(stage, context, partial, key)
                run = self.record.run_id()
            settings = state["settings"]
            if settings:
                self.record.say(f"  settings: {', '.join(f'{k} {v}' for k, v in settings.items())}")
            save_whole(final_model(state), partial.output / "model.pt", ".model.pt")
            with writing(partial.folder):
                write_json(partial.output / "history.json", {"epochs": state["history"], "settings": settings})
            return self.store.commit(key, self._meta(stage, inputs, number, key, run, time.perf_counter() - start))

        return self._once(stage.name, key, tags, make)

    def map(self, stage: MapStage, inputs: Inputs = None, role: Role = "train", number: int = 0) -> Artifact:
        """The stage of a round, applied to each video of a role: segments.parquet, or the arrays of each key.

        Raises:
            RunError: some videos failed. All the others are written; the message names every failed video, and the
                same command tries only those again.
        """
        inputs = inputs or {}
        key, tags = self._key(stage, inputs, role, number)

        def make(partial: Partial) -> Artifact:
            folder, context = partial.folder, self._context(stage, inputs, role, number)
            every, start = chunks(list(context.videos)), time.perf_counter()
            check_parts(folder, every, self.record.warn)
            todo = pending(folder, every)
            with self.record.stage(stage.name, stage.config.model_dump(), tags, len(context.videos), "video"):
                self.record.progress(len(context.videos) - sum(len(c.videos) for c in todo))
                if todo:
                    self._map(stage, context, partial, todo)
                with writing(folder):
                    rows, failures = collect(folder, every)
                run = self.record.run_id()
                if failures:
                    partial.forget(part_name(chunk.number) for chunk in pending(folder, every))
                    self._fail(stage.name, folder, failures, len(context.videos))
                self.record.metrics({"segments": float(rows), "videos": float(len(context.videos))}, 0)
            if stage.output == "segments":
                with writing(folder):
                    (folder / "segments.parquet").replace(partial.output / "segments.parquet")
            return self.store.commit(key, self._meta(stage, inputs, number, key, run, time.perf_counter() - start))

        return self._once(stage.name, key, tags, make)

    def adopt(self, segments: Segments, name: str) -> Artifact:
        """Segments from outside (another method's proposals) as an artifact, under a hash of their content."""
        key = fingerprint({"format": FORMAT, "adopted": name, "content": segments.digest()})
        self._notes.add(key)
        if (found := self.store.find(key)) is not None:
            return found
        with self.store.lock(key, name, self.record.warn):
            if (found := self.store.find(key)) is not None:
                return found
            partial = self.store.partial(key, self.record.warn)
            with writing(partial.folder):
                segments.grouped().to_parquet(partial.output / "segments.parquet")
            return self.store.commit(key, {"fingerprint": key, "stage": name})

    def _once(self, name: str, key: str, tags: dict[str, str], make: Callable[[Partial], Artifact]) -> Artifact:
        """The artifact as it is found, without a lock, or as this process or the one that holds the lock makes it."""
        self._notes.add(key)  # before it is looked for
        if (found := self._find(name, key, tags)) is not None:
            return found
        with self.store.lock(key, f"stage {name}", self.record.warn):
            if (found := self._find(name, key, tags)) is not None:
                return found
            return make(self.store.partial(key, self.record.warn))

    def _train(self, stage: FitStage, context: Context, partial: Partial, key: str) -> dict[str, Any]:
        def progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
            self.record.epoch(stage.name, epoch, metrics, epochs)
            if self.watch is not None:
                self.watch(stage, epoch + 1, epochs, lambda: self._so_far(stage.name, key, partial))

        resources = self.resources
        if not resources.ray or (resources.workers == 1 and resources.gpus_per_worker == 0):
            return fit_here(stage, context, partial, progress, self.record.warn, resources.precision)
        resources.start()
        return fit_on_workers(
            stage,
            context,
            partial,
            progress,
            resources.workers,
            resources.gpus_per_worker,
            STRATEGY[resources.placement],
            resources.precision,
        )

    @contextmanager
    def _so_far(self, name: str, key: str, partial: Partial) -> Iterator[Artifact]:
        """The model of the last checkpoint as an artifact, for a moment."""
        state = partial.patiently(lambda: Checkpoint(partial, self.record.warn).load())
        if state is None:
            raise RunError(f"{partial.folder}: the checkpoint of stage {name} is gone; run the same command again")
        own, what = fingerprint({"format": FORMAT, "of": key, "epochs": len(state["history"])}), f"{name} so far"
        with self.store.lock(own, what, self.record.warn):
            found = self.store.find(own)  # a killed process left it
            if found is None:
                made = self.store.partial(own, self.record.warn)
                save_whole(final_model(state), made.output / "model.pt", ".model.pt")
                found = self.store.commit(own, {"fingerprint": own, "stage": what})
            try:
                yield found
            finally:
                self.store.discard(own)

    def _map(self, stage: MapStage, context: Context, partial: Partial, todo: list[Chunk]) -> None:
        left = sum(len(chunk.videos) for chunk in todo)

        def progress(done: Done) -> None:
            nonlocal left
            if done.bytes and left == first:  # the parts, and what they are put together to
                need(partial.folder, 2 * done.bytes / done.videos * (left - done.videos), f"stage {stage.name}")
            left -= done.videos
            self.record.progress(done.videos)

        first, resources = left, self.resources
        if not resources.ray:
            map_here(stage, context, partial, todo, progress)
            return
        if resources.gpus_per_worker == 0:
            todo = map_what_is_short(stage, context, partial, todo, progress, resources.mappers)
        if not todo:
            return
        resources.start()
        release_workers()  # they hold what the map's processes need
        map_on_ray(stage, context, partial, todo, progress, resources.mappers, resources.gpus_per_worker)
        if not partial.patiently(lambda: None if pending(partial.folder, todo) else True):
            raise RunError(
                f"{self.store.uri}: {len(pending(partial.folder, todo))} parts of stage {stage.name} are gone; does "
                "another machine make the same artifact? Run the same command again"
            )

    def _fail(self, name: str, folder: Path, failures: dict[str, str], videos: int) -> None:
        with writing(folder):
            write_json(folder / "failures.json", failures)
        self.record.event("failures", name=name, failures=failures)
        videos_of: dict[str, list[str]] = {}
        for video, error in failures.items():
            videos_of.setdefault(error, []).append(video)
        problems = [f"{'video' if len(v) == 1 else 'videos'} {', '.join(v)}: {e}" for e, v in videos_of.items()]
        raise RunError(
            f"stage {name} failed for {len(failures)} of {videos} videos (the others are kept); "
            "mend them or list them under `ignored` in dataset.yaml, then run the same command again. "
            + listing(problems, most=len(problems))
        )

    def _find(self, name: str, key: str, tags: dict[str, str]) -> Artifact | None:
        found = self.store.find(key)
        if found is not None:
            run = self.store.meta(key).get("mlflow_run")
            self.record.cached(name, tags | ({"mlflow_run": run} if run else {}))
        return found

    def _context(self, stage: FitStage | MapStage, inputs: Mapping[str, Artifact], role: Role, number: int) -> Context:
        videos = self.data.videos(role)
        if not videos:
            raise RunError(f"{self.data.root}: no video has the role {role}; see `subsets` in dataset.yaml")
        return Context(self.data, dict(inputs), videos, self.seed, f"{stage.name}@{number}", number)

    def _key(
        self,
        stage: FitStage | MapStage,
        inputs: Mapping[str, Artifact],
        role: Role,
        number: int,
        more: Mapping[str, str] | None = None,
    ) -> tuple[str, dict[str, str]]:
        if role not in self._dataset_keys:
            self._dataset_keys[role] = self.data.fingerprint(role)
        key = fingerprint(
            {
                "format": FORMAT,
                "stage": stage.name,
                "version": stage.version,
                "config": stage.config.identity(),
                "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()},
                "dataset": self._dataset_keys[role],
                "seed": self.seed,
                "round": number,
                **(more or {}),
            }
        )
        return key, {"fingerprint": key, "role": role, "round": str(number)} | self.tags

    def _meta(
        self,
        stage: FitStage | MapStage,
        inputs: Mapping[str, Artifact],
        number: int,
        key: str,
        run: str | None,
        seconds: float,
    ) -> dict[str, Any]:
        return {
            "fingerprint": key,
            "stage": stage.name,
            "version": stage.version,
            "config": stage.config.model_dump(),
            "inputs": {name: artifact.fingerprint for name, artifact in inputs.items()},
            "dataset": self.data.name,
            "seed": self.seed,
            "round": number,
            "mlflow_run": run,
            "seconds": round(seconds, 2),
        }
