"""The rounds of a recipe: what its methods pull, made by an engine when it is asked for, and cached.

Every user of a recipe goes through here: self-training, `tad label`, `tad detect`, studies and tests. So there is one
answer to what a round starts from, which model's scores a labeler reads, and to which round an artifact belongs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.methods.roles import Labels, Previous, Scoring
from tad.recipe.recipe import Recipe
from tad.stages import Artifact, Engine, FitStage, Inputs, MapStage


@dataclass
class Rounds:
    """The artifacts of all rounds of a recipe.

    Attributes:
        models: the proposer's (0) and each round's detector's. Give those that are trained already; the others are
            trained when they are asked for.
        given: pseudo-labels of rounds' training videos that are made already; no labeler runs for them.
    """

    recipe: Recipe
    engine: Engine
    models: dict[int, Artifact] = field(default_factory=dict)
    given: dict[int, Labels] = field(default_factory=dict)
    _made: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    @property
    def detectors(self) -> Engine:
        """The engine over the dataset as the detector reads it."""

        def make() -> Engine:
            view = self.recipe.detector_data(self.engine.data)
            return self.engine if view is self.engine.data else self.engine.over(view)

        return self._once(("detectors",), make)  # type: ignore[no-any-return]

    def model(self, number: int) -> Artifact:
        """The proposer's model (0), or that of a round's detector."""
        if number not in self.models:
            now, recipe = self.round(number), self.recipe
            self.models[number] = (
                recipe.detector.train(now.of_detector, self.labels(number)) if number else recipe.proposer.train(now)
            )
        return self.models[number]

    def labels(self, number: int, role: Role = "train") -> Labels:
        """A round's pseudo-labels. Those of dev videos are made as those of training videos are: from their own
        proposals and points; what the labeler trains, it trains on training videos."""
        if role == "train" and number in self.given:
            return self.given[number]
        now = self.round(number, role, known=True)
        return self._once(("labels", number, role), lambda: self.recipe.labeler.label(now))

    def seeds(self, number: int) -> Artifact:
        """What a round's pseudo-labels are made from."""
        return self._once(("seeds", number), lambda: self.recipe.labeler.seeds(self.round(number)))

    def detections(self, number: int, role: Role) -> Artifact:
        """The detections of a round's detector; of round 0 the proposer's proposals."""
        now = self.round(number, role)
        if not number:
            return now.proposals()
        return self._once(
            ("detections", number, role), lambda: self.recipe.detector.detect(now.of_detector, self.model(number))
        )

    def scores(self, role: Role) -> Artifact | None:
        """The proposer's snippet scores."""
        return self.round(0, role).scores()

    def round(self, number: int, role: Role = "train", known: bool | None = None) -> RecipeRound:
        """The round from which the methods pull; `known` as of `Round`, None: of training videos."""
        return RecipeRound(self, number, role, role == "train" if known is None else known)

    def _once(self, key: tuple[Any, ...], make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


@dataclass(frozen=True)
class RecipeRound:
    """Implements tad.methods.roles.Round.

    `detector`: whether the detector pulls from it, which may read other features than the rest of the recipe. What it
    is given of the others is theirs: made of the features that they read.
    """

    rounds: Rounds
    number: int
    role: Role
    known: bool
    detector: bool = False

    @property
    def engine(self) -> Engine:
        return self.rounds.detectors if self.detector else self.rounds.engine

    @property
    def data(self) -> Dataset:
        return self.engine.data

    @property
    def of_detector(self) -> RecipeRound:
        return replace(self, detector=True)

    @property
    def first(self) -> RecipeRound:
        return replace(self, number=0)

    @property
    def training(self) -> RecipeRound:
        return replace(self, role="train", known=True)

    @property
    def previous(self) -> Previous:
        before = self.number - 1
        return Previous(self.rounds.model(before), self.rounds.labels(before).segments if before else None)

    def fit(self, stage: FitStage, inputs: Inputs = None) -> Artifact:
        return self._made(stage, inputs, "train", lambda: self.engine.fit(stage, inputs, self.number))

    def map(self, stage: MapStage, inputs: Inputs = None) -> Artifact:
        return self._made(stage, inputs, self.role, lambda: self.engine.map(stage, inputs, self.role, self.number))

    def adopt(self, segments: Segments, name: str) -> Artifact:
        return self.rounds.engine.adopt(segments, name)

    def proposals(self, suppressed: bool = True) -> Artifact:
        recipe, rounds = self.rounds.recipe, self.rounds
        if self.number <= 1:
            return recipe.proposer.propose(self._proposers, rounds.model(0), suppressed)
        before = self.number - 1
        if suppressed or not isinstance(recipe.detector, Scoring):
            return rounds.detections(before, self.role)
        return recipe.detector.propose(replace(self, number=before).of_detector, rounds.model(before), suppressed)

    def scores(self) -> Artifact | None:
        recipe, before = self.rounds.recipe, self.number - 1
        if before > 0 and isinstance(recipe.detector, Scoring):
            return recipe.detector.score(replace(self, number=before).of_detector, self.rounds.model(before))
        return recipe.proposer.score(self._proposers, self.rounds.model(0))

    def embedding(self) -> Artifact | None:
        recipe, first = self.rounds.recipe, self._proposers
        if (encoder := recipe.encoder) is None:
            return recipe.proposer.embed(first, self.rounds.model(0))
        model = self.rounds._once(("encoder",), lambda: encoder.train(first.training))
        return encoder.embed(first, model)

    @property
    def _proposers(self) -> RecipeRound:
        return replace(self.first, detector=False)

    def _made(self, stage: FitStage | MapStage, inputs: Inputs, role: Role, make: Callable[[], Artifact]) -> Artifact:
        names = tuple(sorted((name, artifact.fingerprint) for name, artifact in (inputs or {}).items()))
        found: Artifact = self.rounds._once(
            (stage.name, stage.config.model_dump_json(), names, role, self.number, self.data.read), make
        )
        return found
