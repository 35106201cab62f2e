"""The detector `potloc`: a multi-scale transformer with local attention, trained on sampled pseudo-labels.

Source: POTLoc (Vahdani and Tian) and its released code. The network is in tad.methods.potloc.model, targets in
tad.methods.potloc.targets. Detections are the runs of the curves of every level over several thresholds, as those of
the proposers are; the levels meet in class-wise suppression.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch

from tad import bounds
from tad.data.segments import Segments
from tad.methods.common import trained
from tad.methods.common.candidates import RunsConfig, scored_runs, steps
from tad.methods.common.postprocess import Postprocess, postprocess
from tad.methods.common.pyramid import padded_length
from tad.methods.common.windows import refine
from tad.methods.potloc.options import PotlocTraining
from tad.methods.potloc.training import PotlocTrain, build
from tad.methods.roles import Labels, MethodConfig, Roles, Round, cannot_ignore, one_grid
from tad.methods.snippet.model import video_scores
from tad.methods.snippet.training import read_features
from tad.options import again, group, option
from tad.ranges import Choice, Float, Integer, Steps
from tad.stages import Artifact, Context, StageConfig


class PotlocDecoding(RunsConfig):
    """From the curves of all levels to detections; changing it needs no training.

    The options of runs hold on each level: `scale` is that of the finest, every further level has twice as much.
    """

    class_threshold: bounds.Fraction = again(
        RunsConfig,
        "class_threshold",
        paper=0.7,
        free=False,
        tune=Float(0.05, 0.8),
        why="paper .7; lower where videos hold many classes",
    )
    scale: bounds.Parts = again(
        RunsConfig, "scale", paper=4, tune=Choice(2, 4, 8), why="paper 4; of the finest level, at linear cost"
    )
    margin: bounds.Ratio = again(
        RunsConfig, "margin", paper=0.1, tune=Float(0.05, 0.4), why="paper .1; how far around a run the contrast looks"
    )
    video_power: bounds.Fraction = option(
        0.5,
        "share, in the exponent, of the proposer's video score in that of the detector; 0: none",
        paper=0.0,
        tune=Float(0.0, 1.0),
        why="papers 0; share of the proposer's video score, .5 is the geometric mean",
    )
    curve_share: bounds.Fraction = option(
        0.5,
        "share of the proposer's curves in those of each level; 0: none",
        paper=0.0,
        tune=Float(0.0, 1.0),
        why="paper 0; share of the proposer's curves, which err in other places",
    )
    by_level: bool = option(
        False, "true: the published rule, each level predicts classes by its own video scores", paper=True
    )
    cas_thresholds: list[bounds.Fraction] = option(
        steps(0.05, 0.5, 0.05),
        "thresholds on each class's curve",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[0.4],
        tune=Steps(Float(0.02, 0.3), Float(0.4, 0.9), Integer(4, 20)),
        why="paper .4 alone, as a level; the highest decides how long detections are",
    )
    actionness_thresholds: list[bounds.Fraction] = option(
        steps(0.2, 0.8, 0.05),
        "thresholds on actionness; its runs are detections of every class",
        max_length=bounds.ITEMS,
        paper=steps(0.1, 0.925, 0.025),
        tune=Steps(Float(0.05, 0.3), Float(0.6, 0.95), Integer(4, 40)),
        why="paper .1 to .925 by .025; steps of .025 to .1",
    )
    min_score: bounds.Score | None = option(
        0.001, "detections whose lowered score is below it are dropped; null: none", paper=None
    )
    max_detections: bounds.Count | None = option(
        200,
        "detections of each video, the best ones; null: all",
        paper=None,
        tune=Integer(50, 1000, log=True),
        why="paper null: all",
        stand_in=1000,
    )


class PotlocPostprocess(Postprocess):
    """What is done with overlapping detections."""

    sigma: bounds.Temperature = again(Postprocess, "sigma", 0.3)
    iou_threshold: bounds.PositiveFraction = again(Postprocess, "iou_threshold", 0.6)


class PotlocDetection(StageConfig):
    """All that detecting depends on."""

    decode: PotlocDecoding = PotlocDecoding()
    postprocess: PotlocPostprocess = PotlocPostprocess()


class PotlocDetector(MethodConfig):
    """POTLoc's second stage; learns from any labeler's pseudo-labels."""

    method: Literal["potloc"] = "potloc"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    training: PotlocTraining = PotlocTraining()
    decode: PotlocDecoding = group(PotlocDecoding(), stage="detections")
    postprocess: PotlocPostprocess = group(
        PotlocPostprocess(),
        stage="detections",
        paper=PotlocPostprocess(suppression="nms", iou_threshold=0.45, stretch=1.0),
    )

    def conflicts(self, recipe: Roles) -> list[str]:
        conflicts = cannot_ignore(self.method, recipe)
        if self.decode.curve_share:
            why = "averages its curves with the proposer's"
            conflicts += one_grid(self.method, recipe, why, "set detector.decode.curve_share to 0, ")
        return conflicts

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        return round.fit(PotlocTrain(self.training), {"labels": labels.segments})

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos; the proposer's scores, where it has any, are blended in."""
        scores = round.first.scores()
        inputs = {"model": model} | ({"scores": scores} if scores is not None else {})
        changes = {} if round.known else {"train_classes": "predicted"}
        config = PotlocDetection(decode=self.decode.model_copy(update=changes), postprocess=self.postprocess)
        return round.map(PotlocDetect(config), inputs)


