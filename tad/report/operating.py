"""What the report says of scores: the thresholds from which detections count, and how reliable scores are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tad.data.dataset import Role
from tad.errors import TadError
from tad.evaluation.evaluator import Judged, judge
from tad.evaluation.ground_truth import ambiguous
from tad.evaluation.operating_point import TIOU, OperatingPoint, Scores, scores_at, together
from tad.evaluation.reliability import Bin, calibration_error, reliability
from tad.report.run import Run
from tad.report.view import View


@dataclass(frozen=True)
class ScoresOfView:
    """What the scores of a view's detections are worth.

    Attributes:
        round: of the detections.
        bins: by score; None if scores lie outside 0 to 1.
        error: expected calibration error.
    """

    role: Role
    round: int
    judged: Judged
    bins: list[Bin] | None
    error: float | None


@dataclass(frozen=True)
class PointTable:
    """The operating point of a run.

    Attributes:
        rows: of each class: its name, its threshold, precision, recall and F1 (fractions) where it was chosen, and the
            same on the videos of `role`; None where those have no action of the class. The last row is of all together.
        role: None if there are no judged videos that it can be told of.
    """

    point: OperatingPoint
    rows: list[tuple[str, float | None, tuple[float, float, float], tuple[float, float, float] | None]]
    role: Role | None


def scores_of(views: Mapping[Role, View]) -> ScoresOfView | None:
    """Of the test videos, else of the training videos; None without ground truth or detections there."""
    for role in ("test", "train"):
        view = views.get(role)
        if view is None or view.truth is None or view.detections is None:
            continue
        removed = ambiguous(view.data)
        try:
            judged = judge(view.detections, view.truth, TIOU, "hrpro" if removed else "anet", removed)
        except TadError:  # no detection in a video with ground truth
            continue
        bins = reliability(judged)
        return ScoresOfView(role, view.number, judged, bins, calibration_error(bins) if bins is not None else None)
    return None


def point_table(run: Run, seen: ScoresOfView | None, notes: list[str]) -> PointTable | None:
    """The run's operating point; None where there is none. What cannot be read becomes a note."""
    try:
        point = run.operating_point()
    except TadError as error:
        notes.append(f"The operating point is left out: {error}")
        return None
    if point is None:
        return None
    there = seen is not None and seen.role == "test" and seen.round == point.round
    on: dict[str, Scores] = {}
    if there:
        assert seen is not None
        found = scores_at(seen.judged, point.of(seen.judged.classes))
        on = dict(zip(seen.judged.classes, found, strict=True)) | {"": together(found)}
    rows = [
        (name or "all", row.threshold if name else None, (row.precision, row.recall, row.f1), _shares(on.get(name)))
        for name, row in [*point.classes.items(), ("", point.common)]
    ]
    return PointTable(point, rows, "test" if there else None)


def _shares(scores: Scores | None) -> tuple[float, float, float] | None:
    return (scores.precision, scores.recall, scores.f1) if scores is not None else None
