"""Training of the detector `actionformer`: options, what is derived from the data, items, loss and optimiser.

Source: ActionFormer (ECCV 2022) section 3.4 and its released code. The options `quality`, `init`, `unlabelled_weight`
and `contrast_weight` are for semi-supervised training (APL, ECCV 2024); off, they change nothing.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.errors import DataError
from tad.methods.actionformer.model import ActionFormer, PointOutputs
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.quality import quality_losses
from tad.methods.actionformer.targets import Targets, assign, ignore, pyramid
from tad.methods.actionformer.warm_start import PYRAMID
from tad.methods.common.frame_contrast import draw_frames, frame_contrast
from tad.methods.common.optimisers import adamw, derived_ema, derived_width
from tad.methods.common.pyramid import padded_length
from tad.methods.common.warm_start import go_on_from, model_before
from tad.methods.common.windows import (
    Labels,
    derived_upsample,
    levels_for,
    pack,
    random_crop,
    read_ignored,
    read_labels,
    refine,
    teaching,
    usual_length,
)
from tad.ops.losses import diou_1d, sigmoid_focal
from tad.stages import Batch, Budget, Context, Total, unwrap


class Item(NamedTuple):
    """A window of one video, refined."""

    features: np.ndarray
    """[T, D] float32, `upsample` rows for each snippet but the last."""
    labels: Labels
    """In positions of these rows."""
    ignored: np.ndarray
    """[M, 2] float64 zones in the same positions: background in them teaches nothing."""
    place: int
    """The item's index."""
    frames: np.ndarray
    """[K] int64 rows for the contrast; none without it."""
    frame_labels: np.ndarray
    """[K] int64, see `draw_frames`."""
    partner: Item | None = None
    """A window of a video without full labels, in the same step."""


class Half(NamedTuple):
    """Videos of a batch whose positives are counted together."""

    points: Tensor | None
    """[P] bool; None: all."""
    number: Tensor
    """Running number of positives, over which their losses are."""
    weight: float
    """Of their losses."""


