"""The figures of one round: for the report's page as SVG, for MLflow as PNG files in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.evaluator import precision_recall
from tad.evaluation.ground_truth import ambiguous
from tad.report.charts import length_figure, precision_recall_figure
from tad.report.run import Run
from tad.report.style import class_colours, plain, png
from tad.report.timeline import timeline_figure
from tad.report.view import View

SAMPLES = 4
"""Videos whose timelines are kept for every round: always the same ones, so that rounds can be compared."""
TIOU = 0.5
"""Of the precision-recall curves."""
RECALLS = np.linspace(0, 1, 101)
"""At which precision is drawn."""


def figures_of_round(folder: Path, data: Dataset, number: int, scores: Path | None = None) -> list[Path]:
    """Writes a round's figures on the training videos into RUN/round-N/figures.

    The timelines of a fixed handful of videos, precision and recall (where there is ground truth), and lengths.

    Args:
        folder: the run's folder; run.json and the round's segments must be there.
        data: the run's dataset.
        number: the round; 0 shows the proposals.
        scores: folder of the proposer's activations on the training videos.

    Returns:
        The PNG files, timelines first.

    Raises:
        DataError: the run's files cannot be read.
    """
    view = View.open(Run.open(folder), data, number, "train", scores)
    target = Path(folder) / f"round-{number}" / "figures"
    colours = class_colours(data.classes)
    written = [
        png(
            timeline_figure(timeline, colours, f"{timeline.video_id}, round {number}"),
            target / f"timeline-{timeline.video_id}.png",
        )
        for timeline in view.timelines(sample_videos(data))
    ]
    curves = precision_recall_of([view])
    if curves is not None:
        written.append(png(curves, target / "precision-recall.png"))
    written.append(png(length_figure({"training videos": lengths_of(view)}), target / "lengths.png"))
    return written


def sample_videos(data: Dataset) -> list[str]:
    """The training videos whose timelines are kept: SAMPLES of them, evenly spread over the sorted ids."""
    videos = sorted(data.pointed("train") or data.videos("train"))
    at = np.linspace(0, len(videos) - 1, min(SAMPLES, len(videos))).round().astype(int)
    return [videos[i] for i in at]


def precision_recall_of(views: Sequence[View]) -> Figure | None:
    """Precision and recall of the views' detections at TIOU; None without ground truth or detections."""
    panels = {
        role_name(view.role): precisions(view)
        for view in views
        if view.truth is not None and view.detections is not None
    }
    if not panels:
        return None
    colours = class_colours(views[0].data.classes)
    return precision_recall_figure(panels, RECALLS, colours, TIOU)


def precisions(view: View) -> dict[str, np.ndarray]:
    """Class name to [R] precision at RECALLS, for the classes of the ground truth, in the dataset's order."""
    assert view.truth is not None and view.detections is not None
    removed = ambiguous(view.data)
    truth, found = _by_class(view.truth), _by_class(view.detections)
    return {
        name: _envelope(found.get(name, Segments.empty()), truth[name], name, removed)
        for name in view.data.classes
        if name in truth
    }


def _by_class(segments: Segments) -> dict[str, Segments]:
    codes, names = segments.codes("label")
    return {name: segments.filter(codes == i) for i, name in enumerate(names)}


def _envelope(
    found: Segments, truth: Segments, name: str, removed: Mapping[str, Sequence[tuple[float, float]]]
) -> np.ndarray:
    """[R] precision at RECALLS: the highest one that is reached at this recall or a higher one."""
    envelope = np.zeros(len(RECALLS))
    if set(found.video_ids).isdisjoint(truth.video_ids):
        return envelope
    recall, precision = precision_recall(found, truth, name, TIOU, "hrpro" if removed else "anet", removed)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    at = np.searchsorted(recall, RECALLS - 1e-9)
    reached = at < len(recall)
    envelope[reached] = best[at[reached]]
    return envelope


def lengths_of(view: View) -> dict[str, np.ndarray]:
    """Lengths in seconds of what a view has, by the series names of `length_figure`; detections: confident ones."""
    series: dict[str, Segments | None] = {
        "ground truth": view.truth,
        "pseudo-labels": view.labels,
        view.found: view.confident,
    }
    return {name: found.end - found.start for name, found in series.items() if found is not None}


def role_name(role: str) -> str:
    """A role in the words of the page."""
    return {"train": "training videos", "dev": "development videos", "test": "test videos"}.get(role, plain(role))
