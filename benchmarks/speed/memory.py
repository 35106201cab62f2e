"""Peak memory of mapping a stage over 200 and over 2,000 videos: `python -m benchmarks.speed.memory [--ray]`.

Scenario: the snippet model's scores and proposals of short invented videos. Minimum: the same memory for both.
Bar: the larger set takes at most 1.15 times the memory of the smaller one, in the driver and in the largest worker.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

SIZES = (200, 2000)
BAR = 1.15


def measure(videos: int, ray: bool) -> tuple[float, float, float]:
    """Peak MiB of the driver and of its largest child process, and seconds; in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "benchmarks.speed.memory", "--videos", str(videos), "--folder", folder]
        process = psutil.Popen(
            command + (["--ray"] if ray else []), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        driver = worker = 0.0
        start = time.perf_counter()
        while process.poll() is None:
            try:
                driver = max(driver, process.memory_info().rss / 2**20)
                for child in process.children(recursive=True):
                    if "MapWorker" in " ".join(child.cmdline()) or "ChunkActor" in " ".join(child.cmdline()):
                        worker = max(worker, child.memory_info().rss / 2**20)
            except psutil.NoSuchProcess:
                pass
            time.sleep(0.1)
        if process.returncode != 0:
            raise SystemExit(f"the run over {videos} videos failed")
        return driver, worker, time.perf_counter() - start


def run(videos: int, folder: Path, ray: bool) -> None:
    """What is measured: score and propose over all training videos."""
    from contextlib import nullcontext

    from distributed.cluster.connect import cluster
    from distributed.engine import mapping
    from distributed.engine.engine import Engine, Resources
    from distributed.engine.record import Record
    from distributed.engine.store import Store
    from tad.methods.snippet.proposer import SnippetProposer
    from tad.methods.snippet.training import TrainingConfig
    from tad.prepare.synth import make_dataset
    from tad.recipe.recipe import Recipe
    from tad.recipe.rounds import Rounds

    data = make_dataset(folder / "data", videos=videos, classes=3, dim=32, test=1)
    mapping.START = 0  # every map by Ray
    with cluster(1, None) if ray else nullcontext(Resources()) as resources:
        engine = Engine(data, Store(folder / "store"), Record(folder / "run"), resources=resources)
        proposer = SnippetProposer(training=TrainingConfig(epochs=1))
        Rounds(Recipe(proposer=proposer), engine).detections(0, "train")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ray", action="store_true", help="map with Ray Data instead of one process")
    parser.add_argument("--videos", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.videos:
        run(options.videos, options.folder, options.ray)
        return
    rows = [(n, *measure(n, options.ray)) for n in SIZES]
    print(f"{'videos':>7} {'driver MiB':>11} {'largest actor MiB':>18} {'seconds':>8}")
    for n, driver, worker, seconds in rows:
        print(f"{n:>7} {driver:>11.0f} {worker:>18.0f} {seconds:>8.1f}")
    for name, column in (("driver", 1), ("largest actor", 2)):
        small, large = rows[0][column], rows[1][column]
        if small:
            ratio = large / small
            print(f"{name}: x{ratio:.2f} (bar x{BAR}; {'met' if ratio <= BAR else 'MISSED'})")


if __name__ == "__main__":
    main()
