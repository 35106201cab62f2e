"""Whether scores mean what they say."""

from __future__ import annotations

import numpy as np
import pytest

from tad.evaluation.evaluator import Judged
from tad.evaluation.reliability import Bin, calibration_error, reliability, to_json


def scored(score: list[float], right: list[bool]) -> Judged:
    label = np.zeros(len(score), dtype=np.int64)
    return Judged(["jump"], np.array([5]), label, np.array(score), np.array(right, dtype=bool))


def test_each_tenth_holds_its_lower_end_and_the_last_one_both():
    edges = [round(0.1 * i, 10) for i in range(11)]
    bins = reliability(scored(edges, [True] * 11))
    assert bins is not None and [b.detections for b in bins] == [1] * 9 + [2]
    assert [b.low for b in bins] == edges[:-1] and [b.high for b in bins] == edges[1:]


def test_shares_and_the_calibration_error_by_hand():
    bins = reliability(scored([0.72, 0.78, 0.75, 0.75, 0.1, 0.1], [True, True, True, False, False, False]))
    assert bins is not None
    assert bins[7] == Bin(0.7, 0.8, 4, pytest.approx(0.75), 0.75) and bins[1].right == 0
    assert bins[0] == Bin(0.0, 0.1, 0, None, None)
    assert calibration_error(bins) == pytest.approx((4 * 0 + 2 * 0.1) / 6)
    assert to_json(bins)["bins"][7]["detections"] == 4


def test_scores_that_are_right_as_often_as_they_say_have_no_error():
    rng = np.random.default_rng(0)
    score = rng.uniform(size=200_000)
    good, sure = (reliability(scored(list(s), list(rng.uniform(size=len(s)) < score))) for s in (score, score**0.25))
    assert good is not None and sure is not None
    assert calibration_error(good) < 0.01 < 0.25 < calibration_error(sure)


def test_scores_outside_0_to_1_are_no_chances():
    assert reliability(scored([0.5, 1.2], [True, True])) is None
    assert reliability(scored([-0.1], [True])) is None
    nothing = reliability(scored([], []))
    assert nothing is not None and calibration_error(nothing) is None
