"""Which class each row of a video shows, by discriminants that never saw the video: stage `pser/rows`.

The training videos are parted into folds, and the rows of a fold are judged by class means and a common covariance of
the rows of the other folds. Labels teach, except at their ends: around each end, where labels are often too long or
too short, lies a margin whose rows teach nothing. What lies there is for the rows to say.

Neighbouring rows show much the same, so the log odds of single rows are far too sure of a whole segment's. They are
scaled by one number, the one that makes the rows that teach likeliest by the models that did not see them: .1 to .3 on
real recordings.

Ours; cross-fitting of pseudo-labels in place of PseR's ranking module, whose target is the seed itself. The covariance
is drawn to its diagonal (Friedman, Regularized Discriminant Analysis, 1989).

Legend: T rows of a video, C classes, K folds, D feature width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.errors import DataError
from tad.methods.pser.apart import Apart, apart
from tad.methods.snippet.training import read_features
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import Arrays, Context, StageConfig

DIAGONAL = 0.1
"""How far the covariance is drawn to its diagonal."""
SCALES = np.exp(np.arange(-5.0, 1.01, 0.1))
NOTHING = -1
"""Class of rows that teach nothing; C is background."""


class RowsConfig(StageConfig):
    """What labels teach about rows, and to which models."""

    folds: int = option(
        6,
        "parts of the training videos; each is judged by a model of the others",
        ge=2,
        le=20,
        tune=Choice(3, 6, 10),
        why="more folds: more videos for each model",
    )
    inside: float = option(
        0.15,
        "margin at each end of a label, inside it, of its length: such rows teach nothing",
        ge=0,
        le=0.5,
        tune=Float(0.0, 0.45),
        why="0 takes every label as true to its ends",
    )
    outside: float = option(
        0.3, "the same outside a label", ge=0, le=2, tune=Float(0.0, 1.2), why="0 takes every label as true to its ends"
    )
    margin_rows: float = option(
        5.0,
        "rows that the outer margin has at most; the inner one has half of them",
        gt=0,
        le=1000,
        tune=Float(2.0, 30.0, log=True),
        why="long actions are not less sharp at their ends than short ones",
    )


@dataclass(frozen=True)
class RowOdds:
    """Map stage: array `log_p` [T, C + 1] float32, log probabilities of what each row shows; background comes last.

    The models never saw the features of the video. From the second round on they learn from labels of other videos,
    which models of the round before set, and these had seen it.

    Input "taught": the labels of the training videos. A video outside the folds is judged by a model of all. A class
    that the video's model has not seen is as likely as background. The models are learnt when the stage is opened:
    108 videos of 130 rows, 128 wide, take half a second; features are read twice.

    Raises:
        DataError: no training video has a label.
    """

    config: RowsConfig
    name: str = "pser/rows"
    version: int = 3
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        data, given = context.data, context.inputs["taught"].by_video()
        labels = {video: apart(given[video], data.classes) for video in sorted(given) if len(given[video])}
        if not labels:
            raise DataError(f"{context.inputs['taught'].path}: no training video has a label to refine")
        models = learn(labels, data, self.config)
        scale = best_scale(models, labels, data, self.config)

        def judge(video: str) -> Arrays:
            logits, known = models.logits(video, data)
            if not known.any():
                return {"log_p": np.full(logits.shape, -np.log(logits.shape[1]), dtype=np.float32)}
            log_p = scale * logits
            log_p -= np.logaddexp.reduce(np.where(known, log_p, -np.inf), axis=1, keepdims=True)
            return {"log_p": np.where(known, log_p, log_p[:, -1:]).astype(np.float32)}

        return judge


class Models(NamedTuple):
    """Linear discriminants: one for each fold, of the rows of the other folds, and one of all."""

    folds: dict[str, int]
    """Of each video with labels."""
    weight: np.ndarray
    """[K + 1, C + 1, D] of log p(class), up to a constant; background comes last."""
    bias: np.ndarray
    """[K + 1, C + 1]."""
    known: np.ndarray
    """[K + 1, C + 1] bool: the fold's model has seen the class."""

    def logits(self, video: str, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
        """[T, C + 1] float64, that of background 0, and [C + 1] bool which are known; 0 where not."""
        fold = self.folds.get(video, -1)
        known = self.known[fold]
        if not known[-1]:  # without background there is nothing to compare with
            known = np.zeros(len(known), dtype=bool)
        found = features_of(data, video) @ self.weight[fold].T + self.bias[fold]
        return np.where(known, found - found[:, -1:], 0.0), known


def fold_of(video: str, labelled: list[str], folds: int) -> int | None:
    """The fold of a video of the ascending list, None of another; ids that are near in the list share a fold, as such
    videos often have the same people and place."""
    at = bisect_left(labelled, video)
    return at * folds // len(labelled) if at < len(labelled) and labelled[at] == video else None


def features_of(data: Dataset, video: str) -> np.ndarray:
    """[T, D] float64.

    Raises:
        DataError: the file is missing or malformed, or holds a value that is not finite.
    """
    return read_features(data, video).numpy().astype(np.float64)


def learn(labels: dict[str, Apart], data: Dataset, config: RowsConfig) -> Models:
    """From the labels of each training video that has any, by ascending id."""
    videos, classes, dim = list(labels), len(data.classes), data.manifest.grid.dim
    folds = max(1, min(config.folds, len(videos)))
    of = {video: at for video in videos if (at := fold_of(video, videos, folds)) is not None}
    count, total = np.zeros((folds, classes + 1)), np.zeros((folds, classes + 1, dim))
    square = np.zeros((folds, dim, dim))
    for video, fold in of.items():
        features = features_of(data, video)
        target = teaching(labels[video], data.grid(video, len(features)), classes, config)
        rows, one_hot = features[target != NOTHING], np.eye(classes + 1)[target[target != NOTHING]]
        count[fold] += one_hot.sum(axis=0)
        total[fold] += one_hot.T @ rows
        square[fold] += rows.T @ rows
    everything = count.sum(axis=0), total.sum(axis=0), square.sum(axis=0)
    own = 0.0 if folds == 1 else 1.0  # one video alone is judged by its own rows
    solved = [_solve(*everything)]  # one square after the other: they are wide
    for k in range(folds):
        solved.insert(k, _solve(*(w - own * x[k] for w, x in zip(everything, (count, total, square), strict=True))))
    weight, bias, known = (np.array(x) for x in zip(*solved, strict=True))
    return Models(of, weight, bias, known)


def teaching(labels: Apart, grid: SnippetGrid, classes: int, config: RowsConfig) -> np.ndarray:
    """[T] what each row of a video shows by its labels: a class, background or, in margins, nothing.

    The row of a label's point shows its class however short the label is; rows of two actions at once teach nothing.
    """
    centre = grid.from_edge(np.arange(grid.length) + 0.5)
    found, taken = np.full(grid.length, classes), np.zeros(grid.length, dtype=np.int64)
    for (start, end), label, point in zip(labels.spans, labels.label, labels.time, strict=True):
        inner = min(config.inside * (end - start), config.margin_rows / 2 / grid.rate)
        outer = min(config.outside * (end - start), config.margin_rows / grid.rate)
        near = (centre >= start - outer) & (centre < end + outer)
        core = (centre >= start + inner) & (centre < end - inner)
        core[grid.row(point)] = True
        found[near & ~core & (taken == 0)] = NOTHING
        found[core] = np.where(taken[core] == 0, label, NOTHING)
        taken += core
    return found


def _solve(count: np.ndarray, total: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights [C + 1, D], biases and what is known [C + 1] of a model, from numbers, sums and squares of its rows."""
    mean = total / np.maximum(count, 1)[:, None]
    covariance = (square - (mean * count[:, None]).T @ mean) / max(count.sum(), 1)
    variance = np.diag(covariance)
    least = 1e-6 * variance.mean() + 1e-12  # features that do not vary
    covariance = (1 - DIAGONAL) * covariance + np.diag(DIAGONAL * variance + least)
    weight = np.linalg.solve(covariance, mean.T).T
    return weight, -0.5 * (weight * mean).sum(axis=1), count > 0


def best_scale(models: Models, labels: dict[str, Apart], data: Dataset, config: RowsConfig) -> float:
    """Of `SCALES`, with which the rows that teach are likeliest by the models that did not see them."""
    entropy = np.zeros(len(SCALES))
    for video, own in labels.items():
        logits, known = models.logits(video, data)
        target = teaching(own, data.grid(video, len(logits)), len(data.classes), config)
        judged = (target != NOTHING) & known[target]
        away = np.where(known, logits, -np.inf)[judged]
        away -= away[np.arange(len(away)), target[judged]][:, None]
        entropy += [np.logaddexp.reduce(scale * away, axis=1).sum() for scale in SCALES]
    return float(SCALES[entropy.argmin()])
