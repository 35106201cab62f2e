"""Labeler `hrpro`: the reliable proposal of every point.

Source: HR-Pro (AAAI 2024), reliability ranking, as its code runs it. The rule is that of tad.methods.common.seeds, on
all candidates with their own outer-inner contrast instead of suppressed ones. Two things are mended by default. Where
every proposal of a point reaches another point (a cliff dive is a dive, too), the best is cut halfway to its neighbours
of the same class, not kept whole (on real proposals: mean tIoU with the ground truth .626, not .594). And every point
gets a label.
"""

from __future__ import annotations

from typing import Literal

from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.seeds import SeedRule, SeedSelection
from tad.methods.roles import Labels, Round
from tad.options import group, option
from tad.stages import Artifact


class HrproLabeler(PointLabeler):
    """Reliable proposals as pseudo-labels; their score is the contrast, cut to [0, 1]."""

    method: Literal["hrpro"] = "hrpro"
    faithful: bool = option(False, "the published rule; sets the options of seed_rule")
    seed_rule: SeedRule = group(SeedRule(), paper={"crossing": "keep", "fallback": "none"}, free=("half_width",))
    """As published, but for pseudo-labels, which are cut to the video all the same."""

    def seeds(self, round: Round) -> Artifact:
        """Segments: the reliable proposal of every point, of all candidates."""
        stage = SeedSelection(self.seed_rule, name="hrpro/rank")
        return round.map(stage, {"proposals": round.proposals(suppressed=False)})

    def label(self, round: Round) -> Labels:
        """Segments: the reliable proposals."""
        return Labels(self.seeds(round))
