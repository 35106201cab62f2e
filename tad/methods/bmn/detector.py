"""The detector `bmn`: class-agnostic proposals from a boundary-matching network, named by the proposer's classes.

Source: BMN (ICCV 2019) and its public re-implementations.
BMN itself finds no classes. The published systems take them from a classifier of videos that was trained with the
labels of the whole training set; here they are the video scores of this run's own proposer, which saw the given labels
alone, and no option loads any other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch

from tad import bounds
from tad.data.segments import Segments
from tad.methods.bmn.model import Bmn
from tad.methods.bmn.options import BmnTraining
from tad.methods.bmn.sampling import valid_cells
from tad.methods.bmn.targets import Window, read_window, windows
from tad.methods.bmn.training import TrainStage
from tad.methods.common import trained
from tad.methods.common.postprocess import Postprocess, postprocess
from tad.methods.roles import Labels, MethodConfig, Roles, Round, one_grid, required
from tad.options import again, group, option
from tad.ranges import Choice, Integer
from tad.stages import Artifact, Context, StageConfig

PUBLISHED_CLASSES = 2
"""Of each video; every proposal becomes a detection of each."""


class BmnDecoding(StageConfig):
    """From the network's answers to detections; changing it needs no training."""

    boundaries: bool = option(
        False,
        "true: scores are also multiplied with the probabilities of both boundaries",
        tune=Choice(True, False),
        why="paper true, OpenTAD false; boundary probabilities in the score",
    )
    peak: bounds.PositiveFraction = option(0.5, "share of the window's highest boundary that makes a bin a candidate")
    top_k: bounds.Count = option(1000, "best proposals of each window that reach post-processing")
    snippets: bool = option(
        True,
        "true: scores are also multiplied with the mean of the proposer's class scores inside the "
        "proposal; false: the class is told by its video's score alone, as published",
        tune=Choice(True, False),
        why="papers false; the mean class score inside a proposal says more than its video's alone",
    )
    classes: bounds.Count | None = option(
        None,
        "best classes of its video that every proposal is given; null: all with `snippets`, else the published 2",
        tune=Choice(None, 1, 2, 3),
        why="papers 2; a proposal is given that many classes of its video",
    )
    video_power: bounds.Fraction | None = option(
        None,
        "power of the video's score of a class; null: 0, it does not count, with `snippets`; else the published 1",
        tune=Choice(None, 0.0, 0.5, 1.0),
        why="papers 1; with it a class that the proposer found in few rows of a video is none",
    )
    train_classes: Literal["given", "predicted"] = option(
        "given", "classes of training videos: the labels', where there are any, or the best ones"
    )
    min_score: bounds.Score | None = option(1e-4, "proposals whose lowered score is below it are dropped; null: none")
    max_detections: bounds.Count = option(
        200,
        "detections of each video, the best ones",
        tune=Integer(50, 1000, log=True),
        why="OpenTAD 200 on THUMOS14, 100 on ActivityNet",
    )


class BmnPostprocess(Postprocess):
    """What is done with overlapping proposals, whatever their class."""

    sigma: bounds.Temperature = again(Postprocess, "sigma", 0.4)


class BmnDetection(StageConfig):
    """All that detecting depends on."""

    decode: BmnDecoding = BmnDecoding()
    postprocess: BmnPostprocess = BmnPostprocess()


class BmnDetector(MethodConfig):
    """Boundary-matching network; learns from any labeler's pseudo-labels."""

    network: ClassVar[type[Bmn]] = Bmn
    method: Literal["bmn"] = "bmn"
    training: BmnTraining = BmnTraining()
    decode: BmnDecoding = group(BmnDecoding(), stage="detections")
    postprocess: BmnPostprocess = group(BmnPostprocess(), stage="detections")

    def conflicts(self, recipe: Roles) -> list[str]:
        why = "reads the proposer's class scores inside its proposals"
        otherwise = "set detector.decode.snippets to false, "
        return one_grid(self.method, recipe, why, otherwise) if self.decode.snippets else []

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        self._classes(round)  # a recipe that has none is told before the training, not after it
        return round.fit(TrainStage(self.training), labels.inputs())

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos; the proposer's scores tell their classes."""
        scores = self._classes(round)
        changes = {} if round.known else {"train_classes": "predicted"}
        config = BmnDetection(decode=self.decode.model_copy(update=changes), postprocess=self.postprocess)
        return round.map(DetectStage(config, network=self.network), {"model": model, "scores": scores})

    def _classes(self, round: Round) -> Artifact:
        """The proposer's snippet scores.

        Raises:
            RunError: it has none.
        """
        return required(round.first.scores(), "detector bmn", "the proposer's scores for the classes")


