"""Figures of a run: timelines, curves, files of each round."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tad.data.segments import Segments
from tad.evaluation.evaluator import evaluate
from tad.report.figures import RECALLS, figures_of_round, precision_recall_of, precisions, sample_videos
from tad.report.run import Run
from tad.report.style import INK, class_colours, svg
from tad.report.timeline import LANES, Timeline, _lanes, timeline_figure
from tad.report.view import View
from tests.support.run_folder import CLASSES, KEYS, make_run


def test_activations_that_are_gone_leave_the_curve_out(data, run):
    opened = Run.open(run)
    view = View.open(opened, data, 1, "test", run.parent / "store" / KEYS["test"])
    video = data.videos("test")[0]
    curve = view.timelines([video])[0].curve
    assert curve is not None and curve.actionness.max() <= 1 and set(curve.cas) <= set(CLASSES)
    assert curve.time[0] == pytest.approx(8 / 25)  # the centre of the first 16 frames
    for scores in (None, Path("/nowhere")):
        assert View.open(opened, data, 1, "test", scores).timelines([video])[0].curve is None


def test_coverage_is_the_mean_best_tiou_of_the_same_class(data):
    video, other = data.videos("test")[:2]
    truth = Segments.of([video, video, other], [0.0, 20.0, 0.0], [10.0, 30.0, 4.0], ["Diving", "Diving", "Shotput"])
    found = Segments.of([video, video, other], [0.0, 20.0, 0.0], [5.0, 30.0, 4.0], ["Diving", "Shotput", "Diving"])
    assert View(data, 1, "test", truth=truth, confident=found).coverage() == {video: 0.25, other: 0.0}


def test_curves_enclose_ap(data, run):
    view = View.open(Run.open(run), data, 2, "test")
    ap = evaluate(view.detections, view.truth, [0.5])
    curves = precisions(view)
    assert sorted(curves) == ap.classes
    for name, value in zip(ap.classes, ap.ap[:, 0], strict=True):
        assert np.trapezoid(curves[name], RECALLS) == pytest.approx(value, abs=0.03)
    mean = precision_recall_of([view]).axes[0].lines[-1]
    assert mean.get_ydata() == pytest.approx(100 * np.mean(list(curves.values()), axis=0))


def test_lanes_do_not_overlap_while_they_last():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 100, 30)
    segments = Segments.of("v", start, start + 8, "a")
    lanes = _lanes(segments)
    assert set(lanes) <= set(range(LANES))
    for lane in range(LANES - 1):
        mine = np.sort(start[lanes == lane])
        crowded = np.array([((start <= t) & (start + 8 > t)).sum() for t in mine])
        assert all(gap >= 8 or crowd > LANES for gap, crowd in zip(np.diff(mine), crowded[1:], strict=True))


def test_figures_of_a_round_are_png_files_and_the_same_each_time(small, tmp_path):
    run = make_run(tmp_path, small, rounds=2)
    written = figures_of_round(run, small, 2)
    assert [p.name for p in written] == [f"timeline-{v}.png" for v in sample_videos(small)] + [
        "precision-recall.png",
        "lengths.png",
    ]
    first = [p.read_bytes() for p in written]
    assert all(Image.open(p).size[0] > 500 for p in written)
    assert [p.read_bytes() for p in figures_of_round(run, small, 2)] == first


def test_sample_videos_are_spread_and_fixed(data):
    assert len(sample_videos(data)) == 4
    assert sample_videos(data)[0] == data.videos("train")[0] and sample_videos(data)[-1] == data.videos("train")[-1]


def test_svg_takes_the_pages_colours_and_repeats_no_id(data, run):
    view = View.open(Run.open(run), data, 1, "test")
    drawings = [
        svg(timeline_figure(t, class_colours(data.classes)), t.describe()) for t in view.timelines(data.videos("test"))
    ]
    ids = [i for text in drawings for i in re.findall(r'\bid="([^"]+)"', text)]
    assert ids and len(ids) == len(set(ids))
    assert all("var(--ink)" in text and INK not in text for text in drawings)


def test_a_timeline_without_anything():
    empty = Timeline("v", 10.0, truth=Segments.empty(), points=[], detections=Segments.empty())
    assert svg(timeline_figure(empty, {}), empty.describe()).count("none</text>") == 3
    assert "no segments" in Timeline("v", 10.0).describe()
    assert svg(timeline_figure(Timeline("v", 10.0), {}), "nothing").startswith("<svg")
