"""Training on a GPU at published sizes: `python -m benchmarks.speed.gpu [steps] [parity] [pipeline]`.

Needs torch and what `tad` needs, neither Ray nor MLflow. Three networks on invented features that are 2,048 wide:
ActionFormer (windows of 2,304 rows, two a step), HR-Pro's stage 1 (16 videos a step) and BMN (16 windows a step).

steps: steps a second with float32, with TF32 products, with bfloat16 products, and compiled; with batches that are
read and made for each step, and with one that is there; the memory that they take at most; and which share of the time
the matrix units had work, by the operations of a step and by what a plain product of two large matrices reaches here.
The reference is float32 in the same run. parity: two epochs on the CPU and on the GPU from the same weights, without
dropout: losses, and what the networks say of a video. pipeline: `tad run pser` on a dataset of THUMOS14's size.

`--device cpu --tiny` runs the same code within seconds, on small networks.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.studies.hrpro_data import thumos_sized
from distributed.engine.loop import Worker, final_model, fit
from distributed.engine.precision import Precision
from distributed.engine.train import readers
from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.evaluation.ground_truth import segments_of
from tad.methods.actionformer.model import ActionFormer
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.training import DetectorTask
from tad.methods.bmn.model import Bmn
from tad.methods.bmn.options import BmnTraining
from tad.methods.bmn.training import BmnTask
from tad.methods.hrpro.model import HrproModel
from tad.methods.hrpro.proposer import HrproTask, HrproTraining
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Batch, Budget, Context, FitTask, Total

PARTS = ("steps", "parity", "pipeline")
CLOSE = 2e-3
"""Largest relative difference of a loss, and largest difference of a score, between the devices."""
WORK = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "bf16 compiled": torch.bfloat16}
"""The ways to compute, and the type of a plain product to compare with."""


class Size(NamedTuple):
    """How much there is of everything."""

    dim: int
    stride: int
    videos: int
    steps: int
    """Of an epoch."""
    matrix: int
    """Rows and columns of the plain product."""
    whole: dict[str, int]
    """Videos of the pipeline by subset."""
    sets: tuple[str, ...] = ()
    """Changes of its recipe."""


FULL = Size(2048, 4, 32, 24, 8192, {"train": 200, "test": 210})
TINY = Size(32, 32, 4, 2, 256, {"train": 4, "test": 2}, ("proposer.training.epochs=2", "detector.training.epochs=2"))


@dataclass(frozen=True)
class Case:
    """A network in training."""

    name: str
    task: Callable[[Context], FitTask]
    rebuilt: Callable[[dict[str, Any]], nn.Module]
    """The network, from a model's settings."""


def cases(tiny: bool, dropout: bool) -> list[Case]:
    """The three networks at their published sizes; without dropout two devices compute the same."""
    former: dict[str, Any] = {"width": 512, "levels": 6, "upsample": 1, "max_length": 2304}
    length, plain = {"length": 128, "width": 256}, {"input_dropout": 0.0, "drop_path": 0.0}
    if tiny:
        former = {"width": 32, "levels": 3, "upsample": 1, "max_length": 64}
        length = {"length": 32, "width": 32, "samples": 8}
    former |= {"epochs": 3, "lr": 1e-4} | ({} if dropout else plain)
    point: dict[str, Any] = {"epochs": 3} | ({} if dropout else {"dropout": 0.0, "block_dropout": 0.0})
    windows: dict[str, Any] = {"epochs": 3, "fit": "windows", "lr": 1e-3} | length
    return [
        Case("ActionFormer", lambda c: DetectorTask(Training(**former), c), ActionFormer.of),
        Case("HR-Pro, stage 1", lambda c: HrproTask(HrproTraining(**point), c), architecture(HrproModel)),
        Case("BMN", lambda c: BmnTask(BmnTraining(**windows), c), Bmn.of),
    ]


def architecture(model: Callable[..., nn.Module]) -> Callable[[dict[str, Any]], nn.Module]:
    return lambda settings: model(**settings["architecture"])


