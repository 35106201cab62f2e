"""The retrained snippet model: snippet targets of pseudo-labels, the schedule over rounds, and the training task.

Source: GauFuse (CVPR 2023), "LinPro" and "Delta pseudo labels", and its released code. What is one training there, with
labels made anew at given epochs, is a training for each round here; per-round values are lists whose last entry counts
for all later rounds. Adam starts anew in each round, where the released code keeps its averages.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from tad import bounds
from tad.data.segments import Segments
from tad.methods.gaufuse.model import RskpModel, RskpScores
from tad.methods.gaufuse.snippet_targets import Rows, Solver, delta_target, snippet_targets, target_loss
from tad.methods.gaufuse.training import RskpLosses, RskpTask
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import Arrays, Batch, Context, StageConfig

NoEpochs = Annotated[int, Field(ge=0, le=bounds.EPOCHS)]


class TargetConfig(StageConfig):
    """How pseudo-labels become targets of snippets."""

    rows: Rows = option(
        "mean",
        "sum: released, targets are about score / length of a pseudo-label; mean: about its score",
        paper="sum",
        tune=Choice("sum", "mean"),
        why="code sum, which gives long pseudo-labels low targets",
    )
    solver: Solver = option(
        "centre",
        "which of the curves that fit: centre of those of least sum, or least squares; plain: none, a snippet's "
        "target is the best score of the pseudo-labels that hold it",
        paper="centre",
        tune=Choice("centre", "least-norm", "plain"),
        why="code the centre; least-norm leaves more to what overlaps do not share",
    )
    released_edges: bool = option(False, "edges cut down to whole snippets, as released", paper=True)
    trim: float = option(
        0.5,
        "snippets that a pseudo-label loses at either end, at most half of it: what candidates gained by "
        "`widen`, since a model that learns widened ones finds them wider in each round",
        ge=0,
        le=bounds.SNIPPETS,
        paper=0.0,
    )


class Schedule(StageConfig):
    """What changes over the epochs and rounds; every list has an entry for each round, the last for later ones, too."""

    epochs: list[bounds.Epochs] = option(
        [30, 15, 15, 15, 25, 50],
        "of each round",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[30, 15, 15, 15, 25, 50],
        free=True,
    )
    lr: list[bounds.Rate] | None = option(
        None,
        "null: 2e-5 * 2048 / feature width, at most 4e-4, in all rounds",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[2.048e-5, 2.048e-5, 5.12e-7, 2.56e-7],
        free=True,
    )
    label_epochs: list[NoEpochs] = option(
        [30, 15, 6, 0],
        "first epochs of each round that learn its targets; the others learn their change since the last round",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[30, 15, 6, 0],
        free=True,
    )
    gains: list[bounds.Factor] = option(
        [2.0, 2.0, 2.0, 2.0, 2.0, 2.15],
        "factor on the change",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[2.0, 2.0, 2.0, 2.0, 2.0, 2.15],
    )
    weight: bounds.Weight = option(
        5.0,
        "of the loss on targets, in the first epoch of all; released: 10 beside targets of sums, which "
        "are three to four times smaller",
        paper=10.0,
        tune=Float(0.1, 30.0, log=True),
        why="code 10 to 50 beside targets of sums; those of means are three times as large",
    )
    growth: bounds.Factor = option(
        1.035, "factor on this weight from epoch to epoch", paper=1.035, tune=Float(1.0, 1.1), why="code 1.035 an epoch"
    )
    weight_limit: bounds.Weight = option(20.0, "the weight's upper limit; released: 50", paper=50.0)
    late: bool = option(
        False,
        "released: in the first epoch of a round the gain is still the last round's, and in that of all "
        "rounds nothing is learnt from targets",
        paper=True,
    )


class Retraining(RskpLosses):
    """Losses and optimiser of the rounds."""

    snippet_weight_memory: bounds.Weight = option(
        1.0, "weight of the walked snippet scores as pseudo-labels; memory is always open", paper=1.0
    )
    snippet_weight: bounds.Weight = option(
        0.5, "the same in the proposer's last epoch, and so in the first of all with `late`", paper=0.5
    )
    first_memory: bool = option(
        True, "fill the memory before a round; false: as released, it fills while training", paper=False
    )
    own_share: bounds.Fraction = option(
        0.8, "of the embedding in the loss on targets; the rest is the random walk's", paper=0.8
    )
    bounded: bool = option(
        True,
        "loss of negative targets: -log(1 - p) times their size; false: as released, without a lower bound",
        paper=False,
        tune=Choice(True, False),
        why="code false, which pushes least where the model is most wrong",
    )
    dead_zone: float = option(
        0.0,
        "changes of a target up to this are none",
        ge=0,
        le=bounds.SCORE,
        paper=0.0,
        tune=Float(0.0, 0.1),
        why="code 0; small changes are mostly noise",
    )


class Epoch(NamedTuple):
    """What one epoch of a round does."""

    lr: float | None
    """None: derived from the feature width."""
    labels: float
    """Weight of the round's targets."""
    change: float
    """Weight of their change since the last round, gain included."""
    settled: bool
    """False in the first epoch of all with `late`: the proposer's training goes on."""


