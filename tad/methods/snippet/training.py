"""Training of the snippet model: options, items, losses and optimiser.

Source: HR-Pro (AAAI 2024) section 3.2 and LACP (ICCV 2021) section 3.1 and its completeness learning, in the form
their code runs. Both learn from points. Here a video teaches by what is known of it: points as published; full labels
say of every row what it is, so nothing is mined; classes alone have the video term alone.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import field_validator
from torch import Tensor, nn

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.labels import SUPERVISION, Supervision
from tad.errors import DataError
from tad.methods.common.label_kinds import not_taught
from tad.methods.common.optimisers import default_batch
from tad.methods.snippet.completeness import Found, feature_loss, find_segments, score_loss
from tad.methods.snippet.mining import Mined, mine
from tad.methods.snippet.model import SnippetModel, SnippetScores, usual_ratio, video_scores
from tad.ops.losses import probability_entropy, probability_focal
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import Batch, Budget, Context, StageConfig, Total, unwrap

log = logging.getLogger(__name__)


class TrainingConfig(StageConfig):
    """Model, losses and optimiser of the snippet model."""

    width: bounds.Width | None = option(None, "embedding width; null: that of the features")
    kernel: bounds.Parts = option(3, "snippets each convolution sees; odd", paper=3)
    layers: int = option(1, "convolutions before the classifier", ge=1, le=8, paper=1)
    dropout: bounds.Chance = option(
        0.7, "dropout before the classifier", paper=0.7, tune=Float(0.2, 0.8), why="papers .7; less for narrow features"
    )
    top_ratio: bounds.Snippets | None = option(
        8,
        "a video's class score is the mean of its T / top_ratio best; null: five times as many as a usual video has "
        "classes, at least 8",
        paper=8,
        tune=Integer(2, 16, log=True),
        why="papers 8; 2 to 4 where actions fill their video",
        stand_in=16,
    )
    video_weight: bounds.Weight = option(
        0.1,
        "weight of the video-level loss of videos with points or boundaries; those with classes alone have nothing "
        "else to teach and count fully, but not at all if this is 0; LACP and POTLoc have 1, HR-Pro's code 0",
        tune=Float(0.0, 2.0),
        why="LACP and POTLoc 1, HR-Pro 0; where videos hold most classes, all rows fire at once",
    )
    point_weight: bounds.Weight = option(
        0.5, "weight of the loss on action rows", paper=0.5, tune=Float(0.1, 2.0, log=True), why="papers .5"
    )
    background_weight: bounds.Weight = option(
        1.0, "weight of the loss on mined background rows", paper=1.0, tune=Float(0.1, 2.0, log=True), why="papers 1"
    )
    score_contrast_weight: bounds.Weight = option(
        0.0, "weight of the contrast of searched segments' scores; LACP has 1", formerly="score_weight"
    )
    feature_contrast_weight: bounds.Weight = option(
        0.0, "weight of the contrast between searched segments' embeddings; LACP has 1", formerly="feature_weight"
    )
    search_budget: bounds.Count = option(25, "segmentations that the search for segments keeps open")
    action_rows: Literal["points", "mined"] = option(
        "points",
        "action rows of the loss: those with points, or also those mined around them",
        paper="points",
        tune=Choice("points", "mined"),
        why="papers points; mined adds confident rows around them",
    )
    focal: bounds.Power = option(
        2.0, "focusing exponent of the row losses", paper=2.0, tune=Float(0.0, 4.0), why="papers 2; 0 is cross entropy"
    )
    action_threshold: bounds.Fraction = option(
        0.1,
        "mined action: background score at most this",
        paper=0.1,
        tune=Float(0.05, 0.4),
        why="paper .1; rows with a background score up to it count as action around a point",
        when=("action_rows", "mined"),
    )
    background_threshold: bounds.Fraction = option(
        0.95,
        "mined background: at least this score",
        paper=0.95,
        tune=Float(0.7, 0.99),
        why="paper .95; lower mines more background, and more of it wrong",
    )
    lr: bounds.Rate | None = option(
        None,
        "null: 1e-4 * 2048 / feature width, at most 1e-3",
        tune=Float(1e-5, 3e-3, log=True),
        why="papers 2e-5 to 1e-4 for features of width 2048; narrower ones want more",
        stand_in=3e-4,
    )
    weight_decay: bounds.Penalty = option(
        5e-4, "L2 penalty of Adam", paper=5e-4, tune=Float(1e-5, 0.01, log=True), why="papers 5e-4 to 1e-3"
    )
    epochs: bounds.Epochs = option(
        20,
        "passes over the training videos",
        tune=Integer(3, 400, log=True),
        why="papers 1000 to 4000 steps of 16 videos; more overfits narrow features",
    )
    batch_size: bounds.BatchSize | None = option(
        None,
        "null: 16, fewer if there are under 128 videos",
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
        """The kinds of labels that teach."""
        return ("full", "points", "classes") if self.video_weight else ("full", "points")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that a snippet sees as much before as after itself")
        return value


@dataclass(frozen=True)
class SnippetTrain:
    """Fit stage: the model, from the labels that each video has."""

    config: TrainingConfig
    name: str = "snippet/train"
    version: int = 2

    def open(self, context: Context) -> SnippetTask:
        return SnippetTask(self.config, context)


class Item(NamedTuple):
    """One video and what is known of it."""

    features: Tensor
    """[T, D] float32."""
    points: Tensor
    """[T, C] bool: the classes of each row's points; of its actions, if the video is fully labelled."""
    present: Tensor
    """[C] bool: the classes of the video."""
    full: bool
    """Whether rows without an action are background."""


