"""Runs, contrast and upsampling: hand-checked values, a loop, and invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.ops.grouping import inner_mean, outer_inner_contrast, runs, threshold_runs, upsample

masks = st.lists(st.booleans(), max_size=40).map(lambda x: np.array(x, dtype=bool))
curves = st.lists(st.integers(0, 20).map(lambda v: v / 20), min_size=1, max_size=40).map(np.array)
THRESHOLDS = [0.0, 0.25, 0.5, 0.9]


def loop_runs(mask):
    found, start = [], None
    for t, on in enumerate([*mask, False]):
        if on and start is None:
            start = t
        if not on and start is not None:
            found.append([start, t])
            start = None
    return found


def published_contrast(curve, first, last):
    """HR-Pro's rule on the inclusive rows [i, j]."""
    i, j, rows = first, last - 1, len(curve)
    length = j - i + 1
    left = list(range(max(0, int(np.floor(i - length / 4))), i))
    right = list(range(j + 1, min(rows - 1, int(np.floor(j + length / 4))) + 1))
    outer = [curve[t] for t in left + right]
    return np.mean(curve[i : j + 1]) - (np.mean(outer) if outer else 0.0)


# -- runs ------------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # the first call may compile
@given(masks)
def test_runs_equal_a_loop(mask):
    found = runs(mask)
    assert found.dtype == np.int64
    assert found.tolist() == loop_runs(mask)


@settings(deadline=None)  # the first call may compile
@given(masks)
def test_runs_cover_exactly_the_mask(mask):
    covered = np.zeros(len(mask), dtype=bool)
    for first, last in runs(mask):
        assert not covered[first:last].any()
        covered[first:last] = True
    assert np.array_equal(covered, mask)


@settings(deadline=None)  # the first call may compile
@given(curves)
def test_threshold_runs_equal_runs_of_each_threshold(curve):
    spans, index = threshold_runs(curve, THRESHOLDS)
    expected = [(k, *run) for k, h in enumerate(THRESHOLDS) for run in loop_runs((curve >= h) & (curve > 0))]
    assert [(k, *run) for k, run in zip(index.tolist(), spans.tolist(), strict=True)] == expected


def test_threshold_zero_gives_the_positive_rows():
    spans, index = threshold_runs(np.array([0.1, 0.0, 0.2, 0.3]), [0.0, 0.2])
    assert spans.tolist() == [[0, 1], [2, 4], [2, 4]]
    assert index.tolist() == [0, 0, 1]
    assert threshold_runs(np.ones(5), [])[0].shape == (0, 2)


# -- contrast --------------------------------------------------------------------------------------------------------


def test_step_curve():
    curve = np.array([0.0] * 4 + [1.0] * 4 + [0.0] * 4)
    for symmetric in (True, False):
        assert outer_inner_contrast(curve, np.array([[4, 8]]), symmetric=symmetric).tolist() == [1.0]


def test_published_margins_by_hand():
    """Rows 3, 4, 5 of a ramp: length 3, so ceil(3/4) = 1 row on the left and floor(3/4) = 0 on the right."""
    curve = np.arange(10) / 10
    span = np.array([[3, 6]])
    assert np.allclose(outer_inner_contrast(curve, span, symmetric=False), 0.4 - 0.2)
    # Symmetric: row 2 on the left and row 6 on the right; on a ramp they cancel.
    assert np.allclose(outer_inner_contrast(curve, span), 0.4 - (0.2 + 0.6) / 2)
    # Length 6 (rows 2..7): 2 rows on the left (0, 1), 1 on the right (8).
    assert np.allclose(outer_inner_contrast(curve, np.array([[2, 8]]), symmetric=False), 0.45 - (0 + 0.1 + 0.8) / 3)
    # Length 4: one row on each side under either rule.
    assert np.allclose(outer_inner_contrast(curve, np.array([[4, 8]]), symmetric=False), 0.55 - (0.3 + 0.8) / 2)


def test_the_whole_curve_has_no_outside():
    curve = np.array([0.2, 0.4, 0.9])
    assert np.allclose(outer_inner_contrast(curve, np.array([[0, 3]])), 0.5)


@settings(deadline=None)  # the first call may compile
@given(curves, st.data())
def test_published_rule_equals_a_loop(curve, data):
    first = data.draw(st.integers(0, len(curve) - 1))
    last = data.draw(st.integers(first + 1, len(curve)))
    found = outer_inner_contrast(curve, np.array([[first, last]]), symmetric=False)
    np.testing.assert_allclose(found, [published_contrast(curve, first, last)], atol=1e-12)


