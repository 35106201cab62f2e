"""Losses against the golden values and their definitions, and finite gradients at extremes."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.pser.bags import seed_tious
from tad.ops.iou import paired_tiou
from tad.ops.losses import (
    diou_1d,
    mil_bag_probability,
    mil_loss,
    negative_loss,
    probability_focal,
    sigmoid_focal,
    smooth_l1,
)

EXTREMES = [-1e4, -120.0, -20.0, -1.0, 0.0, 1.0, 20.0, 120.0, 1e4]
GAMMAS = [0.0, 0.5, 1.0, 2.0, 3.0]


def mil_inputs():
    n, c = torch.arange(21, dtype=torch.float64)[:, None], torch.arange(3, dtype=torch.float64)[None]
    return torch.sin(0.7 * n + 1.3 * c)[None], torch.cos(0.4 * n - 0.9 * c)[None]


def test_golden_mil(golden):
    data = golden("pser")["mil"]
    prob = mil_bag_probability(*mil_inputs())
    np.testing.assert_allclose(prob[0], data["bag_prob"], atol=1e-8)
    onehot = F.one_hot(torch.tensor([data["label"]]), 3).double()
    np.testing.assert_allclose(mil_loss(prob, onehot), [data["loss"]], atol=1e-8)


def test_golden_negative(golden):
    data = golden("pser")["negative_loss"]
    loss = negative_loss(torch.tensor(data["logits"], dtype=torch.float64))
    found = 0.5 * (loss * torch.tensor(data["valid"], dtype=torch.float64)).mean()
    np.testing.assert_allclose(found, data["loss_with_half_weight_mean_over_all"], atol=1e-8)


def test_golden_rank(golden):
    data = golden("pser")["rank_loss"]
    target = torch.from_numpy(seed_tious([0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5], [0.0, -0.1, 0.1]))
    loss = smooth_l1(torch.full_like(target, data["pred_all"]), target).mean()
    np.testing.assert_allclose(loss, data["smooth_l1_mean"], atol=1e-8)


# -- definitions -----------------------------------------------------------------------------------------------------


@given(st.floats(0.01, 0.99), st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from(GAMMAS))
def test_probability_focal_is_the_formula(p, y, gamma):
    expected = abs(y - p) ** gamma * -(y * math.log(p) + (1 - y) * math.log(1 - p))
    found = probability_focal(torch.tensor([p], dtype=torch.float64), torch.tensor([y], dtype=torch.float64), gamma)
    assert abs(float(found) - expected) < 2e-4


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=10), st.integers(0, 2**10 - 1))
def test_sigmoid_focal_without_focus_is_half_the_cross_entropy(values, bits):
    logits = torch.tensor(values, dtype=torch.float64)
    targets = torch.tensor([(bits >> i) & 1 for i in range(len(values))], dtype=torch.float64)
    expected = F.binary_cross_entropy_with_logits(logits, targets, reduction="none") / 2
    torch.testing.assert_close(sigmoid_focal(logits, targets, alpha=0.5, gamma=0), expected)


@given(st.floats(-8, 8), st.sampled_from([0.0, 1.0]), st.floats(0.05, 0.95), st.sampled_from(GAMMAS))
def test_sigmoid_focal_is_the_formula(logit, y, alpha, gamma):
    p = 1 / (1 + math.exp(-logit))
    of_truth = p if y else 1 - p
    expected = -(alpha if y else 1 - alpha) * (1 - of_truth) ** gamma * math.log(of_truth)
    found = sigmoid_focal(
        torch.tensor([logit], dtype=torch.float64), torch.tensor([y], dtype=torch.float64), alpha, gamma
    )
    assert math.isclose(float(found), expected, rel_tol=1e-6, abs_tol=1e-9)


def test_both_focal_losses_agree():
    logits = torch.linspace(-6, 6, 25, dtype=torch.float64)
    for y in (0.0, 1.0):
        target = torch.full_like(logits, y)
        expected = 2 * sigmoid_focal(logits, target, alpha=0.5, gamma=2)
        torch.testing.assert_close(probability_focal(logits.sigmoid(), target), expected, atol=1e-5, rtol=1e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_diou_is_one_minus_tiou_plus_distance(seed):
    rng = np.random.default_rng(seed)
    point = rng.uniform(0, 100, (20, 1))
    pred, target = rng.uniform(0.001, 50, (2, 20, 2))
    a, b = point + pred * [-1, 1], point + target * [-1, 1]
    hull = np.maximum(a[:, 1], b[:, 1]) - np.minimum(a[:, 0], b[:, 0])
    expected = 1 - paired_tiou(a, b) + ((a.mean(1) - b.mean(1)) / hull) ** 2
    np.testing.assert_allclose(diou_1d(torch.tensor(pred), torch.tensor(target)), expected, atol=1e-9)


def test_diou_at_its_ends():
    offsets = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 5.0]])
    assert diou_1d(offsets, offsets).tolist() == [1.0, 0.0, 0.0]
    assert diou_1d(torch.zeros(0, 2), torch.zeros(0, 2)).shape == (0,)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=10), st.sampled_from([0.1, 1.0, 2.0]))
def test_smooth_l1_is_the_formula(errors, beta):
    expected = [e * e / 2 / beta if abs(e) < beta else abs(e) - beta / 2 for e in errors]
    found = smooth_l1(torch.tensor(errors, dtype=torch.float64), torch.zeros(len(errors), dtype=torch.float64), beta)
    np.testing.assert_allclose(found, expected, atol=1e-12)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1))
def test_bag_probability_is_bounded_and_blind_to_order(seed):
    generator = torch.Generator().manual_seed(seed)
    cls, ins = 20 * torch.randn(2, 3, 7, 4, generator=generator)
    prob = mil_bag_probability(cls, ins)
    assert ((prob >= 0) & (prob <= 1)).all()
    members, bags = torch.randperm(7, generator=generator), torch.randperm(3, generator=generator)
    torch.testing.assert_close(mil_bag_probability(cls[:, members], ins[:, members]), prob)
    torch.testing.assert_close(mil_bag_probability(cls[bags], ins[bags]), prob[bags])
    # A bag is as sure as a mean of its members' probabilities.
    assert (prob <= cls.sigmoid().amax(1) + 1e-6).all()
    assert (prob >= cls.sigmoid().amin(1) - 1e-6).all()


# -- extremes --------------------------------------------------------------------------------------------------------


def finite(loss, *inputs):
    assert torch.isfinite(loss).all()
    loss.sum().backward()
    for x in inputs:
        assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("y", [0.0, 0.5, 1.0])
def test_losses_and_gradients_are_finite_at_extremes(gamma, y):
    logits = torch.tensor(EXTREMES, requires_grad=True)
    finite(sigmoid_focal(logits, torch.full((9,), y), gamma=gamma), logits)
    p = torch.tensor([0.0, 1e-30, 1e-7, 0.5, 1 - 1e-7, 1.0], requires_grad=True)
    finite(probability_focal(p, torch.full((6,), y), gamma), p)
    logits = torch.tensor([EXTREMES], requires_grad=True)
    finite(negative_loss(logits, gamma), logits)
    cls, ins = (torch.tensor(EXTREMES).view(1, 9, 1).clone().requires_grad_() for _ in range(2))
    finite(mil_loss(mil_bag_probability(cls, ins), torch.full((1, 1), y), gamma), cls, ins)


def test_diou_gradients_are_finite_at_extremes():
    pred = torch.tensor([[0.0, 0.0], [0.0, 0.0], [1e-20, 0.0], [1e6, 1e6]], requires_grad=True)
    target = torch.tensor([[0.0, 0.0], [1.0, 2.0], [1e-20, 1e-20], [0.0, 1e-6]])
    finite(diou_1d(pred, target), pred)


def test_half_precision_is_computed_in_float32():
    logits = torch.tensor(EXTREMES, dtype=torch.bfloat16, requires_grad=True)
    loss = sigmoid_focal(logits, torch.ones(9, dtype=torch.bfloat16))
    assert loss.dtype == torch.float32
    finite(loss, logits)
    p = torch.tensor([0.0, 0.5, 1.0], dtype=torch.float16)
    assert probability_focal(p, torch.ones_like(p)).dtype == torch.float32


def test_a_target_met_costs_nothing():
    p = torch.tensor([0.0, 1.0])
    assert (probability_focal(p, p).abs() < 1e-6).all()
    assert sigmoid_focal(torch.tensor([1e4, -1e4]), p.flip(0)).tolist() == [0.0, 0.0]