class SnippetTask:
    """The training task; an item is one video. HR-Pro's adds terms and a memory to it.

    Videos that teach nothing are left out: those without any label, and, if the video term weighs nothing, those with
    classes alone.

    Raises:
        DataError: no training video is left.
    """

    def __init__(self, config: TrainingConfig, context: Context) -> None:
        data = context.data
        self.config, self.data = config, data
        kinds = {v: data.supervision(v) for v in context.videos}
        counts = Counter(kinds.values())
        self.videos = [v for v in context.videos if kinds[v] in config.usable]
        skipped = len(context.videos) - len(self.videos)
        if not self.videos:
            raise DataError(f"{data.root}: {not_taught(counts, config.usable)}")
        if skipped:
            log.info("leaving out %d of %d videos, whose labels teach nothing", skipped, len(context.videos))
        dim = data.manifest.grid.dim
        self.budget = Budget(config.epochs, config.batch_size or default_batch(data, 16), config.ema_decay)
        self.lr = min(1e-3, 1e-4 * 2048 / dim) if config.lr is None else config.lr
        self.architecture: dict[str, Any] = {
            "dim": dim,
            "classes": len(data.classes),
            "width": config.width or dim,
            "kernel": config.kernel,
            "layers": config.layers,
            "dropout": config.dropout,
        }
        self.settings: dict[str, Any] = {
            "architecture": self.architecture,
            "top_ratio": config.top_ratio or usual_ratio(data, self.videos),
            "lr": self.lr,
            "videos": len(self.videos),
            "skipped_videos": skipped,
            "labels": {kind: counts[kind] for kind in SUPERVISION},
        }
        self.weights = {
            "point": config.point_weight,
            "background": config.background_weight,
            "score": config.score_contrast_weight,
            "feature": config.feature_contrast_weight,
        }
        self.module: nn.Module = self.build()

    def build(self) -> nn.Module:
        """The model to train, with fresh weights."""
        return SnippetModel(**self.architecture)

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A video and its labels on its rows."""
        data, video = self.data, self.videos[index]
        features = read_features(data, video)
        grid = data.grid(video, len(features))
        full, points = data.full_labels(video), data.points(video)
        labels = torch.zeros(len(features), len(data.classes), dtype=torch.bool)
        if full is None:
            labels[torch.from_numpy(grid.row(points.time)), torch.from_numpy(points.label)] = True
        else:
            for rows, label in zip(action_rows(full.spans, grid), full.label, strict=True):
                labels[rows, label] = True
        present = torch.zeros(len(data.classes), dtype=torch.bool)
        present[torch.from_numpy(data.video_classes(video))] = True
        return Item(features, labels, present, full is not None)

    def collate(self, items: list[Item]) -> Batch:
        """features [B, T, D], points [B, T, C] bool and mask [B, T] bool, padded to the longest; present, full."""
        features, points, present, full = zip(*items, strict=True)
        lengths = torch.tensor([len(f) for f in features])
        return {
            "features": nn.utils.rnn.pad_sequence(list(features), batch_first=True),
            "points": nn.utils.rnn.pad_sequence(list(points), batch_first=True),
            "mask": torch.arange(int(lengths.max()))[None] < lengths[:, None],
            "present": torch.stack(present),
            "full": torch.tensor(full),
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The weighted terms of each video, averaged over the videos."""
        mask = batch["mask"]
        scores = module(batch["features"], mask)
        terms = self.terms(module, scores, batch, labelled_rows(scores.background, batch, self.config))
        videos = total(scores.background.new_full((), len(mask)))
        shares = {name: term.sum() / videos for name, term in terms.items()}
        weights = self.weights | {"video": self.video_weights(batch)}
        loss = torch.stack([(weights[name] * term).sum() / videos for name, term in terms.items()]).sum()
        return {"loss": loss, **shares}

    def video_weights(self, batch: Batch) -> Tensor:
        """[B] weights of the video term: 1 where classes are all that is known."""
        more = batch["full"] | batch["points"].flatten(1).any(1)
        return torch.where(more, self.config.video_weight, 1.0)

    def terms(self, module: nn.Module, scores: SnippetScores, batch: Batch, mined: Mined) -> dict[str, Tensor]:
        """The loss terms of every video, [B] each, under the names of `weights`."""
        config = self.config
        known = batch["points"], batch["present"], batch["mask"]
        terms = video_losses(scores, *known, mined, config, self.settings["top_ratio"])
        if config.score_contrast_weight or config.feature_contrast_weight:
            found = self.segments(unwrap(module), batch)
            if config.score_contrast_weight:
                terms["score"] = score_loss(scores.cas(), batch["mask"], found)
            if config.feature_contrast_weight:
                terms["feature"] = feature_loss(scores.embedding, found)
        return terms

    @torch.no_grad()
    def segments(self, core: nn.Module, batch: Batch) -> Found:
        """The segments that LACP's search finds in the batch, on scores of the current weights without dropout.

        Published: all training videos every 10 steps, so that a video's segments are up to one epoch older than the
        weights. Searching the videos of the batch at every step is the same amount of work, and never stale.
        """
        mask, training = batch["mask"], core.training
        core.eval()
        scores: SnippetScores = core(batch["features"], mask)
        core.train(training)
        mined = labelled_rows(scores.background, batch, self.config)
        return find_segments(scores.cas(), mined, mask, self.config.search_budget)

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        decay = self.config.weight_decay
        return torch.optim.Adam(module.parameters(), lr=self.lr, weight_decay=decay, fused=True), None


