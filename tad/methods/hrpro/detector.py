"""The detector `hrpro-instance`: the proposer's candidates, scored for completeness and with refined boundaries.

Source: HR-Pro (AAAI 2024), instance-level completeness learning, in the form its code runs. It learns from the
pseudo-labels of any labeler; with those of `hrpro`, the reliable proposals, it is the paper's second stage. By default
the completeness, which knows no classes, is multiplied by the video's score of the candidate's class: otherwise a
candidate of a wrong class rises if its extent is good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from pydantic import model_validator

from tad import bounds
from tad.data.segments import Segments
from tad.methods.common import trained
from tad.methods.common.postprocess import Postprocess, postprocess
from tad.methods.common.seeds import inside
from tad.methods.hrpro.detector_model import InstanceModel, framed
from tad.methods.hrpro.detector_training import InstanceTrain, InstanceTraining, segments_of
from tad.methods.hrpro.negatives import Negatives, NegativesConfig
from tad.methods.roles import Labels, MethodConfig, Roles, Round, cannot_ignore, one_grid, required
from tad.methods.snippet.training import read_features
from tad.options import again, group, option
from tad.ranges import Choice, Float, Integer
from tad.stages import Artifact, Context, StageConfig

CHUNK = 4096
"""Candidates that the model scores at a time."""


class InstanceDecoding(StageConfig):
    """From candidates to detections; changing it needs no training."""

    keep: Literal["both", "original", "refined"] = option(
        "both",
        "candidates as they are, with refined boundaries, or both",
        paper="both",
        tune=Choice("both", "original", "refined"),
        why="paper both; refined alone is half as many to suppress",
    )
    contrast_weight: bounds.Weight = option(1.0, "weight of the candidate's own score in the mean", paper=1.0)
    completeness_weight: bounds.Weight = option(
        0.25,
        "weight of the completeness in the mean; it spreads farther than a candidate's contrast, so 1 lets it "
        "decide nearly alone",
        paper=1.0,
        tune=Float(0.05, 4.0, log=True),
        why="paper 1, beside 1 for the candidate's contrast",
        formerly="score_weight",
    )
    video_factor: bool = option(
        True,
        "multiply the completeness by the proposer's video score of the class",
        paper=False,
        tune=Choice(True, False),
        why="paper false; completeness knows no classes",
    )
    min_score: bounds.Score | None = option(
        0.001, "detections whose lowered score is below it are dropped; null: none", paper=None
    )
    max_detections: bounds.Count | None = option(
        1000,
        "detections of each video, the best ones; null: all",
        paper=None,
        tune=Integer(50, 2000, log=True),
        why="paper null: all",
        stand_in=2000,
    )

    @model_validator(mode="after")
    def _weighted(self) -> InstanceDecoding:
        if self.contrast_weight + self.completeness_weight == 0:
            raise ValueError("one of contrast_weight and completeness_weight must be above 0")
        return self


class InstancePostprocess(Postprocess):
    """What is done with overlapping detections."""

    sigma: bounds.Temperature = again(Postprocess, "sigma", 0.3)


class InstanceDetection(StageConfig):
    """All that detecting depends on."""

    decode: InstanceDecoding = InstanceDecoding()
    postprocess: InstancePostprocess = InstancePostprocess()


class HrproInstanceDetector(MethodConfig):
    """HR-Pro's second stage."""

    method: Literal["hrpro-instance"] = "hrpro-instance"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    negatives: NegativesConfig = NegativesConfig()
    training: InstanceTraining = InstanceTraining()
    decode: InstanceDecoding = group(InstanceDecoding(), stage="detections")
    postprocess: InstancePostprocess = group(
        InstancePostprocess(),
        stage="detections",
        paper=InstancePostprocess(suppression="soft-nms", sigma=0.3, stretch=1.0),
    )

    def conflicts(self, recipe: Roles) -> list[str]:
        why = "mines its negatives on the proposer's background curve"
        return cannot_ignore(self.method, recipe) + one_grid(self.method, recipe, why)

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the proposer's candidates in the training videos, with pseudo-labels as targets."""
        inputs = self._read(round)
        negatives = round.map(Negatives(self.negatives), inputs)
        read = {"labels": labels.segments, "candidates": inputs["candidates"], "negatives": negatives}
        return round.fit(InstanceTrain(self.training), read)

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos, made of the proposer's candidates."""
        config = InstanceDetection(decode=self.decode, postprocess=self.postprocess)
        return round.map(InstanceDetect(config), {"model": model} | self._read(round))

    def _read(self, round: Round) -> dict[str, Artifact]:
        """The proposer's scores, whose background curve yields negatives, and its unsuppressed proposals."""
        scores = required(round.first.scores(), f"detector {self.method}", "snippet scores")
        return {"scores": scores, "candidates": round.first.proposals(suppressed=False)}


