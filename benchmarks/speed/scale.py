"""A map over 20,000 and over 500,000 invented video rows through Ray Data: `python -m benchmarks.speed.scale
[--model]`.

Scenario: a stage whose model costs nothing (scale_map.StandIn), with 20 segments a video and the chunks that the engine
chooses, by one and by two actors; what is measured is thus all that is not the model. Each row runs in a process of its
own. The reference is the same map without Ray, over the 20,000. About six minutes on two free cores.

Bars: the driver's memory grows during the map of 500,000 at most GROWTH MiB more than during that of 20,000, and the
object store at most STORE MiB more; a video of the larger map takes at most COST times the reference's CPU seconds, all
of Ray counted.

--model also measures the points that the model of docs/scale.md is fitted to (scale_model), ten more minutes.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from benchmarks.speed.scale_map import Video, measured, rows
from distributed.cluster.connect import cluster
from distributed.engine.chunks import chunk_size
from distributed.engine.engine import Resources

SIZES = (20_000, 500_000)
GROWTH, STORE, COST = 100.0, 50.0, 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", action="store_true", help="measure the model's points and fit it")
    parser.add_argument("--points", type=Path, help="keeps the measured points; those that are there are not repeated")
    parser.add_argument("--folder", type=Path, help="for the rows and the parts, about 2 GB; default: a temporary one")
    parser.add_argument("--one", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.folder, *given.one)))
        return
    folder = given.folder or Path(tempfile.mkdtemp())
    try:
        missed = sizes(folder)
        if given.model:
            from benchmarks.speed import scale_model

            points = given.points or folder / "points.jsonl"
            scale_model.measure(points, rows(folder / f"rows-{SIZES[0]}", SIZES[0]), folder)
            scale_model.show(points)
    finally:
        if given.folder is None:
            shutil.rmtree(folder)
    if missed:
        raise SystemExit(f"{missed} bar(s) missed")


def one(folder: Path, videos: int, actors: int) -> dict[str, Any]:
    """One row of the table; in a process of its own, so that its memory is its own."""
    data = rows(folder / f"rows-{videos}", videos)
    with cluster(1, None) if actors else nullcontext(Resources()) as resources:
        resources.start()
        return measured(data, videos, chunk_size(videos), actors, Video(), folder / f"map-{videos}-{actors}")


def sizes(folder: Path) -> int:
    """Prints the table of all sizes; returns how many bars were missed."""
    print(
        f"{'videos':>8}{'actors':>7}{'chunk':>6}{'tasks':>7}{'wall s':>8}{'videos/s':>10}{'collect s':>10}"
        f"{'driver MiB':>11}{'growth':>7}{'store MiB':>10}{'driver ms/task':>15}{'bytes/video':>12}{'load':>6}"
    )
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for videos, actors in [(SIZES[0], 0), *((n, a) for n in SIZES for a in (1, 2))]:
        rows(folder / f"rows-{videos}", videos)  # written here, not where memory is measured
        command = [
            sys.executable,
            "-m",
            "benchmarks.speed.scale",
            "--folder",
            str(folder),
            "--one",
            str(videos),
            str(actors),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found[videos, actors] = r = json.loads(done.stdout.splitlines()[-1])
        print(
            f"{videos:>8}{actors or 'no Ray':>7}{r['chunk']:>6}{r['chunks']:>7}{r['wall']:>8.1f}"
            f"{videos / r['wall']:>10.0f}{r['collect']:>10.1f}{r['rss_peak']:>11.0f}{growth(r):>7.0f}"
            f"{r['store_peak']:>10.1f}{1e3 * r['driver_cpu'] / r['chunks']:>15.1f}{r['written']:>12.0f}"
            f"{r['load']:>6.1f}",
            flush=True,
        )
    missed = 0
    for actors in (1, 2):
        small, large = (found[n, actors] for n in SIZES)
        grown, stored = growth(large) - growth(small), large["store_peak"] - small["store_peak"]
        cost = cpu(large) / cpu(found[SIZES[0], 0])
        bars = {
            "the driver grows by": (grown, "MiB more", grown <= GROWTH),
            "the object store holds": (stored, "MiB more", stored <= STORE),
            "a video takes": (cost, "times the reference's CPU", cost <= COST),
        }
        print(f"{SIZES[1]:,} beside {SIZES[0]:,} videos, {actors} actor{'s' if actors > 1 else ''}:")
        for name, (value, what, kept) in bars.items():
            missed += not kept
            print(f"  {name} {value:.2f} {what}{'' if kept else '  MISSES THE BAR'}")
    return missed


def growth(r: dict[str, Any]) -> float:
    """MiB by which the driver grew during the map."""
    return float(r["rss_peak"] - r["rss_before"])


def cpu(r: dict[str, Any]) -> float:
    """CPU seconds a video, of all processes."""
    return float(r["driver_cpu"] + r["actors_cpu"] + r["ray_cpu"]) / r["videos"]


if __name__ == "__main__":
    main()