@dataclass
class Steps:
    """A fit stage and its task: another, with as many steps an epoch as are wanted, on the same few items."""

    case: Case
    steps: int
    epochs: int = 3
    made: bool = False
    """Whether one batch is made and used again and again."""
    compiled: bool = False

    @property
    def name(self) -> str:
        return self.case.name

    def open(self, context: Context) -> FitTask:
        self.task, self.batch = self.case.task(context), None
        self.module, self.settings = self.task.module, self.task.settings
        if self.compiled:
            self.module.compile(dynamic=True)
        self.budget: Budget = replace(self.task.budget, epochs=self.epochs)
        return self  # type: ignore[return-value]

    def __len__(self) -> int:
        return self.steps * self.budget.batch_size

    def item(self, index: int, rng: np.random.Generator) -> Any:
        if self.made and self.batch is not None:
            return None
        return self.task.item(index % len(self.task), rng)

    def collate(self, items: list[Any]) -> Batch:
        if not self.made:
            return self.task.collate(items)
        if self.batch is None:
            batch = self.task.collate(items)
            self.batch = {k: v.pin_memory() for k, v in batch.items()} if torch.cuda.is_available() else batch
        return self.batch

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        return self.task.loss(module, batch, total)

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        return self.task.optimiser(module, steps)


class Speed(NamedTuple):
    """Of training: steps a second in the epochs after the first, and the most memory, in bytes."""

    rate: float
    memory: int


