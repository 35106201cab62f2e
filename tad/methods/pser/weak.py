"""Labeler `pser-weak`: PseR where only the classes of videos are known.

PseR refines a seed for every point and cannot run without points. Here the fused candidates of labeler `gaufuse` stand
for the seeds, and the centre of each for its point; bags, heads and merging are those of PseR (IEEE TMM 2026). A seed
may then be no action at all, which a point rules out; so pseudo-labels keep the score of the fusion. This is not in the
paper.
Stages: `gaufuse/fuse` (map), `pser/heads` (fit), `pser/refine` (map).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from tad.data.dataset import Role
from tad.errors import RunError
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.pser.labeler import PserLabeler, seeding
from tad.stages import Artifact, Engine, StageConfig, Taught


class PserWeakLabeler(StageConfig):
    """Fused candidates refined by PseR; points of the dataset are not read."""

    method: Literal["pser-weak"] = "pser-weak"
    fusion: GaufuseLabeler = GaufuseLabeler()
    pser: PserLabeler = PserLabeler()

    wants_embedding: ClassVar[bool] = True
    wants_suppressed: ClassVar[bool] = False
    wants_points: ClassVar[bool] = False

    def seeds(self, engine: Engine, proposals: Artifact, role: Role = "train") -> Artifact:
        """Segments: the best candidate of each group, from which its fusion starts."""
        return self.fusion.seeds(engine, proposals, role)

    def label(
        self,
        engine: Engine,
        proposals: Artifact,
        embedding: Artifact | None,
        role: Role = "train",
        taught: Taught | None = None,
        scores: Artifact | None = None,
    ) -> Artifact:
        """Segments: the fused candidates, refined; their score is that of the fusion.

        Raises:
            RunError: labels are asked for other videos than training videos: they answer to no point, so nothing tells
                how good they are.
        """
        if role != "train":
            raise RunError("labeler pser-weak labels training videos only; use select: dev-map or select: classes")
        fused = self.fusion.label(engine, proposals, embedding, role, taught, scores)
        inputs = seeding("fused", fused, embedding)
        return self.pser.refined(engine, inputs, inputs, role)
