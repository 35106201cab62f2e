"""Scores that read points and no boundaries: hand-made cases and properties."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.honest import label_change, points_score
from tests.annotated import annotated

TRUTH = [("a", "run", 10, 20), ("a", "run", 30, 40), ("b", "run", 5, 15), ("a", "jump", 12, 18), ("b", "jump", 60, 70)]
POINTS = [(v, c, (s + e) / 2) for v, c, s, e in TRUTH]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Dataset:
    return annotated(tmp_path_factory.mktemp("data"), TRUTH, POINTS, roles={"a": "dev", "b": "dev", "c": "train"})


def found(*rows: tuple[str, str, float, float, float]) -> Segments:
    video, label, start, end, score = zip(*rows, strict=True) if rows else ([],) * 5
    return Segments.of(video, start, end, label, score)


PERFECT = found(*[(v, c, s, e, 0.9 - 0.1 * i) for i, (v, c, s, e) in enumerate(TRUTH)])


def test_perfect_detections_score_one(data):
    result = points_score(PERFECT, data)
    assert result.score == 1 and result.recall == 1 and result.hits == 5
    assert (result.empty, result.crowded, result.repeated, result.elsewhere) == (0, 0, 0, 0)


def test_by_hand(data):
    rows = found(
        ("a", "run", 10, 40, 0.9),  # two points
        ("a", "run", 14, 16, 0.8),  # hit: precision 1/2
        ("a", "run", 15, 29, 0.7),  # the same point again; ends count as inside
        ("b", "run", 80, 90, 0.6),  # none
        ("b", "run", 0, 10, 0.5),  # hit: precision 2/5
        ("a", "jump", 0, 100, 0.1),  # hit: one point of its class, however long
        ("c", "run", 0, 10, 1.0),  # video of another role
        ("a", "swim", 0, 10, 1.0),  # class without points
    )
    result = points_score(rows, data)
    assert result.per_class == pytest.approx({"run": (1 / 2 + 2 / 5) / 3, "jump": 1 / 2})
    assert result.score == pytest.approx(0.4)
    assert (result.hits, result.empty, result.crowded, result.repeated, result.elsewhere) == (3, 1, 1, 1, 2)
    assert result.recall == pytest.approx(3 / 5)
    assert result.to_json()["score"] == result.score


def test_merging_and_splitting_lower_it(data):
    merged = Segments.concat([PERFECT.take(np.array([2, 3, 4])), found(("a", "run", 10, 40, 0.9))])
    assert points_score(merged, data).score < 1
    # Both halves of one detection: one of them holds no point, and comes before other hits.
    split = Segments.concat(
        [PERFECT.take(np.array([1, 2, 3, 4])), found(("a", "run", 10, 14, 0.95), ("a", "run", 14, 20, 0.9))]
    )
    assert points_score(split, data).score < 1
    doubled = Segments.concat([PERFECT, PERFECT.take(np.array([0]))])
    assert points_score(doubled, data).score < 1


def test_confident_mistakes_cost_more(data):
    scores = [
        points_score(Segments.concat([PERFECT, found(("a", "run", 80, 90, at))]), data).score for at in (0.99, 0.01)
    ]
    assert scores[0] < scores[1] == 1


PLACES = st.tuples(st.sampled_from("ab"), st.sampled_from(["run", "jump"]), st.integers(0, 60), st.integers(1, 30))
DETECTIONS = st.lists(st.tuples(PLACES, st.integers(0, 4)), max_size=15).map(
    lambda rows: found(*[(v, c, s, s + n, q / 4) for (v, c, s, n), q in rows])
)


@settings(max_examples=50, deadline=None)
@given(DETECTIONS, st.randoms())
def test_row_order_does_not_matter(data, detections, random):
    order = np.array(random.sample(range(len(detections)), len(detections)), dtype=np.int64)
    assert points_score(detections, data) == points_score(detections.take(order), data)


@settings(max_examples=50, deadline=None)
@given(DETECTIONS)
def test_counts_add_up_and_agree_with_a_plain_loop(data, detections):
    result = points_score(detections, data)
    assert 0 <= result.score <= 1
    assert result.hits + result.empty + result.crowded + result.repeated == len(detections)
    inside = [
        sum(p[0] == v and p[1] == c and s <= p[2] <= e for p in POINTS)
        for v, c, s, e in zip(detections.video_ids, detections.labels, detections.start, detections.end, strict=True)
    ]
    assert result.empty == inside.count(0) and result.crowded == sum(n > 1 for n in inside)


def test_no_points(data):
    with pytest.raises(DataError, match=r"the 0 test videos have no points"):
        points_score(PERFECT, data, "test")


def test_boundaries_are_out_of_reach():
    """Importing the module does not import the reader of boundaries."""
    code = "import sys, tad.honest; sys.exit('tad.data.ground_truth' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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


def test_label_change_needs_points():
    rows = labels(("a", 10, 20, np.nan, 1))
    with pytest.raises(DataError, match="no pseudo-label names its point"):
        label_change(rows, rows)
