"""An engine for benchmarks: runs stages in this process and notes their CPU time, without store or record."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distributed.engine.loop import Worker, final_model, fit
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.stages import Artifact, Context, FitStage, Inputs, MapStage


class Direct:
    """An engine in this process that notes the CPU seconds of every stage: of a fit, those of its last epoch."""

    def __init__(self, data: Dataset, folder: Path, every: int = 1) -> None:
        self.data, self.seed, self.folder, self.every = data, 0, folder, every
        self.seconds: dict[str, float] = {}
        self.made = 0

    def fit(self, stage: FitStage, inputs: Inputs = None, number: int = 0) -> Artifact:
        marks: list[float] = []
        context = Context(self.data, inputs or {}, self.data.videos("train"), self.seed)
        state = fit(stage, context, Worker(), None, lambda *_: marks.append(time.process_time()))
        self.seconds[stage.name] = marks[-1] - marks[-2]
        artifact = self._artifact(stage.name)
        torch.save(final_model(state), artifact.path / "model.pt")
        return artifact

    def map(self, stage: MapStage, inputs: Inputs = None, role: Role = "train", number: int = 0) -> Artifact:
        videos = self.data.videos(role)[:: self.every]
        context = Context(self.data, inputs or {}, videos, self.seed)
        stage.open(context)(videos[0])  # compilation, caches

        def run() -> list[Any]:
            function = stage.open(context)
            return [function(video) for video in videos]

        self.seconds[stage.name], results = cpu(run)
        artifact = self._artifact(stage.name)
        if stage.output == "segments":
            Segments.concat(results).to_parquet(artifact.path / "segments.parquet")
            return artifact
        for video, arrays in zip(videos, results, strict=True):
            for key, array in arrays.items():
                (artifact.path / key).mkdir(exist_ok=True)
                np.save(artifact.path / key / f"{video}.npy", array)
        return artifact

    def _artifact(self, name: str) -> Artifact:
        self.made += 1
        path = self.folder / f"{self.made:02d}-{name.replace('/', '-')}"
        path.mkdir(parents=True)
        return Artifact(path.name, path)


def cpu(call: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and its result."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result
