"""What APL's discriminator learns from: all labelled instances, max-pooled over time, and pairs of them.

Source: APL (ECCV 2024), section 3.2. Partners come from all labelled videos, not from a batch of two videos, which
seldom holds a second class. Legend: M labelled instances, D feature width, B anchors of a batch, K partners of a kind.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.errors import DataError
from tad.methods.apl.icd_model import InstanceDiscriminator
from tad.options import option
from tad.ranges import Float
from tad.stages import Arrays, Batch, Budget, Context, StageConfig, Total

EPOCHS = 20
"""Parts of the training, after each of which it can be resumed."""
SINGLE = 0.5
"""Share of the features left out of the only instance of a class where it is its own partner."""


class IcdTraining(StageConfig):
    """Network, pairs and optimiser of the discriminator."""

    hidden: bounds.Width = option(128, "width of the hidden layer")
    partners: bounds.Count = option(
        5, "instances of the same class, and as many of others, that an anchor is paired with"
    )
    batch_size: bounds.BatchSize = option(64, "anchors of a step")
    steps: int = option(2000, "rounded down to a multiple of 20, if there are more", ge=1, le=bounds.STEPS)
    lr: bounds.Rate = option(1e-3, "of Adam")
    dropout: bounds.Chance = option(
        0.0,
        "share of the features that every instance of a pair is without; more finds more alike",
        tune=Float(0.0, 0.7),
        why="paper 0; more finds more alike, right and wrong",
    )


class Bank(NamedTuple):
    """All labelled instances."""

    vectors: np.ndarray
    """[M, D] float32."""
    labels: np.ndarray
    """[M] int64 class indices."""
    videos: np.ndarray
    """[M] int64: which of the context's videos."""


def pooled(features: np.ndarray, grid: SnippetGrid, spans: np.ndarray) -> np.ndarray:
    """The largest value of every feature in each segment: [N, D] float32.

    Args:
        features: [T, D].
        grid: their grid.
        spans: [N, 2] seconds. The rows whose centre lies inside count; the nearest row, where there is none.
    """
    found = np.zeros((len(spans), features.shape[1]), dtype=np.float32)
    position = grid.to_position(np.asarray(spans, dtype=np.float64))
    # The nudge keeps a centre that lies on a border inside.
    first, last = np.ceil(position[:, 0] - 1e-6), np.floor(position[:, 1] + 1e-6)
    outside = (first > last) | (last < 0) | (first > len(features) - 1)
    first[outside] = last[outside] = np.rint(position[outside].mean(1))
    rows = np.clip(np.stack([first, last], axis=1), 0, len(features) - 1).astype(np.int64)
    for i, (low, high) in enumerate(rows):
        found[i] = features[low : high + 1].max(axis=0)
    return found


