"""One map over invented video rows with a stand-in for the model, measured. Used by `scale` and `scale_model`.

All but the model is real: the dataset folder, its opening in every actor, Ray Data, the parts, and what collects them.
"""

from __future__ import annotations

import os
import shutil
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from distributed.engine.chunks import Chunk, Done, collect
from distributed.engine.mapping import map_here, map_on_ray
from distributed.engine.store import Store
from tad.data.dataset import Dataset, FeatureGrid, Manifest
from tad.data.segments import SCHEMA, Segments
from tad.prepare.write import write_dataset
from tad.stages import Arrays, Context, StageConfig

LABELS = [f"class-{i:02d}" for i in range(20)]


class Video(StageConfig):
    """What the stand-in does for each video.

    Attributes:
        seconds: it sleeps, as an actor does that waits for its GPU; the CPU is free meanwhile.
        segments: rows of a result that is segments.
        array: bytes of a result that is one float32 array; 0: the result is segments.
    """

    seconds: float = 0.0
    segments: int = 20
    array: int = 0

    @property
    def bytes(self) -> int:
        """Of the result, in memory: the columns of the segments with their texts, or the array."""
        numbers = sum(8 for kind in SCHEMA.types if str(kind) == "double")
        return self.array or self.segments * (numbers + len("v_0000000000" + LABELS[0] + "stand-in@0") + 3 * 4)


@dataclass(frozen=True)
class StandIn:
    """A map stage that sleeps in place of a model and returns results of a model's size."""

    config: Video
    name: str = "stand-in"
    version: int = 1

    @property
    def output(self) -> Literal["segments", "arrays"]:
        return "arrays" if self.config.array else "segments"

    def open(self, context: Context) -> Callable[[str], Segments | Arrays]:
        config = self.config

        def run(video: str) -> Segments | Arrays:
            if config.seconds:
                time.sleep(config.seconds)
            rng = np.random.default_rng(zlib.crc32(video.encode()))
            if config.array:
                return {"scores": rng.random(config.array // 4, dtype=np.float32)}
            start = np.sort(rng.random(config.segments)) * 100
            labels = [LABELS[i] for i in rng.integers(len(LABELS), size=config.segments)]
            length = rng.random(config.segments) + 0.1
            return Segments.of(video, start, start + length, labels, rng.random(config.segments), source=context.source)

        return run


def rows(folder: Path, videos: int) -> Dataset:
    """A dataset of so many videos without features; written once."""
    if not (folder / "dataset.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        manifest = Manifest(name="rows", classes=LABELS, subsets={"train": "train"}, grid=FeatureGrid(dim=64))
        entry = {"subset": "train", "duration": 120.0, "fps": 25.0, "annotations": []}
        write_dataset(folder, manifest, {f"v_{i:010d}": entry for i in range(videos)}, {})
    return Dataset.open(folder)


def measured(data: Dataset, videos: int, chunk: int, actors: int, video: Video, folder: Path) -> dict[str, Any]:
    """Maps the first `videos` videos in chunks of `chunk` with `actors` actors (0: in this process), and collects.

    Returns:
        What was asked, and what it took: seconds until the first chunk was there, of the whole map and of collecting;
        CPU seconds of driver, actors and the rest of Ray; MiB of the driver before and at most, and of the object
        store at most; and the machine's load average before it.
    """
    partial = Store(folder).partial("0" * 24)
    ids = data.videos("train")[:videos]
    context = Context(data, {}, ids, 0, "stand-in@0")
    todo = [Chunk(i, ids[at : at + chunk]) for i, at in enumerate(range(0, len(ids), chunk))]
    stage, first, load = StandIn(video), [0.0], os.getloadavg()[0]

    def progress(done: Done) -> None:
        first[0] = first[0] or time.perf_counter() - start

    try:
        with watched(actors > 0) as seen:
            start = time.perf_counter()
            if actors:
                map_on_ray(stage, context, partial, todo, progress, actors, 0.0)
            else:
                map_here(stage, context, partial, todo, progress)
            wall = time.perf_counter() - start
            start, cpu = time.perf_counter(), time.process_time()
            found, failures = collect(partial.folder, todo)
            collecting, collecting_cpu = time.perf_counter() - start, time.process_time() - cpu
        assert not failures and found == (0 if video.array else videos * video.segments)
        written = sum(f.stat().st_size for f in partial.folder.rglob("*") if f.is_file() and f.parent.name != "chunks")
    finally:
        shutil.rmtree(folder)
    return {
        "videos": videos,
        "chunk": chunk,
        "chunks": len(todo),
        "actors": actors,
        "work": video.seconds,
        "bytes": video.bytes,
        "array": bool(video.array),
        "first": first[0],
        "wall": wall,
        "collect": collecting,
        "collect_cpu": collecting_cpu,
        "written": written / videos,
        "load": load,
        **seen,
    }


@contextmanager
def watched(ray_runs: bool, every_s: float = 0.5) -> Iterator[dict[str, float]]:
    """Fills a dictionary with CPU seconds and peaks of memory (MiB) of what runs inside."""
    me, stop, seen = psutil.Process(), threading.Event(), {"rss_before": 0.0, "rss_peak": 0.0, "store_peak": 0.0}
    used: dict[tuple[int, str], list[float]] = {}
    watching = [0.0]
    seen["rss_before"] = me.memory_info().rss / 2**20

    def look() -> None:
        seen["rss_peak"] = max(seen["rss_peak"], me.memory_info().rss / 2**20)
        for process in [me, *me.children(recursive=True)]:
            try:
                times, name = process.cpu_times(), " ".join(process.cmdline())
            except psutil.Error:
                continue
            # An actor has its name only once it works; before, it is an idle worker.
            kind = "driver" if process is me else ("actors" if "MapWorker" in name else "ray")
            now = times.user + times.system
            used.setdefault((process.pid, kind), [now, now])[1] = now
        if ray_runs:
            import ray

            total, free = ray.cluster_resources(), ray.available_resources()
            taken = total.get("object_store_memory", 0) - free.get("object_store_memory", 0)
            seen["store_peak"] = max(seen["store_peak"], taken / 2**20)

    def watch() -> None:
        while not stop.wait(every_s):
            look()
        watching[0] = time.thread_time()

    look()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()
        look()
        for kind in ("driver", "actors", "ray"):
            seen[f"{kind}_cpu"] = sum(last - begin for (_, k), (begin, last) in used.items() if k == kind)
        seen["driver_cpu"] -= watching[0]
