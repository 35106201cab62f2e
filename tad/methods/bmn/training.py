"""Training of the detector `bmn`: items, losses and optimiser.

Source: BMN (ICCV 2019) section 3.4 and its public re-implementations. The contrast is APL's (ECCV 2024).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.errors import ConfigError
from tad.methods.bmn.losses import LOW, boundary_loss, class_loss, distance_loss, regression_loss, soft_class_loss
from tad.methods.bmn.model import Bmn, BmnOutputs
from tad.methods.bmn.options import BASE, BmnTraining, published_rate, shape
from tad.methods.bmn.sampling import valid_cells
from tad.methods.bmn.targets import (
    boundary_targets,
    held,
    positives,
    proposal_targets,
    read_window,
    window_of,
    windows_of,
)
from tad.methods.common.frame_contrast import draw_frames, frame_contrast
from tad.methods.common.warm_start import go_on_from, model_before
from tad.methods.common.windows import expected_length, read_ignored, read_labels, teaching
from tad.stages import Batch, Budget, Context, Total


class Item(NamedTuple):
    """A window of one video with its targets."""

    features: np.ndarray
    """[T, C] float32."""
    bins: int
    start: np.ndarray
    """[T] float32."""
    end: np.ndarray
    """[T] float32."""
    quality: np.ndarray
    """[2, K] float32: tIoU and distance of every cell."""
    positive: np.ndarray
    """[K] bool."""
    bins_known: np.ndarray
    """[T] bool: inside the video, and no boundary of an ignored zone is near."""
    cells_known: np.ndarray
    """[K] bool: inside the video, and not about an ignored zone."""
    draw: np.ndarray
    """[K] float32 random numbers."""
    full: bool
    """Whether the video is fully labelled."""
    place: int
    """The item's index."""
    frames: np.ndarray
    """[F] int64 bins for the contrast; none without it."""
    frame_labels: np.ndarray
    """[F] int64, see `draw_frames`."""


@dataclass(frozen=True)
class TrainStage:
    """Fits the network; reads the input "labels" and, where they are, "ignored" and "before", a model to start from."""

    config: BmnTraining
    name: str = "bmn/train"
    version: int = 1

    def open(self, context: Context) -> BmnTask:
        return BmnTask(self.config, context)


