"""The cost model of a map: its points, its fit, and what it says of chunk sizes and of many GPUs. See `scale`.

    driver = task * tasks + video * videos
    actors = task * tasks + video * videos + file * files + byte * bytes + the model's own seconds
    wall   = startup + max(driver, actors / number of actors) + part * tasks + byte * bytes of segments (collecting)

The driver hands out tasks while the actors work, so the slower of the two sets the pace. The constants are fitted to
CPU seconds, by least squares on relative errors, with a constant for what comes before the first task: wall clock is at
the mercy of whatever else runs on the machine, CPU seconds are not. It is printed beside what the model says of it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.speed.scale_map import Video, measured
from distributed.cluster.connect import cluster
from distributed.engine.chunks import chunk_size
from tad.data.dataset import Dataset

FITTED = [
    (2000, 8, Video()),
    (8000, 32, Video()),
    (8000, 128, Video()),
    (16_000, 512, Video()),
    (1500, 8, Video(seconds=0.002)),
    (2000, 32, Video(seconds=0.002)),
    (3000, 128, Video(seconds=0.002)),
    (600, 32, Video(seconds=0.01)),
    (3000, 32, Video(segments=200)),
    (3000, 128, Video(segments=200)),
    (2000, 32, Video(array=1 << 16)),
    (500, 16, Video(array=1 << 19)),
    (1000, 64, Video(array=1 << 18)),
]
"""Videos, chunk size and video of the points that the model is fitted to; each with one and with two actors."""
HELD_OUT = [
    (1500, 16, Video(seconds=0.005)),
    (4000, 64, Video(seconds=0.001, segments=50)),
    (10_000, 256, Video()),
    (2000, 64, Video(seconds=0.002, array=1 << 14)),
    (750, 4, Video(seconds=0.004)),
]
"""Points that it has not seen."""
REPEATS = 1
"""Of several the least counts: other work on the machine only ever slows."""


def measure(points: Path, data: Dataset, folder: Path) -> None:
    """Measures what is not in the file yet, and appends it."""
    there = [json.loads(line) for line in points.read_text().splitlines()] if points.exists() else []
    times = {key: sum(_key(p) == key for p in there) for key in map(_key, there)}
    with cluster(1, None) as resources, points.open("a") as file:
        resources.start()
        measured(data, 100, 10, 2, Video(), folder / "map-first")  # Ray's own first time
        for repeat in range(REPEATS):
            for videos, chunk, video in FITTED + HELD_OUT:
                for actors in (1, 2):
                    key = (videos, chunk, actors, video.seconds, video.bytes)
                    if times.get(key, 0) <= repeat:
                        point = measured(data, videos, chunk, actors, video, folder / "map-point")
                        file.write(json.dumps(point) + "\n")
                        file.flush()


def _key(p: dict[str, Any]) -> tuple[Any, ...]:
    return p["videos"], p["chunk"], p["actors"], p["work"], p["bytes"]


def best(points: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The fitted and the held-out points: of the repeats of each, every time the least."""
    least: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in points.read_text().splitlines():
        p = json.loads(line)
        seen = least.setdefault(_key(p), p)
        for name in ("wall", "first", "driver_cpu", "actors_cpu", "collect_cpu"):
            seen[name] = min(seen[name], p[name])
    keys = [[(n, c, a, v.seconds, v.bytes) for n, c, v in kind for a in (1, 2)] for kind in (FITTED, HELD_OUT)]
    fitted, held_out = ([least[k] for k in some if k in least] for some in keys)
    return fitted, held_out


