"""Bags and negatives against the golden values, and their invariants."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tad.methods.pser.bags import clear_of, negative_spans, perturb, seed_tious
from tad.ops.iou import paired_tiou, tiou

SCALES = [0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5]
SHIFTS = [0.0, -0.1, 0.1]
number = st.floats(-100, 100, allow_nan=False)
seeds = st.lists(st.tuples(number, st.floats(0.05, 100)), min_size=1, max_size=6).map(
    lambda rows: np.array([(s, s + length) for s, length in rows])
)


def test_golden_bags(golden):
    document = golden("pser")
    assert document["constants"]["ratios"] == SCALES
    bags = document["bags"]
    found = perturb(np.array([b["seed"] for b in bags]), SCALES, SHIFTS)
    assert found.shape == (len(bags), 21, 2)
    np.testing.assert_allclose(found, [b["bag_seconds"] for b in bags], atol=1e-6)
    rate = document["constants"]["snippets_per_second"]
    np.testing.assert_allclose(found * rate, [b["bag_snippets"] for b in bags], atol=1e-6)


def test_golden_labels(golden):
    np.testing.assert_allclose(
        seed_tious(SCALES, SHIFTS), golden("pser")["iou_to_seed_labels"]["values"], atol=1e-8, rtol=0
    )


def test_golden_negatives(golden):
    document = golden("pser")
    data = document["negatives"]
    found = negative_spans(np.array(data["u1"]), np.array(data["u2"]), data["w"])
    np.testing.assert_allclose(found, data["boxes"], atol=1e-6)
    members = perturb(np.array([b["seed"] for b in document["bags"]]), SCALES, SHIFTS)
    np.testing.assert_allclose(
        tiou(found, members.reshape(-1, 2)).max(1), data["max_iou_with_any_bag_member"], atol=1e-6
    )
    assert clear_of(found, members, 0.3).tolist() == data["valid_against_the_3_bags"]


@given(seeds, st.floats(0.1, 10), number)
def test_bags_and_labels_move_with_the_seed(spans, a, b):
    moved = perturb(a * spans + b, SCALES, SHIFTS)
    np.testing.assert_allclose(moved, a * perturb(spans, SCALES, SHIFTS) + b, atol=1e-8)
    for seed, bag in zip(a * spans + b, moved, strict=True):
        labels = paired_tiou(bag, np.broadcast_to(seed, bag.shape))
        np.testing.assert_allclose(labels, seed_tious(SCALES, SHIFTS), atol=1e-6)


@given(seeds)
def test_reflection_swaps_the_shifts(spans):
    mirrored = perturb(-spans[:, ::-1], SCALES, SHIFTS).reshape(-1, len(SCALES), 3, 2)
    bag = perturb(spans, SCALES, SHIFTS).reshape(-1, len(SCALES), 3, 2)
    np.testing.assert_allclose(-mirrored[:, :, [0, 2, 1], ::-1], bag, atol=1e-9)


@given(seeds)
def test_the_unscaled_unshifted_member_is_the_seed(spans):
    np.testing.assert_allclose(perturb(spans, SCALES, SHIFTS)[:, 9], spans, atol=1e-9)
    assert seed_tious(SCALES, SHIFTS)[9] == 1


def test_order_is_scale_major():
    bag = perturb(np.array([[0.0, 10.0]]), [0.5, 1.0], [0.0, 0.2])[0]
    assert bag.tolist() == [[2.5, 7.5], [3.5, 8.5], [0, 10], [2, 12]]


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 1e4), st.floats(0, 0.5))
def test_negatives_stay_within_the_margins(seed, extent, margin):
    rng = np.random.default_rng(seed)
    found = negative_spans(rng.random(50), rng.random(50), extent, margin)
    assert (found[:, 0] >= -margin * extent * (1 + 1e-9)).all()
    assert (found[:, 0] <= extent * (1 + 1e-9)).all()
    assert (found[:, 0] <= found[:, 1]).all()
    assert (found[:, 1] <= (1 + margin) * extent * (1 + 1e-9)).all()


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.1, 0.3, 0.7, 1.0]), st.integers(0, 40))
def test_clear_of_equals_the_whole_matrix(seed, threshold, count):
    rng = np.random.default_rng(seed)
    negatives = np.sort(rng.integers(0, 30, (60, 2)), axis=1).astype(float)
    members = np.sort(rng.integers(0, 30, (count, 2)), axis=1).astype(float)
    expected = (tiou(negatives, members) < threshold).all(1)
    assert np.array_equal(clear_of(negatives, members, threshold), expected)


@pytest.mark.parametrize("threshold", [0.0, -0.1, 1.1])
def test_clear_of_wants_a_threshold(threshold):
    with pytest.raises(ValueError, match="threshold"):
        clear_of(np.zeros((1, 2)), np.zeros((1, 2)), threshold)
