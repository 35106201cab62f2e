"""--threshold of `tad evaluate`, and what is printed of thresholds and of the reliability of scores."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tad.evaluation.evaluator import Judged
    from tad.evaluation.operating_point import OperatingPoint
    from tad.evaluation.reliability import Bin


class Threshold(click.ParamType):
    """`auto`, a score, or a run's folder."""

    name = "threshold"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "auto|SCORE|RUN"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str | Path:
        if not isinstance(value, str) or value == "auto":
            return value
        try:
            number = float(value)
        except ValueError:
            return Path(value)
        if not math.isfinite(number):
            self.fail(f"{value!r} is neither auto, a score nor a run's folder", param, ctx)
        return number


def thresholds(given: float | str | Path, detections: Path) -> float | OperatingPoint:
    """The score, or the operating point of the run that is named or, with `auto`, in whose folder the detections lie.

    Raises:
        RunError: there is no such run, it has no operating point, or the detections are another round's.
        DataError: a file of the run is malformed.
    """
    from tad.errors import RunError
    from tad.evaluation.operating_point import read_operating_point
    from tad.report.run import Run

    if isinstance(given, float):
        return given
    folder = Path(given)
    inside = [place for place in detections.resolve().parents[:2] if (place / "run.json").is_file()]
    if given == "auto":
        if not inside:
            raise RunError(
                f"{detections}: lies in no run's folder, so there are no thresholds to take; name the run whose "
                "detector found them with --threshold RUN, or give a score"
            )
        folder = inside[0]
    run = Run.open(folder)
    made_in = re.fullmatch(r"round-(\d+)", detections.resolve().parent.name) if given == "auto" else None
    return read_operating_point(run.folder, run.models, int(made_in[1]) if made_in is not None else None)


def score_rows(judged: Judged, limits: Sequence[float]) -> dict[str, Any]:
    """As JSON: what all detections of at least their class's threshold reach together, and those of each class."""
    import numpy as np

    from tad.evaluation.operating_point import TIOU, scores_at, together

    rows = scores_at(judged, np.asarray(limits))
    per_class = {
        name: {"threshold": limit} | row.to_json()
        for name, limit, row in zip(judged.classes, limits, rows, strict=True)
    }
    return {"tiou": TIOU} | together(rows).to_json() | {"per_class": per_class}


def threshold_lines(document: dict[str, Any], origin: str) -> list[str]:
    """The printed table of `score_rows`; percent."""
    from tad.errors import printable

    per_class = {printable(name): row for name, row in document["per_class"].items()}
    width = max(8, *map(len, per_class))
    head = ("threshold", "actions", "detections", "precision", "recall", "F1")
    lines = [f"detections that count, {origin}; right at tIoU {document['tiou']:g}, %"]
    lines.append(f"{'':<{width}}" + "".join(f"{h:>11}" for h in head))
    for name, row in [*per_class.items(), ("all", document)]:
        limit = f"{row['threshold']:.3f}" if "threshold" in row else ""
        shares = "".join(f"{100 * row[key]:11.2f}" for key in ("precision", "recall", "f1"))
        lines.append(f"{name:<{width}}{limit:>11}{row['labels']:>11}{row['detections']:>11}{shares}")
    return lines


def reliability_lines(bins: Sequence[Bin]) -> list[str]:
    """The printed table: of the detections with scores in a range, how many are right; percent."""
    from tad.evaluation.operating_point import TIOU
    from tad.evaluation.reliability import calibration_error

    lines = [
        f"reliability of scores, all detections; right at tIoU {TIOU:g}, %",
        f"{'score':<12}{'detections':>11}{'mean score':>12}{'right':>8}",
    ]
    for found in bins:
        shares = (
            f"{100 * found.score:>12.1f}{100 * found.right:>8.1f}"
            if found.score is not None and found.right is not None
            else f"{'-':>12}{'-':>8}"
        )
        lines.append(f"{f'{found.low:.1f} to {found.high:.1f}':<12}{found.detections:>11,}{shares}")
    error = calibration_error(bins)
    return [*lines, f"expected calibration error: {'-' if error is None else f'{100 * error:.2f}'}"]