@dataclass(frozen=True)
class PoolLabelled:
    """Map stage: arrays `vectors` [G, D] and `labels` [G] of the G actions of each fully labelled video."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "apl/bank"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        data = context.data

        def pool(video: str) -> Arrays:
            full = data.full_labels(video)
            if full is None:
                none = np.zeros((0, data.manifest.grid.dim), dtype=np.float32)
                return {"vectors": none, "labels": np.zeros(0, dtype=np.int64)}
            features = data.features(video)
            return {"vectors": pooled(features, data.grid(video, len(features)), full.spans), "labels": full.label}

        return pool


def labelled(data: Dataset, left_out: Collection[str] = ()) -> list[str]:
    """The fully labelled training videos, without those left out."""
    left_out = set(left_out)
    return [v for v in data.videos("train") if data.full_labels(v) is not None and v not in left_out]


def read_bank(context: Context, left_out: Collection[str] = ()) -> Bank:
    """All labelled instances, from the input "bank", in the order of the training videos."""
    artifact, place = context.inputs["bank"], {v: i for i, v in enumerate(context.data.videos("train"))}
    full = [(place[v], v) for v in labelled(context.data, left_out)]
    vectors = [artifact.array("vectors", v) for _, v in full]
    labels = [artifact.array("labels", v) for _, v in full]
    number = np.repeat([i for i, _ in full], [len(of_video) for of_video in labels]).astype(np.int64)
    return Bank(np.concatenate(vectors), np.concatenate(labels), number)


def bank_problems(data: Dataset, left_out: Collection[str] = ()) -> list[str]:
    """Why the discriminator cannot be trained on the full labels of the training videos."""
    full = [of_video for v in labelled(data, left_out) if (of_video := data.full_labels(v)) is not None]
    classes = {int(c) for of_video in full for c in of_video.label}
    if not full:
        return [
            "no training video has full labels, which labeler apl compares its candidates with; label some (`tad split "
            "--labelled` for an experiment, full_labels.csv), or use labeler mixed"
        ]
    if len(classes) < 2:
        names = ", ".join(data.classes[c] for c in sorted(classes)) or "none"
        return [
            f"the full labels of {len(full)} training videos have actions of fewer than two classes ({names}), so "
            "labeler apl cannot learn to tell classes apart; label more videos, or set labeler.icd.use: false"
        ]
    return []


class IcdTask:
    """The training task; an item is an anchor, K instances of its class and K of others.

    Every instance is an anchor equally often, so both orders of a pair are seen. Partners of the same class are of
    other videos if there are any; the only instance of a class is paired with a copy of itself under dropout.

    Raises:
        DataError: there are no labelled instances of two classes.
    """

    def __init__(self, config: IcdTraining, context: Context, left_out: Collection[str] = ()) -> None:
        problems = bank_problems(context.data, left_out)
        if problems:
            raise DataError(f"{context.data.root}: {problems[0]}")
        self.config, bank = config, read_bank(context, left_out)
        self.budget = Budget(min(EPOCHS, config.steps), config.batch_size)
        self.vectors = torch.from_numpy(bank.vectors.copy())
        self.alike = [_partners(bank, i) for i in range(len(bank.labels))]
        of_class = {c: np.flatnonzero(bank.labels != c) for c in np.unique(bank.labels)}
        self.different = [of_class[c] for c in bank.labels]
        architecture = {"dim": self.vectors.shape[1], "hidden": config.hidden}
        self.module: nn.Module = InstanceDiscriminator(**architecture)
        self.settings: dict[str, Any] = {
            "architecture": architecture,
            "instances": len(bank.labels),
            "single": sum(i in a.tolist() for i, a in enumerate(self.alike)),
        }

    def __len__(self) -> int:
        return self.config.steps // self.budget.epochs * self.budget.batch_size

    def item(self, index: int, rng: np.random.Generator) -> np.ndarray:
        """[1 + 2K] int64: the anchor, K instances of its class, K of others; drawn twice only where there are fewer."""
        anchor, count = int(rng.integers(len(self.alike))), self.config.partners
        drawn = [rng.choice(x, count, replace=len(x) < count) for x in (self.alike[anchor], self.different[anchor])]
        return np.concatenate([[anchor], *drawn])

    def collate(self, items: list[np.ndarray]) -> Batch:
        """`instances` [B, 1 + 2K]."""
        return {"instances": torch.from_numpy(np.stack(items))}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Eq. 8: mean -ln D over the pairs of one class plus mean -ln (1 - D) over the others; `accuracy` at 1/2."""
        instances, count = batch["instances"], self.config.partners
        self.vectors = self.vectors.to(instances.device)
        vectors = F.dropout(self.vectors[instances], self.config.dropout)
        own = instances == instances[:, :1]
        own[:, 0] = False
        vectors[own] = F.dropout(self.vectors[instances[own]], max(SINGLE, self.config.dropout))
        row = torch.arange(instances.numel(), device=instances.device).view_as(instances)
        first, second = row[:, :1].expand(-1, 2 * count).flatten(), row[:, 1:].flatten()
        logits = module(vectors.flatten(0, 1), first, second).view(-1, 2 * count)
        target = (torch.arange(2 * count, device=logits.device) < count).to(logits).expand_as(logits)
        pairs = total(torch.tensor(float(target.sum()), device=logits.device))
        right = ((logits > 0) == (target > 0)).sum() / 2
        return {
            "loss": F.binary_cross_entropy_with_logits(logits, target, reduction="sum") / pairs,
            "accuracy": right / pairs,
        }

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """Adam with a constant rate."""
        return torch.optim.Adam(module.parameters(), lr=self.config.lr, fused=True), None


def _partners(bank: Bank, i: int) -> np.ndarray:
    """Instances of the class of instance i: in other videos, else in its own, else itself."""
    same = bank.labels == bank.labels[i]
    elsewhere = np.flatnonzero(same & (bank.videos != bank.videos[i]))
    if len(elsewhere):
        return elsewhere
    others = np.flatnonzero(same & (np.arange(len(same)) != i))
    return others if len(others) else np.array([i])


@dataclass(frozen=True)
class IcdFit:
    """Fits the discriminator; reads the input "bank"."""

    config: IcdTraining
    name: str = "apl/icd"
    version: int = 1

    def open(self, context: Context) -> IcdTask:
        return IcdTask(self.config, context)


Alike = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From vectors [N, D] of segments (see `pooled`) and classes [N] to how like these they are, [N] float64."""


def likeness(context: Context, left_out: Collection[str] = ()) -> tuple[Alike, np.ndarray]:
    """Eq. 10, with the inputs "model" and "bank" (see `InstanceDiscriminator.similarity`).

    Args:
        context: of a stage.
        left_out: labelled videos whose instances do not count.

    Returns:
        The function, and the classes that have a labelled instance, ascending.
    """
    saved, bank = context.inputs["model"].model(), read_bank(context, left_out)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = InstanceDiscriminator(**saved["settings"]["architecture"])
    model.load_state_dict(saved["state"])
    model.to(device).eval()
    bank_labels = torch.from_numpy(bank.labels).to(device)
    with torch.inference_mode():
        second = model.second(torch.from_numpy(bank.vectors).to(device))

    def alike(vectors: np.ndarray, label: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            first = model.first(torch.from_numpy(vectors).to(device))
            return model.similarity(first, torch.from_numpy(label).to(device), second, bank_labels).cpu().numpy()

    return alike, np.unique(bank.labels)
