"""The detector `potloc`: sampled pseudo-labels, mined background and training windows, without a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.common.windows import Labels
from tad.methods.potloc.targets import annotated, background_seeds, sample, window

# -- sampling ------------------------------------------------------------------------------------------------------


def labels_of(*rows: tuple[float, float, float, int]) -> Labels:
    """(point, start, end, class) each, in positions."""
    point, start, end, label = np.array(rows, dtype=np.float64).reshape(-1, 4).T
    return Labels(np.stack([start, end], 1), label.astype(np.int64), np.ones(len(rows), np.float32), point)


def positives(labels: Labels, rows: int = 64, levels: int = 3, **more: object) -> list[list[int]]:
    """Positions on the finest level of the positive rows of each level, all classes."""
    options = {"classes": 3, "radius": 2.0, "rounded": False} | more
    found = sample(labels, rows, levels, **options).any(-1)
    return [(found[level].nonzero()[:, 0] * 2**level).tolist() for level in range(levels)]


PROBES = [
    (10, 8, 13, [9, 10, 11], [10, 12], [12]),
    (10, 10, 14, [11], [12], [12]),
    (10, 10, 11, [], [], []),
    (1, 0, 3, [1, 2], [2], []),
    (20, 3, 60, [19, 20, 21], [18, 20, 22], [16, 20, 24]),
]
"""Point, start, end; positives that the published code gives on levels 0, 1 and 2."""


@pytest.mark.parametrize(("point", "start", "end", "first", "second", "third"), PROBES)
def test_published_probes(point, start, end, first, second, third) -> None:
    """The published clock counts row i from i to i + 1: half a snippet from positions."""
    labels = labels_of((point - 0.5, start - 0.5, end - 0.5, 0))
    assert positives(labels, rounded=True) == [first, second, third]


@pytest.mark.parametrize(("point", "start", "end", "first", "second", "third"), PROBES)
def test_exact_targets_on_whole_numbers_add_the_annotated_row_alone(point, start, end, first, second, third) -> None:
    labels = labels_of((point, start, end, 0))
    assert positives(labels) == [sorted({point, *first}), second, third]


def test_rounding_is_half_to_even_and_may_lose_the_annotated_row() -> None:
    labels = labels_of((10.0, 7.0, 13.0, 0))  # on the published clock 10.5, 7.5, 13.5
    assert positives(labels, rounded=True)[0] == [9, 10, 11]  # around 10, in (8, 14)
    near = labels_of((10.2, 9.8, 14.0, 0))  # 10.7 -> 11, 10.3 -> 10, 14.5 -> 14
    assert positives(near, rounded=True)[0] == [11, 12]
    assert 10 in positives(near)[0]
    short = labels_of((10.0, 9.6, 10.4, 0))
    assert positives(short, rounded=True) == [[], [], []]
    assert positives(short) == [[10], [10], []]


def test_a_window_cuts_published_labels_at_its_rows() -> None:
    labels = labels_of((14.5, 10.5, 40.5, 0))
    assert positives(labels, rows=16, rounded=True)[0] == [14]  # the end is 15, and borders do not count
    assert positives(labels, rows=16)[0] == [13, 14, 15]


def test_a_lone_point_trains_its_row_and_further_levels_only_where_they_meet_it() -> None:
    point = 20.2
    alone = labels_of((point, point - 1e-3, point + 1e-3, 1))
    assert positives(alone, levels=4) == [[20], [], [], []]
    snippet = labels_of((point, point - 0.5, point + 0.5, 1))
    assert positives(snippet, levels=4) == [[20], [20], [20], []]


def test_without_radius_the_whole_label_is_sampled() -> None:
    labels = labels_of((20.0, 3.5, 60.2, 0))
    assert positives(labels, radius=None) == [list(range(4, 61)), list(range(4, 61, 2)), list(range(4, 61, 4))]


def test_the_shortest_wins_ties_share_and_an_annotated_row_keeps_its_class() -> None:
    labels = labels_of((10.0, 0.5, 30.5, 0), (11.0, 7.5, 13.5, 1), (11.0, 7.5, 13.5005, 2))
    found = sample(labels, 32, 1, 3, 4.0, False)[0]
    assert found[9].tolist() == [False, True, True]
    assert found[10].tolist() == [True, True, True]  # the point of class 0
    assert found[7].tolist() == [True, False, False]
    rounded = sample(labels._replace(points=labels.points - 0.5), 32, 1, 3, 4.0, True)[0]
    assert rounded[10].tolist() == [False, True, True]


def test_no_pseudo_label_no_positive() -> None:
    empty = sample(labels_of(), 5, 3, 3, 2.0, False)
    assert empty.shape == (3, 5, 3) and not empty.any()


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(st.floats(0, 30), st.floats(0.01, 20), st.floats(0.01, 20), st.integers(0, 2)), max_size=5),
    st.integers(1, 40),
    st.sampled_from([1.0, 2.0, 3.5, None]),
    st.booleans(),
)
def test_sampling_is_that_of_a_plain_loop(
    drawn: list[tuple[float, float, float, int]], rows: int, radius: float | None, rounded: bool
) -> None:
    labels = labels_of(*((t, t - a, t + b, c) for t, a, b, c in drawn if t < rows - 0.5))
    found = sample(labels, rows, 3, 3, radius, rounded)
    for level in range(3):
        for row in range(rows):
            x, want, lengths = row * 2**level, set(), []
            for (s, e), c, t in zip(labels.spans, labels.classes, labels.points, strict=True):
                if rounded:
                    t, s, e = round(t + 0.5), round(s + 0.5), round(e + 0.5)
                    s, e = min(max(s, 0), rows - 1), min(max(e, 0), rows - 1)
                reach = float("inf") if radius is None else radius * 2**level
                if x < rows and s < x < e and abs(x - t) < reach:
                    lengths.append((e - s, int(c)))
            want = {c for n, c in lengths if n <= min(lengths)[0] + 1e-3}
            if level == 0 and not rounded:
                own = annotated(labels.points, rows)
                want |= {int(c) for c, r in zip(labels.classes, own, strict=True) if r == row}
            assert set(found[level, row].nonzero()[:, 0].tolist()) == want, (level, row)


# -- background ----------------------------------------------------------------------------------------------------


def seeds(scores: list[float], points: list[int], rule: str) -> list[int]:
    """Seeds of a video that is the second of a batch, on its second level; the others are tempting."""
    shape = (2, 3, len(scores) + 4)
    background, positive, mask = torch.ones(shape), torch.ones(shape, dtype=torch.bool), torch.zeros(shape).bool()
    rows = slice(0, len(scores))
    background[1, 1, rows], positive[1, 1], mask[1, 1, rows] = torch.tensor(scores), False, True
    positive[1, 1, points] = True
    found = background_seeds(background, positive, mask, 0.95, rule)
    assert not found[~mask].any()
    return found[1, 1].nonzero()[:, 0].tolist()


def scores_at(values: dict[int, float], length: int = 20, rest: float = 0.0) -> list[float]:
    return [values.get(i, rest) for i in range(length)]


def test_published_seed_probes() -> None:
    sure = scores_at({1: 0.97, 4: 0.97, 15: 0.97, 9: 0.5})
    assert seeds(sure, [6, 12], "published") == [1, 2, 3, 4, 9, 15]
    assert seeds(sure, [6, 12], "gaps") == [0, 1, 2, 3, 4, 9, 15, 16, 17, 18, 19]
    unsure = scores_at({2: 0.3, 9: 0.3, 17: 0.3})
    assert seeds(unsure, [6, 12], "published") == [9]
    assert seeds(unsure, [6, 12], "gaps") == [0, 1, 2, 9, 17, 18, 19]


def test_no_seed_without_a_positive_or_a_gap() -> None:
    for rule in ("published", "gaps"):
        assert seeds([1.0] * 6, [], rule) == []
        assert seeds([1.0] * 3, [0, 1, 2], rule) == []


# -- windows -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 200), st.lists(st.integers(0, 199), max_size=8), st.integers(1, 120), st.integers(0, 999))
def test_windows_hold_their_share_of_the_points_where_one_can(
    length: int, drawn: list[int], longest: int, seed: int
) -> None:
    points = np.array(sorted(p for p in drawn if p < length), dtype=np.int64)
    start, size = window(length, points, longest, np.random.default_rng(seed))
    assert start >= 0 and start + size <= length
    assert size == longest if length > longest else round(0.9 * length) <= size <= length
    held = [int(((points >= s) & (points < s + size)).sum()) for s in range(length - size + 1)]
    most = max(held)
    if most > 0.7 * len(points):
        assert held[start] > 0.7 * len(points)
    elif most:
        assert held[start] > 0


def test_every_window_that_serves_is_drawn() -> None:
    rng = np.random.default_rng(0)
    starts = {window(100, np.array([50]), 10, rng)[0] for _ in range(300)}
    assert starts == set(range(41, 51))
    assert {window(12, np.zeros(0, np.int64), 10, rng) for _ in range(60)} == {(s, 10) for s in range(3)}
