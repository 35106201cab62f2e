"""Labeler `mixed`: each training video is labelled by the best that is known of it.

| the video has | its pseudo-labels | their source |
|---|---|---|
| full labels | those, as they are, with score 1 | given@ROUND |
| points | one for every point, of labeler `pser` | pser/... or seeds/...@ROUND |
| classes | the fused candidates of these classes, of labeler `gaufuse` | gaufuse/fuse@ROUND |
| nothing | the fused candidates of the classes that the scores are sure of | gaufuse/fuse@ROUND |

Fused candidates that become no label are by option stretches of which a detector may learn neither action nor
background: `Labels.ignored` has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from tad import bounds
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.methods.common.given_labels import given
from tad.methods.gaufuse.labeler import Gate, GaufuseLabeler
from tad.methods.pser.labeler import PserLabeler
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import option
from tad.stages import Artifact, Context, StageConfig

POSSIBLE = 0.05
"""Fused candidates of a lower score are taken for background."""


class Sure(StageConfig):
    """What a model has to be sure of where nothing is given."""

    class_threshold: bounds.Fraction = option(0.5, "videos without any label: classes whose video score reaches it")


class MixedLabeler(MethodConfig):
    """Full labels, points, classes and nothing in one dataset; all of them become pseudo-labels."""

    method: Literal["mixed"] = "mixed"
    pser: PserLabeler = PserLabeler()
    fusion: GaufuseLabeler = GaufuseLabeler()
    unlabelled: Sure = Sure()
    ignore: bool = option(
        False,
        f"in videos with classes alone or nothing, the detector takes fused candidates from score {POSSIBLE} on that "
        "become no pseudo-label for neither action nor background",
    )

    def reads_features(self, data: Dataset) -> bool:
        return pointed(data, "train") and self.pser.reads_features(data)

    def seeds(self, round: Round) -> Artifact:
        """Segments: what the labels of videos with points start from; of the fused candidates if none has points."""
        return self.pser.seeds(round) if pointed(round.data, round.role) else self.fusion.seeds(round)

    def label(self, round: Round) -> Labels:
        """Segments: the pseudo-labels of all videos.

        Video scores of the current model say which classes videos without labels hold; without scores these get no
        pseudo-labels.
        """
        kinds = {round.data.supervision(video) for video in round.data.videos(round.role)}
        inputs: dict[str, Artifact] = {}
        note = None
        if "points" in kinds:
            of_points = self.pser.label(round)
            inputs["points"], note = of_points.segments, of_points.note
        if kinds & {"classes", "none"}:
            inputs["fused"] = self.fusion.label(round).segments
        if (scores := round.scores()) is not None:
            inputs["scores"] = scores
        labels = round.map(Merge(self.unlabelled), inputs)
        if not self.ignore or "fused" not in inputs:
            return Labels(labels, note=note)
        gate = Gate(classes=self.fusion.gate.classes, min_score=POSSIBLE)
        every = self.fusion.model_copy(update={"gate": gate}).label(round).segments
        return Labels(labels, round.map(Undecided(), {"candidates": every, "labels": labels}), note=note)


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

        def pick(video: str) -> Segments:
            kind = data.supervision(video)
            if kind == "full":
                return given(data, video, f"given@{context.round}")
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


@dataclass(frozen=True)
class Undecided:
    """Map stage: the fused candidates of a video with classes alone or nothing that are no pseudo-labels."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "mixed/ignore"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data = context.data
        candidates, labels = (context.inputs[name].by_video() for name in ("candidates", "labels"))

        def undecided(video: str) -> Segments:
            if data.supervision(video) not in ("classes", "none"):
                return Segments.empty()
            rows = candidates.get(video, Segments.empty()).without(labels.get(video, Segments.empty()))
            return rows.replace(source=context.source)

        return undecided


def pointed(data: Dataset, role: Role) -> bool:
    """Whether a video of the role has a point."""
    return any(len(data.points(video).time) for video in data.videos(role))
