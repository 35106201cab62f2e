"""Boundaries by what rows and first labels say together: stage `pser/discriminant`.

Which class a row shows is said by linear discriminants that never saw the video: the training videos are parted into
folds, and the rows of a fold are judged by class means and a common covariance of the rows of the other folds. Labels
teach, except at their ends: around each end lies a margin, wide enough for labels that are much too long or too short,
of which rows teach nothing. What lies there is for the rows to say.

Neighbouring rows show much the same, so the log odds of single rows are far too sure of a whole segment's. They are
scaled by one number, the one that makes the rows that teach likeliest by the models that did not see them: .1 to .3 on
real recordings. Where rows say little, what they say is outweighed by the first labels, each with a fixed weight.

Ours; the covariance is drawn to its diagonal (Friedman, Regularized Discriminant Analysis, 1989).
Legend: T rows of a video, C classes, K folds, D feature width, G labels of one video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.methods.common.seeds import inside
from tad.methods.pser.apart import Apart, apart
from tad.methods.pser.boundaries import best, between_rows, own_rows, usual_lengths
from tad.methods.pser.rows import fold_of
from tad.stages import Context, StageConfig

FOLDS = 6
INSIDE, OUTSIDE = 0.3, 0.6
"""Margins at each end of a label, in its lengths."""
ROWS_INSIDE, ROWS_OUTSIDE = 5.0, 10.0
"""The margins have so many rows at most: long actions are not less sharp at their ends than short ones."""
DIAGONAL = 0.1
"""How far the covariance is drawn to its diagonal."""
FIRST = 20.0
"""Log odds of the first labels over their length: to move an end by a tenth of it, rows must outweigh 2."""
SCALES = np.exp(np.arange(-5.0, 1.01, 0.1))
LENGTH_WEIGHT = 2.0
"""How much the usual length of its class draws a label, of those that the rows show without it."""
EVEN = 0.5
"""That neighbours touch is as likely as not."""
NOTHING = -1
"""Class of rows that teach nothing; C is background."""


@dataclass(frozen=True)
class DiscriminantLabels:
    """Map stage: labels with new boundaries.

    Inputs: "labels" of the training videos, one for every point, which teach; "first", those from which all started.
    The search is that of `boundaries.py`. The models are of all videos, so all labels are made at once when the stage
    is opened: 108 videos of 130 rows, 128 wide, take a second; features are read twice.
    """

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "pser/discriminant"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, (labels, first) = context.data, (_apart(context, name) for name in ("labels", "first"))
        models = learn(labels, data)
        shown = {v: Shown.of(v, labels[v], first[v], fold, models, data) for v, fold in models.folds.items()}
        scale = best_scale(list(shown.values()))

        def searched(video: str, usual: np.ndarray | None) -> Segments:
            spans = inside(shown[video].searched(scale, usual), 0.0, data.duration(video))
            names = [data.classes[c] for c in labels[video].label]
            return Segments.of(video, spans[:, 0], spans[:, 1], names, 1.0, labels[video].time, context.source)

        free = Segments.concat([searched(video, None) for video in shown])
        usual = usual_lengths(free, data.classes)
        return lambda video: searched(video, usual) if video in shown else Segments.empty()


def _apart(context: Context, name: str) -> dict[str, Apart]:
    """The labels of an input by video, in ascending order."""
    given, classes = context.inputs[name].by_video(), context.data.classes
    return {video: apart(given[video], classes) for video in sorted(given) if len(given[video])}


class Models(NamedTuple):
    """Linear discriminants, one for each fold, of the rows of the other folds."""

    folds: dict[str, int]
    """Of each video with labels."""
    weight: np.ndarray
    """[K, C + 1, D] of log p(class), up to a constant and a scale; background comes last."""
    bias: np.ndarray
    """[K, C + 1]."""
    known: np.ndarray
    """[K, C + 1] bool: the fold's model has seen the class."""


def learn(labels: dict[str, Apart], data: Dataset) -> Models:
    """From the labels of each training video that has any, by ascending id."""
    videos, classes, dim = list(labels), len(data.classes), data.manifest.grid.dim
    count_of = max(1, min(FOLDS, len(videos)))
    folds = {video: fold_of(video, videos, count_of) or 0 for video in videos}
    count, total = np.zeros((count_of, classes + 1)), np.zeros((count_of, classes + 1, dim))
    square = np.zeros((count_of, dim, dim))
    for video, fold in folds.items():
        features = np.asarray(data.features(video), dtype=np.float64)
        target = teaching(labels[video], data.grid(video, len(features)), classes)
        rows, one_hot = features[target != NOTHING], np.eye(classes + 1)[target[target != NOTHING]]
        count[fold] += one_hot.sum(axis=0)
        total[fold] += one_hot.T @ rows
        square[fold] += rows.T @ rows
    if count_of > 1:
        count, total, square = (x.sum(axis=0) - x for x in (count, total, square))
    weight, bias = zip(*(_solve(*fold) for fold in zip(count, total, square, strict=True)), strict=True)
    return Models(folds, np.array(weight), np.array(bias), count > 0)


