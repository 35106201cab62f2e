"""The contract of methods: what a proposer, a labeler and a detector are, and the `Round` from which each pulls.

    round 0     proposer: model ──► scores, embedding, proposals
    round n     labeler:  proposals of the current model ──► pseudo-labels
                detector: pseudo-labels ──► model ──► detections, from which round n + 1 starts

A role object is at once the typed config of a method and its behaviour. It does not receive inputs; it asks its `Round`
for what it reads, and the round makes and caches that. A new method is one class that has the methods of a protocol
below; `tad.recipe.methods` lists those that come with the package, and a package of your own adds one by an entry point
in the group `tad.methods`. Everything that is registered is tested (tests/methods/test_contracts.py).

A whole labeler, for example: the most confident proposals of each video are its pseudo-labels.

```python
from dataclasses import dataclass
from typing import Literal

from tad.data.segments import Segments
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import option
from tad.stages import Artifact, StageConfig


class TopConfig(StageConfig):
    count: int = option(3, "proposals of each video that become pseudo-labels", ge=1, le=100)


@dataclass(frozen=True)
class TopStage:
    config: TopConfig
    name: str = "top/label"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context):
        proposals = context.inputs["proposals"].by_video()

        def label(video):
            rows = proposals.get(video, Segments.empty())
            return rows.take((-rows.score).argsort(kind="stable")[: self.config.count]).replace(source=context.source)

        return label


class TopLabeler(MethodConfig):
    method: Literal["top"] = "top"
    top: TopConfig = TopConfig()

    def seeds(self, round: Round) -> Artifact:
        return round.proposals()

    def label(self, round: Round) -> Labels:
        return Labels(round.map(TopStage(self.top), {"proposals": round.proposals()}))
```
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import RunError
from tad.stages import Artifact, FitStage, Inputs, MapStage, StageConfig


@dataclass(frozen=True)
class Labels:
    """What a labeler made.

    Attributes:
        segments: the pseudo-labels.
        ignored: stretches of which a detector is to learn neither action nor background; None: none.
        statistics: sums up what was selected, for the rounds table; called when a whole run reports. None: nothing.
        note: says in a sentence what the labeler decided by itself; called when a user is to read it. None: nothing.
    """

    segments: Artifact
    ignored: Artifact | None = None
    statistics: Callable[[], dict[str, Any]] | None = None
    note: Callable[[], str] | None = None

    def inputs(self) -> dict[str, Artifact]:
        """What a detector's training stage reads that leaves ignored stretches out."""
        return {"labels": self.segments} | ({"ignored": self.ignored} if self.ignored is not None else {})


class Previous(NamedTuple):
    """What the round before left; in round 1 that is the proposer."""

    model: Artifact
    labels: Artifact | None
    """The pseudo-labels that taught the model; None in round 1."""


class Round(Protocol):
    """One round of self-training for the videos of one role. What is asked for is made once and then found again."""

    @property
    def number(self) -> int:
        """From 1; 0 is the proposer's."""

    @property
    def role(self) -> Role: ...
    @property
    def data(self) -> Dataset:
        """As the method reads it: a recipe may give its detector other features than the rest."""

    @property
    def known(self) -> bool:
        """Whether labels of these videos may be used: of training videos, and of dev videos while they are labelled."""

    @property
    def first(self) -> Round:
        """Round 0 with the same videos: what its `fit` and `map` make is shared by all rounds."""

    @property
    def training(self) -> Round:
        """The same round with the training videos."""

    @property
    def previous(self) -> Previous:
        """The model and labels that this round starts from; not of round 0."""

    def fit(self, stage: FitStage, inputs: Inputs = None) -> Artifact:
        """The trained stage, from the training videos."""

    def map(self, stage: MapStage, inputs: Inputs = None) -> Artifact:
        """The stage applied to each video of the role."""

    def adopt(self, segments: Segments, name: str) -> Artifact:
        """Segments from outside (a file of proposals) as an artifact."""

    def proposals(self, suppressed: bool = True) -> Artifact:
        """Segments of the model that the round starts from: the proposer's, or the last detector's detections.

        Args:
            suppressed: False gives every candidate with its own score, before suppression, where the model has them.
        """

    def scores(self) -> Artifact | None:
        """Snippet scores of the model that the round starts from: arrays `cas` [T, C], `background` [T] and `video`
        [C]. The proposer's, where the detector has none; None where neither has any (proposer `file`)."""

    def embedding(self) -> Artifact | None:
        """The encoder's array `embedding` [T, W]; the encoder is the proposer unless the recipe names another. None:
        there is none (proposer `file`)."""


