"""APL's training of ActionFormer: quality branches, contrast, and two kinds of videos in every step.

Source: APL (ECCV 2024) section 3.4, equation 12. With its options at their defaults it is ActionFormer's own training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tad.errors import DataError
from tad.methods.actionformer.model import ActionFormer, PointOutputs
from tad.methods.actionformer.training import DetectorTask, Item
from tad.methods.apl.actionformer_model import AplActionFormer, AplOutputs
from tad.methods.apl.frame_contrast import draw_frames, frame_contrast
from tad.methods.apl.options import AplTraining
from tad.methods.apl.quality import COUNT, quality_losses
from tad.methods.apl.warm_start import NETWORK, PYRAMID, go_on_from, model_before
from tad.methods.common.pyramid import slot
from tad.ops.losses import diou_1d
from tad.stages import Batch, Context, Total


@dataclass(frozen=True)
class AplItem(Item):
    """A window of one video, with frames for the contrast."""

    place: int
    """The item's index."""
    frames: np.ndarray
    """[K] int64 rows for the contrast; none without it."""
    frame_labels: np.ndarray
    """[K] int64, see `draw_frames`."""
    partner: AplItem | None = None
    """A window of a video without full labels, in the same step."""


class Half(NamedTuple):
    """Videos of a batch whose positives are counted together."""

    points: Tensor | None
    """[P] bool; None: all."""
    number: Tensor
    """Running number of positives, over which their losses are."""
    weight: float
    """Of their losses."""


