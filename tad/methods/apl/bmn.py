"""Detector `apl-bmn`: BMN with the parts that APL adds to it.

Source: APL (ECCV 2024), which says in one sentence that its parts fit BMN; this is one reading. With its options at
their defaults it is `bmn`. The stages are BMN's, and `bmn/pretrain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.apl.bmn_losses import distance_loss, distances, joint_score, soft_class_loss
from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_bmn import pretrain
from tad.methods.apl.frame_contrast import draw_frames, frame_contrast
from tad.methods.apl.options import AplBmnRoundTraining, AplBmnTraining
from tad.methods.apl.warm_start import BASE, go_on_from, model_before
from tad.methods.bmn.detector import BmnDetector
from tad.methods.bmn.model import Bmn, BmnOutputs, kept_inside
from tad.methods.bmn.targets import held
from tad.methods.bmn.training import BmnTask, Item, TrainStage
from tad.methods.roles import Labels, Round
from tad.stages import Artifact, Batch, Context, Total


class AplBmn(Bmn):
    """The network, and its base at some bins.

    Args:
        distance: whether there is a third map, for the distance of centres.
        network: as of `Bmn`.
    """

    def __init__(self, distance: bool = False, **network: Any) -> None:
        super().__init__(maps=3 if distance else 2, **network)
        if distance:
            # Distances are small: the score, overlap less distance, should start above 0.
            nn.init.constant_(self.maps[-1].bias[2:], -3.0)  # type: ignore[index]

    @classmethod
    def of(cls, settings: dict[str, Any], **more: Any) -> Self:
        return super().of(settings, distance=settings.get("distance", False), **more)

    def forward(  # type: ignore[override]
        self, features: Tensor, mask: Tensor, frames: Tensor | None = None
    ) -> BmnOutputs | tuple[BmnOutputs, Tensor]:
        """As of `Bmn`; with `frames` [B, F] int64 also the base at these bins, [B, F, W]."""
        keep = mask[:, None].to(features.dtype)
        x = kept_inside(self.base, features, keep)
        grid = self.grid(x, keep)
        if frames is None:
            return self.answer(x, grid)
        there = x.transpose(1, 2).take_along_dim(frames[..., None], 1)
        return self.answer(x, grid), there

    @staticmethod
    def score(maps: Tensor) -> Tensor:
        """The joint score where there is a third map."""
        return maps[0] * joint_score(maps[1], maps[2]) if len(maps) > 2 else Bmn.score(maps)


class AplBmnDetector(BmnDetector):
    """Boundary-matching network with APL's parts; learns from labels and pseudo-labels apart."""

    network: ClassVar[type[Bmn]] = AplBmn
    method: Literal["apl-bmn"] = "apl-bmn"  # type: ignore[assignment]
    training: AplBmnRoundTraining = AplBmnRoundTraining()
    pretrain: ContrastiveConfig = ContrastiveConfig()

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos.

        With init: before it starts from the last round's; round 1 has none, as the proposer's is no BMN.
        """
        self._classes(round)
        training = AplBmnTraining(**self.training.model_dump(exclude={"init"}))
        inputs = labels.inputs()
        if self.training.init == "before" and round.number > 1:
            inputs["before"] = round.previous.model
        elif self.pretrain.enabled:
            inputs["before"] = pretrain(round, self.pretrain, training)
        return round.fit(TrainStage(training, task=AplBmnTask), inputs)


@dataclass(frozen=True)
class AplItem(Item):
    """A window of one video with its targets, and frames for the contrast."""

    distance: np.ndarray
    """[K] float32, of every cell; none without the third map."""
    full: bool
    """Whether the video is fully labelled."""
    place: int
    """The item's index."""
    frames: np.ndarray
    """[F] int64 bins for the contrast; none without it."""
    frame_labels: np.ndarray
    """[F] int64, see `draw_frames`."""


