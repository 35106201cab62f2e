"""A tiny dataset and an engine for tests that need a real one."""

from __future__ import annotations

from pathlib import Path

from distributed.engine.engine import Engine, Resources
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.stages import Artifact

RECIPE = str(Path(__file__).with_name("tiny.yaml"))
"""A recipe that takes seconds."""


def TinyEngine(data: Dataset, seed: int, folder: Path, resources: Resources | None = None) -> Engine:
    """The real engine, in this process, with its store and record under `folder`."""
    return Engine(data, Store(folder / "store"), Record(folder / "run"), seed, resources or Resources())


def tiny_dataset(
    folder: Path, videos: int = 8, classes: int = 3, dim: int = 16, seed: int = 0, **more: object
) -> Dataset:
    """An invented dataset with features: `videos` for training, half as many for testing."""
    from tad.prepare.synth import make_dataset

    make_dataset(folder, videos=videos, classes=classes, dim=dim, seed=seed, **more)
    return Dataset.open(folder)


def adopted(engine: Engine, rows: list[tuple[str, float, float, str, float]]) -> Artifact:
    """Proposals from rows (video, start, end, label, score), in the engine's store."""
    videos, starts, ends, labels, scores = zip(*rows, strict=True)
    return engine.adopt(Segments.of(videos, starts, ends, labels, scores), "proposals")