class AplTask(DetectorTask):
    """ActionFormer's task with APL's terms.

    With `unlabelled_weight`, an item is a window of a random fully labelled video and its partner, one of a video
    without full labels. There is no partner where such a video has no pseudo-label, and no items of this kind if all
    videos are fully labelled.

    Raises:
        DataError: as of `DetectorTask`, or no video has full labels beside which others could count.
        ConfigError: as of `DetectorTask`, or the model to start from does not fit.
    """

    network: ClassVar[type[ActionFormer]] = AplActionFormer
    config: AplTraining

    def __init__(self, config: AplTraining, context: Context) -> None:
        before = model_before(context, PYRAMID) if config.init == "before" else None
        null = [name for name in NETWORK if getattr(config, name) is None] if before is not None else []
        if before is not None:
            config = config.model_copy(update={name: before["settings"][name] for name in null})
        self.beside: list[str] = []
        """Fully labelled videos, of which each item has one; none: items are single videos."""
        super().__init__(config, context)
        self.reasons = dict.fromkeys(null, "as in the model to start from") | self.reasons
        self.weights |= {"quality": config.quality.weight, "contrast": config.contrast_weight}
        if before is not None:
            go_on_from(before, self.module, self.settings, context, PYRAMID)

    def choose(self, context: Context) -> list[str]:
        """The videos of which each is an item: those without full labels where items are pairs."""
        self.taught = super().choose(context)
        if self.config.unlabelled_weight is None:
            return self.taught
        full = [v for v in self.taught if self.data.full_labels(v) is not None]
        others = [v for v in context.videos if self.data.full_labels(v) is None]
        if not full:
            raise DataError(
                f"{self.data.root}: none of the {len(context.videos)} training videos is fully labelled, beside which "
                "the others could count; add full_labels.csv, or set unlabelled_weight to null"
            )
        if others:
            self.beside = full
        return others or self.taught

    def item(self, index: int, rng: np.random.Generator) -> AplItem:
        """A random window of a video, or of two."""
        video = self.videos[index]
        if not self.beside:
            return self.framed(video, index, rng)
        item = self.framed(self.beside[rng.integers(len(self.beside))], index, rng)
        if not self.config.unlabelled_weight or video not in self.taught:  # it would teach nothing
            return item
        return replace(item, partner=self.framed(video, index, rng))

    def framed(self, video_id: str, index: int, rng: np.random.Generator) -> AplItem:
        """A random window of any video, and frames of it."""
        item, full = self.window(video_id, rng), self.data.full_labels(video_id) is not None
        frames, contrasted = draw_frames(len(item.features), item.labels, item.ignored, self.config, full, rng)
        return AplItem(item.features, item.labels, item.ignored, index, frames, contrasted)

    def collate(self, items: Sequence[AplItem]) -> Batch:  # type: ignore[override]
        """As of `DetectorTask`; partners come after all others.

        `unlabelled` [P] tells whose points are theirs, where items can have one. For the contrast there are frames
        [B, K] (rows of the sequence), their labels, the items of the B windows, and which of these are no partners.
        """
        windows = [*items, *(item.partner for item in items if item.partner is not None)]
        batch = super().collate(windows)
        slots = [slot(len(window.features), self.levels) for window in windows]
        if self.beside and self.config.unlabelled_weight:
            first = sum(slots[: len(items)])  # a multiple of every stride
            rows = len(batch["features"])
            halves = [torch.arange(rows >> level) >= first >> level for level in range(self.levels)]
            batch["unlabelled"] = torch.cat(halves)
        if self.config.contrast_weight:
            starts = np.cumsum([0, *slots[:-1]])
            batch["frames"] = torch.from_numpy(np.stack([w.frames for w in windows]) + starts[:, None])
            batch["frame_labels"] = torch.from_numpy(np.stack([w.frame_labels for w in windows]))
            batch["items"] = torch.tensor([w.place for w in windows])
            batch["first"] = torch.arange(len(items))
        return batch

    def answer(self, module: nn.Module, batch: Batch) -> AplOutputs:
        frames = batch.get("frames")
        return module(batch["features"], batch["video"], batch["lengths"], frames)  # type: ignore[no-any-return]

    def losses(self, outputs: AplOutputs, batch: Batch, positive: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        """As of `DetectorTask`; with quality branches the class loss is that of joint scores, and they have one [n]."""
        config = self.config.quality
        if outputs.quality is None:
            return super().losses(PointOutputs(*outputs[:3]), batch, positive)
        weights = batch["weights"] * outputs.mask
        focal, branches = quality_losses(outputs, batch["classes"], batch["offsets"], positive, config)
        diou = diou_1d(outputs.offsets[positive], batch["offsets"][positive])
        return {
            "classification": focal * weights[:, None],
            "regression": diou * weights[positive],
            "quality": branches * weights[positive],
        }

    def terms(  # type: ignore[override]
        self, core: AplActionFormer, outputs: AplOutputs, batch: Batch, positive: Tensor, total: Total
    ) -> dict[str, Tensor]:
        """Each loss over the running number of positives of its half, and the contrast."""
        halves = self.halves(core, batch, positive, outputs.mask, total)
        terms = {
            name: share(halves, losses, None if name == "classification" else positive)
            for name, losses in self.losses(outputs, batch, positive).items()
        }
        if outputs.frames is not None:
            terms["contrast"] = self.contrast(outputs.frames, batch, halves, total)
        return terms

    def halves(self, core: AplActionFormer, batch: Batch, positive: Tensor, mask: Tensor, total: Total) -> list[Half]:
        """The videos whose positives are counted together, with the new running numbers."""
        if "unlabelled" not in batch:
            return [Half(None, self.count(core, positive, total), 1.0)]
        halves = []
        for points, running, weight in (
            (~batch["unlabelled"], core.normaliser, 1.0),
            (batch["unlabelled"], core.unlabelled_normaliser, self.config.unlabelled_weight or 0.0),
        ):
            number, real = total(torch.stack([points[positive].sum().float(), (points & mask).sum().float()]))
            # A step without any partner says nothing about their number.
            running.copy_(torch.where(real > 0, 0.9 * running + 0.1 * number.clamp(min=1), running))
            halves.append(Half(points, running, weight))
        return halves

    def contrast(self, frames: Tensor, batch: Batch, halves: list[Half], total: Total) -> Tensor:
        """The contrast of each half on its own, weighted as its other losses are."""
        first = len(batch["first"])
        shares = [
            half.weight
            * frame_contrast(
                frames[part], batch["frame_labels"][part], batch["items"][part], len(self), total, self.config
            )
            for half, part in zip(halves, (slice(None, first), slice(first, None)), strict=False)
        ]
        return torch.stack(shares).sum()

    def windowed(self) -> list[str]:
        return [*self.beside, *self.videos]

    def resolve(self) -> dict[str, Any]:
        settings = super().resolve()
        quality = self.config.quality
        if self.beside:
            settings |= {"labelled": len(self.beside), "unlabelled": len(self.videos)}
        if quality.enabled:
            settings |= {"quality": True, "branches": COUNT[quality.branches]}
        return settings


def share(halves: list[Half], losses: Tensor, of: Tensor | None = None) -> Tensor:
    """Losses of points, or of those in `of` alone, summed over the running number of their half."""
    shares = []
    for points, number, weight in halves:
        chosen = losses
        if points is not None:
            own = points if of is None else points[of]
            chosen = losses * own.view(-1, *[1] * (losses.dim() - 1))
        shares.append(weight * (chosen.sum() / number))
    return torch.stack(shares).sum() if len(shares) > 1 else shares[0]
