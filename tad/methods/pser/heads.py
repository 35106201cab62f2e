"""PseR's heads in training: bags and negatives of many videos as mini-batches, and their losses.

Source: PseR, proposal propagation and refinement network. Legend: V videos, T rows, D feature width, G bags,
N members of a bag, n negatives, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from tad import bounds
from tad.data.grid import SnippetGrid
from tad.errors import DataError, RunError
from tad.methods.common.seeds import Proposals, SeedRule
from tad.methods.pser.bags import clear_of, negative_spans, perturb, seed_tious
from tad.methods.pser.model import BagScores, PserHeads
from tad.ops.losses import mil_bag_probability, mil_loss, negative_loss, smooth_l1
from tad.options import option
from tad.ranges import Choice, Float, Integer, Scales, Shifts
from tad.stages import Batch, Budget, Context, StageConfig, Total


class BagConfig(StageConfig):
    """Which copies of a seed are in its bag."""

    scales: list[bounds.Ratio] = option(
        [0.4, 0.6, 0.8, 1.0, 1.25, 1.6, 2.2],
        "lengths, as shares of the seed's",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5],
        tune=Scales(Float(1.2, 3.0, log=True), Integer(2, 5)),
        why="paper .5 to 1.5; below 1.2 no member differs, beyond 3 most are wrong",
    )
    shifts: list[Annotated[float, Field(ge=-bounds.SHARE, le=bounds.SHARE)]] = option(
        [0.0, -0.2, 0.2],
        "shifts of the centre, as shares of the scaled length",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[0.0, -0.1, 0.1],
        tune=Shifts(Float(0.05, 0.4), Integer(1, 3)),
        why="paper .1; at .4 of its length a copy has tIoU .43 with the seed",
    )


class NegativesConfig(StageConfig):
    """Random segments that the class scores should reject."""

    count: int = option(
        50,
        "drawn for every item",
        ge=0,
        le=bounds.COUNT,
        paper=500,
        tune=Integer(10, 1000, log=True),
        why="paper 500 a video; here for each item of 16 bags",
    )
    tiou_threshold: bounds.PositiveFraction = option(
        0.3,
        "kept if below this with all the bags' members",
        paper=0.3,
        tune=Float(0.1, 0.5),
        why="paper .3; above .5 a negative may be a good segment",
    )
    margin: float = option(
        0.2,
        "how far they may leave the video, as a share of its length",
        ge=0,
        le=bounds.SHARE,
        paper=0.2,
        tune=Float(0.0, 0.3),
        why="paper .2; rows outside the video are all zero",
    )
    weight: bounds.Weight = option(
        0.5, "weight of their loss", paper=0.5, tune=Float(0.05, 2.0, log=True), why="paper .5, within a factor of ten"
    )
    mean_over: Literal["valid", "all"] = option(
        "valid", "the loss is a mean over the kept ones, or (published) over all drawn ones", paper="all"
    )


class HeadsConfig(StageConfig):
    """Pooling, modules, losses and optimiser."""

    bins: bounds.Parts = option(
        12, "RoI bins", paper=8, tune=Choice(4, 8, 12, 16), why="paper 8 pooled rows of a segment"
    )
    context: float = option(
        0.5,
        "RoIs reach this share of their length further on both sides",
        ge=0,
        le=bounds.SHARE,
        paper=0.0,
        tune=Float(0.0, 0.8),
        why="paper 0; surroundings show what a segment leaves out",
    )
    alignment: Literal["centred", "published"] = option(
        "centred",
        "rows lie at the centre of their snippet, short RoIs grow on both sides; published: half a snippet "
        "late, at the end",
        paper="published",
    )
    project: bounds.Width | None = option(
        32,
        "each module reduces snippets to this width; null: no",
        paper=None,
        tune=Choice(None, 16, 32, 64),
        why="paper null; fewer weights to learn from some hundred bags",
    )
    hidden: bounds.Width = option(
        128,
        "width of the modules' two layers",
        paper=1024,
        free=True,
        tune=Choice(64, 128, 256, 512, 1024),
        why="paper 1024 on 2048-wide features",
    )
    dropout: bounds.Chance = option(
        0.2, "before each of the two layers", paper=0.0, tune=Float(0.0, 0.5), why="paper 0"
    )
    bag_mean: Literal["add", "subtract"] = option(
        "subtract", "what the ranking module does with the mean of the bag (published: add)", paper="add"
    )
    focal: bounds.Power = option(
        2.0,
        "focusing exponent of the selection and negative losses",
        paper=2.0,
        tune=Float(0.0, 3.0),
        why="paper 2; 0 is cross entropy",
    )
    rank_weight: bounds.Weight = option(
        20.0,
        "weight of the ranking loss, whose gradients the L2 penalty drowns at 1",
        paper=1.0,
        tune=Float(0.5, 100.0, log=True),
        why="paper 1, where the L2 penalty drowns the ranking loss",
    )
    bags_per_item: bounds.Count | None = option(
        16,
        "bags of a video in one item; null: all of them",
        paper=None,
        tune=Choice(None, 8, 16, 32),
        why="paper null: all bags of a video",
    )
    mean_over: Literal["bags", "videos"] = option(
        "bags", "the loss is a mean over all bags of a batch, or of each video and then over these", paper="videos"
    )
    lr: bounds.Rate = option(
        1e-3, "of Adam", paper=1e-4, tune=Float(5e-5, 0.01, log=True), why="paper 1e-4 for 1600 steps; here 400 steps"
    )
    weight_decay: bounds.Penalty = option(
        1e-4,
        "L2 penalty of Adam",
        paper=5e-4,
        tune=Float(1e-6, 0.01, log=True),
        why="paper 5e-4, which drowns the ranking loss",
    )
    schedule: Literal["cosine", "constant"] = option("cosine", "cosine: after a tenth of warm-up", paper="constant")
    snapshot_epochs: int = option(
        2,
        "weights are averaged (exponentially) over about so many epochs; 0: the last ones",
        ge=0,
        le=bounds.EPOCHS,
        paper=0,
    )
    batch_size: bounds.BatchSize | None = option(
        None, "items per step; null: 8, fewer if there are under 64 items", paper=16, free=True
    )
    epochs: bounds.Epochs | None = option(
        None,
        "null: as many as make 400 steps, between 12 and 60",
        paper=133,  # 1596 of its 1600 steps on the 200 training videos of THUMOS14
        free=True,
        tune=Integer(3, 150, log=True),
        why="paper 133 epochs of 12 steps",
        stand_in=24,
    )

    def budget(self, points: Iterable[int]) -> tuple[int, int]:
        """Epochs and batch size for videos with these numbers of points."""
        items = sum(parts_of(count, self.bags_per_item) for count in points)
        batch = self.batch_size or min(8, max(1, items // 8))
        steps = max(1, items // batch)
        return self.epochs or min(60, max(12, math.ceil(400 / steps))), batch


def parts_of(count: int, most: int | None) -> int:
    """Into how many items the bags of a video with `count` points go."""
    return math.ceil(count / (most or max(count, 1)))


class FitConfig(StageConfig):
    """All that training the heads depends on."""

    seed_rule: SeedRule
    bag: BagConfig
    negatives: NegativesConfig
    heads: HeadsConfig


class BagReader:
    """Frozen features, bags and snippet coordinates of single videos.

    Features are the array "embedding" of the input of that name, or the dataset's own where there is none.

    Raises:
        RunError: the embedding lacks a video.
    """

    def __init__(self, context: Context, bag: BagConfig, centred: bool) -> None:
        self.data, self.bag, self.centred = context.data, bag, centred
        self.embedding = context.inputs.get("embedding")
        self.width = self.features(context.videos[0])[0].shape[1]

    def features(self, video: str) -> tuple[np.ndarray, SnippetGrid]:
        """[T, D] float32 and the video's grid."""
        if self.embedding is None:
            array = self.data.features(video)
        else:
            try:
                array = self.embedding.array("embedding", video)
            except FileNotFoundError as error:
                raise RunError(f"{self.embedding.path}: no embedding of video {video}; embed all videos") from error
        return np.array(array, dtype=np.float32), self.data.grid(video, len(array))

    def bags(self, seeds: np.ndarray) -> np.ndarray:
        """[G, N, 2] seconds from seeds [G, 2] seconds."""
        return perturb(seeds, self.bag.scales, self.bag.shifts)

    def coordinates(self, grid: SnippetGrid, seconds: np.ndarray) -> np.ndarray:
        """Where pooling reads: positions, or (published) edges, which are half a snippet late."""
        return grid.to_position(seconds) if self.centred else grid.to_edge(seconds)