# -- fit -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Costs:
    """The constants, in seconds.

    Attributes:
        startup: until the first chunk is finished, the least that was measured.
        driver: before the first task; each task; each video.
        actors: each actor before its first task; each task, video, array, byte.
        collecting: each part, each byte of segments.
    """

    startup: float
    driver: np.ndarray
    actors: np.ndarray
    collecting: np.ndarray

    def driver_s(self, p: dict[str, Any]) -> float:
        """Seconds in which the driver hands out all tasks."""
        return float(self.driver[1:] @ _driver([p])[0, 1:])

    def actors_s(self, p: dict[str, Any], uneven: bool = True) -> float:
        """Seconds in which the actors do all tasks, shared as evenly as whole tasks can be."""
        even = p["chunks"] / p["actors"]
        busy = p["work"] * p["videos"] + float(self.actors[1:] @ _actors([p])[0, 1:])
        return busy / p["actors"] * (math.ceil(even) / even if uneven else 1.0)

    def map_s(self, p: dict[str, Any]) -> float:
        return self.startup + max(self.driver_s(p), self.actors_s(p))

    def collect_s(self, p: dict[str, Any]) -> float:
        return float(self.collecting @ _collecting([p])[0])

    def total(self, p: dict[str, Any]) -> float:
        return self.map_s(p) + self.collect_s(p)


def fit(points: list[dict[str, Any]]) -> Costs:
    return Costs(
        min(p["first"] for p in points),
        _solved(_driver(points), _column(points, "driver_cpu")),
        _solved(_actors(points), _column(points, "actors_cpu")),
        _solved(_collecting(points), _column(points, "collect_cpu")),
    )


