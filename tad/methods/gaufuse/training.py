"""Training of the RSKP model from the classes of videos: options, items, losses, memory and optimiser.

Source: RSKP (CVPR 2022) in the form that GauFuse's released code (CVPR 2023) trains it.
Shapes: B videos, T snippets (padded), W embedding width, C classes, K prototypes; the background is class C.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, pad

from tad import bounds
from tad.data.labels import Supervision
from tad.errors import DataError
from tad.methods.common.optimisers import default_batch
from tad.methods.common.trained import of_architecture, restore
from tad.methods.gaufuse.drawn import drawn
from tad.methods.gaufuse.model import HeadScores, RskpModel, RskpScores
from tad.methods.snippet.training import read_features
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import Batch, Budget, Context, StageConfig, Total, unwrap

log = logging.getLogger(__name__)

ARCHITECTURE = ("prototypes", "em_iterations", "em_temperature", "walk", "scale", "slots")
DROP = 0.8
"""What the published schedule leaves of the learning rate."""


class RskpLosses(StageConfig):
    """Losses, memory and optimiser: what every training of the model has."""

    dropout: bounds.Chance = option(
        0.6,
        "dropout of the embedding, in training",
        paper=0.6,
        tune=Float(0.2, 0.8),
        why="code .6; less for narrow features",
    )
    snippets: bounds.Snippets | None = option(
        None,
        "rows that the model sees of each video: in training one at random of each of as many equal parts, else the "
        "middle ones, with its curves interpolated between them; null: all",
        paper=None,
        free=True,
        neutral=None,
    )
    foreground_weight: bounds.Weight = option(1.0, "weight of the loss on attended video scores", paper=1.0)
    whole_weight: bounds.Weight = option(
        0.2, "weight of the loss on class-wise pooled video scores, background among them", paper=0.2
    )
    attention_weight: bounds.Weight = option(0.1, "weight of the attention's contrast", paper=0.1)
    attention_ratio: bounds.Snippets = option(
        8, "one snippet in this many counts as high in the contrast, and as many as low", paper=8
    )
    snippet_weight: bounds.Weight = option(
        1.0, "weight of the walked snippet scores as pseudo-labels, before the memory opens", paper=1.0
    )
    snippet_weight_memory: bounds.Weight = option(0.5, "the same once the memory is open", paper=0.5)
    snippet_temperature: bounds.Temperature = option(0.2, "of these pseudo-labels", paper=0.2)
    memory_weight: bounds.Weight = option(0.5, "of the memory branch in the losses on video scores", paper=0.5)
    memory_share: bounds.Fraction = option(0.2, "of the memory branch in the snippets' pseudo-labels", paper=0.2)
    memory_first_class: bool = option(
        False, "the released fault: all videos read and fill the slots of the first class", paper=True
    )
    weight_decay: bounds.Penalty = option(
        5e-5,
        "L2 penalty of Adam; the released 5e-4 is beside a sum over 10 videos",
        paper=5e-5,  # with the sum of ten videos' gradients 5e-4; of a gradient Adam sees the direction alone
        tune=Float(1e-5, 0.01, log=True),
        why="papers 5e-4 to 1e-3",
    )
    batch_size: bounds.BatchSize | None = option(
        None,
        "null: 10, fewer if there are under 80 videos",
        paper=10,
        free=True,
        tune=Choice(None, 4, 8, 16, 32),
        why="papers 16; smaller for few videos",
    )
    ema_decay: bounds.Decay | None = option(
        0.95,
        "decay of averaged weights; null: the last weights",
        paper=None,
        tune=Choice(None, 0.9, 0.95, 0.98, 0.99),
        why="papers null, the last weights; an average is steadier",
        formerly="ema",
    )

    @property
    def usable(self) -> tuple[Supervision, ...]:
        """The kinds of labels that teach: all, as each says which classes a video has."""
        return ("full", "points", "classes")


class RskpTraining(RskpLosses):
    """Model, losses and optimiser."""

    width: bounds.Width | None = option(None, "embedding width; null: that of the features", paper=None)
    prototypes: bounds.Parts = option(8, "prototypes that sum up a video", paper=8)
    em_iterations: bounds.Parts = option(2, "rounds of expectation and maximisation", paper=2)
    em_temperature: bounds.Factor = option(5.0, "factor on cosines when snippets are assigned", paper=5.0)
    walk: bounds.Chance = option(0.5, "share of the random walk that goes on", paper=0.5)
    scale: bounds.Factor = option(20.0, "factor on cosines with class centres", paper=20.0)
    slots: bounds.Parts = option(5, "prototypes of each class in the memory", paper=5)
    memory_epochs: int | None = option(
        None,
        "epochs before the memory opens; null: three quarters, released: 101 of 200",
        ge=0,
        le=bounds.EPOCHS,
        paper=101,
        free=True,
    )
    lr: bounds.Rate | None = option(
        None,
        "null: 5e-5 * 2048 / feature width, at most 1e-3",
        tune=Float(1e-5, 3e-3, log=True),
        why="papers 2e-5 to 1e-4 for features of width 2048; narrower ones want more",
        stand_in=3e-4,
    )
    lr_drop: bounds.Epochs | None = option(
        None, "epochs after which the learning rate falls to 0.8", paper=80, free=True
    )
    epochs: bounds.Epochs = option(
        40,
        "passes over the training videos",
        paper=200,
        free=True,
        tune=Integer(3, 400, log=True),
        why="papers 1000 to 4000 steps of 16 videos; more overfits narrow features",
    )


@dataclass(frozen=True)
class RskpTrain:
    """Fit stage: the model and its memory, from the classes of videos."""

    config: RskpTraining
    name: str = "rskp/train"
    version: int = 1

    def open(self, context: Context) -> RskpTask:
        config, data = self.config, context.data
        shape = {"width": config.width or data.manifest.grid.dim}
        return RskpTask(
            config,
            context,
            epochs=config.epochs,
            lr=config.lr,
            lr_drop=config.lr_drop,
            memory_epochs=config.epochs * 3 // 4 if config.memory_epochs is None else config.memory_epochs,
            shape=shape | {name: getattr(config, name) for name in ARCHITECTURE},
        )


class RskpTask:
    """The training task; an item is one video and its classes. Later training adds entries and terms to it.

    Attributes:
        rows: entries of an item with one row per snippet, which are padded.
        epoch_steps: steps of an epoch; `optimiser` sets it.

    Args:
        config: losses and memory.
        context: its input "model", if there is one, holds the weights to start from; the memory starts empty.
        epochs: of this training.
        lr: learning rate; None: by the width of the features.
        memory_epochs: epochs before the memory opens, filled by a pass over all videos.
        shape: arguments of `RskpModel` (dim, classes and dropout come by themselves); None with an input "model".
        lr_drop: epochs after which the learning rate falls; None: never.

    Raises:
        DataError: no training video has a class.
    """

    rows: ClassVar[tuple[str, ...]] = ("features",)

    def __init__(
        self,
        config: RskpLosses,
        context: Context,
        *,
        epochs: int,
        lr: float | None,
        memory_epochs: int,
        shape: Mapping[str, Any] | None = None,
        lr_drop: int | None = None,
    ) -> None:
        data = context.data
        self.config, self.data = config, data
        self.budget = Budget(epochs, config.batch_size or default_batch(data, 10), config.ema_decay)
        self.memory_epochs, self.lr_drop, self.epoch_steps = memory_epochs, lr_drop, 1
        self.videos = [v for v in context.videos if len(data.video_classes(v))]
        skipped = len(context.videos) - len(self.videos)
        if not self.videos:
            raise DataError(
                f"{data.root}: none of the {len(context.videos)} training videos has a class; rskp learns from the "
                "classes of videos: add labels.csv (video_id,label), points.csv or full_labels.csv"
            )
        if skipped:
            log.info("leaving out %d of %d videos without a class", skipped, len(context.videos))
        dim = data.manifest.grid.dim
        self.lr = min(1e-3, 5e-5 * 2048 / dim) if lr is None else lr
        self.step: int | None = None
        self.module: nn.Module
        if "model" in context.inputs:
            model, settings = restore(context, of_architecture(RskpModel), dropout=config.dropout)
            model.forget()
            self.module = model
            architecture = settings["architecture"]
        else:
            architecture = {"dim": dim, "classes": len(data.classes), "dropout": config.dropout, **(shape or {})}
            self.module = RskpModel(**architecture)
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "lr": self.lr,
            "memory_epochs": memory_epochs,
            "videos": len(self.videos),
            "skipped_videos": skipped,
        }
        if config.snippets is not None:
            self.settings["snippets"] = config.snippets

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> dict[str, Tensor]:
        """The entries of `of_rows`, of all snippets or of those drawn, classes [C] bool, and index [] of the video."""
        video = self.videos[index]
        classes = torch.zeros(len(self.data.classes), dtype=torch.bool)
        classes[torch.from_numpy(self.data.video_classes(video))] = True
        entries = self.of_rows(video)
        if self.config.snippets is not None:
            rows = torch.from_numpy(drawn(len(entries["features"]), self.config.snippets, rng))
            entries = {name: entry[rows] for name, entry in entries.items()}
        return entries | {"classes": classes, "index": torch.tensor(index)}

    def of_rows(self, video: str) -> dict[str, Tensor]:
        """The entries of a video's item with one row per snippet: features [T, D]."""
        return {"features": read_features(self.data, video)}

    def collate(self, items: list[dict[str, Tensor]]) -> Batch:
        """Entries of `rows` padded to the longest [B, T, ...], the others stacked [B, ...], and mask [B, T] bool."""
        lengths = torch.tensor([len(item["features"]) for item in items])
        columns = {name: [item[name] for item in items] for name in items[0]}
        return {
            name: nn.utils.rnn.pad_sequence(column, batch_first=True) if name in self.rows else torch.stack(column)
            for name, column in columns.items()
        } | {"mask": torch.arange(int(lengths.max()))[None] < lengths[:, None]}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The weighted terms of each video, averaged over the videos; then the memory takes in the batch."""
        core = unwrap(module)
        assert isinstance(core, RskpModel)
        if self.step is None:  # from then on it is counted here: a GPU has to be waited for
            self.step = int(core.steps)
        epoch, step = divmod(self.step, self.epoch_steps)
        remembering = epoch >= self.memory_epochs
        if epoch == self.memory_epochs and step == 0:
            self.first_memory(core, batch["mask"].device)
        scores = module(batch["features"], batch["mask"], self.memory_classes(batch) if remembering else None)
        terms, weights = self.terms(scores, batch), self.weights(epoch)
        videos = total(scores.embedding.new_full((), len(batch["mask"])))
        shares = {name: term.sum() / videos for name, term in terms.items()}
        loss = torch.stack([weights[name] * share for name, share in shares.items()]).sum()
        if remembering:
            core.remember(*self.gather(scores, batch, total))
        core.steps += 1
        self.step += 1
        return {"loss": loss, **shares}

    def terms(self, scores: RskpScores, batch: Batch) -> dict[str, Tensor]:
        """The loss terms of every video, [B] each, under the names of `weights`."""
        config, mask = self.config, batch["mask"]
        classes = batch["classes"].to(scores.embedding)
        inside, whole = pad(classes, (0, 1)), pad(classes, (0, 1), value=1.0)
        branches: list[tuple[HeadScores, Tensor | float]] = [(scores.own, 1.0), (scores.walk, 1.0)]
        target = scores.walk.logits
        if scores.memory is not None:
            share = scores.remembered.to(target)
            branches.append((scores.memory, config.memory_weight * share))
            target = target.lerp(scores.memory.logits, config.memory_share * share[:, None, None])
        return {
            "foreground": torch.stack([w * video_loss(head.foreground, inside) for head, w in branches]).sum(0),
            "whole": torch.stack([w * video_loss(head.whole, whole) for head, w in branches]).sum(0),
            "attention": attention_loss(scores.own.attention, mask, config.attention_ratio),
            "snippet": snippet_loss(scores.own.logits, target, mask, config.snippet_temperature),
        }

    def weights(self, epoch: int) -> dict[str, float]:
        """The weights of the terms in an epoch of this training, from 0."""
        config = self.config
        return {
            "foreground": config.foreground_weight,
            "whole": config.whole_weight,
            "attention": config.attention_weight,
            "snippet": config.snippet_weight if epoch < self.memory_epochs else config.snippet_weight_memory,
        }

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        self.epoch_steps = steps // self.budget.epochs
        adam = torch.optim.Adam(
            module.parameters(), lr=self.lr, betas=(0.9, 0.99), weight_decay=self.config.weight_decay, fused=True
        )
        if self.lr_drop is None:
            return adam, None
        drop = self.lr_drop * self.epoch_steps
        return adam, torch.optim.lr_scheduler.LambdaLR(adam, lambda step: DROP if step >= drop else 1.0)

    def memory_classes(self, batch: Batch) -> Tensor:
        """[B, C] bool, the classes whose slots each video reads and fills."""
        if not self.config.memory_first_class:
            return batch["classes"]
        return torch.zeros_like(batch["classes"]).index_fill(1, torch.tensor([0]).to(batch["index"]), True)

    @torch.no_grad()
    def first_memory(self, core: RskpModel, device: torch.device) -> None:
        """Fills the memory from all training videos in eval mode; every worker goes through all of them."""
        core.eval()
        for index in range(len(self)):
            item = self.item(index, np.random.default_rng(0))
            batch = {k: v.to(device) for k, v in self.collate([item]).items()}
            scores: RskpScores = core(batch["features"], batch["mask"])
            core.remember(scores.prototypes[0], class_scores(scores.prototype_scores, batch["classes"])[0])
        core.train()

    @torch.no_grad()
    def gather(self, scores: RskpScores, batch: Batch, total: Total) -> tuple[Tensor, Tensor]:
        """The prototypes [N, W] of the videos of all workers and their scores [N, C], in the order of the videos.

        Each worker adds its own rows to zeros, at places that all workers agree on, so what comes out is the same for
        any number of workers.
        """
        index = batch["index"]
        present = total(torch.zeros(len(self), device=index.device).index_fill(0, index, 1.0))
        place = present.cumsum(0)[index].long() - 1

        def everyones(rows: Tensor) -> Tensor:
            return total(rows.new_zeros(int(present.sum()), *rows.shape[1:]).index_copy(0, place, rows)).flatten(0, 1)

        marks = class_scores(scores.prototype_scores.detach(), self.memory_classes(batch))
        return everyones(scores.prototypes.detach()), everyones(marks)


def class_scores(scores: Tensor, classes: Tensor) -> Tensor:
    """[B, K, C] the prototypes' scores [B, K, C + 1] for the given classes [B, C] bool, -1 for the others."""
    return torch.where(classes[:, None], scores[..., :-1], -1.0)


