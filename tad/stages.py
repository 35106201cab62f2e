"""What a stage is: one gradient-trained part (`FitStage`) or one per-video function (`MapStage`).

A method (tad/methods) is a few stages and a role object that chains them (tad/methods/roles.py) through an `Engine`.
The engine (distributed/engine/engine.py) decides where they run, what is cached and what is logged; a stage knows
nothing of epochs, checkpoints, devices, workers or logging.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import Tensor, nn

from tad.data.artifact import Artifact as Artifact
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.options import current, identity, published

Batch = dict[str, Tensor]
Arrays = dict[str, np.ndarray]


class StageConfig(BaseModel):
    """Base of every typed config: strict, frozen, unknown keys are errors, and so are infinity and NaN.

    Every number that a user may set has a lower and an upper bound; `tad.bounds` has those that are not a method's own.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _as_declared(cls, data: Any) -> Any:
        return published(cls, current(cls, data))

    def identity(self) -> dict[str, Any]:
        """The config as it goes into fingerprints; see `tad.options.identity`."""
        return identity(self)


@dataclass(frozen=True)
class Context:
    """What a stage may read. Holds paths only, so it travels to worker processes cheaply."""

    data: Dataset
    inputs: Mapping[str, Artifact]
    videos: Sequence[str]
    seed: int
    source: str = ""
    """Written to the `source` column of segments: stage name and round."""
    round: int = 0
    """Of self-training; 0 is the proposer's."""


Inputs = Mapping[str, Artifact] | None

Total = Callable[[Tensor], Tensor]
"""Sums a detached tensor over all workers (the identity for one worker)."""


@dataclass(frozen=True)
class Budget:
    """How a stage is trained.

    Attributes:
        epochs: passes over the items.
        batch_size: items per step over all workers together.
        ema_decay: decay of the averaged weights that are saved in place of the last ones; None saves the last.
        clip_norm: largest gradient norm; None leaves gradients alone.
    """

    epochs: int
    batch_size: int
    ema_decay: float | None = None
    clip_norm: float | None = None


class FitTask(Protocol):
    """A fit stage opened in a worker: the module, its items, the loss of a batch, the optimiser."""

    @property
    def module(self) -> nn.Module: ...

    budget: Budget
    settings: dict[str, Any]
    """Plain values saved with the weights: what is needed to rebuild the module, and derived defaults."""

    def __len__(self) -> int:
        """Number of training items."""

    def item(self, index: int, rng: np.random.Generator) -> Any:
        """One training item; augmentation draws from `rng`, which depends on seed, epoch and index only."""

    def collate(self, items: list[Any]) -> Batch:
        """Items as one padded batch of tensors."""

    def loss(self, module: nn.Module, batch: Batch, total: Total) -> dict[str, Tensor]:
        """Scalars by name; "loss" is differentiated, the others are logged.

        `module` is self.module, possibly wrapped for several workers (`unwrap` gives the core): call it once, with
        tensors. Each value is this worker's share of a global value: a sum over the worker's items divided by a
        quantity that is the same on every worker, made with `total` (for instance the number of items of all).
        """

    def optimiser(self, module: nn.Module, steps: int) -> tuple[torch.optim.Optimizer, Any]:
        """The optimiser, and a scheduler stepped after every step or None; `steps` is the number of all steps."""


class FitStage(Protocol):
    """Something trained by gradient over many videos. A frozen dataclass that holds its config."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int:
        """Raised by the author when the stage's maths changes: cached artifacts of older versions are not used."""

    @property
    def config(self) -> StageConfig: ...
    def open(self, context: Context) -> FitTask: ...


@runtime_checkable
class Derived(Protocol):
    """What a fit stage also is whose config has values that were derived from the data; runs tell them."""

    @property
    def reasons(self) -> Mapping[str, str]:
        """By option of the config, why it has its value."""


@runtime_checkable
class Detecting(Protocol):
    """What a fit stage also is whose model, however far it is trained, its detector can detect with: a search looks at
    it on the way."""

    @property
    def detects(self) -> bool: ...


class MapStage(Protocol):
    """A pure function of one video. A frozen dataclass that holds its config."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> int: ...
    @property
    def output(self) -> Literal["segments", "arrays"]: ...
    @property
    def config(self) -> StageConfig: ...
    def open(self, context: Context) -> Callable[[str], Segments | Arrays]:
        """Loads what all videos share; the result is called with one video id after the other."""


class Engine(Protocol):
    """Runs stages. Finished ones are not run again."""

    @property
    def data(self) -> Dataset: ...
    @property
    def seed(self) -> int: ...

    def fit(self, stage: FitStage, inputs: Inputs = None, number: int = 0) -> Artifact:
        """The trained stage, from the training videos.

        Args:
            stage: what to train.
            inputs: artifacts that it reads, by name.
            number: the round of self-training it belongs to; 0 is the proposer's.
        """

    def map(self, stage: MapStage, inputs: Inputs = None, role: Role = "train", number: int = 0) -> Artifact:
        """The stage applied to each video of a role; arguments as of `fit`."""

    def adopt(self, segments: Segments, name: str) -> Artifact:
        """Segments from outside as an artifact."""

    def over(self, data: Dataset) -> Engine:
        """The same engine over another dataset, or over another view of its own."""


def unwrap(module: nn.Module) -> nn.Module:
    """The module itself, also when it is wrapped for several workers or for another precision."""
    while isinstance(inner := getattr(module, "module", None), nn.Module):
        module = inner
    return module


def one_worker(value: Tensor) -> Tensor:
    """`Total` of a single worker."""
    return value