def _solved(columns: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.linalg.lstsq(columns / seconds[:, None], np.ones(len(seconds)), rcond=None)[0]


def _column(points: list[dict[str, Any]], name: str) -> np.ndarray:
    return np.array([p[name] for p in points], dtype=np.float64)


def _driver(points: list[dict[str, Any]]) -> np.ndarray:
    return np.stack([np.ones(len(points)), _column(points, "chunks"), _column(points, "videos")], 1)


def _actors(points: list[dict[str, Any]]) -> np.ndarray:
    actors, tasks, videos, arrays, size = (
        _column(points, name) for name in ("actors", "chunks", "videos", "array", "bytes")
    )
    return np.stack([actors, tasks, videos, videos * arrays, videos * size], 1)


def _collecting(points: list[dict[str, Any]]) -> np.ndarray:
    size = _column(points, "videos") * _column(points, "bytes") * (1 - _column(points, "array"))
    return np.stack([_column(points, "chunks"), size], 1)


# -- what it says ----------------------------------------------------------------------------------------------------

GPU_SECONDS = 0.05
"""Assumed for a video on one GPU."""
GPU_PRICE, HEAD_PRICE = 1.0, 0.2
"""Dollars an hour: docs/cluster.md."""
CANDIDATES = [2**i for i in range(11)]


def asked(videos: int, chunk: int, gpus: int, gpu_seconds: float) -> dict[str, Any]:
    """A map of segments as `Video()` writes them, by one actor for each GPU."""
    chunks = math.ceil(videos / chunk)
    return {
        "videos": videos,
        "chunk": chunk,
        "chunks": chunks,
        "actors": min(gpus, chunks),
        "work": gpu_seconds,
        "bytes": Video().bytes,
        "array": False,
    }


def show(points: Path) -> None:
    """Prints points, fit, held-out errors, chunk sizes and predictions."""
    fitted, held_out = best(points)
    costs = fit(fitted)
    print(
        f"\n{'':>43}{'CPU s: driver':>13}{'model':>6}{'error':>6}{'actors':>8}{'model':>6}{'error':>6}"
        f"{'collect':>9}{'model':>6}{'error':>6}{'wall after first':>18}{'model':>6}\n"
        f"{'videos':>7}{'chunk':>6}{'actors':>7}{'work ms':>8}{'bytes':>8}{'load':>7}"
    )
    for kind, some in (("fitted", fitted), ("held out", held_out)):
        if not some:
            continue
        errors = []
        for p in some:
            models = [float(costs.driver @ _driver([p])[0]), float(costs.actors @ _actors([p])[0]), costs.collect_s(p)]
            was = [p["driver_cpu"], p["actors_cpu"], p["collect_cpu"]]
            errors.append([m / w - 1 for m, w in zip(models, was, strict=True)])
            after = (1 - p["actors"] / p["chunks"]) * max(costs.driver_s(p), costs.actors_s(p, uneven=False))
            print(
                f"{p['videos']:>7}{p['chunk']:>6}{p['actors']:>7}{1e3 * p['work']:>8.0f}{p['bytes']:>8}"
                f"{p['load']:>7.1f}"
                + "".join(
                    f"{w:>{width}.2f}{m:>6.2f}{e:>+6.0%}"
                    for w, m, e, width in zip(was, models, errors[-1], (13, 8, 9), strict=True)
                )
                + f"{p['wall'] - p['first']:>18.2f}{after:>6.2f}"
            )
        for name, off in zip(("driver", "actors", "collecting"), np.abs(errors).T, strict=True):
            print(f"{kind}, {len(some)} points, {name}: error median {np.median(off):.0%}, largest {off.max():.0%}")
    ms, ns = 1e3, 1e9
    print(f"\nstartup {costs.startup:.1f} s")
    print("driver:  before {:.2f} s, task {:.2f} ms, video {:.4f} ms".format(*costs.driver * [1, ms, ms]))
    print(
        "actors:  before {:.2f} s each, task {:.2f} ms, video {:.3f} ms, file {:.3f} ms, byte {:.2f} ns".format(
            *costs.actors * [1, ms, ms, ms, ns]
        )
    )
    print("collect: part {:.2f} ms, byte {:.2f} ns".format(*costs.collecting * [ms, ns]))
    choose(costs)
    foresee(costs)


def choose(costs: Costs) -> None:
    """Prints how much longer a map takes by the engine's chunks, and by fixed sizes, than by the best size."""
    print(f"\n{'videos':>8}{'GPUs':>6}{'s/video':>8}{'best chunk':>11}{'s':>9}{'chosen':>8}{'s':>9}{'longer':>8}")
    longer: dict[str, list[float]] = {"the engine's": [], "32": [], "256": []}
    for videos in (200, 2000, 20_000, 500_000):
        sizes = {"the engine's": chunk_size(videos), "32": 32, "256": 256}
        for gpus in (1, 8, 64, 512):
            for work in (0.01, GPU_SECONDS, 0.25):
                times = {c: costs.total(asked(videos, c, gpus, work)) for c in [*CANDIDATES, *sizes.values()]}
                least = min(times, key=lambda c: times[c])
                for rule, size in sizes.items():
                    longer[rule].append(times[size] / times[least] - 1)
                size = chunk_size(videos)
                print(
                    f"{videos:>8}{gpus:>6}{work:>8.2f}{least:>11}{times[least]:>9.1f}{size:>8}{times[size]:>9.1f}"
                    f"{times[size] / times[least] - 1:>+8.0%}"
                )
    for rule, shares in longer.items():
        print(f"chunks of {rule}: longer than by the best size by {np.mean(shares):.1%}, at most {np.max(shares):.0%}")


def foresee(costs: Costs) -> None:
    """Prints time, speed and cost on many GPUs."""
    print(
        f"\n{'videos':>8}{'GPUs':>6}{'map s':>8}{'collect s':>10}{'videos/s':>10}{'GPUs busy':>11}{'$ / 1,000':>11}"
        f"{'paced by':>10}"
    )
    for videos in (20_000, 500_000):
        for gpus in (8, 64, 512):
            p = asked(videos, chunk_size(videos), gpus, GPU_SECONDS)
            mapped, seconds = costs.map_s(p), costs.total(p)
            dollars = (gpus * GPU_PRICE + HEAD_PRICE) / 3600 * seconds / videos * 1000
            side = "driver" if costs.driver_s(p) > costs.actors_s(p) else "GPUs"
            print(
                f"{videos:>8}{gpus:>6}{mapped:>8.1f}{seconds - mapped:>10.1f}"
                f"{videos / seconds:>10.0f}{GPU_SECONDS * videos / gpus / seconds:>11.0%}{dollars:>11.4f}{side:>10}"
            )