@settings(deadline=None)  # the first call may compile
@given(curves, st.sampled_from([0.1, 0.25, 0.5]))
def test_symmetric_contrast_survives_reflection(curve, margin):
    spans, _ = threshold_runs(curve, THRESHOLDS)
    mirrored = len(curve) - spans[:, ::-1]
    np.testing.assert_allclose(
        outer_inner_contrast(curve, spans, margin), outer_inner_contrast(curve[::-1], mirrored, margin), atol=1e-12
    )


@settings(deadline=None)  # the first call may compile
@given(curves, st.booleans())
def test_values_below_a_runs_floor_count_as_zero(curve, symmetric):
    spans, index = threshold_runs(curve, THRESHOLDS)
    floors = np.array(THRESHOLDS)[index]
    found = outer_inner_contrast(curve, spans, symmetric=symmetric, floors=floors)
    for span, floor, value in zip(spans, floors, found, strict=True):
        zeroed = np.where(curve >= floor, curve, 0)
        assert np.isclose(value, outer_inner_contrast(zeroed, span[None], symmetric=symmetric)[0], atol=1e-12)


def test_margin_rows_do_not_suffer_from_rounding():
    """0.07 * 100 is 7.000000000000001 in floats: still 7 rows, not 8."""
    curve = np.zeros(200)
    curve[42] = 1.0
    assert outer_inner_contrast(curve, np.array([[50, 150]]), margin=0.07)[0] == 0
    curve[43] = 1.0
    assert outer_inner_contrast(curve, np.array([[50, 150]]), margin=0.07)[0] < 0


@pytest.mark.parametrize("span", [[2, 2], [-1, 3], [3, 6]])
def test_bad_runs_are_refused(span):
    with pytest.raises(ValueError, match="half-open"):
        outer_inner_contrast(np.ones(5), np.array([span]))


def test_no_runs():
    assert outer_inner_contrast(np.ones(5), np.zeros((0, 2), dtype=np.int64)).shape == (0,)


# -- upsampling ------------------------------------------------------------------------------------------------------


def test_upsampling_by_hand():
    curve = np.array([0.0, 1.0, 3.0])
    assert np.allclose(upsample(curve, 2), [0, 0.25, 0.75, 1.5, 2.5, 3])
    # The published rule reads at 0, .5, 1, 1.5, 2 and extrapolates to 2.5.
    assert np.allclose(upsample(curve, 2, centred=False), [0, 0.5, 1, 2, 3, 4])


@settings(deadline=None)  # the first call may compile
@given(curves, st.integers(1, 8), st.booleans())
def test_upsampling_keeps_a_constant_and_its_shape(curve, scale, centred):
    two = np.stack([np.full(len(curve), 0.3), curve])
    fine = upsample(two, scale, centred)
    assert fine.shape == (2, scale * len(curve))
    assert np.allclose(fine[0], 0.3)
    assert np.array_equal(fine[1], upsample(curve, scale, centred))


@settings(deadline=None)  # the first call may compile
@given(curves, st.integers(1, 8))
def test_centred_upsampling_survives_reflection_and_stays_within(curve, scale):
    fine = upsample(curve, scale)
    assert np.allclose(fine[::-1], upsample(curve[::-1], scale))
    assert fine.min() >= curve.min() - 1e-12
    assert fine.max() <= curve.max() + 1e-12


def test_upsampling_gives_float64_and_refuses_nothing_to_do():
    assert upsample(np.zeros(3, dtype=np.float32), 4).dtype == np.float64
    assert upsample(np.array([1, 3]), 2).tolist() == [1, 1.5, 2.5, 3]
    for curve, scale in ((np.zeros(0), 2), (np.zeros(3), 0)):
        with pytest.raises(ValueError, match="upsampling"):
            upsample(curve, scale)


@settings(deadline=None)
@given(curves, st.integers(0, 2**32 - 1))
def test_the_mean_inside_a_span_of_any_edges(curve, seed):
    rng = np.random.default_rng(seed)
    two, columns = np.stack([curve, 1 - curve], 1), rng.integers(0, 2, 20)
    spans = np.sort(rng.uniform(0, len(curve), (20, 2)), axis=1).round(2)
    fine = np.repeat(two, 100, axis=0)
    expected = [
        fine[round(100 * a) : round(100 * b), c].mean() if b > a else 0.0
        for (a, b), c in zip(spans, columns, strict=True)
    ]
    assert np.allclose(inner_mean(two, spans, columns), expected)
    whole = np.array([[0, len(curve)], [-3, len(curve) + 5], [0, 0], [-2, -1]])
    assert np.allclose(inner_mean(two, whole, np.zeros(4, dtype=int)), [curve.mean(), curve.mean(), 0, 0])