@dataclass(frozen=True)
class InstanceDetect:
    """Map stage: detections of one video after the other; inputs "model", "scores" and "candidates"."""

    config: InstanceDetection
    name: str = "hrpro-instance/detect"
    version: int = 1
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, scores = self.config.decode, context.data, context.inputs["scores"]
        candidates, run = segments_of(context, "candidates"), load(context)
        names = np.array(data.classes, dtype=object)

        def detect(video: str) -> Segments:
            found = candidates.get(video)
            if found is None:
                return Segments.empty()
            labels, contrast = found.label_index(data.classes), found.score
            spans, completeness = run(video, found.spans, config.keep)
            copies = len(spans) // len(found)
            labels, contrast = np.tile(labels, copies), np.tile(contrast, copies)
            if config.video_factor:
                completeness = completeness * scores.array("video", video)[labels]
            fused = config.contrast_weight * contrast + config.completeness_weight * completeness
            fused /= config.contrast_weight + config.completeness_weight
            spans, lowered, labels = postprocess(
                spans, fused, labels, self.config.postprocess, min_score=config.min_score, limit=config.max_detections
            )
            return Segments.of(video, spans[:, 0], spans[:, 1], names[labels].tolist(), lowered, source=context.source)

        return detect


Refiner = Callable[[str, np.ndarray, str], tuple[np.ndarray, np.ndarray]]


def load(context: Context) -> Refiner:
    """The trained model as a function of a video, its candidates [N, 2] in seconds and which segments to keep.

    It gives segments in seconds, inside the video, and their completeness: [N, 2] and [N], or [2 N, 2] and [2 N] for
    "both", originals first. A refined segment is scored as it is given: with its ends in order and cut to the video.

    Raises:
        RunError: the model was trained for another feature width.
    """
    data = context.data
    model, _, device = trained.load(context, trained.of_architecture(InstanceModel))

    def run(video: str, spans: np.ndarray, keep: str) -> tuple[np.ndarray, np.ndarray]:
        features = read_features(data, video)
        grid = data.grid(video, len(features))
        table, lengths = (part.to(device) for part in framed([features]))

        def ask(seconds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Completeness [N] float64 and refined segments [N, 2] in seconds."""
            positions = torch.from_numpy(grid.to_position(seconds)).to(device)
            answers = []
            with torch.inference_mode():
                for some in positions.split(CHUNK):
                    answers.append(model(table, lengths, some, torch.zeros(len(some), dtype=torch.long, device=device)))
            completeness, refined = (torch.cat(part).cpu().numpy() for part in zip(*answers, strict=True))
            return completeness.astype(np.float64), grid.from_position(refined)

        completeness, refined = ask(spans)
        if keep == "original":
            return spans, completeness
        refined = inside(np.sort(refined, axis=1), 0.0, data.duration(video))
        again, _ = ask(refined)
        if keep == "refined":
            return refined, again
        return np.concatenate([spans, refined]), np.concatenate([completeness, again])

    return run
