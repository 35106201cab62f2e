"""Labeler `pser-seed`: the control of PseR, which takes the seeds themselves as pseudo-labels."""

from __future__ import annotations

from typing import Literal

from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.seeds import SeedRule, SeedSelection
from tad.methods.roles import Labels, Round
from tad.options import option
from tad.stages import Artifact


class SeedLabeler(PointLabeler):
    """The seeds themselves as pseudo-labels."""

    method: Literal["pser-seed"] = "pser-seed"
    faithful: bool = option(False, "the published rule; sets the options of seed_rule")
    seed_rule: SeedRule = SeedRule()

    def seeds(self, round: Round) -> Artifact:
        """Segments: one seed for every point."""
        return round.map(SeedSelection(self.seed_rule), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: the seeds."""
        return Labels(self.seeds(round))
