"""Thresholds from which detections count: known optima, classes with few labels, the file, and what it is used for."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.evaluator import Judged, judge
from tad.evaluation.operating_point import (
    POINT_FILE,
    OperatingPoint,
    Scores,
    best_thresholds,
    read_operating_point,
    scores_at,
    together,
)

MODEL = "0a" * 12


def judged(classes: dict[str, tuple[int, list[tuple[float, bool]]]]) -> Judged:
    """Of each class its labels, and the score of each detection and whether it is right."""
    rows = [
        (c, score, right)
        for c, (_, found) in enumerate(classes.values())
        for score, right in sorted(found, key=lambda row: -row[0])
    ]
    label, score, right = zip(*rows, strict=True)
    labels = np.array([number for number, _ in classes.values()])
    return Judged(list(classes), labels, np.array(label), np.array(score, float), np.array(right, bool))


FOUR = [(0.9, True), (0.8, True), (0.6, False), (0.5, True), (0.3, False), (0.2, False), (0.1, False)]
"""With 3 labels F1 is best from .5 on: 3 of 4 detections are right, and nothing is missing."""


def test_the_threshold_of_one_class_is_where_f1_is_largest():
    found = judged({"jump": (3, FOUR)})
    thresholds, common = best_thresholds(found)
    assert thresholds.tolist() == [common] == [pytest.approx(0.4)], "half-way between .5, which is kept, and .3"
    (scores,) = scores_at(found, thresholds)
    assert scores == Scores(labels=3, kept=4, right=3)
    assert (scores.precision, scores.recall, scores.f1) == (3 / 4, 1.0, pytest.approx(6 / 7))


def test_more_missing_labels_lower_the_threshold_and_fewer_raise_it():
    limits = [best_thresholds(judged({"jump": (n, FOUR)}))[1] for n in (2, 3)]
    assert limits == [pytest.approx(0.7), pytest.approx(0.4)]


def test_equal_f1_takes_the_higher_threshold():
    """One of two labels with one detection, 2 / 3; or both with four, 4 / 6."""
    found = judged({"jump": (2, [(0.9, True), (0.8, False), (0.7, False), (0.6, True)])})
    assert best_thresholds(found)[1] == pytest.approx(0.85)


def test_a_threshold_never_keeps_less_than_it_was_chosen_for():
    """Between two neighbouring floats there is no middle."""
    high = float(np.nextafter(0.5, 1))
    found = judged({"jump": (1, [(high, True), (0.5, False)])})
    thresholds, _ = best_thresholds(found)
    assert scores_at(found, thresholds) == [Scores(1, 1, 1)]


BOTH = {
    "many": (40, [(0.9 - 0.001 * i, True) for i in range(40)] + [(0.6 - 0.001 * i, False) for i in range(40)]),
    "few": (1, [(0.4, True), (0.35, False), (0.3, False)]),
    "none": (0, [(0.95, False)]),
}


def test_a_class_with_few_labels_is_drawn_to_the_common_threshold():
    found = judged(BOTH)
    alone, common = best_thresholds(found, prior=0)
    drawn, same = best_thresholds(found)
    assert common == same
    assert alone[1] < 0.4 < common, "by itself the class would take its single label's score"
    assert drawn[1] == common == drawn[2], "one label against ten, or none at all"
    assert drawn[0] == pytest.approx(alone[0], abs=1e-9), "forty labels speak for themselves"
    assert np.allclose(best_thresholds(found, prior=1e9)[0], common)


def test_with_labels_enough_the_class_leaves_the_common_threshold():
    low = [(0.4 - 0.001 * i, True) for i in range(40)] + [(0.2 - 0.001 * i, False) for i in range(40)]
    found = judged({"many": BOTH["many"], "low": (40, low)})
    thresholds, common = best_thresholds(found)
    assert thresholds[1] == pytest.approx((0.361 + 0.2) / 2) and thresholds[1] < common + 1e-9 < thresholds[0]


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, 0.5, 0.8, 0.9]), st.booleans()),
        min_size=1,
        max_size=30,
    ),
    st.integers(1, 5),
)
@settings(max_examples=200)
def test_no_score_gives_a_better_f1(rows, more):
    """Against all thresholds one could set, one by one."""
    classes = {
        f"c{c}": (sum(right for k, _, right in rows if k == c) + more, [row[1:] for row in rows if row[0] == c])
        for c in range(3)
    }
    found = judged(classes)
    if not found.right.any():
        with pytest.raises(DataError, match="none is right"):
            best_thresholds(found)
        return
    alone, common = best_thresholds(found, prior=0)
    levels = [0.0, 0.1, 0.2, 0.3, 0.5, 0.8, 0.9, 1.0]
    every = [scores_at(found, np.full(3, level)) for level in levels]
    assert together(scores_at(found, np.full(3, common))).f1 == max(together(rows).f1 for rows in every)
    for c, own in enumerate(scores_at(found, alone)):
        assert own.f1 == max(rows[c].f1 for rows in every)


def test_judged_detections_are_those_of_the_evaluator():
    truth = Segments.of(["a", "a", "b"], [0.0, 10.0, 0.0], [4.0, 14.0, 4.0], ["jump", "jump", "run"])
    found = Segments.of(
        ["a", "a", "a", "b", "b"],
        [0.0, 0.0, 11.0, 1.9, 0.0],
        [4.0, 4.1, 15.0, 4.0, 4.0],
        ["jump", "jump", "jump", "run", "swim"],
        [0.5, 0.7, 0.6, 0.4, 0.9],
    )
    result = judge(found, truth)
    assert result.classes == ["jump", "run"] and result.instances.tolist() == [2, 1]
    assert result.score.tolist() == [0.7, 0.6, 0.5, 0.4], "a class that the truth does not have is left out"
    assert result.right.tolist() == [True, True, False, True], "the second find of one action is wrong"
    assert judge(found, truth, 0.6).right.tolist() == [True, True, False, False]


# -- the file ----------------------------------------------------------------------------------------------------------


def point() -> OperatingPoint:
    return OperatingPoint.chosen(judged(BOTH), 2, MODEL, "pseudo-labels", 3)


def test_confident_detections_reach_the_threshold_of_their_class():
    chosen = point()
    assert chosen.classes["many"].f1 == 1 and chosen.classes["few"].recall == 0
    limit = chosen.classes["many"].threshold
    found = Segments.of("a", [0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0], ["many", "many", "new", "new"])
    found = found.replace(score=np.array([limit, np.nextafter(limit, 0), chosen.common.threshold, 0.0]))
    assert chosen.confident(found).start.tolist() == [0.0, 2.0], "an unknown class has the common threshold"
    assert len(chosen.confident(Segments.empty())) == 0


def test_what_is_written_is_read(tmp_path):
    (tmp_path / POINT_FILE).write_text(json.dumps(point().model_dump(mode="json")))
    assert read_operating_point(tmp_path, {2: MODEL}) == point()
    assert read_operating_point(tmp_path, {2: MODEL}, 2).origin.endswith("held out in 3 folds")


def test_missing_foreign_and_malformed_files_are_refused(tmp_path):
    with pytest.raises(RunError, match=r"has no operating point .*--set operating_point\.folds=3"):
        read_operating_point(tmp_path, {})
    document = point().model_dump(mode="json")
    path = tmp_path / POINT_FILE
    path.write_text(json.dumps(document))
    with pytest.raises(RunError, match="is of round 2, not 1; take the detections of round 2"):
        read_operating_point(tmp_path, {2: MODEL}, 1)
    with pytest.raises(RunError, match=r"another model than the run's round 2 has now; .*operating_point\.folds=3"):
        read_operating_point(tmp_path, {2: "0b" * 12})
    document["classes"]["many"]["threshold"] = "high"
    document["common"]["f1"] = 2
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"classes\.many\.threshold") as caught:
        read_operating_point(tmp_path, {2: MODEL})
    assert "common.f1" in str(caught.value)
    path.unlink()
    path.symlink_to(tmp_path / "elsewhere.json")
    (tmp_path / "elsewhere.json").write_text("{}")
    with pytest.raises(DataError, match="is a link"):
        read_operating_point(tmp_path, {2: MODEL})
