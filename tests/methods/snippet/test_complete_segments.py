"""LACP's search for complete segments: against a plain one, cases by hand, bad input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.snippet.complete_segments import search
from tad.ops.grouping import outer_inner_contrast
from tests.references.complete_segments import contrast, plain_search


def cuts_of(curve: np.ndarray, known: np.ndarray, budget: int = 25) -> list[int]:
    """Switching times of the product's search, after checks that hold for any result."""
    found = search(curve, known, budget)
    assert found.spans[0, 0] == 0 and found.spans[-1, 1] == len(curve)
    assert (found.spans[1:, 0] == found.spans[:-1, 1]).all() and (found.spans[:, 1] > found.spans[:, 0]).all()
    assert (found.action[1:] != found.action[:-1]).all()
    for (first, last), action in zip(found.spans, found.action, strict=True):
        inside = known[first:last]
        assert (inside[inside >= 0] == action).all() and (inside >= 0).any()
    kinds = [
        outer_inner_contrast(curve if action else 1 - curve, span[None], symmetric=False)[0]
        for span, action in zip(found.spans, found.action, strict=True)
    ]
    assert found.score == pytest.approx(np.mean(kinds))
    return found.spans[1:, 0].tolist()


@st.composite
def problems(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    length = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.sampled_from([1, 3, 7]))
    curve = np.convolve(rng.random(length + width - 1), np.ones(width) / width, "valid")
    if draw(st.booleans()):
        curve = (curve - curve.min()) / max(float(np.ptp(curve)), 1e-9)
    if draw(st.booleans()):
        curve = np.round(4 * curve) / 4  # many equal hypotheses, and sums without rounding
    share = draw(st.sampled_from([0.05, 0.2, 0.4]))
    known = rng.choice([-1, 0, 1], length, p=[1 - 2 * share, share, share])
    known[rng.integers(length)] = 1
    return curve, known


@settings(max_examples=150, deadline=None)
@given(problems(), st.sampled_from([1, 2, 5, 25]))
def test_equals_the_plain_search(problem: tuple[np.ndarray, np.ndarray], budget: int) -> None:
    curve, known = problem
    assert cuts_of(curve, known, budget) == plain_search(curve.tolist(), known.tolist(), budget)


def test_a_wide_beam_finds_the_best_of_all_segmentations() -> None:
    """Two switches, all pairs of times tried; pruning at the floor does not bite on such a curve."""
    rng = np.random.default_rng(3)
    curve = np.clip(np.r_[np.full(12, 0.2), np.full(9, 0.7), np.full(11, 0.2)] + rng.normal(0, 0.15, 32), 0, 1)
    known = np.full(32, -1)
    known[[2, 16, 29]] = [0, 1, 0]

    def mean(first: int, last: int) -> float:
        low, high = list(1 - curve), list(curve)
        return float(np.mean([contrast(low, 0, first - 1), contrast(high, first, last - 1), contrast(low, last, 31)]))

    best = max(((i, j) for i in range(3, 17) for j in range(17, 30)), key=lambda pair: mean(*pair))
    assert cuts_of(curve, known, 10_000) == list(best)
    assert search(curve, known, 10_000).score == pytest.approx(mean(*best))


def test_steps_are_found_at_their_ends() -> None:
    curve = np.zeros(30)
    curve[4:9] = curve[17:25] = 1
    known = np.full(30, -1)
    known[[1, 6, 12, 20, 28]] = [0, 1, 0, 1, 0]
    found = search(curve, known)
    assert found.spans.tolist() == [[0, 4], [4, 9], [9, 17], [17, 25], [25, 30]]
    assert found.action.tolist() == [False, True, False, True, False]
    assert found.score == pytest.approx(1.0)


def test_a_class_known_at_the_ends_and_one_kind_only() -> None:
    curve = np.r_[np.ones(4), np.zeros(6)]
    known = np.full(10, -1)
    known[[0, 1, 7]] = [1, 1, 0]
    assert search(curve, known).spans.tolist() == [[0, 4], [4, 10]]
    whole = search(curve, np.where(known == 0, -1, known))
    assert whole.spans.tolist() == [[0, 10]] and whole.score == pytest.approx(0.4)
    assert search(np.array([0.3]), np.array([1])).spans.tolist() == [[0, 1]]


def test_the_floor_drops_a_weak_start() -> None:
    """Both early switches end the first segment with a contrast below 0.1, so the forced one is all that is left."""
    curve = np.array([0.5, 0.5, 0.5, 0.5, 0.9, 0.9])
    known = np.array([0, -1, -1, -1, 1, 1])
    assert cuts_of(curve, known) == plain_search(curve.tolist(), known.tolist(), 25) == [4]


def test_equal_hypotheses_are_bounded() -> None:
    """Long flat stretches where every switching time is as good as any other: without a bound the beam explodes."""
    curve = np.zeros(400)
    known = np.full(400, -1)
    known[20::40], known[::40] = 1, 0
    curve[known == 1] = 1
    found = search(curve, known)
    assert len(found.spans) == 20 and found.score > 0.2


def test_bad_input_to_the_search() -> None:
    with pytest.raises(ValueError, match=r"curve \[T\] and known \[T\]"):
        search(np.zeros(3), np.zeros(4))
    with pytest.raises(ValueError, match="no row is known"):
        search(np.zeros(3), np.full(3, -1))
    with pytest.raises(ValueError, match="budget must be at least 1"):
        search(np.zeros(3), np.zeros(3), 0)
