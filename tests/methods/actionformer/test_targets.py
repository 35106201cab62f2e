"""The detector `actionformer`: targets of points, refined features and training windows, without a network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.actionformer.targets import Pyramid, assign, decode, ignore, pyramid
from tad.methods.common.windows import random_crop, refine

# -- targets -------------------------------------------------------------------------------------------------------


def assign_by_loop(points: Pyramid, spans: list[tuple[float, float]], labels: list[int], radius: float) -> list[object]:
    answers: list[object] = []
    for t, stride, (low, high) in zip(
        points.position.tolist(), points.stride.tolist(), points.reach.tolist(), strict=True
    ):
        found = []
        for (s, e), label in zip(spans, labels, strict=True):
            c = (s + e) / 2
            if max(s, c - radius * stride) < t < min(e, c + radius * stride) and low <= max(t - s, e - t) <= high:
                found.append((e - s, label, (t - s) / stride, (e - t) / stride))
        if not found:
            answers.append(None)
            continue
        shortest = min(f[0] for f in found)
        tied = [f for f in found if f[0] <= shortest + 1e-3]
        answers.append((sorted({f[1] for f in tied}), tied[0][2:]))
    return answers


quarters = st.integers(-4, 140).map(lambda n: n / 4)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(quarters, st.integers(1, 120).map(lambda n: n / 4), st.integers(0, 2)), max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.75, 1.5, 3.0]),
)
def test_assignment_is_that_of_a_plain_loop(drawn: list[tuple[float, float, int]], levels: int, radius: float) -> None:
    points = pyramid(32, levels)
    spans, labels = [(s, s + n) for s, n, _ in drawn], [label for _, _, label in drawn]
    weights = torch.linspace(0.1, 0.9, len(drawn))
    targets = assign(points, torch.tensor(spans).reshape(-1, 2), torch.tensor(labels).long(), weights, 3, radius)
    for i, answer in enumerate(assign_by_loop(points, spans, labels, radius)):
        classes = targets.classes[i].nonzero()[:, 0].tolist()
        if answer is None:
            assert classes == [] and targets.offsets[i].tolist() == [0, 0] and targets.weights[i] == 1
        else:
            assert (classes, tuple(targets.offsets[i].tolist())) == (answer[0], pytest.approx(answer[1]))


def test_ties_share_classes_and_the_shorter_wins() -> None:
    points = pyramid(16, 1)
    spans = torch.tensor([[1.0, 11.0], [3.0, 9.0], [3.0, 9.0005]], dtype=torch.float64)
    targets = assign(points, spans, torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.2, 0.3]), 3, radius=4.0)
    assert targets.classes[6].tolist() == [False, True, True]
    assert targets.weights[6] == pytest.approx(0.2)
    assert targets.classes[3].tolist() == [True, False, False]  # outside the short ones
    assert targets.offsets[6].tolist() == [3, 3]


def test_ranges_are_closed_and_the_last_is_open() -> None:
    points = pyramid(64, 3)
    assert points.sizes == [64, 32, 16]
    assert points.reach[[0, 64, 96]].tolist() == [[0, 4], [4, 8], [8, torch.inf]]
    # A segment of length 8 around row 8 is in reach of levels 0 and 1 both: 4 is the end of one, the start of the next.
    targets = assign(points, torch.tensor([[4.0, 12.0]]), torch.tensor([0]), torch.ones(1), 1, radius=0.5)
    assert targets.classes[:, 0].nonzero()[:, 0].tolist() == [8, 64 + 4]


@settings(deadline=None, max_examples=100)
@given(st.floats(0.0, 50), st.floats(1.01, 300), st.integers(1, 6))
def test_targets_decode_to_their_segment(start: float, length: float, levels: int) -> None:
    points = pyramid(512, levels)
    span = torch.tensor([[start, start + length]], dtype=torch.float64)
    targets = assign(points, span, torch.tensor([0]), torch.ones(1), 1, radius=1.5)
    positive = targets.classes[:, 0]
    found = decode(points, targets.offsets)[positive]
    assert len(found) > 0
    assert torch.allclose(found, span.expand_as(found), atol=1e-4)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 4), st.integers(0, 999))
def test_refined_features_are_interpolated_at_their_positions(rows: int, factor: int, seed: int) -> None:
    features = np.random.default_rng(seed).normal(size=(rows, 3)).astype(np.float32)
    fine = refine(features, factor)
    assert fine.shape == ((rows - 1) * factor + 1, 3) and fine.dtype == np.float32
    assert np.array_equal(fine[::factor], features)
    at = np.arange(len(fine)) / factor
    for channel in range(3):
        assert fine[:, channel] == pytest.approx(np.interp(at, np.arange(rows), features[:, channel]), abs=1e-5)


# -- windows -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(-2, 290), st.floats(0.1, 90)), max_size=5),
    st.integers(1, 120),
    st.integers(0, 999),
)
def test_windows_hold_what_they_say(length: int, drawn: list[tuple[float, float]], longest: int, seed: int) -> None:
    spans = np.array([(s, s + n) for s, n in drawn], dtype=np.float64).reshape(-1, 2)
    crop = random_crop(length, spans, longest, 0.5, np.random.default_rng(seed))
    assert crop.start >= 0 and crop.start + crop.size <= length
    assert crop.size == longest if length > longest else round(0.9 * length) <= crop.size <= length
    low, high = crop.start - 0.5, crop.start + crop.size - 0.5
    for (start, end), kept, cut in zip(spans, crop.kept, crop.spans, strict=True):
        inside = np.clip([start, end], low, high)
        assert cut + crop.start == pytest.approx(inside)
        assert kept == (inside[1] - inside[0] >= 0.5 * (end - start))


def test_windows_look_for_a_segment() -> None:
    rng = np.random.default_rng(0)
    kept = [random_crop(1000, np.array([[700.0, 710.0]]), 50, 0.5, rng).kept.any() for _ in range(50)]
    assert np.mean(kept) > 0.95  # a single draw would keep it in one of twenty
    assert not random_crop(100, np.array([[400.0, 410.0]]), 50, 0.5, rng).kept.any()


def test_background_in_doubtful_segments_has_no_weight_unless_a_label_is_there():
    points = pyramid(16, 2)
    spans = torch.tensor([[2.2, 6.4]], dtype=torch.float64)
    targets = assign(points, spans, torch.tensor([1]), torch.tensor([0.5]), 3, 1.5)
    zones = torch.tensor([[4.0, 9.0], [12.5, 12.9]], dtype=torch.float64)
    found = ignore(points, targets, zones, spans)
    assert ((points.position <= 6) & (found.weights == 1) & ~targets.classes.any(1)).any()
    assert torch.equal(found.weights == 0, (points.position >= 7) & (points.position <= 9))
    positive = targets.classes.any(1)
    assert torch.equal(found.weights[positive], targets.weights[positive])
    assert torch.equal(found.classes, targets.classes) and torch.equal(found.offsets, targets.offsets)
    alone = ignore(points, targets, zones, spans[:0])
    assert torch.equal(alone.weights == 0, (points.position >= 4) & (points.position <= 9) & ~positive)