class BmnTask:
    """The opened training stage: windows with pseudo-labels in them; videos that are all background give all theirs.

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: `durations` exceeds the derived length, or the model to start from does not fit.
    """

    def __init__(self, config: BmnTraining, context: Context) -> None:
        self.config, self.data = config, context.data
        self.budget = Budget(config.epochs, config.batch_size, config.ema_decay, config.clip_norm)
        self.labels, self.ignored = read_labels(context), read_ignored(context)
        before = model_before(context, BASE) if "before" in context.inputs else None
        self.settings = self._resolve({} if before is None else before["settings"])
        self.cells = valid_cells(self.settings["length"], self.settings["durations"])
        self.items = [(v, i) for v in teaching(context, self.labels) for i in self._teaching(v)]
        self.module = build(self.settings)
        if before is not None:
            go_on_from(before, self.module, self.settings, context, BASE)

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A window of a video, always the same but for the random numbers and the frames."""
        video_id, number = self.items[index]
        labels, full = self.labels[video_id], self.data.full_labels(video_id) is not None
        length, features = self.settings["length"], self.data.features(video_id)
        window = window_of(len(features), number, self.settings)
        bins = window.bins
        every = window.to_bins(labels.spans)
        spans, _ = held(every, bins, self.config.coverage)
        targets = proposal_targets(self.cells, spans)
        zones = window.to_bins(self.ignored.get(video_id, np.zeros((0, 2))))
        near = np.maximum(*(boundary_targets(zones[:, side], length) for side in (0, 1))) > 0.5
        about = proposal_targets(self.cells, zones).tiou > np.maximum(LOW, targets.tiou)
        ends = self.cells.start + self.cells.duration
        draw = rng.random(len(self.cells.start), dtype=np.float32)
        # A frame is the middle of a bin. It is of an action also where the window holds too little of that to teach it.
        centred = labels._replace(spans=every - 0.5)
        frames, contrasted = draw_frames(bins, centred, zones - 0.5, self.config, full, rng)
        return Item(
            read_window(features, window, length),
            bins,
            boundary_targets(spans[:, 0], length),
            boundary_targets(spans[:, 1], length),
            np.stack(targets),
            positives(self.cells, spans, targets.tiou, self.config.positive, self.config.best_positive),
            (np.arange(length) < bins) & ~near,
            (ends < bins) & ~about,
            draw,
            full,
            index,
            frames,
            contrasted,
        )

    def collate(self, items: list[Item]) -> Batch:
        """The fields of the items stacked; `mask` [B, T] is true inside the videos."""
        fields = {
            name: torch.from_numpy(np.stack([getattr(item, name) for item in items]))
            for name in Item._fields
            if name not in ("bins", "full", "place")
        }
        bins = np.array([item.bins for item in items])[:, None]
        return fields | {
            "mask": torch.from_numpy(np.arange(self.settings["length"]) < bins),
            "full": torch.tensor([item.full for item in items]),
            "place": torch.tensor([item.place for item in items]),
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Boundaries, maps and contrast, weighted; over all windows, or apart by whether their video is labelled."""
        config = self.config
        frames = batch["frames"] if config.contrast_weight else None
        outputs: BmnOutputs = module(batch["features"], batch["mask"], frames)
        weight = config.unlabelled_weight
        everything = torch.ones_like(batch["full"])
        groups = [(1.0, everything)] if weight is None else [(1.0, batch["full"]), (weight, ~batch["full"])]
        maps = outputs.maps[:, :, self.cells.duration, self.cells.start]
        values: dict[str, Tensor] = {}
        for share, group in groups:
            bins, cells = batch["bins_known"] & group[:, None], batch["cells_known"] & group[:, None]
            for name, value in self._losses(outputs.start, outputs.end, maps, batch, bins, cells, total).items():
                values[name] = values.get(name, 0.0) + share * value
            if outputs.frames is not None:
                z, labels, place = (x[group] for x in (outputs.frames, batch["frame_labels"], batch["place"]))
                contrast = frame_contrast(z, labels, place, len(self), total, config.contrast_temperature)
                values["contrast"] = values.get("contrast", 0.0) + share * contrast
        weights = {
            "regression": config.regression_weight,
            "distance": config.quality_weight,
            "contrast": config.contrast_weight,
        }
        return {"loss": sum((weights.get(k, 1.0) * v for k, v in values.items()), torch.zeros(()).to(maps))} | values

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Adam, with one fall of the rate."""
        base = {id(p) for p in module.base.parameters()}  # type: ignore[union-attr]
        decay = self.config.weight_decay
        groups = [
            {"params": [p for p in module.parameters() if (id(p) in base) == first], "weight_decay": amount}
            for first, amount in ((True, 10 * decay), (False, decay))
        ]
        return falling(groups, self.settings["lr"], self.config.decay_at, steps)

    def _losses(
        self, start: Tensor, end: Tensor, maps: Tensor, batch: Batch, bins: Tensor, cells: Tensor, total: Total
    ) -> dict[str, Tensor]:
        tiou, distance = batch["quality"].unbind(1)
        losses = {
            "start": boundary_loss(start, batch["start"], bins, total),
            "end": boundary_loss(end, batch["end"], bins, total),
            "regression": regression_loss(maps[:, 1], tiou, cells, batch["draw"], total),
        }
        if not self.config.quality:
            return losses | {"classification": class_loss(maps[:, 0], batch["positive"], cells, total)}
        return losses | {
            "classification": soft_class_loss(maps, batch["quality"], batch["positive"], cells, total),
            "distance": distance_loss(maps[:, 2], distance, cells & (tiou > 0), total),
        }

    def _teaching(self, video_id: str) -> list[int]:
        """The windows of a video that hold a pseudo-label; all of a video without any."""
        spans = self.labels[video_id].spans
        found = windows_of(expected_length(self.data, video_id), self.settings)
        return [
            i
            for i, window in enumerate(found)
            if not len(spans) or len(held(window.to_bins(spans), window.bins, self.config.coverage)[1])
        ]

    def _resolve(self, theirs: dict[str, Any]) -> dict[str, Any]:
        """The options of the network and its windows, with the null ones those of the model to start from, or derived
        from the data."""
        config, data = self.config, self.data
        sizes = {video: labels.spans[:, 1] - labels.spans[:, 0] for video, labels in self.labels.items()}
        common = shape(config, data, sizes, theirs)
        length, resized = common["length"], common["fit"] == "resize"
        durations = config.durations or theirs.get("durations") or (length if resized else length // 2)
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
            "distance": config.quality,
            "published_edges": config.published_edges,
            "lr": config.lr or published_rate(common["fit"]),
            "median_label": round(float(np.median(np.concatenate(list(sizes.values())))), 1),
        }


def falling(groups: list[dict[str, Any]], lr: float, at: float, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """Adam, whose rate falls to a tenth after the share `at` of all steps."""
    optimiser = torch.optim.Adam(groups, lr=lr)
    fall = math.ceil(at * steps)
    return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 if step < fall else 0.1)


def build(settings: dict[str, Any]) -> Bmn:
    """The network that a model's settings describe, with fresh weights."""
    names = ("dim", "length", "durations", "width", "samples", "distance", "published_edges")
    return Bmn(**{name: settings[name] for name in names})