def teaching(labels: Apart, grid: SnippetGrid, classes: int) -> np.ndarray:
    """[T] what each row of a video shows by its labels: a class, background or, in margins, nothing.

    The row of a label's point shows its class however short the label is; rows of two actions at once teach nothing.
    """
    centre = grid.from_edge(np.arange(grid.length) + 0.5)
    found, taken = np.full(grid.length, classes), np.zeros(grid.length, dtype=np.int64)
    for (start, end), label, point in zip(labels.spans, labels.label, labels.time, strict=True):
        inner = min(INSIDE * (end - start), ROWS_INSIDE / grid.rate)
        outer = min(OUTSIDE * (end - start), ROWS_OUTSIDE / grid.rate)
        near = (centre >= start - outer) & (centre < end + outer)
        core = (centre >= start + inner) & (centre < end - inner)
        core[grid.row(point)] = True
        found[near & ~core & (taken == 0)] = NOTHING
        found[core] = np.where(taken[core] == 0, label, NOTHING)
        taken += core
    return found


def _solve(count: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C + 1, D] and biases [C + 1] of a model, from numbers, sums and the sum of squares of its rows."""
    mean = total / np.maximum(count, 1)[:, None]
    covariance = (square - (mean * count[:, None]).T @ mean) / max(count.sum(), 1)
    variance = np.diag(covariance)
    least = 1e-6 * variance.mean() + 1e-12  # features that do not vary
    covariance = (1 - DIAGONAL) * covariance + np.diag(DIAGONAL * variance + least)
    weight = np.linalg.solve(covariance, mean.T).T
    return weight, -0.5 * (weight * mean).sum(axis=1)


class Shown(NamedTuple):
    """What the rows of one video show to a model that did not see them, and what its first labels say."""

    labels: Apart
    grid: SnippetGrid
    gain: np.ndarray
    """[G, T] log odds of each label's class against background, before the scale; 0 where the model knows neither."""
    first: np.ndarray
    """[G, T] log odds by the first labels."""
    entropy: np.ndarray
    """Of each of `SCALES`, summed over the rows that teach."""

    @classmethod
    def of(cls, video: str, labels: Apart, first: Apart, fold: int, models: Models, data: Dataset) -> Shown:
        features = np.asarray(data.features(video), dtype=np.float64)
        grid, known = data.grid(video, len(features)), models.known[fold] & models.known[fold, -1]
        logits = features @ models.weight[fold].T + models.bias[fold]
        logits -= logits[:, -1:]
        target = teaching(labels, grid, len(data.classes))
        judged = (target != NOTHING) & known[target]
        of_judged = np.where(known, logits, -np.inf)[judged]
        of_judged -= of_judged[np.arange(len(of_judged)), target[judged]][:, None]
        entropy = np.array([np.logaddexp.reduce(scale * of_judged, axis=1).sum() for scale in SCALES])
        gain = np.where(known, logits, 0.0).T[labels.label]
        centre, (start, end) = grid.from_edge(np.arange(grid.length) + 0.5), first.spans.T[:, :, None]
        sides = np.where((centre >= start) & (centre < end), FIRST, -FIRST)
        return cls(labels, grid, gain, sides / np.maximum((end - start) * grid.rate, 1.0), entropy)

    def searched(self, scale: float, usual: np.ndarray | None) -> np.ndarray:
        """[G, 2] seconds; usual: [C] log seconds that draw lengths, or None."""
        spans, total = self.labels.spans.copy(), scale * self.gain + self.first
        for number in range(int(self.labels.chain.max()) + 1):
            mine = np.flatnonzero(self.labels.chain == number)
            if len(mine) > self.grid.length:
                continue  # more labels than rows: they stay
            gain, points = total[mine], own_rows(self.grid.row(self.labels.time[mine]), self.grid.length)
            length = np.zeros(len(mine)) if usual is None else usual[self.labels.label[mine]] + np.log(self.grid.rate)
            edges = best(gain, points, length, 0.0 if usual is None else LENGTH_WEIGHT, EVEN)
            spans[mine] = self.grid.from_edge(between_rows(edges, gain))
        return spans


def best_scale(shown: list[Shown]) -> float:
    """Of `SCALES`, with which the rows that teach are likeliest by the models that did not see them."""
    return float(SCALES[np.sum([one.entropy for one in shown], axis=0).argmin()])
