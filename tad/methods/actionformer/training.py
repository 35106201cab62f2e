"""Training of the detector `actionformer`: items, loss and optimiser.

Source: ActionFormer (ECCV 2022) section 3.4 and its released code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tad.methods.actionformer.derived import RULES, Facts, derived
from tad.methods.actionformer.model import ActionFormer, PointOutputs
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.targets import Targets, assign, ignore, pyramid
from tad.methods.common.optimisers import adamw
from tad.methods.common.pyramid import padded_length, real_points
from tad.methods.common.windows import (
    Labels,
    expected_length,
    pack,
    random_crop,
    read_ignored,
    read_labels,
    refine,
    teaching,
)
from tad.ops.losses import diou_1d, sigmoid_focal
from tad.stages import Batch, Budget, Context, Total, unwrap

SAVED = ("heads", "window", "drop_path", "input_dropout", *RULES)
"""Options that are saved with the weights."""


@dataclass(frozen=True)
class Item:
    """A window of one video, refined."""

    features: np.ndarray
    """[T, D] float32, `upsample` rows for each snippet but the last."""
    labels: Labels
    """In positions of these rows."""
    ignored: np.ndarray
    """[M, 2] float64 zones in the same positions: background in them and in no label teaches nothing."""


class DetectorTask:
    """The opened training stage: windows of the training videos with their pseudo-labels as targets.

    Videos without a pseudo-label are all background, or left out (see `teaching`).

    Attributes:
        config: without null options.
        reasons: why those that were null are what they are.

    Raises:
        DataError: a pseudo-label has a class or video that the dataset lacks, or there is none for a training video.
        ConfigError: the derived width is not divisible by the heads.
    """

    network: ClassVar[type[ActionFormer]] = ActionFormer

    def __init__(self, config: Training, context: Context) -> None:
        self.config, self.data = config, context.data
        self.labels = read_labels(context, config.label_score_weight)
        self.ignored = read_ignored(context)
        self.videos = self.choose(context)
        self.config, self.reasons = derived(config, self.facts())
        self.settings = self.resolve()
        settings = self.settings
        self.budget = Budget(settings["epochs"], config.batch_size, settings["ema_decay"], config.clip_norm)
        self.levels: int = self.settings["levels"]
        self.upsample: int = self.settings["upsample"]
        self.weights = {"classification": 1.0, "regression": config.regression_weight}
        self.module = self.network.of(self.settings)

    def choose(self, context: Context) -> list[str]:
        """The videos of which each is an item."""
        return teaching(context, self.labels)

    def __len__(self) -> int:
        return len(self.videos)

    def item(self, index: int, rng: np.random.Generator) -> Item:
        """A random window of a video; only its rows are read from the file."""
        return self.window(self.videos[index], rng)

    def window(self, video_id: str, rng: np.random.Generator) -> Item:
        """A random window of any video."""
        features, labels = self.data.features(video_id), self.labels[video_id]
        grid = self.data.grid(video_id, len(features))
        margin = grid.window / (2 * grid.stride)
        crop = random_crop(len(features), labels.spans, self.settings["max_length"], margin, rng)
        rows = refine(features[crop.start : crop.start + crop.size], self.upsample)
        points = (labels.points - crop.start) * self.upsample
        labels = labels._replace(spans=crop.spans * self.upsample, points=points)
        zones = (self.ignored.get(video_id, np.zeros((0, 2))) - crop.start) * self.upsample
        return Item(rows, Labels(*(part[crop.kept] for part in labels)), zones)

    def collate(self, items: Sequence[Item]) -> Batch:
        """Windows one after the other: features [T, D], video [T] and the targets of all P points, level by level.

        With them the `lengths` [V] of the windows, and which points are `positive`, int64 [n].
        """
        features, video, slots = pack([item.features for item in items], self.levels)
        levels = []
        for item, size in zip(items, slots, strict=True):
            points = pyramid(size, self.levels)
            spans, labels, weights = (torch.from_numpy(part) for part in item.labels[:3])
            radius = self.config.centre_radius
            targets = assign(points, spans, labels, weights, len(self.settings["classes"]), radius)
            targets = ignore(points, targets, torch.from_numpy(item.ignored), spans)
            levels.append([part.split(points.sizes) for part in targets])
        # From video by video to level by level, which is the order of the network's points.
        targets = Targets(
            *(torch.cat([torch.cat(level) for level in zip(*part, strict=True)]) for part in zip(*levels, strict=True))
        )
        positive = (targets.classes.any(-1) & real_points(video, self.levels)).nonzero()[:, 0]
        lengths = torch.tensor([len(item.features) for item in items])
        return {"features": features, "video": video, "lengths": lengths, "positive": positive, **targets._asdict()}

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """The weighted terms, and the number of positive points."""
        outputs: PointOutputs = self.answer(module, batch)
        positive = batch["positive"]
        core = unwrap(module)
        assert isinstance(core, ActionFormer)
        terms = self.terms(core, outputs, batch, positive, total)
        loss = sum((self.weights[name] * term for name, term in terms.items()), torch.zeros(()).to(outputs.logits))
        return {"loss": loss, **terms, "positives": loss.new_full((), len(positive))}

    def answer(self, module: nn.Module, batch: Batch) -> Any:
        """What the network says of a batch."""
        return module(batch["features"], batch["video"], batch["lengths"])

    def terms(
        self, core: ActionFormer, outputs: PointOutputs, batch: Batch, positive: Tensor, total: Total
    ) -> dict[str, Tensor]:
        """Class loss on all points and boundary loss on positive ones, both over a running number of positives."""
        number = self.count(core, positive, total)
        return {name: losses.sum() / number for name, losses in self.losses(outputs, batch, positive).items()}

    def losses(self, outputs: PointOutputs, batch: Batch, positive: Tensor) -> dict[str, Tensor]:
        """Of each point, weighted: focal class loss [P, C], and 1-D DIoU [n] of positive points."""
        weights = batch["weights"] * outputs.mask
        focal = sigmoid_focal(outputs.logits, batch["classes"].float())
        diou = diou_1d(outputs.offsets[positive], batch["offsets"][positive])
        return {"classification": focal * weights[:, None], "regression": diou * weights[positive]}

    def count(self, core: ActionFormer, positive: Tensor, total: Total) -> Tensor:
        """The running number of positive points of a batch, with this batch in it."""
        number = total(core.normaliser.new_full((), len(positive)))
        core.normaliser.mul_(0.9).add_(0.1 * number.clamp(min=1))
        return core.normaliser

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        config = self.config
        return adamw(module, self.settings["lr"], config.weight_decay, config.warmup, steps)

    def facts(self) -> Facts:
        """What null options are derived from."""
        sizes = np.concatenate([labels.spans[:, 1] - labels.spans[:, 0] for labels in self.labels.values()])
        lengths = np.array([expected_length(self.data, video) for video in self.windowed()])
        return Facts(self.data.manifest.grid.dim, sizes, lengths, len(self.videos))

    def windowed(self) -> list[str]:
        """The videos of which windows are drawn."""
        return self.videos

    def resolve(self) -> dict[str, Any]:
        """What is saved with the weights."""
        found: dict[str, Any] = {"dim": self.data.manifest.grid.dim, "classes": list(self.data.classes)}
        found |= {name: getattr(self.config, name) for name in SAVED}
        return found | {"max_length": padded_length(found["max_length"], found["levels"])}