class MethodConfig(StageConfig):
    """Base of all methods: every dataset and every recipe will do, unless a method says otherwise."""

    def reads_features(self, data: Dataset) -> bool:
        """Whether its stages read the features of videos, so that their files must be there."""
        return True

    def problems(self, data: Dataset) -> list[str]:
        """Why the method cannot run on the labels that the training videos have; nothing if it can."""
        return []

    def warnings(self, data: Dataset) -> list[str]:
        """Which labels the method makes no use of, in words."""
        return []

    def conflicts(self, recipe: Roles) -> list[str]:
        """Why the method does not go together with the others of a recipe; nothing if it does."""
        return []


class Method(Protocol):
    """What all methods have; `MethodConfig` has it already."""

    @property
    def method(self) -> str:
        """The name, in recipes."""

    def reads_features(self, data: Dataset) -> bool: ...
    def problems(self, data: Dataset) -> list[str]: ...
    def warnings(self, data: Dataset) -> list[str]: ...
    def conflicts(self, recipe: Roles) -> list[str]: ...


@runtime_checkable
class Scoring(Protocol):
    """What answers with snippet scores and with candidates made of them: proposers, and detectors that are both."""

    def score(self, round: Round, model: Artifact) -> Artifact | None:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32, in [0, 1]; None: the method has none."""

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments with their score; suppressed=False gives every candidate with its own score."""


@runtime_checkable
class Proposer(Method, Scoring, Protocol):
    """Finds the first segments; runs in round 0."""

    def train(self, round: Round) -> Artifact:
        """The model."""

    def embed(self, round: Round, model: Artifact) -> Artifact | None:
        """Array `embedding` [T, W], float16, features for labelers; None: the method has none."""


@runtime_checkable
class Labeler(Method, Protocol):
    """Turns the segments of the current model into pseudo-labels."""

    def seeds(self, round: Round) -> Artifact:
        """Segments: what the pseudo-labels are made from; the report compares both."""

    def label(self, round: Round) -> Labels:
        """The pseudo-labels of the round's videos. What it trains, it trains on `round.training`."""


@runtime_checkable
class Detector(Method, Protocol):
    """Is trained on pseudo-labels and finds actions."""

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model."""

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Segments: detections in the round's videos."""


class Roles(Protocol):
    """A recipe, as a role sees it."""

    @property
    def proposer(self) -> Proposer: ...
    @property
    def labeler(self) -> Labeler: ...
    @property
    def detector(self) -> Detector: ...
    @property
    def detector_features(self) -> str | None:
        """The further features of the dataset that the detector reads; None: those that the others read."""


def required(artifact: Artifact | None, method: str, what: str) -> Artifact:
    """The artifact.

    Raises:
        RunError: it is None; `what` the method reads cannot be had from the recipe's proposer.
    """
    if artifact is None:
        raise RunError(
            f"{method} reads {what}, and the proposer has none (proposals from a file are segments alone); use a "
            "proposer that is trained, or a method that does not need them"
        )
    return artifact


def cannot_ignore(method: str, recipe: Roles) -> list[str]:
    """For `conflicts` of a detector whose loss leaves nothing out."""
    if not getattr(recipe.labeler, "ignore", False):
        return []
    return [
        f"labeler.ignore: true wants a detector that leaves stretches out of its loss; {method} does not; use detector "
        "actionformer or bmn, or labeler.ignore: false"
    ]


def one_grid(method: str, recipe: Roles, why: str, otherwise: str = "") -> list[str]:
    """For `conflicts` of a detector that takes rows of the proposer's for rows of its own features.

    Args:
        why: what it does with them.
        otherwise: what else than another detector would do.
    """
    if recipe.detector_features is None:
        return []
    return [
        f"detector_features: {recipe.detector_features} gives the detector rows of its own, but {method} {why}, and "
        f"that has other rows; {otherwise}use detector actionformer, or detector_features: null"
    ]
