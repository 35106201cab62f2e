"""`tad report`: a run's folder as one HTML file that needs nothing else."""

from __future__ import annotations

import datetime
import importlib.resources
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup

from tad.data.dataset import Dataset, Role
from tad.data.remote import redacted
from tad.errors import DataError
from tad.files import cause, whole
from tad.report.charts import length_figure, loss_figure, reliability_figure, rounds_figure
from tad.report.figures import TIOU, lengths_of, precision_recall_of, role_name
from tad.report.operating import ScoresOfView, point_table, scores_of
from tad.report.run import MapScores, Round, Run
from tad.report.style import class_colours, svg
from tad.report.timeline import timeline_figure
from tad.report.view import View
from tad.words import duration, flat

T = TypeVar("T")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""What a terminal that shows the file would obey; the names are somebody else's."""
SHOWN: dict[Role, int] = {"test": 3, "train": 2}
"""Timelines of so many best and so many worst videos."""


@dataclass(frozen=True)
class Picture:
    """A figure on the page: the drawing, and a heading and caption for it."""

    image: Markup
    heading: str = ""
    caption: str = ""


Scores = Mapping[Role, Path]
"""Role to the folder of the proposer's activations on its videos."""


def write_report(
    folder: Path | str, out: Path | str | None = None, data: Dataset | None = None, scores: Scores | None = None
) -> Path:
    """Writes the report of a finished, unfinished or failed run.

    The folder may be somebody else's: nothing is opened but files below it and what the caller gives.

    Args:
        folder: the run's folder.
        out: the HTML file; the default is report.html in the run's folder.
        data: the run's dataset; None leaves out what needs it.
        scores: the proposer's activations.

    Returns:
        The file's path.

    Raises:
        DataError: not a run's folder, or its JSON files are malformed, or `out` cannot be written.
    """
    run = Run.open(folder)
    path = Path(out).expanduser().resolve() if out is not None else run.folder / "report.html"
    text = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", redacted(render(run, data, scores or {})))
    page = text.encode("utf-8", "backslashreplace")
    try:
        with whole(path) as temporary:
            temporary.write_bytes(page)
    except OSError as error:
        raise DataError(f"{path}: the report cannot be written: {cause(error)}; choose another with --out") from error
    return path


def render(run: Run, data: Dataset | None = None, scores: Scores | None = None) -> str:
    """The page as text."""
    notes: list[str] = []
    best = run.best
    if data is None:
        notes.append(
            "Figures that need the dataset are left out. Name it, and the store for the activations: "
            "tad report RUN --data DATASET --store STORE"
        )
    elif data.classes != run.info.dataset.classes:
        notes.append(f"Figures that need the dataset are left out: the classes of {data.root} are not those of the run")
        data = None
    views = _views(run, data, best, scores or {}, notes)

    def drawn(what: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except (ValueError, ArithmeticError, MemoryError) as error:  # of values that no run writes
            notes.append(f"{what} cannot be drawn: {error}")
            return None

    timelines = [
        drawn(f"Timelines of the {role_name(role)}", partial(_timelines, view)) for role, view in views.items()
    ]
    scored = drawn("The reliability of scores", lambda: scores_of(views))
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "number": number, "duration": seconds, "moment": moment}
    template = environment.from_string(importlib.resources.files("tad.report").joinpath("page.html").read_text("utf-8"))
    return template.render(
        info=run.info,
        best=best,
        headline=_headline(run, best),
        rounds=run.rounds,
        has_dev=any(r.scores.get("dev_map") is not None for r in run.rounds),
        has_classes=any(r.scores.get("classes") is not None for r in run.rounds)
        and (run.info.select == "classes" or all(r.scores.get("points") is None for r in run.rounds)),
        by_instance=_by_instance(run.rounds),
        has_dev_quality=any(r.scores.get("dev_quality") is not None for r in run.rounds),
        tables=[
            (role, tious, averages, maps)
            for role in ("test", "train")
            if any(maps := [_map(r, role) for r in run.rounds])
            for tious, averages in [_columns(maps)]
        ],
        role_name=role_name,
        rounds_picture=drawn("The scores of the rounds", lambda: _rounds(run.rounds, best)),
        loss_picture=drawn("Training losses", lambda: _losses(run)),
        timelines=[found for found in timelines if found is not None],
        curves=drawn("Precision and recall", lambda: _curves(views)),
        lengths=drawn("Lengths", lambda: _lengths(views)),
        per_class=_per_class(best),
        point=point_table(run, scored, notes),
        scored=scored,
        reliability=drawn("The reliability of scores", lambda: _reliability(scored)),
        stages=run.stages,
        settings=[(name, "–" if value is None else str(value)) for name, value in flat(run.info.recipe).items()],
        warnings=run.warnings,
        notes=notes,
        tiou=TIOU,
    )


# -- what is gathered ----------------------------------------------------------------------------------------------


def _views(run: Run, data: Dataset | None, best: Round | None, scores: Scores, notes: list[str]) -> dict[Role, View]:
    """The best round on the test and on the training videos, as far as they are there."""
    views: dict[Role, View] = {}
    roles: tuple[Role, ...] = ("test", "train")
    for role in roles:
        if data is None or best is None or not data.videos(role):
            continue
        try:
            view = View.open(run, data, best.round, role, scores.get(role))
        except DataError as error:
            notes.append(f"Figures of the {role_name(role)} are left out: {error}")
            continue
        if view.detections is not None or view.labels is not None:
            views[role] = view
    return views


def _by_instance(rounds: list[Round]) -> bool:
    """Whether pseudo-labels are measured one by one: there are no points to measure them by."""
    return all(r.quality is None for r in rounds) and any(r.instance_quality is not None for r in rounds)


