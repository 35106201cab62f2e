"""Scores that read points and no boundaries: hand-made cases, properties, and what they are good for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.selection.label_free_scores import classes_role, classes_score, label_change, points_score
from tad.selection.reference import Reference
from tests.support.annotated import annotated


def found(*rows: tuple[str, str, float, float, float]) -> Segments:
    video, label, start, end, score = zip(*rows, strict=True) if rows else ([],) * 5
    return Segments.of(video, start, end, label, score)


SPANS = [("a", "run", 10, 20), ("a", "run", 30, 40), ("b", "run", 5, 15), ("a", "jump", 12, 18), ("b", "jump", 60, 70)]
HELD = np.array([False, True, False, True, True])


def against(judged: np.ndarray) -> Reference:
    video, label, start, end = zip(*SPANS, strict=True)
    segments = Segments.of(video, start, end, label, 1.0, (np.array(start) + np.array(end)) / 2.0)
    return Reference(segments, judged, ["a", "b", "c"])


PERFECT = found(*[(v, c, s, e, 0.9 - 0.1 * i) for i, (v, c, s, e) in enumerate(SPANS)])


@pytest.mark.parametrize("judged", [HELD, ~HELD, np.ones(5, dtype=bool)])
def test_perfect_detections_score_one(judged):
    assert points_score(PERFECT, against(judged)) == pytest.approx(1.0)


def test_detections_of_points_that_were_trained_on_count_neither_way():
    seen = PERFECT.filter(~HELD).replace(score=1.0)
    held = PERFECT.filter(HELD)
    shifted = seen.replace(start=seen.start + 3, end=seen.end + 3)
    for more in (seen, shifted, seen.replace(score=0.0)):
        assert points_score(Segments.concat([held, more]), against(HELD)) == pytest.approx(1.0)
    assert points_score(seen, against(HELD)) == 0
    assert points_score(seen, against(np.ones(5, dtype=bool))) > 0.3


def test_by_hand():
    """Of three thresholds each: class run has one judged segment [30, 40], jump [12, 18] and [60, 70]."""
    rows = found(
        ("a", "run", 25, 35, 0.9),  # tIoU 1/3: a hit up to 0.3
        ("c", "run", 30, 40, 0.95),  # a video without points: wrong, and before the hit
        ("a", "run", 11, 21, 0.99),  # a point that was trained on
        ("b", "jump", 60, 70, 0.5),  # a hit at all thresholds: half of the recall
        ("a", "swim", 0, 10, 1.0),  # class without points
        ("elsewhere", "run", 0, 10, 1.0),  # another role's video
    )
    assert points_score(rows, against(HELD)) == pytest.approx((3 / 7 / 2 + 1 / 2) / 2)


def test_too_long_and_too_short_cost_though_they_hold_their_own_point_only():
    scores = []
    for factor in (0.2, 0.5, 0.8, 1.0, 1.3, 1.9, 2.6):
        middle, half = (PERFECT.start + PERFECT.end) / 2, (PERFECT.end - PERFECT.start) / 2 * factor
        scores.append(
            points_score(PERFECT.replace(start=np.maximum(0, middle - half), end=middle + half), against(HELD))
        )
    assert scores[0] < scores[1] < scores[2] <= scores[3] == 1 >= scores[4] > scores[5] > scores[6]


def test_merged_doubled_and_background_detections_cost():
    everything = against(np.ones(5, dtype=bool))
    merged = Segments.concat([PERFECT.take(np.array([2, 3, 4])), found(("a", "run", 10, 40, 0.9))])
    doubled = Segments.concat([PERFECT, PERFECT.take(np.array([0]))])
    background = [Segments.concat([PERFECT, found(("c", "run", 80, 90, at))]) for at in (0.99, 0.01)]
    assert points_score(merged, everything) < 0.8
    assert points_score(doubled, everything) < 1
    assert points_score(background[0], everything) < points_score(background[1], everything) == 1
    assert points_score(Segments.empty(), everything) == 0


PLACES = st.tuples(st.sampled_from("abx"), st.sampled_from(["run", "jump"]), st.integers(0, 60), st.integers(1, 30))
DETECTIONS = st.lists(st.tuples(PLACES, st.integers(0, 4)), max_size=15).map(
    lambda rows: found(*[(v, c, s, s + n, q / 4) for (v, c, s, n), q in rows])
)


@settings(max_examples=50, deadline=None)
@given(DETECTIONS, st.randoms())
def test_row_order_does_not_matter(detections, random):
    order = np.array(random.sample(range(len(detections)), len(detections)), dtype=np.int64)
    value = points_score(detections, against(HELD))
    assert 0 <= value <= 1 and value == points_score(detections.take(order), against(HELD))


def labels(*rows: tuple[str, float, float, float, float]) -> Segments:
    """Pseudo-labels of class run from (video, start, end, point, score)."""
    video, start, end, point, score = zip(*rows, strict=True)
    return Segments.of(video, start, end, "run", score, point)


def test_label_change():
    old = labels(("a", 10, 20, 15, 1), ("a", 30, 40, 35, 1), ("b", 0, 10, 5, 1))
    assert label_change(old, old) == 1
    assert label_change(old, old.take(np.array([2, 0, 1]))) == 1
    new = labels(("a", 15, 20, 15, 1), ("a", 30, 40, 35, 1), ("b", 0, 10, 6, 1))
    # Points 15 and 35 of a, 5 and 6 of b: only the first two are in both.
    assert label_change(old, new) == pytest.approx((0.5 + 1 + 0 + 0) / 4) == label_change(new, old)
    twice = Segments.concat([old, labels(("b", 0, 5, 5, 2))])
    assert label_change(old, twice) == pytest.approx((1 + 1 + 0.5) / 3)
    assert label_change(old, labels(("z", 0, 1, 0.5, 1))) == 0
    assert label_change(old, Segments.empty()) == 0
    assert label_change(Segments.empty(), Segments.empty()) == 1
    other = old.replace(label="jump")
    assert label_change(old, other) == 0


def test_label_change_without_points_matches_the_instances_of_a_video():
    old = labels(("a", 10, 20, np.nan, 1), ("a", 30, 40, np.nan, 1), ("b", 0, 10, np.nan, 1))
    assert label_change(old, old.take(np.array([2, 1, 0]))) == 1
    new = labels(("a", 14, 22, np.nan, 1), ("b", 0, 5, np.nan, 1), ("b", 90, 95, np.nan, 1))
    # a: 10-20 with 14-22 is 6/12, 30-40 alone; b: 5/10, 90-95 alone.
    assert label_change(old, new) == pytest.approx((0.5 + 0 + 0.5 + 0) / 4) == label_change(new, old)
    wide = labels(("a", 12, 38, np.nan, 1), ("a", 30, 41, np.nan, 1), ("b", 0, 10, np.nan, 1))
    # 30-40 goes to 30-41 (10/11), which leaves 10-20 to 12-38 (8/28).
    assert label_change(old, wide) == pytest.approx((10 / 11 + 8 / 28 + 1) / 3)
    assert label_change(old, old.replace(label="jump")) == 0
    assert label_change(old, Segments.empty()) == 0 == label_change(Segments.empty(), old)
    mixed = Segments.concat([old, labels(("c", 0, 10, 5, 1))])
    other = Segments.concat([old, labels(("c", 0, 5, 5, 1))])
    assert label_change(mixed, other) == pytest.approx((3 + 0.5) / 4)


def classed(folder, dev: bool) -> Dataset:
    """Six videos: a, b hold run, c jump, d both, e nothing, f is unlabelled; with `dev`, c to f are dev videos."""
    roles = dict.fromkeys("abcdef", "train") | (dict.fromkeys("cdef", "dev") if dev else {})
    annotated(folder, [("x", "run", 1.0, 2.0), ("x", "jump", 1.0, 2.0)], [], roles | {"x": "test"})
    (folder / "labels.csv").write_text("video_id,label\na,run\nb,run\nc,jump\nd,run\nd,jump\n")
    if not dev:
        (folder / "full_labels.csv").write_text("video_id,label,start,end\ne,,,\n")
    return Dataset.open(folder)


def test_classes_score(tmp_path):
    data = classed(tmp_path / "data", dev=False)
    assert classes_role(data) == "train"

    def score(*rows: tuple[str, str, float]) -> float:
        video, label, value = zip(*rows, strict=True)
        start = np.arange(len(rows), dtype=float)  # where they lie plays no part
        return classes_score(Segments.of(video, start, start + 3, label, value), data, "train")

    right = [("a", "run", 0.9), ("b", "run", 0.8), ("d", "run", 0.7), ("c", "jump", 0.5), ("d", "jump", 0.4)]
    assert score(*right) == 1
    assert score(*right, ("a", "run", 0.1), ("e", "run", 0.2), ("f", "jump", 0.99), ("x", "run", 1)) == 1
    assert score(*right, ("e", "jump", 0.45)) == pytest.approx((1 + (1 + 2 / 3) / 2) / 2)
    assert score(*right[:2]) == pytest.approx((2 / 3 + 0) / 2)
    assert score(("e", "run", 1)) == 0 == classes_score(Segments.empty(), data, "train")


def test_classes_of_dev_videos_judge_where_they_are_given(tmp_path):
    assert classes_role(classed(tmp_path / "dev", dev=True)) == "dev"
    (tmp_path / "dev" / "labels.csv").write_text("video_id,label\na,run\n")
    assert classes_role(Dataset.open(tmp_path / "dev")) == "train"
    (tmp_path / "dev" / "labels.csv").unlink()
    assert classes_role(Dataset.open(tmp_path / "dev")) is None
