"""A round of self-training whose artifacts a test gives: what a method pulls is exactly that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.methods.roles import Labels, Previous
from tad.stages import Artifact, Engine, FitStage, Inputs, MapStage


@dataclass(frozen=True)
class GivenRound:
    """Implements tad.methods.roles.Round; make it with `round_of`."""

    engine: Engine
    role: Role
    number: int
    known: bool
    given: dict[str, Artifact | None]
    before: Previous | None
    train: GivenRound | None = None

    @property
    def data(self) -> Dataset:
        return self.engine.data

    @property
    def first(self) -> GivenRound:
        return replace(self, number=0)

    @property
    def training(self) -> GivenRound:
        return self.train or replace(self, role="train", known=True)

    @property
    def previous(self) -> Previous:
        assert self.before is not None, "the test gives no previous round"
        return self.before

    def fit(self, stage: FitStage, inputs: Inputs = None) -> Artifact:
        return self.engine.fit(stage, inputs, self.number)

    def map(self, stage: MapStage, inputs: Inputs = None) -> Artifact:
        return self.engine.map(stage, inputs, self.role, self.number)

    def adopt(self, segments: Segments, name: str) -> Artifact:
        return self.engine.adopt(segments, name)

    def proposals(self, suppressed: bool = True) -> Artifact:
        found = self.given["proposals"] if suppressed else self.given["candidates"] or self.given["proposals"]
        assert found is not None, "the test gives no proposals"
        return found

    def scores(self) -> Artifact | None:
        return self.given["scores"]

    def embedding(self) -> Artifact | None:
        return self.given["embedding"]


def round_of(
    engine: Engine,
    role: Role = "train",
    number: int = 0,
    *,
    known: bool | None = None,
    proposals: Artifact | None = None,
    candidates: Artifact | None = None,
    scores: Artifact | None = None,
    embedding: Artifact | None = None,
    model: Artifact | None = None,
    labels: Artifact | None = None,
    training: GivenRound | None = None,
) -> GivenRound:
    """A round with these artifacts.

    Args:
        known: None: of training videos.
        candidates: unsuppressed proposals; None: the proposals.
        model: of the round before, taught by `labels`.
        training: the same round with the training videos, for labels of other videos; None: with the same artifacts.
    """
    given = {"proposals": proposals, "candidates": candidates, "scores": scores, "embedding": embedding}
    before = Previous(model, labels) if model is not None else None
    return GivenRound(engine, role, number, role == "train" if known is None else known, given, before, training)


def taught(labels: Artifact, ignored: Artifact | None = None) -> Labels:
    """Pseudo-labels for a detector."""
    return Labels(labels, ignored)
