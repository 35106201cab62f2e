"""A small detector `bmn` on plain data, opened for training, and made-up scores of a proposer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.bmn.options import BmnTraining
from tad.methods.bmn.training import BmnTask
from tad.stages import Artifact, Batch, Context
from tests.support.plain import inputs_of

SMALL = {"fit": "windows", "length": 32, "durations": 32, "upsample": 1, "width": 16, "samples": 8}


def task(data: Dataset, labels: Segments, folder: Path, ignored: Segments | None = None, **options: object) -> BmnTask:
    context = Context(data, inputs_of(labels, ignored, folder), data.videos("train"), seed=0)
    torch.manual_seed(0)
    return BmnTask(BmnTraining(**(SMALL | options)), context)


def batch_of(opened: BmnTask, items: list[int]) -> Batch:
    return opened.collate([opened.item(i, np.random.default_rng([7, i])) for i in items])


def curves_of(data: Dataset, artifact: Artifact, level: float) -> None:
    """Class scores of snippets that are the same everywhere, beside the video scores."""
    (artifact.path / "cas").mkdir(exist_ok=True)
    for name in data.videos("train"):
        rows = len(data.features(name))
        np.save(artifact.path / "cas" / f"{name}.npy", np.full((rows, len(data.classes)), level, dtype=np.float32))


def scores_of(data: Dataset, folder: Path, video: np.ndarray | dict[str, np.ndarray]) -> Artifact:
    (folder / "video").mkdir(parents=True, exist_ok=True)
    for name in data.videos_by_id:
        value = video[name] if isinstance(video, dict) else video
        np.save(folder / "video" / f"{name}.npy", np.asarray(value, dtype=np.float32))
    artifact = Artifact("scores", folder)
    curves_of(data, artifact, 1.0)
    return artifact
