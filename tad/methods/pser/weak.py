"""Labeler `pser-weak`: PseR where only the classes of videos are known.

PseR refines a seed for every point and cannot run without points. Here the fused candidates of labeler `gaufuse` stand
for the seeds, and the centre of each for its point; bags, heads and merging are those of PseR (IEEE TMM 2026). A seed
may then be no action at all, which a point rules out; so pseudo-labels keep the score of the fusion. This is not in the
paper.
Stages: `gaufuse/fuse` (map), `pser/heads` (fit), `pser/refine` (map).
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import field_validator

from tad.errors import RunError
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.pser.labeler import PserLabeler, seeding
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import group
from tad.stages import Artifact


class PserWeakLabeler(MethodConfig):
    """Fused candidates refined by PseR; points of the dataset are not read."""

    method: Literal["pser-weak"] = "pser-weak"
    fusion: GaufuseLabeler = group(GaufuseLabeler(), stage="heads")
    pser: PserLabeler = PserLabeler(refine="bag")

    @field_validator("pser", mode="before")
    @classmethod
    def _in_bags(cls, given: Any) -> Any:
        return {"refine": "bag"} | given if isinstance(given, dict) else given

    @field_validator("pser")
    @classmethod
    def _no_other(cls, pser: PserLabeler) -> PserLabeler:
        if pser.refine != "bag":
            raise ValueError(f"pser-weak has no points and refines in bags alone; drop pser.refine: {pser.refine}")
        return pser

    def seeds(self, round: Round) -> Artifact:
        """Segments: the best candidate of each group, from which its fusion starts."""
        return self.fusion.seeds(round)

    def label(self, round: Round) -> Labels:
        """Segments: the fused candidates, refined; their score is that of the fusion.

        Raises:
            RunError: labels are asked for other videos than training videos: they answer to no point, so nothing tells
                how good they are.
        """
        if round.role != "train":
            raise RunError("labeler pser-weak labels training videos only; use select: dev-map or select: classes")
        fused = self.fusion.label(round).segments
        return Labels(self.pser.refined(round, lambda of: seeding("fused", fused, of.embedding())))
