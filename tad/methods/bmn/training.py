"""Training of the detector `bmn`: items, losses and optimiser.

Source: BMN (ICCV 2019) section 3.4 and its public re-implementations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.errors import ConfigError
from tad.methods.bmn.losses import LOW, boundary_loss, class_loss, regression_loss
from tad.methods.bmn.model import Bmn, BmnOutputs
from tad.methods.bmn.options import BmnTraining, shape
from tad.methods.bmn.sampling import valid_cells
from tad.methods.bmn.targets import (
    Window,
    boundary_targets,
    held,
    positives,
    proposal_targets,
    read_window,
    window_of,
    windows_of,
)
from tad.methods.common.windows import expected_length, read_ignored, read_labels, teaching
from tad.stages import Batch, Budget, Context, Total


class View(NamedTuple):
    """A window of a video, and what is known of it."""

    features: np.ndarray
    """[snippets, C] of the whole video."""
    window: Window
    spans: np.ndarray
    """[N, 2] edges of all pseudo-labels of the video."""
    zones: np.ndarray
    """[M, 2] edges of its ignored zones."""


@dataclass(frozen=True)
class Item:
    """A window of one video with its targets."""

    features: np.ndarray
    """[T, C] float32."""
    bins: int
    start: np.ndarray
    """[T] float32."""
    end: np.ndarray
    """[T] float32."""
    tiou: np.ndarray
    """[K] float32, of every cell."""
    positive: np.ndarray
    """[K] bool."""
    bins_known: np.ndarray
    """[T] bool: inside the video, and no boundary of an ignored zone is near."""
    cells_known: np.ndarray
    """[K] bool: inside the video, and not about an ignored zone."""
    draw: np.ndarray
    """[K] float32 random numbers."""


class BmnTask:
    """The opened training stage: windows with pseudo-labels in them; videos that are all background give all theirs.

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: `durations` exceeds the derived length.
    """

    network: ClassVar[type[Bmn]] = Bmn

    def __init__(self, config: BmnTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.budget = Budget(config.epochs, config.batch_size, config.ema_decay, config.clip_norm)
        self.labels, self.ignored = read_labels(context), read_ignored(context)
        self.settings = self.resolve()
        length = self.settings["length"]
        self.cells = valid_cells(length, self.settings["durations"])
        self.places = torch.from_numpy(self.cells.duration * length + self.cells.start)
        self.items = [(v, i) for v in teaching(context, self.labels) for i in self._teaching(v)]
        self.weights = {"regression": config.regression_weight}
        """Of terms; the others weigh 1."""
        self.module = self.network.of(self.settings)

    def __len__(self) -> int:
        return len(self.items)

    def view(self, index: int) -> View:
        """The window of an item."""
        video_id, number = self.items[index]
        features = self.data.features(video_id)
        window = window_of(len(features), number, self.settings)
        zones = self.ignored.get(video_id, np.zeros((0, 2)))
        return View(features, window, window.to_bins(self.labels[video_id].spans), window.to_bins(zones))

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A window of a video, always the same but for the random numbers."""
        features, window, spans, zones = self.view(index)
        length, bins = self.settings["length"], window.bins
        spans, _ = held(spans, bins, self.config.coverage)
        overlap = proposal_targets(self.cells, spans)
        near = np.maximum(*(boundary_targets(zones[:, side], length) for side in (0, 1))) > 0.5
        about = proposal_targets(self.cells, zones) > np.maximum(LOW, overlap)
        ends = self.cells.start + self.cells.duration
        return Item(
            read_window(features, window, length),
            bins,
            boundary_targets(spans[:, 0], length),
            boundary_targets(spans[:, 1], length),
            overlap,
            positives(self.cells, spans, overlap, self.config.positive, self.config.best_positive),
            (np.arange(length) < bins) & ~near,
            (ends < bins) & ~about,
            rng.random(len(self.cells.start), dtype=np.float32),
        )

    def collate(self, items: Sequence[Item]) -> Batch:
        """The fields of the items stacked; `mask` [B, T] is true inside the videos."""
        names = [field.name for field in fields(Item) if field.name != "bins"]
        stacked = {name: torch.from_numpy(np.stack([getattr(item, name) for item in items])) for name in names}
        bins = np.array([item.bins for item in items])[:, None]
        return stacked | {"mask": torch.from_numpy(np.arange(self.settings["length"]) < bins)}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Boundaries and maps, weighted."""
        outputs: BmnOutputs = module(batch["features"], batch["mask"])
        return self.summed(self.terms(outputs, batch, batch["bins_known"], batch["cells_known"], total))

    def terms(self, outputs: BmnOutputs, batch: Batch, bins: Tensor, cells: Tensor, total: Total) -> dict[str, Tensor]:
        """The loss of each output over the bins [B, T] and the cells [B, K] that are known."""
        maps = self.of_cells(outputs)
        return {
            "start": boundary_loss(outputs.start, batch["start"], bins, total),
            "end": boundary_loss(outputs.end, batch["end"], bins, total),
            "regression": regression_loss(maps[:, 1], batch["tiou"], cells, batch["draw"], total),
            "classification": class_loss(maps[:, 0], batch["positive"], cells, total),
        }

    def of_cells(self, outputs: BmnOutputs) -> Tensor:
        """[B, M, K] the maps at the cells."""
        self.places = self.places.to(outputs.maps.device)
        return outputs.maps.flatten(2).index_select(2, self.places)

    def summed(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The terms and, as "loss", their weighted sum."""
        weighted = (self.weights.get(name, 1.0) * term for name, term in terms.items())
        return {"loss": sum(weighted, torch.zeros(()).to(terms["start"]))} | terms

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Adam, with one fall of the rate."""
        base = {id(p) for p in module.base.parameters()}  # type: ignore[union-attr]
        decay = self.config.weight_decay
        groups = [
            {"params": [p for p in module.parameters() if (id(p) in base) == first], "weight_decay": amount}
            for first, amount in ((True, 10 * decay), (False, decay))
        ]
        return falling(groups, self.config.lr, self.config.decay_at, steps)

    def _teaching(self, video_id: str) -> list[int]:
        """The windows of a video that hold a pseudo-label; all of a video without any."""
        spans = self.labels[video_id].spans
        found = windows_of(expected_length(self.data, video_id), self.settings)
        return [
            i
            for i, window in enumerate(found)
            if not len(spans) or len(held(window.to_bins(spans), window.bins, self.config.coverage)[1])
        ]

    def resolve(self) -> dict[str, Any]:
        """The options of the network and its windows, with the null ones derived from the data."""
        config, data = self.config, self.data
        sizes = {video: labels.spans[:, 1] - labels.spans[:, 0] for video, labels in self.labels.items()}
        common = shape(config, data, sizes)
        length, resized = common["length"], common["fit"] == "resize"
        durations = config.durations or (length if resized else length // 2)
        if durations > length:
            raise ConfigError(f"bmn: durations {durations} exceed the derived length {length}; lower it, or set length")
        return {
            "dim": common["dim"],
            "classes": list(data.classes),
            "fit": common["fit"],
            "length": length,
            "durations": durations,
            "upsample": common["upsample"],
            "width": common["width"],
            "samples": config.samples,
            "published_edges": config.published_edges,
            "median_label": round(float(np.median(np.concatenate(list(sizes.values())))), 1),
        }


def falling(groups: list[dict[str, Any]], lr: float, at: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Adam, whose rate falls to a tenth after the share `at` of all steps."""
    optimiser = torch.optim.Adam(groups, lr=lr, fused=True)
    fall = math.ceil(at * steps)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 if step < fall else 0.1)


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels" and, where it is, "ignored"."""

    config: BmnTraining
    name: str = "bmn/train"
    detects: ClassVar[bool] = True
    version: int = 1
    task: type[BmnTask] = BmnTask

    def open(self, context: Context) -> BmnTask:
        return self.task(self.config, context)
