"""One training stage with one and with two workers, and the data path that feeds it: `python -m
benchmarks.speed.workers`.

Scenario: PseR's heads on a synthetic dataset of THUMOS14's size (benchmarks.studies.hrpro_data; features of width 256),
by Ray Train workers of one CPU and one thread each. The reference is the same stage in this process. Bar: two workers
together spend at most CPU_BAR times the reference's CPU seconds an epoch; wall clock has no bar, as other work on the
machine decides it. The data path: batches of the snippet model and of PseR's heads with features of width 2048, read
and padded as in training, from disk and from memory, when they are needed (0 threads) or ahead, and an epoch of steps
that wait as they would for a GPU. Three minutes on two cores.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import argparse
import shutil
import statistics
import tempfile
import time
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.hrpro_data import thumos_sized
from distributed.cluster.connect import cluster
from distributed.engine import loop
from distributed.engine.store import Store
from distributed.engine.train import fit_here
from distributed.engine.workers import fit_on_workers
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.pser.heads import FitConfig
from tad.methods.pser.labeler import HeadsFit, PserLabeler
from tad.methods.snippet.training import SnippetTrain, TrainingConfig
from tad.prepare.synth import make_dataset
from tad.stages import Artifact, Context, FitStage, FitTask

EPOCHS, BATCH = 4, 8
CPU_BAR = 1.35
WAIT = 0.05
"""Seconds of a step that needs no CPU."""
WIDE = {"videos": 128, "classes": 20, "dim": 2048, "test": 0}


def heads(data: Dataset, folder: Path) -> tuple[FitStage, Context]:
    """PseR's heads with their defaults, on proposals around the points."""
    rng, found = np.random.default_rng(0), []
    for video in data.videos("train"):
        points = data.points(video)
        spans = points.time[:, None] + rng.uniform(1, 5, (len(points.time), 2)) * [-1, 1]
        spans = np.clip(spans, 0, data.duration(video))
        found.append(Segments.of(video, spans[:, 0], spans[:, 1], [data.classes[i] for i in points.label]))
    folder.mkdir()
    Segments.concat(found).to_parquet(folder / "segments.parquet")
    labeler = PserLabeler()
    resolved = labeler.heads.model_copy(update={"epochs": EPOCHS, "batch_size": BATCH})
    config = FitConfig(seed_rule=labeler.seed_rule, bag=labeler.bag, negatives=labeler.negatives, heads=resolved)
    context = Context(data, {"proposals": Artifact("proposals", folder)}, data.videos("train"), 0)
    return HeadsFit(config), context


def epochs(stage: FitStage, context: Context, folder: Path, workers: int) -> tuple[float, float, float]:
    """Median wall seconds of an epoch after the first, CPU seconds of an epoch over all workers, and the last loss.

    CPU seconds are those between the ends of the first and of the last epoch.
    """
    marks: list[tuple[float, float]] = []
    losses: list[float] = []
    seen: dict[int, float] = {}

    def used() -> float:
        if not workers:
            return time.process_time()
        for process in psutil.Process().children(recursive=True):
            try:
                if "RayTrainWorker" in " ".join(process.cmdline()):
                    times = process.cpu_times()
                    seen[process.pid] = times.user + times.system
            except psutil.Error:
                continue
        return sum(seen.values())

    def progress(epoch: int, epochs: int, metrics: dict[str, float]) -> None:
        marks.append((time.perf_counter(), used()))
        losses.append(metrics["loss"])

    partial = Store(folder).partial("0" * 24)
    if workers:
        fit_on_workers(stage, context, partial, progress, workers, 0.0)
    else:
        fit_here(stage, context, partial, progress)
    wall = statistics.median(b[0] - a[0] for a, b in pairwise(marks))
    return wall, (marks[-1][1] - marks[0][1]) / (len(marks) - 1), losses[-1]


def scaling(folder: Path) -> int:
    """Prints the table of epochs; returns how many bars were missed."""
    stage, context = heads(thumos_sized(folder / "thumos"), folder / "proposals")
    print(f"{stage.name}, {len(context.videos)} videos, batches of {BATCH}; load {os.getloadavg()[0]:.1f}")
    print(f"{'':<14}{'epoch, s':>10}{'CPU s':>8}{'efficiency':>12}{'CPU, ratio':>12}{'last loss':>11}{'load':>6}")
    rows = {0: epochs(stage, context, folder / "fit-0", 0)}
    with cluster(2, None) as resources:
        resources.start()
        for workers in (1, 2):
            rows[workers] = epochs(stage, context, folder / f"fit-{workers}", workers)
    for workers, (wall, cpu, loss) in rows.items():
        name = f"{workers} worker{'s' if workers > 1 else ''}" if workers else "in this process"
        efficiency = rows[1][0] / wall / max(1, workers)
        print(
            f"{name:<14}{wall:>10.2f}{cpu:>8.2f}{efficiency:>12.2f}{cpu / rows[0][1]:>12.2f}{loss:>11.5f}"
            f"{os.getloadavg()[0]:>6.1f}"
        )
    kept = rows[2][1] <= CPU_BAR * rows[0][1]
    print(
        f"CPU of two workers, ratio to the reference: {rows[2][1] / rows[0][1]:.2f}{'' if kept else '  MISSES THE BAR'}"
    )
    return not kept


