"""Labeler `pser-seed`: the control of PseR, which takes the seeds themselves as pseudo-labels."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.published import fill_published
from tad.methods.common.seeds import PUBLISHED_RULE, SeedRule, SeedSelection
from tad.methods.roles import Labels, Round
from tad.stages import Artifact


class SeedLabeler(PointLabeler):
    """The seeds themselves as pseudo-labels."""

    method: Literal["pser-seed"] = "pser-seed"
    faithful: bool = Field(default=False, description="the published rule; sets the options of seed_rule")
    seed_rule: SeedRule = SeedRule()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return fill_published(data, {"seed_rule": PUBLISHED_RULE})

    def seeds(self, round: Round) -> Artifact:
        """Segments: one seed for every point."""
        return round.map(SeedSelection(self.seed_rule), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: the seeds."""
        return Labels(self.seeds(round))
