"""Labeler `hrpro`: the reliable proposal of every point.

Source: HR-Pro (AAAI 2024), reliability ranking, as its code runs it. The rule is that of tad.methods.common.seeds, on
all candidates with their own outer-inner contrast instead of suppressed ones. Three things are mended by default.
Points of another class do not count as neighbours: where instances of two classes coincide (a cliff dive is a dive), no
proposal would do for either. A proposal over several points of its class is cut halfway between them, not kept whole
(on real proposals: mean tIoU with the ground truth .625, not .606). And every point gets a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.published import fill_published
from tad.methods.common.seeds import SeedRule, SeedSelection
from tad.methods.roles import Labels, Round
from tad.stages import Artifact


class HrproLabeler(PointLabeler):
    """Reliable proposals as pseudo-labels; their score is the contrast, cut to [0, 1]."""

    method: Literal["hrpro"] = "hrpro"
    faithful: bool = Field(default=False, description="the published rule; sets the options of seed_rule")
    seed_rule: SeedRule = SeedRule()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return fill_published(data, {"seed_rule": PUBLISHED_RANKING})

    def seeds(self, round: Round) -> Artifact:
        """Segments: the reliable proposal of every point, of all candidates."""
        stage = SeedSelection(self.seed_rule, name="hrpro/rank")
        return round.map(stage, {"proposals": round.proposals(suppressed=False)})

    def label(self, round: Round) -> Labels:
        """Segments: the reliable proposals."""
        return Labels(self.seeds(round))


PUBLISHED_RANKING: Mapping[str, Any] = {
    "neighbours": "any-class",
    "crossing": "keep",
    "min_score": 0.0,
    "fallback": "none",
    "inside_video": False,
}
"""The published rule; but pseudo-labels are cut to the video all the same."""
