"""How likely each row shows each class, by models that never saw its video, and how far sums of that are believed.

Legend: T rows of a video, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from tad.methods.common.trained import load, of_architecture
from tad.methods.pser.apart import apart
from tad.methods.pser.rows import RowModels, fold_of, with_halo
from tad.methods.pser.teaching import Teaching
from tad.stages import Arrays, Artifact, Context, StageConfig

WINDOW = 4
"""Rows whose sum is judged, about those that one row is judged by (`rows.KERNEL`)."""
AROUND = 10
"""Rows at least, and two lengths, on either side of a label's middle: background far away is easy, and says little."""
SMALLEST = 1e-3
"""Of slopes: models that are wrong as often as right say nothing."""


@dataclass(frozen=True)
class RowOdds:
    """Map stage: array `log_p` [T, C + 1] float32, log probabilities of each row; background comes last.

    Inputs: "model"; "taught", the labels that it was trained on. A video outside the folds gets the mean of all models.
    """

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "pser/odds"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        models, _, device = load(context, of_architecture(RowModels))
        taught = sorted(context.inputs["taught"].by_video())

        def judge(video: str) -> Arrays:
            rows = torch.from_numpy(with_halo(context.data.features(video)))[None].to(device)
            fold = fold_of(video, taught, len(models.models))
            with torch.inference_mode():
                logits = models(rows)[0] if fold is None else models(rows, fold)
                log_p = logits.log_softmax(-1).reshape(-1, *logits.shape[-2:]).mean(0)
            return {"log_p": log_p.cpu().numpy()}

        return judge


def slope(odds: Artifact, teaching: Teaching) -> float:
    """What to multiply log odds by, in (0, 1], so that their sums over neighbouring rows are as sure as they are right.

    Errors of neighbouring rows go together: a model that mistakes a row mistakes the action. So sums over WINDOW rows,
    of rows that teach and lie around a label, are compared with what the label says there, by logistic regression with
    an intercept, both sides weighing the same (Platt scaling). The models never saw the video, so the labels that they
    were trained on may be asked.

    Args:
        odds: array `log_p` of the videos that have labels.
        teaching: what these say.
    """
    sums, shown = [np.zeros(0)], [np.zeros(0, dtype=bool)]
    for video in sorted(teaching.labels):
        log_p = odds.array("log_p", video).astype(np.float64)
        for found, inside in _windows(log_p, teaching, video):
            sums.append(found)
            shown.append(np.full(len(found), inside))
    return _platt(np.concatenate(sums), np.concatenate(shown))


def _windows(log_p: np.ndarray, teaching: Teaching, video: str) -> list[tuple[np.ndarray, bool]]:
    """Sums of the log odds of each label's class, over the windows around it that lie inside and outside of labels."""
    rows, found = len(log_p), []
    target, weight = teaching(video, rows)
    labels, grid = apart(teaching.labels[video], teaching.data.classes), teaching.data.grid(video, rows)
    gain = np.cumsum(np.pad(log_p[:, :-1] - log_p[:, -1:], ((1, 0), (0, 0))), axis=0)
    held = np.cumsum(np.pad((weight > 0)[:, None] & (target > 0), ((1, 0), (0, 0))), axis=0)
    for (start, end), label in zip(labels.spans, labels.label, strict=True):
        length = max(1, round((end - start) * grid.rate))
        width = min(WINDOW, length)
        middle, reach = int(grid.row((start + end) / 2)), 2 * length + AROUND
        first = np.arange(max(0, middle - reach), min(rows, middle + reach) - width + 1)
        total = gain[first + width, label] - gain[first, label]
        for column, inside in ((label, True), (-1, False)):
            found.append((total[held[first + width, column] - held[first, column] == width], inside))
    return found


def _platt(sums: np.ndarray, shown: np.ndarray) -> float:
    """The slope of the logistic regression, 1 where it is steeper or where one side is missing."""
    if shown.all() or not shown.any():
        return 1.0
    from scipy.optimize import minimize  # takes a while to import, and most commands do without

    weight = np.where(shown, 0.5 / shown.mean(), 0.5 / (1 - shown.mean())) / len(shown)

    def loss(line: np.ndarray) -> tuple[float, np.ndarray]:
        z = line[0] * sums + line[1]
        away = weight * (1 / (1 + np.exp(-np.clip(z, -500, 500))) - shown)
        return float(weight @ np.logaddexp(0, np.where(shown, -z, z))), np.array([away @ sums, away.sum()])

    found = minimize(loss, [1 / WINDOW, 0.0], jac=True, method="L-BFGS-B", bounds=[(SMALLEST, 1.0), (None, None)])
    return float(found.x[0])
