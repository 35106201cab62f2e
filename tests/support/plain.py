"""A dataset whose classes are plain to see in the features, and the opened training stage on it."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import torch
import yaml

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.actionformer.detector import TrainStage
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.training import DetectorTask
from tad.stages import Artifact, Batch, Context

SMALL = {"width": 32, "window": 9, "upsample": 1, "drop_path": 0.0, "input_dropout": 0.0}


def invent(folder: Path, videos: int = 6, seed: int = 0) -> tuple[Dataset, Segments]:
    """Videos with one to three segments of two classes, each class a direction of its own in 8 channels."""
    rng = np.random.default_rng(seed)
    (folder / "features").mkdir(parents=True)
    grid = {"fps": 25, "stride": 16, "window": 16, "dim": 8, "dtype": "float16"}
    names, database, truth = ["jump", "throw"], {}, []
    for index in range(videos):
        rows, at = int(rng.integers(50, 90)), 3.0
        features = rng.normal(0, 0.2, (rows, 8))
        for _ in range(int(rng.integers(1, 4))):
            start = at + rng.uniform(1, 6)
            at = start + rng.uniform(4, 20)
            if at > rows - 2:
                break
            label = int(rng.integers(2))
            cover = np.clip(np.minimum(np.arange(1, rows + 1), at) - np.maximum(np.arange(rows), start), 0, 1)
            features[:, label] += 2 * cover
            truth.append((f"v{index}", start * 0.64, at * 0.64, names[label]))
        database[f"v{index}"] = {"subset": "train", "duration": rows * 0.64, "fps": 25, "annotations": []}
        np.save(folder / "features" / f"v{index}.npy", features.astype(np.float16))
    manifest = {"name": "plain", "classes": names, "subsets": {"train": "train"}, "grid": grid}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    video, start, end, label = zip(*truth, strict=True)
    return Dataset.open(folder), Segments.of(video, start, end, label, score=rng.uniform(0.2, 0.9, len(truth)))


def as_artifact(labels: Segments, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    labels.to_parquet(folder / "segments.parquet")
    return Artifact(folder.name, folder)


def inputs_of(labels: Segments, ignored: Segments | None, folder: Path) -> dict[str, Artifact]:
    """What a training stage reads: pseudo-labels, and stretches that teach nothing."""
    found = {"labels": labels} | ({"ignored": ignored} if ignored is not None else {})
    return {name: as_artifact(rows, folder / name) for name, rows in found.items()}


def task(
    data: Dataset, labels: Segments, folder: Path, ignored: Segments | None = None, **options: object
) -> DetectorTask:
    context = Context(data, inputs_of(labels, ignored, folder), data.videos("train"), seed=0)
    torch.manual_seed(0)
    return TrainStage(Training(**(SMALL | options))).open(context)


def batch_of(opened: DetectorTask, videos: list[int]) -> Batch:
    return opened.collate([opened.item(i, np.random.default_rng([7, i])) for i in videos])


def label_fully(data: Dataset, truth: Segments, videos: tuple[str, ...]) -> Dataset:
    """The dataset with all boundaries of some videos given."""
    with (data.root / "full_labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "label", "start", "end"])
        for row in zip(truth.video_ids, truth.labels, truth.start, truth.end, strict=True):
            if row[0] in videos:
                writer.writerow(row)
    return Dataset.open(data.root)
