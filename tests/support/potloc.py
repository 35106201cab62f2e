"""A small detector `potloc`, opened for training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.potloc.options import PotlocTraining
from tad.methods.potloc.training import PotlocTask, PotlocTrain
from tad.stages import Batch, Context
from tests.support.plain import as_artifact

SMALL = {"width": 16, "heads": 2, "window": 5, "drop_path": 0.0, "upsample": 1, "prior": 0.01}
"""Without what draws by worker; a row for each snippet."""


def windows_around_points(data: Dataset, half: float = 1.5) -> Segments:
    """Pseudo-labels without a look at boundaries."""
    parts = []
    for video in data.videos("train"):
        points = data.points(video)
        start, end = np.maximum(points.time - half, 0), np.minimum(points.time + half, data.duration(video))
        parts.append(Segments.of(video, start, end, [data.classes[c] for c in points.label], 0.5, points.time))
    return Segments.concat(parts)


def context(data: Dataset, labels: Segments, folder: Path) -> Context:
    return Context(data, {"labels": as_artifact(labels, folder)}, data.videos("train"), 0)


def opened(data: Dataset, labels: Segments, folder: Path, **options: object) -> PotlocTask:
    torch.manual_seed(0)
    return PotlocTrain(PotlocTraining(**(SMALL | options))).open(context(data, labels, folder))


def batch_of(task: PotlocTask, videos: list[int]) -> Batch:
    return task.collate([task.item(i, np.random.default_rng([5, i])) for i in videos])
