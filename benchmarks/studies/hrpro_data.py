"""A synthetic dataset of THUMOS14's size and spread for `benchmarks.studies.hrpro`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from tad.data.dataset import Dataset, FeatureGrid, Manifest
from tad.data.labels import POINTS
from tad.prepare.synth import write_features
from tad.prepare.write import write_dataset

VIDEOS, CLASSES, DIM = {"train": 200, "test": 210}, 20, 256
DURATION = (150.0, 0.85, 8.0, 1400.0)
"""Seconds: median and log-spread of a log-normal, then its limits; its quantiles, not draws."""
LENGTH = (2.9, 0.79, 0.3, 30.0)
"""The same of an instance."""
GAP = (0.25, 5.8, 1.2, 200.0)
"""Share of instances that follow at once, then median, log-spread and limit of the other gaps."""
SECOND_CLASS = 0.15


def thumos_sized(
    folder: Path, *, dim: int = DIM, stride: int = 16, videos: Mapping[str, int] = VIDEOS, features: bool = True
) -> Dataset:
    """Writes the dataset into a new folder (140 MB, some seconds, without further arguments).

    Args:
        folder: absent.
        dim: width of the features.
        stride: frames from row to row, of 25 a second.
        videos: how many of each subset.
        features: whether to write any.
    """
    database: dict[str, dict[str, Any]] = {}
    points: list[tuple[str, str, float]] = []
    names = [f"class-{i:02d}" for i in range(CLASSES)]
    for part, (subset, count) in enumerate(videos.items()):
        order = np.random.default_rng(part).permutation(count)
        for i in range(count):
            rng = np.random.default_rng([part, i])
            video = f"{subset}_{i:03d}"
            database[video] = entry = _video(subset, i, names, (order[i] + 0.5) / count, rng)
            if subset == "train":
                for row in entry["annotations"]:
                    start, end = row["segment"]
                    share = float(np.clip(0.47 + 0.035 * rng.standard_normal(), 0.1, 0.9))
                    points.append((video, row["label"], round(start + share * (end - start), 3)))
    grid = FeatureGrid(fps=25, stride=stride, window=16, dim=dim)
    manifest = Manifest(name="thumos-sized", classes=names, subsets={name: name for name in videos}, grid=grid)
    folder.mkdir(parents=True)
    write_dataset(folder, manifest, database, {POINTS: points})
    if features:
        write_features(folder)
    return Dataset.open(folder)


def _video(subset: str, number: int, names: list[str], quantile: float, rng: np.random.Generator) -> dict[str, Any]:
    duration = round(_log_normal(NormalDist().inv_cdf(quantile), *DURATION), 2)
    shown = [names[number % CLASSES]]
    if rng.random() < SECOND_CLASS:
        shown.append(names[(number + int(rng.integers(1, CLASSES))) % CLASSES])
    rows: list[dict[str, Any]] = []
    time = float(rng.uniform(0, min(5.0, duration / 4)))
    while True:
        end = time + _log_normal(rng.standard_normal(), *LENGTH)
        if end > duration - 0.2:
            if rows:
                break
            end = time + duration / 4
        label = shown[0] if not rows else str(rng.choice(shown))
        rows.append({"segment": [round(time, 2), round(end, 2)], "label": label})
        at_once, median, spread, most = GAP
        time = (
            end
            + 0.05
            + (0.0 if rng.random() < at_once else _log_normal(rng.standard_normal(), median, spread, 0.0, most))
        )
    return {"subset": subset, "duration": duration, "fps": 25.0, "annotations": rows}


def _log_normal(z: float, median: float, spread: float, least: float, most: float) -> float:
    return float(np.clip(median * np.exp(spread * z), least, most))
