"""From which score on a detection counts: a threshold for each class that maximises F1.

Scores rank detections; a user who acts on them has to cut the list somewhere. A class's threshold is the score at which
the F1 of its detections is largest, with its counts enlarged by `PRIOR` labels that behave as the average of all
classes:

    F1(t) = 2 (R_c(t) + w R(t)) / (K_c(t) + w K(t) + G_c + w G),    w = PRIOR / G

K detections reach t, R of them are right, G labels there are; with c: of the class, without: of all classes together.
So a class without labels gets the threshold that is best for all classes, one with many labels its own, and there is
one number to explain. Nothing here knows where detections and labels come from: what they are is the caller's choice
(distributed/run/cross_fitting.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tad.data.detections import Detections
from tad.data.segments import Segments
from tad.errors import DataError, RunError, listing
from tad.evaluation.evaluator import Judged
from tad.files import read_json, regular

TIOU = 0.5
"""From which a detection is right."""
PRIOR = 10.0
"""Labels that the average of all classes is worth beside a class's own."""
POINT_FILE = "operating-point.json"
"""In a run's folder."""
REMEDY = (
    "give the command of the run again with `--set operating_point.folds=3`; finished stages are not run again "
    "(docs/evaluation.md says what it costs)"
)
S = TypeVar("S", Segments, Detections)


class Scores(NamedTuple):
    """Detections from a threshold on, against `labels`: what they should find."""

    labels: int
    kept: int
    right: int

    @property
    def precision(self) -> float:
        return self.right / self.kept if self.kept else 0.0

    @property
    def recall(self) -> float:
        return self.right / self.labels if self.labels else 0.0

    @property
    def f1(self) -> float:
        both = self.kept + self.labels
        return 2 * self.right / both if both else 0.0

    def to_json(self) -> dict[str, Any]:
        shares = {"precision": self.precision, "recall": self.recall, "f1": self.f1}
        return {"labels": self.labels, "detections": self.kept} | shares


def scores_at(judged: Judged, thresholds: np.ndarray) -> list[Scores]:
    """Of each class, its detections of at least its threshold ([C])."""
    kept = judged.score >= thresholds[judged.label]
    size = len(judged.classes)
    number = np.bincount(judged.label[kept], minlength=size)
    right = np.bincount(judged.label[kept & judged.right], minlength=size)
    return [Scores(*map(int, row)) for row in zip(judged.instances, number, right, strict=True)]


def together(scores: list[Scores]) -> Scores:
    """Of all classes, each detection and label counted alike."""
    return Scores(*(sum(column) for column in zip(*scores, strict=True)))


def best_thresholds(judged: Judged, prior: float = PRIOR) -> tuple[np.ndarray, float]:
    """The thresholds that maximise F1.

    A threshold lies half-way between the lowest score that it keeps and the next one below. Of equally good ones the
    highest is taken.

    Args:
        prior: labels that the average of all classes is worth; 0: each class by itself.

    Returns:
        [C] of the classes, and the one that is best for all of them together.

    Raises:
        DataError: no detection is right, so there is nothing to choose by.
    """
    if not judged.right.any():
        raise DataError(
            f"of {len(judged.score)} detections none is right at tIoU {TIOU:g}; there is no operating point"
        )
    scores = np.unique(judged.score)[::-1]
    below = np.append(scores[1:], scores[-1])
    middle = (scores + below) / 2
    levels = np.where(middle > below, middle, scores)

    def reaching(chosen: np.ndarray) -> np.ndarray:
        return len(chosen) - np.searchsorted(np.sort(chosen), scores)

    kept, right, labels = reaching(judged.score), reaching(judged.score[judged.right]), judged.instances.sum()
    common = levels[np.argmax(right / (kept + labels))]
    weight, found = prior / labels, []
    for c, number in enumerate(judged.instances):
        own = judged.label == c
        good = reaching(judged.score[own & judged.right]) + weight * right
        bad = reaching(judged.score[own]) + number + weight * (kept + labels)
        found.append(levels[np.argmax(good / bad)])
    return np.array(found), float(common)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class ScoresAt(_Part):
    """What detections from the threshold on reached where it was chosen; fractions 0..1."""

    threshold: float
    labels: int = Field(ge=0)
    precision: float = Field(ge=0, le=1)
    recall: float = Field(ge=0, le=1)
    f1: float = Field(ge=0, le=1)


class OperatingPoint(_Part):
    """RUN/operating-point.json: the thresholds of one model.

    Attributes:
        round, model: whose detections they are for; the model as its artifact's key.
        source: what they were chosen on: held-out training videos against pseudo-labels, or dev videos against their
            boundaries.
        folds: of cross-fitting; 0 with dev videos.
        common: of all classes together, with what all classes reach at their own thresholds; classes that are not
            listed have it.
        classes: by name.
    """

    round: int = Field(ge=1)
    model: str
    source: Literal["pseudo-labels", "dev"]
    folds: int = Field(ge=0)
    tiou: float = TIOU
    common: ScoresAt
    classes: dict[str, ScoresAt]

    @classmethod
    def chosen(cls, judged: Judged, round: int, model: str, source: str, folds: int) -> OperatingPoint:
        """From detections that the model, or one like it, made in videos that it had not learnt from.

        Raises:
            DataError: as `best_thresholds`.
        """
        thresholds, common = best_thresholds(judged)
        rows = scores_at(judged, thresholds)

        def told(threshold: float, row: Scores) -> dict[str, Any]:
            return {"threshold": float(threshold)} | row.to_json()

        classes = {c: told(t, row) for c, t, row in zip(judged.classes, thresholds, rows, strict=True)}
        document = {"round": round, "model": model, "source": source, "folds": folds}
        return cls.model_validate(document | {"common": told(common, together(rows)), "classes": classes})

    @property
    def origin(self) -> str:
        """What the thresholds were chosen on, in words."""
        if self.source == "dev":
            return "the dev videos and their boundaries"
        return f"training videos and their pseudo-labels, held out in {self.folds} folds"

    def of(self, classes: list[str]) -> np.ndarray:
        """[C] thresholds of classes."""
        return np.array([self.classes[c].threshold if c in self.classes else self.common.threshold for c in classes])

    def confident(self, detections: S) -> S:
        """The detections of at least their class's threshold."""
        label, names = detections.codes("label")
        return detections.filter(detections.score >= self.of(names)[label]) if len(detections) else detections


def read_operating_point(folder: Path, models: Mapping[int, str | None], number: int | None = None) -> OperatingPoint:
    """The operating point in a run's folder, which may be somebody else's.

    Args:
        models: the key of each round's model; those of another training have other thresholds.
        number: the round that it must be of; None: any.

    Raises:
        RunError: there is none, or it is of another round or a model that the run has no more; says what to do.
        DataError: the file is malformed.
    """
    path = folder / POINT_FILE
    if not path.exists():
        raise RunError(f"{folder}: has no operating point ({POINT_FILE}); to get one, {REMEDY}")
    if path.is_symlink():
        raise DataError(f"{path}: is a link, which tad never makes; not read")
    try:
        found = OperatingPoint.model_validate(read_json(regular(path)))
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise DataError(f"{path}: not what `tad run` writes: " + listing(problems)) from error
    if number is not None and found.round != number:
        raise RunError(f"{path}: is of round {found.round}, not {number}; take the detections of round {found.round}")
    if models.get(found.round) != found.model:
        raise RunError(f"{path}: is of another model than the run's round {found.round} has now; {REMEDY}")
    return found