class AplBmnTask(BmnTask):
    """BMN's task with APL's terms; it may start from the input "before", a model of bmn or a base that was pre-trained.

    Raises:
        DataError: as of `BmnTask`.
        ConfigError: as of `BmnTask`, or the model to start from does not fit.
    """

    network: ClassVar[type[Bmn]] = AplBmn
    config: AplBmnTraining

    def __init__(self, config: AplBmnTraining, context: Context) -> None:
        before = model_before(context, BASE) if "before" in context.inputs else None
        if before is not None:
            null = [name for name in OPTIONS if getattr(config, name) is None and name in before["settings"]]
            config = config.model_copy(update={name: before["settings"][name] for name in null})
        super().__init__(config, context)
        self.weights |= {"distance": config.quality_weight, "contrast": config.contrast_weight}
        if before is not None:
            go_on_from(before, self.module, self.settings, context, BASE)

    def item(self, index: int, rng: np.random.Generator) -> AplItem:
        """As of `BmnTask`, and frames, which are random, too."""
        item, (video_id, _) = super().item(index, rng), self.items[index]
        _, window, spans, zones = self.view(index)
        inside, _ = held(spans, window.bins, self.config.coverage)
        distance = distances(self.cells, inside) if self.config.quality else np.zeros(0, dtype=np.float32)
        full = self.data.full_labels(video_id) is not None
        # A frame is the middle of a bin. It is of an action also where the window holds too little of that to teach it.
        centred = self.labels[video_id]._replace(spans=spans - 0.5)
        frames, contrasted = draw_frames(window.bins, centred, zones - 0.5, self.config, full, rng)
        return AplItem(**vars(item), distance=distance, full=full, place=index, frames=frames, frame_labels=contrasted)

    def collate(self, items: Sequence[AplItem]) -> Batch:  # type: ignore[override]
        more = {
            name: torch.from_numpy(np.stack([getattr(item, name) for item in items]))
            for name in ("distance", "full", "place", "frames", "frame_labels")
        }
        return super().collate(items) | more

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """As of `BmnTask`, with the contrast; over all windows, or apart by whether their video is labelled."""
        config, weight, there = self.config, self.config.unlabelled_weight, None
        if config.contrast_weight:
            outputs, there = module(batch["features"], batch["mask"], batch["frames"])
        else:
            outputs = module(batch["features"], batch["mask"])
        everything = torch.ones_like(batch["full"])
        groups = [(1.0, everything)] if weight is None else [(1.0, batch["full"]), (weight, ~batch["full"])]
        values: dict[str, Tensor] = {}
        for share, group in groups:
            bins, cells = batch["bins_known"] & group[:, None], batch["cells_known"] & group[:, None]
            terms = self.terms(outputs, batch, bins, cells, total)
            if there is not None:
                z, labels, place = (x[group] for x in (there, batch["frame_labels"], batch["place"]))
                terms["contrast"] = frame_contrast(z, labels, place, len(self), total, config)
            for name, value in terms.items():
                values[name] = values.get(name, 0.0) + share * value
        return self.summed(values)

    def terms(self, outputs: BmnOutputs, batch: Batch, bins: Tensor, cells: Tensor, total: Total) -> dict[str, Tensor]:
        """As of `BmnTask`; with the third map the class loss is that of joint scores, and the map has one, too."""
        terms = super().terms(outputs, batch, bins, cells, total)
        if not self.config.quality:
            return terms
        maps, overlap, distance = self.of_cells(outputs), batch["tiou"], batch["distance"]
        return terms | {
            "classification": soft_class_loss(maps, overlap, distance, batch["positive"], cells, total),
            "distance": distance_loss(maps[:, 2], distance, cells & (overlap > 0), total),
        }

    def resolve(self) -> dict[str, Any]:
        return super().resolve() | {"distance": self.config.quality}


OPTIONS = ("fit", "length", "durations", "upsample", "width")
"""Null ones are those of the model to start from."""