def data_path(folder: Path) -> Dataset:
    """Prints how fast batches are made, and what a training step of them computes."""
    data = make_dataset(folder / "wide", **WIDE)  # type: ignore[arg-type]
    stages = [
        heads(data, folder / "wide-proposals"),
        (SnippetTrain(TrainingConfig(batch_size=16)), Context(data, {}, data.videos("train"), 0)),
    ]
    print(
        f"\nfeatures of width {WIDE['dim']}: {_mib(data):.0f} MiB in {WIDE['videos']} files; one thread, or read ahead"
    )
    heading = f"{'stage':<14}{'from':>8}{'threads':>9}{'snippets/s':>12}{'MB/s':>8}"
    print(heading + f"{'CPU us/snippet':>16}{'MFLOP/snippet':>15}{'load':>6}")
    for stage, context in stages:
        task = stage.open(context)
        flop = _flop(stage, context)
        for source, readers in product(("disk", "memory"), (0, 1, 2)):
            times = [_loaded(task, stage, data, source == "disk", readers) for _ in range(3)]
            snippets, wall, cpu = min(times, key=lambda t: t[1])
            rate = snippets / wall
            print(
                f"{stage.name:<14}{source:>8}{readers:>9}{rate:>12.0f}{rate * 4e-6 * WIDE['dim']:>8.0f}"
                f"{1e6 * cpu / snippets:>16.2f}{flop / 1e6:>15.1f}{os.getloadavg()[0]:>6.1f}"
            )
    return data


def fed(data: Dataset) -> None:
    """Prints how long an epoch takes whose steps leave the CPU alone, as a GPU's do: each waits WAIT seconds."""
    context = Context(data, {}, data.videos("train"), 0)
    stage = SnippetTrain(TrainingConfig(batch_size=16))
    task = stage.open(context)
    print(f"\n{stage.name}, steps of {WAIT} s that need no CPU; from memory")
    print(f"{'threads':>8}{'epoch, s':>10}{'of it steps':>13}{'load':>6}")
    for readers in (0, 1, 2, 4):
        wall, steps = min(_waiting(task, stage, readers) for _ in range(3))
        print(f"{readers:>8}{wall:>10.2f}{WAIT * steps / wall:>12.0%}{os.getloadavg()[0]:>7.1f}")


def _waiting(task: FitTask, stage: FitStage, readers: int) -> tuple[float, int]:
    """Wall seconds of an epoch, and its steps."""
    start, steps = time.perf_counter(), 0
    for _ in loop._loader(task, task.budget.batch_size, 0, stage.name, 1, loop.Worker(readers=readers)):
        time.sleep(WAIT)
        steps += 1
    return time.perf_counter() - start, steps


def _loaded(task: FitTask, stage: FitStage, data: Dataset, cold: bool, readers: int) -> tuple[int, float, float]:
    """Snippets of one epoch's batches, made by the training loop's own loader, and their wall and CPU seconds."""
    if cold:
        for video in data.videos("train"):
            file = os.open(data.feature_path(video), os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)
    start, cpu, snippets = time.perf_counter(), time.process_time(), 0
    worker = loop.Worker(readers=readers)
    for batch in loop._loader(task, task.budget.batch_size, 0, stage.name, 1, worker):
        snippets += int(batch["lengths"].sum() if "lengths" in batch else batch["mask"].sum())
    return snippets, time.perf_counter() - start, time.process_time() - cpu


def _flop(stage: FitStage, context: Context) -> float:
    """Floating-point operations of a training step for each snippet of its batch, as torch counts them."""
    task = stage.open(context)
    batch = next(loop._loader(task, task.budget.batch_size, 0, stage.name, 0, loop.Worker()))
    snippets = int(batch["lengths"].sum() if "lengths" in batch else batch["mask"].sum())
    with FlopCounterMode(display=False) as counter:
        task.loss(task.module.train(), batch, lambda value: value)["loss"].backward()
    return counter.get_total_flops() / snippets


def _mib(data: Dataset) -> float:
    return sum(data.feature_path(v).stat().st_size for v in data.videos("train")) / 2**20


def main() -> None:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    try:
        fed(data_path(folder))
        print()
        missed = scaling(folder)
    finally:
        shutil.rmtree(folder)
    if missed:
        raise SystemExit(f"{missed} bar(s) missed")


if __name__ == "__main__":
    main()