def _headline(run: Run, best: Round | None) -> list[tuple[str, str, str]]:
    """The few numbers that matter most: (value, what, detail)."""
    if best is None:
        return []
    tiles = []
    first = run.rounds[0]
    which = f"round {best.round}" if best.round else "the proposer alone"
    for role in ("test", "train"):
        scores, start = _map(best, role), _map(first, role)
        if scores is None or scores.average is None:
            continue
        detail = which
        if best.round != first.round and start is not None and start.average is not None:
            detail += f"; the proposer alone: {percent(start.average)}"
        tiles.append((f"{percent(scores.average)} %", f"mAP on {role_name(role)}", detail))
    if best.quality is not None:
        seeds = f"; its seeds: {number(best.seed_quality.mean_tiou)}" if best.seed_quality is not None else ""
        tiles.append(
            (
                number(best.quality.mean_tiou),
                "mean tIoU of pseudo-labels",
                f"round {best.round}, training videos{seeds}",
            )
        )
    elif best.instance_quality is not None and best.instance_quality.hits is not None:
        found = f"they find {percent(best.instance_quality.recall)} % of the actions in videos without full labels"
        tiles.append((f"{percent(best.instance_quality.hits)} %", "of the pseudo-labels are right", found))
    if best.scores.get("points") is not None:
        tiles.append((number(best.scores["points"]), "points score", f"{which}, training videos"))
    elif best.scores.get("classes") is not None:
        tiles.append((number(best.scores["classes"]), "classes score", f"{which}: ranks videos, sees no boundaries"))
    return tiles


def _map(row: Round, role: str) -> MapScores | None:
    return row.test_map if role == "test" else row.train_map


def _columns(maps: list[MapScores | None]) -> tuple[list[str], list[str]]:
    """The tIoUs and the averages that any of the rounds has, in order of first appearance."""
    found = [m for m in maps if m is not None]
    return list(dict.fromkeys(t for m in found for t in m.mAP)), list(
        dict.fromkeys(a for m in found for a in m.averages)
    )


def _per_class(best: Round | None) -> tuple[str, MapScores] | None:
    """The role and scores that the per-class table shows: test videos, or training videos while there is no other."""
    for role in ("test", "train"):
        scores = _map(best, role) if best is not None else None
        if scores is not None and scores.per_class:
            return role, scores
    return None


# -- pictures ------------------------------------------------------------------------------------------------------


def _picture(drawn: Any, description: str, heading: str = "", caption: str = "") -> Picture:
    return Picture(Markup(svg(drawn, description)), heading, caption or description)


def _rounds(rounds: list[Round], best: Round | None) -> Picture | None:
    drawn = rounds_figure(rounds, best.round) if best is not None and len(rounds) > 1 else None
    return _picture(drawn, "Scores round by round; the same numbers are in the tables.") if drawn is not None else None


def _losses(run: Run) -> Picture | None:
    drawn = loss_figure(run.stages)
    return _picture(drawn, "Training loss of each stage over its epochs.") if drawn is not None else None


def _timelines(view: View) -> dict[str, Any]:
    """The best and the worst videos of a view."""
    coverage = view.coverage()
    ranked = sorted(coverage, key=lambda video: (-coverage[video], video))
    half = min(SHOWN[view.role], -(-len(ranked) // 2))
    best, worst = ranked[:half], ranked[max(half, len(ranked) - half) :][::-1]
    colours = class_colours(view.data.classes)

    def pictures(videos: list[str]) -> Iterator[Picture]:
        for timeline in view.timelines(videos):
            value = coverage[timeline.video_id]
            caption = f"coverage {value:.2f}" if view.truth is not None else f"{value:.0f} {_covering(view)}"
            yield _picture(timeline_figure(timeline, colours), timeline.describe(), timeline.video_id, caption)

    return {
        "groups": [("best", list(pictures(best))), ("worst", list(pictures(worst)))],
        "role": view.role,
        "round": view.number,
        "truth": view.truth is not None,
        "videos": len(ranked),
        "covering": _covering(view),
        "found": view.found,
    }


def _covering(view: View) -> str:
    return "pseudo-labels" if view.labels is not None else f"confident {view.found}"


def _curves(views: dict[Role, View]) -> Picture | None:
    drawn = precision_recall_of(list(views.values()))
    if drawn is None:
        return None
    text = (
        f"Round {next(iter(views.values())).number}. Precision is the highest one reached at each recall or above "
        "(the envelope), so the area under a class's line is about its AP."
    )
    return _picture(drawn, f"Precision against recall at tIoU {TIOU:g}.", caption=text)


def _reliability(scored: ScoresOfView | None) -> Picture | None:
    if scored is None or scored.bins is None:
        return None
    text = f"Detections of the {role_name(scored.role)} by score, and how many are right at tIoU {TIOU:g}."
    return _picture(reliability_figure(scored.bins), text)


def _lengths(views: dict[Role, View]) -> Picture | None:
    if not views:
        return None
    drawn = length_figure({role_name(role): lengths_of(view) for role, view in views.items()})
    found = next(iter(views.values())).found
    return _picture(drawn, f"Lengths of ground truth, pseudo-labels (where there are any) and confident {found}.")


# -- text ----------------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """A fraction as a percentage with one decimal, without the sign; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def number(value: float | None) -> str:
    """Three decimals; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def seconds(value: float | None) -> str:
    """Seconds in words; a dash where there are none."""
    return "–" if value is None or not math.isfinite(value) else duration(value)


def moment(text: str) -> str:
    """A date and time as people write it; what is not an ISO time stays as it is."""
    try:
        at = datetime.datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{at:%Y-%m-%d %H:%M} {at.tzname() or ''}".rstrip()