class Curves(NamedTuple):
    """What the network says of a video on one level, or the proposer on its snippets."""

    cas: np.ndarray
    """[T, C] fused class scores."""
    actionness: np.ndarray
    """[T]."""
    video: np.ndarray
    """[C] video scores."""


@dataclass(frozen=True)
class PotlocDetect:
    """Map stage: detections of one video after the other; inputs "model" and, if it is there, "scores"."""

    config: PotlocDetection
    name: str = "potloc/detect"
    version: int = 2
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, (run, upsample) = self.config.decode, context.data, load(context)

        def detect(video: str) -> Segments:
            levels = run(video)
            grid = data.grid(video, len(data.features(video)))
            known = data.video_classes(video) if config.train_classes == "given" else np.zeros(0, dtype=np.int64)
            if "scores" in context.inputs:
                levels = blend(levels, proposer_curves(context.inputs["scores"], video), config, upsample)
            places, score, label = pool(levels, known, config)
            spans = grid.from_position(places / upsample)
            spans, lowered, label = postprocess(
                spans, score, label, self.config.postprocess, min_score=config.min_score, limit=config.max_detections
            )
            return Segments.clipped(video, spans, label, data.classes, lowered, data.duration(video), context.source)

        return detect


def proposer_curves(scores: Artifact, video: str) -> Curves:
    """The proposer's curves on snippets."""
    cas, background, pooled = (scores.array(key, video).astype(np.float64) for key in ("cas", "background", "video"))
    return Curves(cas, 1 - background, pooled)


def blend(levels: list[Curves], proposer: Curves, config: PotlocDecoding, upsample: int) -> list[Curves]:
    """Each level's curves averaged with the proposer's at the same places; video scores as a geometric mean.

    Detector and proposer err in different places: one sees far, the other little more than single snippets.

    Args:
        levels: of the detector, finest level first.
        proposer: its curves on snippets.
        config: gives the shares.
        upsample: rows of the finest level for each snippet.
    """
    share, power = config.curve_share, config.video_power
    blended = []
    for depth, level in enumerate(levels):
        at = np.arange(len(level.actionness)) * (2**depth / upsample)
        cas, actionness = (_at(curve, at) for curve in (proposer.cas, proposer.actionness))
        blended.append(
            Curves(
                (1 - share) * level.cas + share * cas,
                (1 - share) * level.actionness + share * actionness,
                level.video ** (1 - power) * proposer.video**power,
            )
        )
    return blended


def _at(curve: np.ndarray, places: np.ndarray) -> np.ndarray:
    """A curve [T, ...] at places [N] between its rows, linearly; the last row beyond the end."""
    low = np.clip(np.floor(places).astype(np.int64), 0, len(curve) - 1)
    high = np.minimum(low + 1, len(curve) - 1)
    part = (places - low).clip(0, 1).reshape(-1, *[1] * (curve.ndim - 1))
    return (1 - part) * curve[low] + part * curve[high]


def pool(levels: list[Curves], known: np.ndarray, config: PotlocDecoding) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The candidates of all levels, before suppression.

    Args:
        levels: curves, finest level first.
        known: [K] class indices; empty to use the predicted ones.
        config: thresholds and scoring.

    Returns:
        [N, 2] positions on the finest level, [N] scores and [N] class indices. Row i of a level of stride g lies at
        position i g, and covers g rows around it; the published rule lets it begin there and cover the next g.
    """
    video = [level.video for level in levels]
    if not config.by_level:
        video = [np.mean(video, axis=0)] * len(levels)
    parts = []
    for depth, (level, scores) in enumerate(zip(levels, video, strict=True)):
        stride = 2**depth
        options = config.model_copy(update={"scale": config.scale * stride})
        found = scored_runs(level.cas, level.actionness, scores, known, options)
        places = (found.spans - 0.5) * stride if config.centred else found.spans * stride - 0.5
        parts.append((places, found.scores, found.labels))
    places, score, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    return places, score, label


def load(context: Context) -> tuple[Callable[[str], list[Curves]], int]:
    """The trained network as a function of a video id, and the rows that it sees for each snippet.

    Raises:
        RunError: it was trained for another feature width or other classes.
    """
    data = context.data
    network, settings, device = trained.load(context, build)
    ratio, upsample = settings["top_ratio"], settings["upsample"]

    def run(video: str) -> list[Curves]:
        features = torch.from_numpy(refine(read_features(data, video).numpy(), upsample)).to(device)
        length = padded_length(len(features), network.levels)
        padded = features.new_zeros(length, features.shape[1])
        padded[: len(features)] = features
        index = torch.full((length,), -1, device=device)
        index[: len(features)] = 0
        with torch.inference_mode():
            scores = network(padded, index)
        sizes = [length >> level for level in range(network.levels)]
        curves = []
        for cas, classes, background, mask in zip(
            *(x.split(sizes) for x in (scores.cas(), scores.classes, scores.background, scores.mask)), strict=True
        ):
            pooled = video_scores(classes[None], mask[None], ratio)[0]
            parts = (cas[mask], 1 - background[mask], pooled)
            curves.append(Curves(*(x.cpu().double().numpy() for x in parts)))
        return curves

    return run, upsample