def of_round(values: list, number: int):  # type: ignore[no-untyped-def, type-arg]
    """The entry of a round, from 1."""
    return values[min(number, len(values)) - 1]


def epoch_of(schedule: Schedule, number: int, epoch: int) -> Epoch:
    """What an epoch (from 0) of a round (from 1) does."""
    done = sum(of_round(schedule.epochs, earlier) for earlier in range(1, number)) + epoch
    try:
        weight = min(schedule.weight * schedule.growth**done, schedule.weight_limit)
    except OverflowError:  # a growth far above 1 over many epochs
        weight = schedule.weight_limit if schedule.weight else 0.0
    lr = None if schedule.lr is None else of_round(schedule.lr, number)
    if schedule.late and done == 0:
        return Epoch(lr, 0.0, 0.0, False)
    if epoch < of_round(schedule.label_epochs, number) or number == 1:
        return Epoch(lr, weight, 0.0, True)
    gain = of_round(schedule.gains, max(1, number - (schedule.late and epoch == 0)))
    return Epoch(lr, 0.0, gain * weight, True)


def learns_change(schedule: Schedule, number: int) -> bool:
    """Whether any epoch of a round learns the change of targets."""
    return any(epoch_of(schedule, number, e).change > 0 for e in range(of_round(schedule.epochs, number)))


@dataclass(frozen=True)
class Targets:
    """Map stage: array "targets" [T, C] float32 of every video, from the input "labels"."""

    config: TargetConfig
    name: str = "rskp/targets"
    version: int = 1

    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        config, data = self.config, context.data
        labels = context.inputs["labels"].by_video()

        def target(video: str) -> Arrays:
            rows, length = labels.get(video, Segments.empty()), len(data.features(video))
            spans = data.grid(video, length).to_edge(rows.spans)
            cut = np.minimum(config.trim, (spans[:, 1] - spans[:, 0]) / 2)
            found = snippet_targets(
                np.stack([spans[:, 0] + cut, spans[:, 1] - cut], axis=1),
                rows.score,
                rows.label_index(data.classes),
                length,
                len(data.classes),
                rows=config.rows,
                solver=config.solver,
                released_edges=config.released_edges,
            )
            return {"targets": found.astype(np.float32)}

        return target


class RetrainConfig(StageConfig):
    """Config of the stage `rskp/retrain`: the options, and the round whose entries of the lists count."""

    training: Retraining
    schedule: Schedule
    round: int


@dataclass(frozen=True)
class Retrain:
    """Fit stage: the last round's model, trained further; inputs "model", "targets" and, if used, "previous"."""

    config: RetrainConfig
    name: str = "rskp/retrain"
    detects: ClassVar[bool] = True
    version: int = 1

    def open(self, context: Context) -> RetrainTask:
        epochs = int(of_round(self.config.schedule.epochs, self.config.round))
        return RetrainTask(self.config, context, epochs)


class RetrainTask(RskpTask):
    """The proposer's task with snippet targets beside the classes of videos."""

    config: Retraining
    rows: ClassVar[tuple[str, ...]] = ("features", "targets", "previous")

    def __init__(self, config: RetrainConfig, context: Context, epochs: int) -> None:
        dim = context.data.manifest.grid.dim
        lr = epoch_of(config.schedule, config.round, 0).lr
        super().__init__(
            config.training,
            context,
            epochs=epochs,
            lr=min(4e-4, 2e-5 * 2048 / dim) if lr is None else lr,
            memory_epochs=0,
        )
        self.schedule, self.round = config.schedule, config.round
        self.targets = {k: context.inputs[k] for k in ("targets", "previous") if k in context.inputs}

    def of_rows(self, video: str) -> dict[str, Tensor]:
        """The proposer's entries and targets [T, C], and previous [T, C] if the change is learnt."""
        arrays = {k: torch.from_numpy(np.array(a.array("targets", video))) for k, a in self.targets.items()}
        return super().of_rows(video) | arrays

    def terms(self, scores: RskpScores, batch: Batch) -> dict[str, Tensor]:
        """[B] each: the proposer's, the loss on targets, and that on their change."""
        config = self.config
        signed = {"labels": batch["targets"]}
        if "previous" in batch:
            signed["change"] = delta_target(batch["targets"], batch["previous"], 1.0, config.dead_zone)
        found = super().terms(scores, batch)
        for name, target in signed.items():
            own, walk = (
                target_loss(x.logits, target, batch["mask"], config.bounded) for x in (scores.own, scores.walk)
            )
            found[name] = config.own_share * own + (1 - config.own_share) * walk
        return found

    def weights(self, epoch: int) -> dict[str, float]:
        now = epoch_of(self.schedule, self.round, epoch)
        found = super().weights(epoch) | {"labels": now.labels, "change": now.change}
        return found if now.settled else found | {"snippet": self.config.snippet_weight}

    def first_memory(self, core: RskpModel, device: torch.device) -> None:
        if self.config.first_memory:
            super().first_memory(core, device)
