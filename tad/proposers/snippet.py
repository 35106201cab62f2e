"""Proposer `snippet`: the point-supervised snippet model, HR-Pro's baseline.

Trained on the labelled rows and on background mined between them; proposals are the runs of its curves over several
thresholds, scored by outer-inner contrast. Source: HR-Pro (AAAI 2024) sections 3.2 and 3.3 in the form its code runs,
without attention, memory and prototype contrast; LACP (ICCV 2021) section 3.1 has the video term as well.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy, one_hot

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.models.snippet import SnippetModel, SnippetScores, video_scores
from tad.ops.losses import probability_focal
from tad.ops.mining import mine
from tad.proposers.candidates import CandidateConfig, candidates
from tad.stage import Arrays, Artifact, Batch, Context, Engine, StageConfig, Total

log = logging.getLogger(__name__)


class TrainingConfig(StageConfig):
    """Model, losses and optimiser of the snippet model."""

    width: int | None = Field(default=None, ge=1, description="embedding width; null: that of the features")
    kernel: int = Field(default=3, ge=1, description="snippets each convolution sees; odd")
    layers: int = Field(default=1, ge=1, le=8, description="convolutions before the classifier")
    dropout: float = Field(default=0.7, ge=0, lt=1, description="dropout before the classifier")
    top_ratio: int = Field(default=8, ge=1, description="a video's class score is the mean of its T / top_ratio best")
    video_weight: float = Field(default=1.0, ge=0, description="weight of the video-level loss; HR-Pro's code has 0")
    point_weight: float = Field(default=0.5, ge=0, description="weight of the loss on action rows")
    background_weight: float = Field(default=1.0, ge=0, description="weight of the loss on mined background rows")
    action_rows: Literal["points", "mined"] = Field(
        default="points", description="action rows of the loss: those with points, or also those mined around them"
    )
    focal: float = Field(default=2.0, ge=0, description="focusing exponent of the row losses")
    action_threshold: float = Field(default=0.1, ge=0, le=1, description="mined action: background score at most this")
    background_threshold: float = Field(default=0.95, ge=0, le=1, description="mined background: at least this score")
    lr: float | None = Field(default=None, gt=0, description="null: 1e-4 * 2048 / feature width, at most 1e-3")
    weight_decay: float = Field(default=5e-4, ge=0, description="L2 penalty of Adam")
    epochs: int = Field(default=20, ge=1)
    batch_size: int | None = Field(default=None, ge=1, description="null: 16, fewer if there are under 128 videos")
    ema: float | None = Field(default=0.95, gt=0, lt=1, description="decay of averaged weights; null: the last weights")

    @field_validator("kernel")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value % 2 == 0:
            raise ValueError("must be odd, so that a snippet sees as much before as after itself")
        return value


class SnippetProposer(StageConfig):
    """Snippet model trained from points; its curves' runs are the proposals."""

    method: Literal["snippet"] = "snippet"
    training: TrainingConfig = TrainingConfig()
    candidates: CandidateConfig = CandidateConfig()

    def train(self, engine: Engine) -> Artifact:
        """Fits the snippet model on the training videos that have points."""
        size = self.training.batch_size
        if size is None:
            # A small set still takes several steps an epoch.
            size = min(16, max(1, len(engine.data.videos("train")) // 8))
        return engine.fit(SnippetTrain(self.training, size))

    def score(self, engine: Engine, model: Artifact, role: Role) -> Artifact:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32."""
        return engine.map(SnippetScore(), {"model": model}, role)

    def embed(self, engine: Engine, model: Artifact, role: Role) -> Artifact:
        """Array `embedding` [T, W], float16."""
        return engine.map(SnippetEmbed(), {"model": model}, role)

    def propose(self, engine: Engine, scores: Artifact, role: Role) -> Artifact:
        """Segments: proposals with their outer-inner contrast as score."""
        # Known classes are for training videos only, even if the points file also lists others.
        config = (
            self.candidates if role == "train" else self.candidates.model_copy(update={"train_classes": "predicted"})
        )
        return engine.map(SnippetPropose(config), {"scores": scores}, role)


@dataclass(frozen=True)
class SnippetTrain:
    """Fit stage: the model, from points."""

    config: TrainingConfig
    batch_size: int
    name: str = "snippet/train"
    version: int = 1
    clip_norm: float | None = None

    @property
    def epochs(self) -> int:
        return self.config.epochs

    @property
    def ema_decay(self) -> float | None:
        return self.config.ema

    def open(self, context: Context) -> SnippetTask:
        return SnippetTask(self.config, context)


class SnippetTask:
    """The training task; an item is one video.

    Raises:
        DataError: no training video has a point.
    """

    def __init__(self, config: TrainingConfig, context: Context) -> None:
        data = context.data
        self.config, self.data = config, data
        self.videos = [v for v in context.videos if len(data.points(v).time)]
        skipped = len(context.videos) - len(self.videos)
        if not self.videos:
            raise DataError(
                f"{data.root / 'points.csv'}: none of the {len(context.videos)} training videos has a point; "
                "the snippet model learns from points"
            )
        if skipped:
            log.info("snippet/train leaves out %d of %d videos without points", skipped, len(context.videos))
        dim = data.manifest.grid.dim
        self.lr = min(1e-3, 1e-4 * 2048 / dim) if config.lr is None else config.lr
        architecture: dict[str, Any] = {
            "dim": dim,
            "classes": len(data.classes),
            "width": config.width or dim,
            "kernel": config.kernel,
            "layers": config.layers,
            "dropout": config.dropout,
        }
        self.module: nn.Module = SnippetModel(**architecture)
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "top_ratio": config.top_ratio,
            "lr": self.lr,
            "videos": len(self.videos),
            "skipped_videos": skipped,
        }

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Features [T, D] and the classes of each row's points [T, C]."""
        video = self.videos[index]
        features = read_features(self.data, video)
        points = self.data.points(video)
        rows = self.data.grid(video, len(features)).row(points.time)
        labels = torch.zeros(len(features), len(self.data.classes), dtype=torch.bool)
        labels[torch.from_numpy(rows), torch.from_numpy(points.label)] = True
        return features, labels

    def collate(self, items: list[tuple[Tensor, Tensor]]) -> Batch:
        """features [B, T, D], points [B, T, C] bool and mask [B, T] bool, padded to the longest."""
        features, points = zip(*items, strict=True)
        lengths = torch.tensor([len(f) for f in features])
        return {
            "features": nn.utils.rnn.pad_sequence(list(features), batch_first=True),
            "points": nn.utils.rnn.pad_sequence(list(points), batch_first=True),
            "mask": torch.arange(int(lengths.max()))[None] < lengths[:, None],
        }

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """HR-Pro section 3.2: video, action and background terms of each video, averaged over the videos."""
        scores = module(batch["features"], batch["mask"])
        terms = video_losses(scores, batch["points"], batch["mask"], self.config)
        videos = total(torch.tensor(float(len(batch["mask"])), device=batch["mask"].device))
        shares = {name: term.sum() / videos for name, term in terms.items()}
        weights = {
            "video": self.config.video_weight,
            "point": self.config.point_weight,
            "background": self.config.background_weight,
        }
        loss = torch.stack([weight * shares[name] for name, weight in weights.items()]).sum()
        return {"loss": loss, **shares}

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        return torch.optim.Adam(module.parameters(), lr=self.lr, weight_decay=self.config.weight_decay), None


def video_losses(scores: SnippetScores, points: Tensor, mask: Tensor, config: TrainingConfig) -> dict[str, Tensor]:
    """The three losses of every video, each [B]; mean over the video's rows that the term looks at.

    Args:
        scores: of the model, [B, T, ...].
        points: [B, T, C] bool, the classes of each row's points.
        mask: [B, T] bool, False on padding.
        config: of the training.
    """
    mined = mine(scores.background, points, mask, config.action_threshold, config.background_threshold)
    action = points if config.action_rows == "points" else mined.action
    output = torch.cat([scores.cas(), scores.background[..., None]], dim=-1)

    def rows(target: Tensor, use: Tensor) -> Tensor:
        """[B] focal loss summed over the C + 1 outputs, mean over the rows in use."""
        each = probability_focal(output, target, config.focal).sum(-1)
        return (each * use).sum(1) / use.sum(1).clamp(min=1)

    target = torch.cat([action.to(output), torch.zeros_like(output[..., :1])], dim=-1)
    empty = one_hot(torch.tensor(output.shape[-1] - 1, device=output.device), output.shape[-1]).to(output)

    present = points.any(1)
    # Absent classes are held down everywhere, present ones lifted where they are highest.
    mean = (scores.classes * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    pooled = torch.where(present, video_scores(scores.classes, mask, config.top_ratio), mean)
    return {
        "video": binary_cross_entropy(pooled, present.to(pooled), reduction="none").mean(1),
        "point": rows(target, action.any(-1)),
        "background": rows(empty.expand_as(output), mined.background),
    }


@dataclass(frozen=True)
class SnippetScore:
    """Map stage: the curves of every video."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "snippet/score"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, settings = load(context)

        def score(video: str) -> Arrays:
            out = run(video)
            mask = torch.ones(out.background.shape, dtype=torch.bool)
            pooled = video_scores(out.classes, mask, settings["top_ratio"])
            return {
                "cas": out.cas()[0].numpy(),
                "background": out.background[0].numpy(),
                "video": pooled[0].numpy(),
            }

        return score


@dataclass(frozen=True)
class SnippetEmbed:
    """Map stage: the embedding of every snippet, as features for labelers."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "snippet/embed"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, _ = load(context)
        return lambda video: {"embedding": run(video).embedding[0].numpy().astype(np.float16)}


@dataclass(frozen=True)
class SnippetPropose:
    """Map stage: proposals from the curves."""

    config: CandidateConfig
    name: str = "snippet/propose"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, scores = context.data, context.inputs["scores"]
        names = np.array(data.classes, dtype=object)

        def propose(video: str) -> Segments:
            cas, background = scores.array("cas", video), scores.array("background", video)
            known = data.video_classes(video) if self.config.train_classes == "given" else np.zeros(0, dtype=np.int64)
            found = candidates(cas, 1 - background, scores.array("video", video), known, self.config)
            grid = data.grid(video, len(cas))
            spans = np.clip(grid.from_edge(found.spans), 0, data.duration(video))
            keep = spans[:, 1] > spans[:, 0]
            return Segments.of(
                video,
                spans[keep, 0],
                spans[keep, 1],
                names[found.labels[keep]].tolist(),
                found.scores[keep],
                source=context.source,
            )

        return propose


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


def load(context: Context) -> tuple[Callable[[str], SnippetScores], dict[str, Any]]:
    """The trained model as a function of a video id (scores have B = 1), and its settings.

    Raises:
        RunError: the model was trained for another feature width or number of classes.
    """
    saved = context.inputs["model"].model()
    architecture, data = saved["settings"]["architecture"], context.data
    for key, here in (("dim", data.manifest.grid.dim), ("classes", len(data.classes))):
        if architecture[key] != here:
            raise RunError(
                f"{context.inputs['model'].path}: the model was trained with {key} = {architecture[key]}, but "
                f"{data.root} has {here}; train it on this dataset"
            )
    model = SnippetModel(**architecture)
    model.load_state_dict(saved["state"])
    model.eval()

    def run(video: str) -> SnippetScores:
        features = read_features(data, video)[None]
        with torch.inference_mode():
            return model(features, torch.ones(features.shape[:2], dtype=torch.bool))

    return run, saved["settings"]