class Item(NamedTuple):
    """Bags of one video; coordinates in snippets as pooling reads them."""

    features: np.ndarray  # [T, D] float32
    bags: np.ndarray  # [G, N, 2]
    labels: np.ndarray  # [G]
    bag_weight: np.ndarray  # [G]
    negatives: np.ndarray  # [n, 2], the kept ones
    negative_weight: np.ndarray  # [n]
    negative_count: float


class HeadsTask:
    """The training task; an item is some bags of one video with negatives of their own.

    Raises:
        DataError: no training video has a point, or a fused candidate.
    """

    def __init__(self, config: FitConfig, context: Context) -> None:
        self.config = config
        self.reader = BagReader(context, config.bag, config.heads.alignment == "centred")
        self.labels: dict[str, np.ndarray] = {}
        self.seeds: dict[str, np.ndarray] = {}
        self.items: list[tuple[str, slice]] = []
        proposals = Proposals(context)
        for video in context.videos:
            points, seeds = proposals.seeds(video, config.seed_rule)
            self.labels[video], self.seeds[video] = points.label, seeds.spans
            parts = parts_of(len(points.label), config.heads.bags_per_item)
            # Every parts-th bag: an item then sees the whole video, not a stretch of it.
            self.items += [(video, slice(part, None, parts)) for part in range(parts)]
        if not self.items:
            if proposals.fused:
                raise DataError(f"{context.inputs['fused'].path}: no training video has a fused candidate to refine")
            raise DataError(
                f"{context.data.root / 'points.csv'}: no training video has a point; pser labels points. Labelers "
                "gaufuse and pser-weak need classes alone, mixed takes labels of all kinds"
            )
        heads = config.heads
        architecture = {
            "dim": self.reader.width,
            "classes": len(context.data.classes),
            "bins": heads.bins,
            "hidden": heads.hidden,
            "project": heads.project,
            "context": heads.context,
            "centred": heads.alignment == "centred",
            "bag_mean": heads.bag_mean,
            "dropout": heads.dropout,
        }
        self.module: nn.Module = PserHeads(**architecture)
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "bags": sum(len(x) for x in self.labels.values()),
            "items": len(self.items),
        }
        self.target = torch.from_numpy(seed_tious(config.bag.scales, config.bag.shifts)).float()
        # A mean over the last snapshots, by the loop's running average. No longer than a quarter of the training, so
        # that nothing is left of the start.
        epochs, batch = heads.budget(len(x) for x in self.labels.values())
        span = min(heads.snapshot_epochs, epochs / 4) * max(1, len(self.items) // batch)
        self.budget = Budget(epochs, batch, 1 - 1 / span if span > 1 else None)

    def __len__(self) -> int:
        return len(self.items)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """Some bags of a video, and new negatives."""
        video, part = self.items[index]
        heads, negatives = self.config.heads, self.config.negatives
        features, grid = self.reader.features(video)
        bags = self.reader.bags(self.seeds[video])
        begin, end = float(grid.from_edge(0.0)), float(grid.from_edge(float(grid.length)))
        u1, u2 = rng.random(negatives.count), rng.random(negatives.count)
        drawn = begin + negative_spans(u1, u2, end - begin, negatives.margin)
        # Against the bags of the whole video, also those of its other items.
        kept = drawn[clear_of(drawn, bags, negatives.tiou_threshold)]
        bags, labels = bags[part], self.labels[video][part]
        over_all = negatives.mean_over == "all"
        return Item(
            features,
            self.reader.coordinates(grid, bags),
            labels,
            np.full(len(labels), 1.0 / len(labels) if heads.mean_over == "videos" else 1.0, dtype=np.float32),
            self.reader.coordinates(grid, kept),
            np.full(len(kept), 1.0 / max(1, negatives.count) if over_all else 1.0, dtype=np.float32),
            1.0 if over_all else float(len(kept)),
        )

    def collate(self, items: list[Item]) -> Batch:
        """Features padded to the longest [V, T, D]; bags and negatives one after the other, with their video."""
        rows = [torch.from_numpy(item.features) for item in items]

        def joined(name: str) -> Tensor:
            return torch.from_numpy(np.concatenate([getattr(item, name) for item in items]))

        def video_of(name: str) -> Tensor:
            return torch.repeat_interleave(torch.tensor([len(getattr(item, name)) for item in items]))

        return {
            "features": nn.utils.rnn.pad_sequence(rows, batch_first=True),
            "lengths": torch.tensor([len(row) for row in rows]),
            "bags": joined("bags"),
            "bag_video": video_of("bags"),
            "labels": joined("labels"),
            "bag_weight": joined("bag_weight"),
            "negatives": joined("negatives"),
            "negative_video": video_of("negatives"),
            "negative_weight": joined("negative_weight"),
            "negative_count": torch.tensor([item.negative_count for item in items]),
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """PseR's L_sel + L_rank + L_neg, each a share of a mean over all workers."""
        names = ("features", "lengths", "bags", "bag_video", "negatives", "negative_video")
        scores: BagScores = module(*(batch[name] for name in names))
        heads, weight = self.config.heads, batch["bag_weight"]
        bags = total(weight.sum())
        classes = torch.arange(scores.cls.shape[-1], device=scores.cls.device)
        onehot = (batch["labels"][..., None] == classes).to(scores.cls)
        selection = mil_loss(mil_bag_probability(scores.cls, scores.ins), onehot, heads.focal)
        target = self.target.to(scores.rank).expand_as(scores.rank)
        rank = smooth_l1(scores.rank, target).mean(1)
        negative = negative_loss(scores.negative, heads.focal) * batch["negative_weight"]
        terms = {
            "selection": (selection * weight).sum() / bags,
            "rank": (rank * weight).sum() / bags,
            "negative": negative.sum() / total(batch["negative_count"].sum()).clamp(min=1.0),
        }
        loss = terms["selection"] + heads.rank_weight * terms["rank"] + self.config.negatives.weight * terms["negative"]
        return {"loss": loss, **terms}

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Adam with L2 penalty; constant rate, or a tenth of warm-up and then a cosine."""
        heads = self.config.heads
        optimiser = torch.optim.Adam(module.parameters(), lr=heads.lr, weight_decay=heads.weight_decay, fused=True)
        if heads.schedule == "constant":
            return optimiser, None
        warm = max(1, steps // 10)

        def factor(step: int) -> float:
            if step < warm:
                return (step + 1) / warm
            return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))

        return optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