@dataclass(frozen=True)
class DetectStage:
    """Map stage: detections of one video after the other; inputs "model" and "scores"."""

    config: BmnDetection
    name: str = "bmn/detect"
    version: int = 2
    output: Literal["segments", "arrays"] = "segments"
    network: type[Bmn] = Bmn

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, scores = self.config.decode, context.data, context.inputs["scores"]
        named = config.classes or (len(data.classes) if config.snippets else PUBLISHED_CLASSES)
        power = float(not config.snippets) if config.video_power is None else config.video_power
        propose = load(context, config, self.network)
        names = np.array(data.classes, dtype=object)

        def detect(video: str) -> Segments:
            spans, score = propose(np.array(data.features(video), dtype=np.float32))
            grid = data.grid(video, len(data.features(video)))
            one = np.zeros(len(score), dtype=np.int64)
            kept = postprocess(
                grid.from_position(spans),
                score,
                one,
                self.config.postprocess,
                min_score=config.min_score,
                limit=config.max_detections,
            )
            known = data.video_classes(video) if config.train_classes == "given" else np.zeros(0, dtype=np.int64)
            of_video = np.asarray(scores.array("video", video), dtype=np.float64)
            label = known if len(known) else np.argsort(-of_video, kind="stable")[:named]
            spans = np.clip(kept.spans, 0.0, data.duration(video))
            real = spans[:, 0] < spans[:, 1]
            score = kept.scores[real, None] * of_video[label] ** power
            if config.snippets:
                cas = np.asarray(scores.array("cas", video), dtype=np.float64)[:, label]
                score = score * means(cas, grid.to_edge(spans[real]))
            best = np.argsort(-score, axis=None, kind="stable")[: config.max_detections]
            row, column = np.divmod(best, len(label))
            start, end = spans[real][row].T
            return Segments.of(
                video, start, end, names[label[column]].tolist(), score[row, column], source=context.source
            )

        return detect


def means(curves: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """[N, C] means of curves [T, C] over stretches [N, 2] between edges; rows at a stretch's ends count in part."""
    edges = np.clip(edges, 0, len(curves))
    sums = np.concatenate([np.zeros((1, curves.shape[1])), curves.cumsum(0)])
    low = np.minimum(edges.astype(np.int64), len(curves) - 1)
    until = sums[low] + (edges - low)[..., None] * curves[low]
    return (until[:, 1] - until[:, 0]) / np.maximum(edges[:, 1] - edges[:, 0], 1e-9)[:, None]


Proposals = tuple[np.ndarray, np.ndarray]
"""[N, 2] positions and [N] scores."""


def load(context: Context, config: BmnDecoding, kind: type[Bmn]) -> Callable[[np.ndarray], Proposals]:
    """The trained network as a function of a video's features [T, C]; of its proposals before suppression.

    Raises:
        RunError: it was trained for another feature width.
    """
    network, settings, device = trained.load(context, kind.of)
    length = settings["length"]

    def propose(features: np.ndarray) -> Proposals:
        found = []
        for window in windows(len(features), length, settings["fit"], settings["upsample"]):
            rows = torch.from_numpy(read_window(features, window, length)).to(device)
            found.append(of_window(network, rows, window, settings["durations"], config))
        spans, scores = (np.concatenate(part) for part in zip(*found, strict=True))
        return spans, scores

    return propose


def of_window(network: Bmn, rows: torch.Tensor, window: Window, durations: int, config: BmnDecoding) -> Proposals:
    """Proposals of one window, best first: the cells between candidate starts and candidate ends.

    Args:
        network: in evaluation.
        rows: [T, C].
        window: where they lie.
        durations: D.
        config: thresholds and scoring.
    """
    mask = torch.arange(len(rows), device=rows.device) < window.bins
    with torch.inference_mode():
        outputs = network(rows[None], mask[None])
        start, end = (x[0].sigmoid().cpu().numpy()[: window.bins] for x in outputs[:2])
        maps = outputs.maps[0].sigmoid().cpu()
    cells = valid_cells(window.bins, min(durations, window.bins))
    first, last = cells.start, cells.start + cells.duration
    begins, ends = candidates(start, config.peak), candidates(end, config.peak)
    begins[0] = ends[-1] = True
    usable = begins[first] & ends[last]
    first, last = first[usable], last[usable]
    maps = maps[:, last - first, first]
    scores = network.score(maps).numpy()
    if config.boundaries:
        scores = scores * start[first] * end[last]
    best = np.argsort(-scores, kind="stable")[: config.top_k]
    edges = np.stack([first[best], last[best] + 1], 1).astype(np.float64)
    return window.from_bins(edges), scores[best]


def candidates(probability: np.ndarray, peak: float) -> np.ndarray:
    """[T] bool: bins that are no lower than their neighbours, or above a share `peak` of the highest one."""
    padded = np.pad(probability, 1, constant_values=-np.inf)
    local = (probability >= padded[:-2]) & (probability >= padded[2:])
    return local | (probability > peak * probability.max())
