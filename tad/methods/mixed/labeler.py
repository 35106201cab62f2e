"""Labeler `mixed`: each training video is labelled by the best that is known of it.

| the video has | its pseudo-labels | their source |
|---|---|---|
| full labels | those, as they are, with score 1 | given@ROUND |
| points | one for every point, of labeler `points` | points/label@ROUND |
| classes | the fused candidates of these classes, of labeler `gaufuse` | gaufuse/fuse@ROUND |
| nothing | the fused candidates of the classes that the scores are sure of | gaufuse/fuse@ROUND |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.methods.common.given_labels import given
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.points.labeler import PointsLabeler
from tad.stages import Artifact, Context, Engine, StageConfig, Taught


class Sure(StageConfig):
    """What a model has to be sure of where nothing is given."""

    class_threshold: float = Field(
        default=0.5, ge=0, le=1, description="videos without any label: classes whose video score reaches it"
    )


class MixedLabeler(StageConfig):
    """Full labels, points, classes and nothing in one dataset; all of them become pseudo-labels."""

    method: Literal["mixed"] = "mixed"
    points: PointsLabeler = PointsLabeler()
    fusion: GaufuseLabeler = GaufuseLabeler()
    unlabelled: Sure = Sure()

    wants_embedding: ClassVar[bool] = False
    wants_suppressed: ClassVar[bool] = False
    wants_points: ClassVar[bool] = False

    def seeds(self, engine: Engine, proposals: Artifact, role: Role = "train") -> Artifact:
        """Segments: what the labels of videos with points start from; of the fused candidates if none has points."""
        part = self.points if pointed(engine.data, role) else self.fusion
        return part.seeds(engine, proposals, role)

    def label(
        self,
        engine: Engine,
        proposals: Artifact,
        embedding: Artifact | None,
        role: Role = "train",
        taught: Taught | None = None,
        scores: Artifact | None = None,
    ) -> Artifact:
        """Segments: the pseudo-labels of all videos.

        Args:
            scores: snippet scores of the model that made the proposals; their video scores say which classes videos
                without labels hold. Without them these get no pseudo-labels.
        """
        kinds = {engine.data.supervision(video) for video in engine.data.videos(role)}
        inputs: dict[str, Artifact] = {}
        if "points" in kinds:
            inputs["points"] = self.points.label(engine, proposals, embedding, role, taught, scores)
        if kinds & {"classes", "none"}:
            inputs["fused"] = self.fusion.label(engine, proposals, embedding, role, taught, scores)
        if scores is not None:
            inputs["scores"] = scores
        return engine.map(Merge(self.unlabelled), inputs, role)


@dataclass(frozen=True)
class Merge:
    """Map stage: of each video the pseudo-labels of the part that its labels call for."""

    config: Sure
    name: str = "mixed/merge"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, config = context.data, self.config
        parts = {k: context.inputs[k].by_video() for k in ("points", "fused") if k in context.inputs}
        _, _, number = context.source.rpartition("@")

        def pick(video: str) -> Segments:
            kind = data.supervision(video)
            if kind == "full":
                return given(data, video, f"given@{number}")
            if kind == "points":
                return parts["points"].get(video, Segments.empty())
            rows = parts["fused"].get(video, Segments.empty())
            if kind == "classes":
                return rows
            if "scores" not in context.inputs:
                return Segments.empty()
            sure = context.inputs["scores"].array("video", video) >= config.class_threshold
            return rows.filter(sure[rows.label_index(data.classes)])

        return pick


def pointed(data: Dataset, role: Role) -> bool:
    """Whether a video of the role has a point."""
    return any(len(data.points(video).time) for video in data.videos(role))
