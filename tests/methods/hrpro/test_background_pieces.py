"""Negative proposals drawn from background runs: bounds, the published distribution, and that drawing ends."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad.methods.hrpro.background_pieces import sample_background


def draw(spans, count, seed=0):
    return sample_background(np.array(spans, dtype=np.int64).reshape(-1, 2), count, np.random.default_rng(seed))


def published(spans, count, rng):
    """The published loop; it does not end if all runs have two rows."""
    found = []
    while len(found) < count:
        start, stop = spans[int(rng.integers(len(spans)))]
        first, last = start, stop - 1
        if first == last:
            found.append((first, first + 1))
            continue
        begin = int(rng.uniform(first, last))
        end = int(rng.uniform(begin, last))
        if begin < end:
            found.append((begin, end))
    return found


@st.composite
def background(draw):
    gaps = draw(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 12)), max_size=6))
    edges = np.cumsum(np.array(gaps, dtype=np.int64).reshape(-1))
    return edges.reshape(-1, 2)


@given(background(), st.integers(0, 40), st.integers(0, 2**32 - 1))
def test_pieces_are_whole_rows_of_one_run_without_its_last(spans, count, seed):
    pieces = sample_background(spans, count, np.random.default_rng(seed))
    assert pieces.shape == (count if len(spans) else 0, 2) and pieces.dtype == np.float64
    assert (pieces == np.round(pieces)).all() and (pieces[:, 0] < pieces[:, 1]).all()
    for start, end in pieces:
        assert any(a <= start and end <= max(b - 1, a + 1) for a, b in spans.tolist())


def test_pieces_are_as_likely_as_in_the_published_loop():
    spans, count = [(2, 3), (5, 7), (10, 13), (20, 32)], 40_000
    found = Counter(map(tuple, draw(spans, count, 1).astype(int).tolist()))
    expected = Counter(published(spans, count, np.random.default_rng(2)))
    assert found.keys() == expected.keys()
    for piece, number in expected.items():
        assert found[piece] / count == pytest.approx(number / count, abs=5 * np.sqrt(2 * number) / count)


def test_it_ends_where_the_published_loop_does_not():
    pieces = draw([(4, 6), (9, 11)], 500)
    assert set(map(tuple, pieces.tolist())) == {(4.0, 5.0), (9.0, 10.0)}


def test_a_run_of_two_rows_is_used_only_if_there_is_no_other():
    assert not (draw([(4, 6), (9, 30)], 500)[:, 0] < 9).any()


def test_the_same_seed_draws_the_same():
    spans = [(0, 40), (50, 90)]
    np.testing.assert_array_equal(draw(spans, 30, 7), draw(spans, 30, 7))
    assert (draw(spans, 30, 7) != draw(spans, 30, 8)).any()


def test_nothing_to_draw_from():
    assert draw([], 10).shape == (0, 2) and draw([(0, 5)], 0).shape == (0, 2)


@pytest.mark.parametrize(("spans", "count"), [([(3, 3)], 1), ([(0, 4)], -1)])
def test_bad_input(spans, count):
    with pytest.raises(ValueError, match="must not be empty and the count not negative"):
        draw(spans, count)