class DetectorTask:
    """The opened training stage: windows of the training videos with their pseudo-labels as targets.

    Videos without a pseudo-label are all background, or left out (see `teaching`). With `unlabelled_weight`, an item is
    a window of a random fully labelled video and its partner, one of a video without full labels. There is no partner
    where such a video has no pseudo-label, and no items of this kind if all videos are fully labelled.

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video, or
            no video has full labels beside which others could count.
        ConfigError: the derived width is not divisible by the heads, or the model to start from does not fit.
    """

    def __init__(self, config: Training, context: Context) -> None:
        self.config, self.data = config, context.data
        self.labels = read_labels(context, config.label_score_weight)
        self.ignored = read_ignored(context)
        self.videos = self.taught = teaching(context, self.labels)
        self.beside: list[str] = []
        """Fully labelled videos, of which each item has one; none: items are single videos."""
        if config.unlabelled_weight is not None:
            self._pair(context)
        before = model_before(context, PYRAMID) if config.init == "before" else None
        self.settings = self._resolve(before)
        self.budget = Budget(config.epochs, config.batch_size, self.settings["ema_decay"], config.clip_norm)
        self.levels: int = self.settings["levels"]
        self.upsample: int = self.settings["upsample"]
        self.module = build(self.settings)
        if before is not None:
            go_on_from(before, self.module, self.settings, context, PYRAMID)

    def _pair(self, context: Context) -> None:
        full = [v for v in self.taught if self.data.full_labels(v) is not None]
        others = [v for v in context.videos if self.data.full_labels(v) is None]
        if not full:
            raise DataError(
                f"{self.data.root}: none of the {len(context.videos)} training videos is fully labelled, beside which "
                "the others could count; add full_labels.csv, or set unlabelled_weight to null"
            )
        if others:
            self.beside, self.videos = full, others

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A random window of a video; only its rows are read from the file."""
        video = self.videos[index]
        if not self.beside:
            return self._window(video, index, rng)
        item = self._window(self.beside[rng.integers(len(self.beside))], index, rng)
        if not self.config.unlabelled_weight or video not in self.taught:  # it would teach nothing
            return item
        return item._replace(partner=self._window(video, index, rng))

    def _window(self, video_id: str, index: int, rng: np.random.Generator) -> Item:
        features, labels = self.data.features(video_id), self.labels[video_id]
        grid = self.data.grid(video_id, len(features))
        margin = grid.window / (2 * grid.stride)
        crop = random_crop(len(features), labels.spans, self.settings["max_length"], margin, rng)
        rows = refine(features[crop.start : crop.start + crop.size], self.upsample)
        points = (labels.points - crop.start) * self.upsample
        labels = labels._replace(spans=crop.spans * self.upsample, points=points)
        zones = (self.ignored.get(video_id, np.zeros((0, 2))) - crop.start) * self.upsample
        labels = Labels(*(part[crop.kept] for part in labels))
        full = self.data.full_labels(video_id) is not None
        frames, contrasted = draw_frames(len(rows), labels, zones, self.config, full, rng)
        return Item(rows, labels, zones, index, frames, contrasted)

    def collate(self, items: list[Item]) -> Batch:
        """Windows one after the other: features [T, D], video [T] and the targets of all P points, level by level.

        Partners come after all others; `unlabelled` [P] tells whose points are theirs, where items can have one. For
        the contrast there are frames [B, K] (rows of the sequence), their labels, and the items of the B windows.
        """
        partners = [item.partner for item in items if item.partner is not None]
        windows = [*items, *partners]
        features, video, slots = pack([window.features for window in windows], self.levels)
        levels = []
        for item, size in zip(windows, slots, strict=True):
            points = pyramid(size, self.levels)
            spans, labels, weights = (torch.from_numpy(part) for part in item.labels[:3])
            radius = self.config.centre_radius
            targets = assign(points, spans, labels, weights, len(self.settings["classes"]), radius)
            targets = ignore(points, targets, torch.from_numpy(item.ignored))
            levels.append([part.split(points.sizes) for part in targets])
        # From video by video to level by level, which is the order of the network's points.
        targets = Targets(
            *(torch.cat([torch.cat(level) for level in zip(*part, strict=True)]) for part in zip(*levels, strict=True))
        )
        batch = {"features": features, "video": video, **targets._asdict()}
        if self.beside and self.config.unlabelled_weight:
            first = sum(slots[: len(items)])  # a multiple of every stride
            halves = [torch.arange(len(features) >> level) >= first >> level for level in range(self.levels)]
            batch["unlabelled"] = torch.cat(halves)
        if self.config.contrast_weight:
            starts = np.cumsum([0, *slots[:-1]])
            batch["frames"] = torch.from_numpy(np.stack([w.frames for w in windows]) + starts[:, None])
            batch["frame_labels"] = torch.from_numpy(np.stack([w.frame_labels for w in windows]))
            batch["items"] = torch.tensor([w.place for w in windows])
            batch["labelled"] = torch.tensor(len(items))
        return batch

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Class loss on all points and 1-D DIoU on positive ones, both over a running number of positives.

        The class loss is focal; with quality branches it is that of joint scores, and the branches have a loss, too.
        """
        config = self.config
        outputs: PointOutputs = module(batch["features"], batch["video"], batch.get("frames"))
        positive = batch["classes"].any(-1) & outputs.mask
        weights = batch["weights"] * outputs.mask
        core = unwrap(module)
        assert isinstance(core, ActionFormer)
        halves = self._halves(core, batch, positive, outputs.mask, total)
        terms = {}
        if config.quality.enabled:
            focal, branches = quality_losses(outputs, batch["classes"], batch["offsets"], positive, config.quality)
            terms["quality"] = share(halves, branches * weights[positive], positive)
        else:
            focal = sigmoid_focal(outputs.logits, batch["classes"].float())
        diou = diou_1d(outputs.offsets[positive], batch["offsets"][positive]) * weights[positive]
        classification, regression = share(halves, focal * weights[:, None]), share(halves, diou, positive)
        loss = classification + config.regression_weight * regression
        if config.quality.enabled:
            loss = loss + config.quality.weight * terms["quality"]
        if config.contrast_weight:
            terms["contrast"] = self._contrast(outputs, batch, halves, total)
            loss = loss + config.contrast_weight * terms["contrast"]
        return {
            "loss": loss,
            "classification": classification,
            "regression": regression,
            **terms,
            "positives": positive.sum().float(),
        }

    def _halves(self, core: ActionFormer, batch: Batch, positive: Tensor, mask: Tensor, total: Total) -> list[Half]:
        """The videos whose positives are counted together, with the new running numbers."""
        if "unlabelled" not in batch:
            number = total(positive.sum().float())
            core.normaliser.mul_(0.9).add_(0.1 * number.clamp(min=1))
            return [Half(None, core.normaliser, 1.0)]
        halves = []
        for points, running, weight in (
            (~batch["unlabelled"], core.normaliser, 1.0),
            (batch["unlabelled"], core.unlabelled_normaliser, self.config.unlabelled_weight or 0.0),
        ):
            number, real = total(torch.stack([(each & points).sum().float() for each in (positive, mask)]))
            # A step without any partner says nothing about their number.
            running.copy_(torch.where(real > 0, 0.9 * running + 0.1 * number.clamp(min=1), running))
            halves.append(Half(points, running, weight))
        return halves

    def _contrast(self, outputs: PointOutputs, batch: Batch, halves: list[Half], total: Total) -> Tensor:
        """The contrast of each half on its own, weighted as its other losses are."""
        assert outputs.frames is not None
        first = int(batch["labelled"])
        parts = [slice(None, first), slice(first, None)]
        shares = [
            half.weight
            * frame_contrast(
                outputs.frames[part],
                batch["frame_labels"][part],
                batch["items"][part],
                len(self),
                total,
                self.config.contrast_temperature,
            )
            for half, part in zip(halves, parts, strict=False)
        ]
        return torch.stack(shares).sum()

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        return adamw(module, self.settings["lr"], config.weight_decay, config.warmup, steps)

    def _resolve(self, before: dict[str, Any] | None) -> dict[str, Any]:
        """The options of the network, with the null ones those of the model to start from, or derived from the data."""
        config, manifest = self.config, self.data.manifest
        theirs = {} if before is None else before["settings"]
        videos = [*self.beside, *self.videos]
        sizes = np.concatenate([labels.spans[:, 1] - labels.spans[:, 0] for labels in self.labels.values()])
        upsample = config.upsample or theirs.get("upsample") or derived_upsample(self.labels)
        steps = config.epochs * max(1, len(self.videos) // config.batch_size)
        width = config.width or theirs.get("width") or derived_width(manifest.grid.dim, config.heads, "actionformer")
        levels = config.levels or theirs.get("levels") or levels_for(sizes.max() * upsample)
        lr = 1e-4 * 512 / width * math.sqrt(config.batch_size / 2)
        return {
            "dim": manifest.grid.dim,
            "classes": list(self.data.classes),
            "width": width,
            "heads": config.heads,
            "levels": levels,
            "upsample": upsample,
            "window": config.window,
            "drop_path": config.drop_path,
            "input_dropout": config.input_dropout,
            "max_length": padded_length(config.max_length or usual_length(self.data, videos), levels),
            "lr": config.lr or min(1e-3, lr),
            "ema_decay": derived_ema(steps) if config.ema_decay is None else config.ema_decay,
            "longest_label": round(float(sizes.max()), 1),
            **({"quality": True} if config.quality.enabled else {}),
            **({"labelled": len(self.beside), "unlabelled": len(self.videos)} if self.beside else {}),
        }


def build(settings: dict[str, Any]) -> ActionFormer:
    """The network that a model's settings describe, with fresh weights."""
    names = ("dim", "width", "heads", "levels", "window", "drop_path", "input_dropout")
    more = {name: name in settings for name in ("quality", "unlabelled")}
    return ActionFormer(classes=len(settings["classes"]), **{name: settings[name] for name in names}, **more)


def share(halves: list[Half], losses: Tensor, of: Tensor | None = None) -> Tensor:
    """Losses of points, or of those in `of` [P] alone, summed over the running number of their half."""
    shares = []
    for points, number, weight in halves:
        chosen = losses if points is None else losses[points if of is None else points[of]]
        shares.append(weight * (chosen.sum() / number))
    return torch.stack(shares).sum() if len(shares) > 1 else shares[0]
