"""What reading an artifact one video at a time costs: `python -m benchmarks.speed.reading`. About four minutes.

Scenario: artifacts of 2,000 and 20,000 invented videos, as maps leave them: 200 segments a video, or two arrays. An
actor is a process that opens stage `pser/seed` on the segments and applies it to every video.

References of the same run: a process that holds all rows, as `Segments.by_video` does; one .npy a video and key, of
which the values are taken without a look at the header.

Bars: the larger set takes an actor at most MEMORY times the memory of the smaller one. All videos' segments in order
take at most the reference's time, any one of them at most ONE_MS. An array takes at most ARRAY times the reference's
time. 20,000 videos are at most OBJECTS files, at any time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.speed.scale_map import StandIn, Video, rows
from distributed.engine.chunks import chunks, collect
from distributed.engine.mapping import map_here
from distributed.engine.store import Store
from tad.data.artifact import Artifact
from tad.stages import Arrays, Context

SIZES = (2000, 20_000)
SEGMENTS = "0" * 24
ARRAYS = "1" * 24
LENGTHS = (100, 1000, 20_000)
"""Snippets of the arrays [T, 20] float32 that are read: 8 and 80 kB, and 1.6 MB, which is mapped into memory."""
MEMORY, ONE_MS, ARRAY, OBJECTS = 1.15, 2.0, 1.25, 2000


class Scores(StandIn):
    """Two arrays a video, [T, 20] and [T]."""

    def open(self, context: Context) -> Callable[[str], Arrays]:  # type: ignore[override]
        rng, length = np.random.default_rng(0), self.config.array // 80
        return lambda video: {
            "cas": rng.random((length, 20), dtype=np.float32),
            "background": rng.random(length, dtype=np.float32),
        }


def make(folder: Path, videos: int, stage: StandIn, key: str) -> tuple[Artifact, int]:
    """An artifact, and the most files that there were at a time."""
    data, store = rows(folder / f"rows-{videos}", videos), Store(folder / f"store-{videos}")
    made, every = store.partial(key), chunks(list(data.videos("train")))
    map_here(stage, Context(data, {}, data.videos("train"), 0, "stand-in@0"), made, every, lambda done: None)
    collect(made.folder, every)
    if stage.output == "segments":
        (made.folder / "segments.parquet").rename(made.output / "segments.parquet")
    count = sum(path.is_file() for path in made.folder.rglob("*"))
    return store.commit(key, {"fingerprint": key}), count


def actor(folder: Path, videos: int, whole: bool) -> dict[str, float]:
    """Its most memory in MiB, and the seconds until it was open and in all."""
    from tad.methods.common.seeds import SeedRule, SeedSelection

    data = rows(folder / f"rows-{videos}", videos)
    start, artifact = time.perf_counter(), Artifact(SEGMENTS, folder / f"store-{videos}" / SEGMENTS)
    if whole:
        held = artifact.segments().by_video()
        opened = time.perf_counter() - start
        count = sum(len(held[video]) for video in data.videos("train"))
        assert count == 200 * videos
    else:
        label = SeedSelection(SeedRule()).open(Context(data, {"proposals": artifact}, data.videos("train"), 0))
        opened = time.perf_counter() - start
        for video in data.videos("train"):
            label(video)
    seconds = time.perf_counter() - start
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return {"mib": int(peak.split()[1]) / 1024, "opened": opened, "seconds": seconds}


def in_a_process(folder: Path, videos: int, whole: bool) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.speed.reading", "--folder", str(folder), "--one", str(videos)]
    done = subprocess.run(command + ["--whole"] * whole, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def timed(work: Callable[[str], np.ndarray], videos: list[str], repeats: int = 7) -> float:
    """Microseconds a video, the least of some runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        for video in videos:
            work(video).sum()
        times.append(time.perf_counter() - start)
    return min(times) / len(videos) * 1e6


def plain(folder: Path, length: int) -> Callable[[str], np.ndarray]:
    """Reads what `array` reads from one .npy a video, whose header of 128 bytes is skipped."""

    def read(video: str) -> np.ndarray:
        path = f"{folder}/{video}.npy"
        if length * 80 >= 1 << 20:
            return np.memmap(path, np.float32, "r", 128, (length, 20))
        with open(path, "rb", buffering=0) as file:
            return np.frombuffer(file.readall(), "<f4", offset=128).reshape(length, 20)

    return read


class Bars:
    """Prints measured values beside their bars."""

    missed = 0

    def say(self, what: str, value: float, bar: float) -> None:
        self.missed += value > bar
        print(f"{what}: {value:.2f} (bar {bar:g}; {'met' if value <= bar else 'MISSED'})")


def memory(folder: Path, bars: Bars) -> None:
    found = {(n, whole): in_a_process(folder, n, whole) for n in SIZES for whole in (False, True)}
    print(f"{'videos':>7}  {'rows':>16} {'MiB':>6} {'open s':>7} {'all s':>6}")
    for (n, whole), r in found.items():
        words = "all at once" if whole else "video by video"
        print(f"{n:>7}  {words:>16} {r['mib']:>6.0f} {r['opened']:>7.2f} {r['seconds']:>6.1f}")
    small, large = (found[n, False] for n in SIZES)
    bars.say("memory of an actor, larger to smaller set", large["mib"] / small["mib"], MEMORY)
    bars.say("time for all videos to that of all rows at once", large["seconds"] / found[SIZES[1], True]["seconds"], 1)


def segments(folder: Path, bars: Bars) -> None:
    by_video = Artifact(SEGMENTS, folder / f"store-{SIZES[1]}" / SEGMENTS).by_video()
    some = np.random.default_rng(0).permutation(list(by_video))[:500].tolist()
    bars.say("segments of any one video, ms", timed(lambda v: by_video[v].score, some, 3) / 1000, ONE_MS)


def arrays(folder: Path, bars: Bars) -> None:
    for length in LENGTHS:
        place = folder / f"arrays-{length}"
        artifact, _ = make(place, 200, Scores(Video(array=80 * length)), ARRAYS)
        videos = [f"v_{i:010d}" for i in np.random.default_rng(0).permutation(200)]
        for video in videos:
            np.save(place / f"{video}.npy", artifact.array("cas", video))
        old, new = timed(plain(place, length), videos), timed(partial(artifact.array, "cas"), videos)
        bars.say(f"array of {length * 80:,} bytes, {new:.0f} us, to one .npy a video, {old:.0f} us", new / old, ARRAY)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--whole", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(actor(given.folder, given.one, given.whole)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder, bars = Path(temporary), Bars()
        for videos in SIZES:
            make(folder, videos, StandIn(Video(segments=200)), SEGMENTS)
        memory(folder, bars)
        segments(folder, bars)
        arrays(folder, bars)
        artifact, most = make(folder, SIZES[1], Scores(Video(array=4000)), ARRAYS)
        print(
            f"{SIZES[1]:,} videos of two arrays: {sum(p.is_file() for p in artifact.path.rglob('*'))} files at the end"
        )
        bars.say("files at most", most, OBJECTS)
    if bars.missed:
        raise SystemExit(f"{bars.missed} bar(s) missed")


if __name__ == "__main__":
    main()
