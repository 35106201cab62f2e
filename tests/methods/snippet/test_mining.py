"""Mining of pseudo action and background rows, against a walk over the rows written from the description."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.snippet.mining import background_runs, mine
from tad.ops.grouping import runs
from tests.references.mining import BACKGROUND, walk


@st.composite
def videos(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    length = draw(st.integers(1, 24))
    level = st.sampled_from([0.0, 0.05, 0.1, 0.3, 0.6, 0.95, 0.97, 1.0])
    b = np.array(draw(st.lists(level, min_size=length, max_size=length)), dtype=np.float32)
    chance = draw(st.sampled_from([0, 1, 3, 8]))
    rows = draw(st.lists(st.integers(0, 9), min_size=length, max_size=length))
    kinds = draw(st.lists(st.integers(1, 3), min_size=length, max_size=length))
    y = np.array([[r < chance and k & 1, r < chance and k & 2] for r, k in zip(rows, kinds, strict=True)], dtype=bool)
    return b, y


@settings(max_examples=120, deadline=None)
@given(st.lists(videos(), min_size=1, max_size=4))
def test_equals_the_walk_over_rows_in_any_batch(batch: list[tuple[np.ndarray, np.ndarray]]) -> None:
    longest = max(len(b) for b, _ in batch)
    # Padding holds what would be tempting: confident action, and points.
    scores, points = np.zeros((len(batch), longest), np.float32), np.ones((len(batch), longest, 2), bool)
    mask = np.zeros((len(batch), longest), bool)
    for i, (b, y) in enumerate(batch):
        scores[i, : len(b)], points[i, : len(b)], mask[i, : len(b)] = b, y, True
    mined = mine(torch.from_numpy(scores), torch.from_numpy(points), torch.from_numpy(mask))
    for i, (b, y) in enumerate(batch):
        action, background = walk(b, y)
        np.testing.assert_array_equal(mined.background[i, : len(b)].numpy(), background)
        np.testing.assert_array_equal(mined.action[i, : len(b)].numpy(), action)
    assert not mined.background[~torch.from_numpy(mask)].any()
    assert not mined.action[~torch.from_numpy(mask)].any()


@settings(deadline=None)  # the first call may compile
@given(videos())
def test_background_runs_of_one_video_are_those_of_the_batch(video: tuple[np.ndarray, np.ndarray]) -> None:
    b, y = video
    found = background_runs(b, np.flatnonzero(y.any(1)), BACKGROUND)
    np.testing.assert_array_equal(found, runs(walk(b, y)[1]))


def rows(scores: list[float], points: list[int]) -> tuple[list[int], list[int]]:
    """Background and action rows of one video with one class."""
    y = torch.zeros(1, len(scores), 1, dtype=torch.bool)
    y[0, points] = True
    mined = mine(torch.tensor([scores]), y, torch.ones(1, len(scores), dtype=torch.bool))
    return mined.background[0].nonzero()[:, 0].tolist(), mined.action[0, :, 0].nonzero()[:, 0].tolist()


def test_fills_the_outer_gaps_to_the_ends() -> None:
    #          0    1     2     3    4     5(p)  6    7    8     9
    scores = [0.0, 0.99, 0.96, 0.5, 0.05, 0.5, 0.1, 0.2, 0.96, 0.0]
    assert rows(scores, [5]) == ([0, 1, 2, 8, 9], [4, 5, 6])


def test_each_gap_has_background_even_without_hits() -> None:
    assert rows([0.0, 0.2, 0.0, 0.3, 0.0], [0, 4]) == ([3], [0, 4])
    assert rows([0.0, 0.05, 0.0], [0]) == ([1, 2], [0])


def test_one_hit_between_points_is_one_row_and_two_fill() -> None:
    assert rows([0.0, 0.5, 0.96, 0.5, 0.5, 0.0], [0, 5])[0] == [2]
    assert rows([0.0, 0.96, 0.5, 0.5, 0.97, 0.0], [0, 5])[0] == [1, 2, 3, 4]


def test_several_classes_of_a_row_travel_together() -> None:
    y = torch.zeros(1, 4, 3, dtype=torch.bool)
    y[0, 1, 0] = y[0, 1, 2] = True
    mined = mine(torch.tensor([[1.0, 0.0, 0.05, 1.0]]), y, torch.ones(1, 4, dtype=torch.bool))
    assert mined.action[0, 2].tolist() == [True, False, True]


def test_adjacent_points_a_single_row_and_no_points() -> None:
    assert rows([0.9, 0.9, 0.9], [0, 1, 2]) == ([], [0, 1, 2])
    assert rows([0.5], [0]) == ([], [0])
    assert rows([0.99, 0.0, 0.99], []) == ([], [])