def speed(steps: Steps, context: Context, device: torch.device, way: str) -> Speed:
    torch.set_float32_matmul_precision("high" if way == "tf32" else "highest")
    ends: list[float] = []
    precision: Precision = "bf16" if way.startswith("bf16") else "fp32"
    worker = Worker(device=device, precision=precision, readers=0 if steps.made else readers(device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    fit(steps, context, worker, None, lambda *_: ends.append(time.perf_counter()))  # type: ignore[arg-type]
    memory = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Speed(steps.steps * (len(ends) - 1) / (ends[-1] - ends[0]), memory)


def operations(case: Case, context: Context, device: torch.device) -> int:
    """Floating-point operations of a step's products, forward and backward."""
    one = Steps(case, 1)
    one.open(context)
    module, rng = one.module.to(device), np.random.default_rng(0)
    one.task.optimiser(module, 1)
    batch = one.collate([one.item(i, rng) for i in range(len(one))])
    with FlopCounterMode(display=False) as counter:
        one.loss(module.train(), {k: v.to(device) for k, v in batch.items()}, lambda x: x)["loss"].backward()
    return int(counter.get_total_flops())


def peak(size: int, device: torch.device, way: str) -> float:
    """Operations a second of a plain product of two square matrices."""
    torch.set_float32_matmul_precision("high" if way == "tf32" else "highest")
    a = torch.randn(size, size, device=device, dtype=WORK[way])
    times = []
    for _ in range(6):
        wait(device)
        start = time.perf_counter()
        for _ in range(5):
            torch.mm(a, a)
        wait(device)
        times.append((time.perf_counter() - start) / 5)
    return 2 * size**3 / min(times)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def steps_table(context: Context, device: torch.device, size: Size, tiny: bool, ways: list[str]) -> None:
    peaks = {way: peak(size.matrix, device, way) for way in ways}
    print("\nPlain product: " + ", ".join(f"{way} {p / 1e12:.2f} TFLOP/s" for way, p in peaks.items()))
    print("\n| network | way | steps/s | beside fp32 | batches there already | memory, GiB | of the plain product |")
    print("|---|---|---:|---:|---:|---:|---:|", flush=True)
    for case in cases(tiny, dropout=True):
        flops, first = operations(case, context, device), 0.0
        for way in ways:
            compiled = way.endswith("compiled")
            read = speed(Steps(case, size.steps, compiled=compiled), context, device, way)
            there = speed(Steps(case, size.steps, made=True, compiled=compiled), context, device, way)
            first = first or read.rate
            share = there.rate * flops / peaks[way]
            print(
                f"| {case.name} | {way} | {read.rate:.2f} | {read.rate / first:.2f} | {there.rate:.2f} | "
                f"{read.memory / 2**30:.1f} | {share:.1%} |",
                flush=True,
            )


def parity(context: Context, device: torch.device, tiny: bool) -> bool:
    """Whether both devices tell the same."""
    print("\n| network | losses of two epochs, CPU | on the device | largest difference of an output |")
    print("|---|---|---|---:|")
    good = True
    for case in cases(tiny, dropout=False):
        found = []
        for place in (torch.device("cpu"), device):
            torch.set_float32_matmul_precision("highest")
            state = fit(Steps(case, 1, epochs=2), context, Worker(device=place), None, lambda *_: None)  # type: ignore[arg-type]
            found.append(([epoch["loss"] for epoch in state["history"]], final_model(state)))
        (mine, model), (theirs, _) = found
        apart = outputs_apart(case, context, model, device)
        good = good and np.allclose(mine, theirs, rtol=CLOSE) and apart < CLOSE
        texts = [" ".join(f"{loss:.5f}" for loss in losses) for losses in (mine, theirs)]
        print(f"| {case.name} | {texts[0]} | {texts[1]} | {apart:.1e} |", flush=True)
    return good


def outputs_apart(case: Case, context: Context, model: dict[str, Any], device: torch.device) -> float:
    """The largest difference between what the same weights say of a video here and there."""
    task, rng = case.task(context), np.random.default_rng(0)
    batch = task.collate([task.item(0, rng)])
    names = [name for name in ("features", "video", "mask") if name in batch]
    said = []
    for place in (torch.device("cpu"), device):
        network = case.rebuilt(model["settings"])
        network.load_state_dict(model["state"])
        with torch.no_grad():
            outputs = network.to(place).eval()(*(batch[name].to(place) for name in names))
        said.append([part.float().cpu() for part in outputs if isinstance(part, Tensor)])
    return max(float((a - b).abs().max()) for a, b in zip(*said, strict=True))


def pipeline(folder: Path, device: torch.device, size: Size, precision: Precision) -> None:
    start = time.perf_counter()
    data = thumos_sized(folder / "whole", dim=size.dim, videos=size.whole)
    print(f"\ndataset of {sum(size.whole.values())} videos in {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    options = Options(folder / "run", folder / "store", local=True, precision=precision)
    with only(device):
        self_train("pser", load_recipe("pser", size.sets), data, options)
    print(f"`tad run pser --local --precision {precision}`: {time.perf_counter() - start:.0f} s", flush=True)


@contextmanager
def only(device: torch.device) -> Iterator[None]:
    """Within, there is no other device."""
    with patch("torch.cuda.is_available", return_value=device.type == "cuda"):
        yield


def random_features(data: Dataset, folder: Path) -> Dataset:
    """Numbers without meaning for all videos: quickly written, as quickly read as others."""
    (folder / "features").mkdir()
    rng, grid = np.random.default_rng(0), data.manifest.grid
    for video in data.videos_by_id.values():
        rows = grid.expected_length(video.duration, video.fps)
        features = rng.standard_normal((rows, grid.dim), dtype=np.float32)
        np.save(folder / "features" / f"{video.id}.npy", features.astype(grid.dtype))
    return Dataset.open(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} [all]")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    parser.add_argument("--tiny", action="store_true", help="small networks, few steps")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled network")
    options = parser.parse_args()
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    parts, device = options.parts or PARTS, torch.device(options.device)
    size = TINY if options.tiny else FULL
    ways = list(WORK)[: -1 if options.no_compile else None]
    what = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"torch {torch.__version__}, {what}", flush=True)
    with tempfile.TemporaryDirectory(prefix="tad-gpu-") as name:
        folder, start = Path(name), time.perf_counter()
        videos = {"train": size.videos, "test": 1}
        data = thumos_sized(folder / "data", dim=size.dim, stride=size.stride, videos=videos, features=False)
        data = random_features(data, folder / "data")
        (folder / "labels").mkdir()
        ids = data.videos("train")
        segments_of(data, ids).grouped().to_parquet(folder / "labels" / "segments.parquet")
        context = Context(data, {"labels": Artifact("labels", folder / "labels")}, ids, 0)
        print(f"{len(ids)} videos in {time.perf_counter() - start:.0f} s", flush=True)
        good = parity(context, device, options.tiny) if "parity" in parts else True
        if "steps" in parts:
            steps_table(context, device, size, options.tiny, ways)
        if "pipeline" in parts:
            pipeline(folder, device, size, "bf16" if device.type == "cuda" else "fp32")
    if not good:
        sys.exit("the devices differ")


if __name__ == "__main__":
    main()
