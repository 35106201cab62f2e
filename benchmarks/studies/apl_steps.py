"""What contrast adds to a training step of the pyramid detector, on one core.

Two videos of 576 rows with 2048 features, the published network (width 512, six levels), 80 frames of each video. A
step is what the training loop does: windows and targets, loss, gradient, clipping, optimiser. CPU time, one thread.
"""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import torch

from benchmarks.common.timing_engine import cpu
from tad.data.dataset import Dataset, FeatureGrid, Manifest
from tad.data.segments import Segments
from tad.methods.actionformer.detector import TrainStage
from tad.methods.apl.actionformer_training import AplTask
from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_pyramid import ContrastiveTrain, pretraining
from tad.methods.apl.options import AplTraining
from tad.prepare.write import write_dataset
from tad.stages import Artifact, Context, FitStage, one_worker

ROWS, DIM, CLASSES, ACTIONS = 576, 2048, 20, 15
REPEATS = 3
BAR = 1.3
"""Times the plain step that a step with contrast may take."""


def steps(folder: Path) -> dict[str, float]:
    """Median CPU seconds of a step of each kind; the kinds take turns. `folder` is for the invented data."""
    torch.set_num_threads(1)
    data, labels = invented(folder)
    network = AplTraining(width=512, levels=6, upsample=1, max_length=ROWS)
    contrasted = network.model_copy(update={"contrast_weight": 0.1})
    stages: dict[str, tuple[FitStage, dict[str, Artifact]]] = {
        "detector": (TrainStage(network, task=AplTask), {"labels": labels}),
        "pre-training": (ContrastiveTrain(pretraining(ContrastiveConfig(), network)), {}),
        "detector with contrast": (TrainStage(contrasted, task=AplTask), {"labels": labels}),
    }
    runs = {
        name: Step(stage, Context(data, inputs, data.videos("train"), 0)) for name, (stage, inputs) in stages.items()
    }
    for run in runs.values():
        run(0)
    taken = {name: [cpu(lambda run=run, n=n: run(n))[0] for n in range(1, REPEATS + 1)] for name, run in runs.items()}
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


class Step:
    """Training steps of one stage."""

    def __init__(self, stage: FitStage, context: Context) -> None:
        torch.manual_seed(0)
        self.task = stage.open(context)
        self.clip = self.task.budget.clip_norm
        self.optimiser, _ = self.task.optimiser(self.task.module, 100)
        self.task.module.train()

    def __call__(self, number: int) -> None:
        items = [self.task.item(i, np.random.default_rng([number, i])) for i in range(2)]
        loss = self.task.loss(self.task.module, self.task.collate(items), one_worker)["loss"]
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.task.module.parameters(), self.clip or 1.0)
        self.optimiser.step()


def invented(folder: Path) -> tuple[Dataset, Artifact]:
    """Two videos of random features, and random actions in them."""
    rng = np.random.default_rng(0)
    classes, grid = [f"class{i}" for i in range(CLASSES)], FeatureGrid(dim=DIM)
    seconds = ROWS * grid.stride / grid.fps
    videos = {f"v{i}": {"subset": "train", "duration": seconds, "fps": grid.fps, "annotations": []} for i in range(2)}
    (folder / "features").mkdir(parents=True)
    manifest = Manifest(name="steps", classes=classes, subsets={"train": "train"}, grid=grid)
    write_dataset(folder, manifest, videos, {})
    tables = []
    for video in videos:
        np.save(folder / "features" / f"{video}.npy", rng.normal(size=(ROWS, DIM)).astype(np.float16))
        start = np.sort(rng.uniform(0, seconds - 30, ACTIONS))
        names = [classes[i] for i in rng.integers(CLASSES, size=ACTIONS)]
        tables.append(Segments.of(video, start, start + rng.uniform(2, 30, ACTIONS), names, 1.0))
    Segments.concat(tables).to_parquet(folder / "segments.parquet")
    return Dataset.open(folder), Artifact("labels", folder)