def action_rows(spans: np.ndarray, grid: SnippetGrid) -> list[slice]:
    """The rows of each action [G, 2] in seconds: those whose centre it holds, at least the one at its own centre."""
    first, end = np.ceil(grid.to_position(spans)).astype(np.int64).clip(0, grid.length).T
    middle = grid.row(spans.mean(1))
    first, end = np.minimum(first, middle), np.maximum(end, middle + 1)
    return [slice(a, b) for a, b in zip(first.tolist(), end.tolist(), strict=True)]


def labelled_rows(background: Tensor, batch: Batch, config: TrainingConfig) -> Mined:
    """Mined rows around points; in fully labelled videos all rows by their labels; none where classes are all.

    Args:
        background: [B, T] background scores of the current model.
        batch: of `SnippetTask.collate`.
        config: of the training.
    """
    points, mask = batch["points"], batch["mask"]
    mined = mine(background, points, mask, config.action_threshold, config.background_threshold)
    known = batch["full"][:, None] & mask
    return Mined(
        torch.where(known[..., None], points, mined.action), torch.where(known, ~points.any(-1), mined.background)
    )


def video_losses(
    scores: SnippetScores,
    points: Tensor,
    present: Tensor,
    mask: Tensor,
    mined: Mined,
    config: TrainingConfig,
    top_ratio: int,
) -> dict[str, Tensor]:
    """The video, point and background terms of every video, each [B]; mean over the rows that the term looks at.

    Args:
        scores: of the model, [B, T, ...].
        points: [B, T, C] bool, the classes of each row's points or, in fully labelled videos, actions.
        present: [B, C] bool, the classes of each video.
        mask: [B, T] bool, False on padding.
        mined: pseudo action and background rows.
        config: of the training.
        top_ratio: one row in so many makes a video's class score.
    """
    action = points if config.action_rows == "points" else mined.action
    output = torch.cat([scores.cas(), scores.background[..., None]], dim=-1)

    def rows(target: Tensor, use: Tensor) -> Tensor:
        """[B] focal loss summed over the C + 1 outputs, mean over the rows in use."""
        each = probability_focal(output, target, config.focal).sum(-1)
        return (each * use).sum(1) / use.sum(1).clamp(min=1)

    target = torch.cat([action.to(output), torch.zeros_like(output[..., :1])], dim=-1)
    empty = (torch.arange(output.shape[-1], device=output.device) == output.shape[-1] - 1).to(output)

    # Absent classes are held down everywhere, present ones lifted where they are highest.
    mean = (scores.classes * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    pooled = torch.where(present, video_scores(scores.classes, mask, top_ratio), mean)
    return {
        "video": probability_entropy(pooled, present.to(pooled)).mean(1),
        "point": rows(target, action.any(-1)),
        "background": rows(empty.expand_as(output), mined.background),
    }


def read_features(data: Dataset, video: str) -> Tensor:
    """[T, D] float32.

    Raises:
        DataError: the file is missing or malformed, or holds a value that is not finite.
    """
    array = np.asarray(data.features(video), dtype=np.float32)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise DataError(f"{data.feature_path(video)}: row {row} holds a value that is not finite; extract it again")
    return torch.from_numpy(array.copy() if not array.flags.writeable else array)