def video_loss(logits: Tensor, target: Tensor) -> Tensor:
    """[B] cross-entropy of the videos' logits [B, C + 1] with their classes [B, C + 1], each class an equal share."""
    return -(target / target.sum(1, keepdim=True) * log_softmax(logits, dim=1)).sum(1)


def attention_loss(attention: Tensor, mask: Tensor, ratio: int) -> Tensor:
    """[B] mean of the lowest attention minus mean of the highest; each of max(1, T // ratio) snippets of a video.

    Args:
        attention: [B, T] in [0, 1].
        mask: [B, T] bool, False on padding.
        ratio: one snippet in `ratio` counts.
    """
    count = (mask.sum(1) // ratio).clamp(min=1)
    most = max(1, mask.shape[1] // ratio)
    use = torch.arange(most, device=mask.device)[None] < count[:, None]
    high = attention.masked_fill(~mask, -1.0).topk(most, dim=1).values
    low = attention.masked_fill(~mask, 2.0).topk(most, dim=1, largest=False).values
    return ((low - high) * use).sum(1) / count


def snippet_loss(logits: Tensor, target: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """[B] mean over snippets of the cross-entropy of logits with fixed pseudo-labels, both [B, T, C + 1] logits."""
    labels = (target.detach() / temperature).softmax(-1)
    each = -(labels * log_softmax(logits / temperature, dim=-1)).sum(-1)
    return (each * mask).sum(1) / mask.sum(1)
