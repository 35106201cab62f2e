"""Snippet targets: the golden systems and curves, other solvers' optima, contradictions, and the delta loss."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog, lsq_linear

from tad.methods.gaufuse.snippet_targets import System, delta_target, snippet_targets, solve, system, target_loss

SOLVERS = ("centre", "least-norm")


def dense(constraints: System, length: int) -> np.ndarray:
    """[N, T] the constraints' rows, one column for each snippet."""
    whole = np.zeros((len(constraints.rows), length))
    whole[:, constraints.edges[0] : constraints.edges[-1]] = np.repeat(
        constraints.rows, np.diff(constraints.edges), axis=1
    )
    return whole


def curve(spans, scores, length, **options) -> np.ndarray:
    """[T] the targets of one class."""
    return snippet_targets(np.array(spans, float), np.array(scores), np.zeros(len(scores), int), length, 1, **options)[
        :, 0
    ]


def drawn(seed: int, agreeing: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Random overlapping segments; if agreeing, with scores that some curve has."""
    rng = np.random.default_rng(seed)
    length, count = int(rng.integers(4, 90)), int(rng.integers(1, 14))
    start = rng.uniform(-1, length, count)
    spans = np.stack([start, np.minimum(start + rng.gamma(1.5, 5, count), length + 1)], axis=1)
    scores = rng.uniform(-0.3, 1.0, count)
    if agreeing:
        scores = dense(system(spans, scores, length, "mean"), length) @ rng.uniform(0.02, 0.98, length)
    return spans, scores, length


# -- golden -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(8))
def test_golden_curves(golden, number):
    case = golden("gaufuse")["pseudo_label_lp"][number]
    rows = "mean" if case["normalise"] == "mean" else "sum"
    segments, length = np.array(case["segments"]), case["T"]
    spans, scores = segments[:, :2], segments[:, 2]
    whole = dense(system(spans, scores, length, rows, released_edges=True), length)
    expected = np.zeros_like(whole)
    for row, entries in zip(expected, case["A_rows_nonzero"], strict=True):
        row[[int(t) for t in entries]] = list(entries.values())
    np.testing.assert_allclose(whole, expected, atol=1e-12)

    found = {s: curve(spans, scores, length, rows=rows, solver=s, released_edges=True) for s in SOLVERS}
    if case["highs_status"] == 2:  # two scores for the same snippets: their mean, 0.35 over 8 snippets
        for x in found.values():
            np.testing.assert_allclose(x[4:12], 0.35 / 8, atol=1e-6)
            assert np.abs(np.delete(x, np.s_[4:12])).max() < 1e-6
        return
    np.testing.assert_allclose(found["centre"], case["analytic_centre_x(tol 1e-4)"], atol=1e-4)
    np.testing.assert_allclose(found["least-norm"], case["min_norm_qp_x(tol 1e-6)"], atol=1e-6)
    assert found["centre"].sum() == pytest.approx(case["optimal_objective"], abs=1e-4)
    assert max(np.abs(whole @ x - scores).max() for x in found.values()) < 1e-6


def test_golden_delta(golden):
    case = golden("gaufuse")["delta"]
    now, before = (torch.tensor(case[k], dtype=torch.float64) for k in ("cur", "prev"))
    np.testing.assert_allclose(delta_target(now, before, case["kappa"]), case["expected"], atol=1e-12)
    loss = case["loss"]
    own, walk = (torch.tensor([loss[k]], dtype=torch.float64, requires_grad=True) for k in ("o_logits", "m_logits"))
    labels, mask = torch.tensor([loss["labels"]], dtype=torch.float64), torch.ones(1, 4, dtype=torch.bool)
    terms = [target_loss(x, labels[..., :-1], mask, bounded=False) for x in (own, walk)]
    value = (loss["o_weight"] * terms[0] + loss["m_weight"] * terms[1]).sum()
    value.backward()
    assert value.item() == pytest.approx(loss["value"], abs=1e-9)
    np.testing.assert_allclose(own.grad[0], loss["grad_o"], atol=1e-9)
    np.testing.assert_allclose(walk.grad[0], loss["grad_m"], atol=1e-9)


# -- the optimisation -------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["sum", "mean"]))
def test_curves_that_agree_are_optimal(seed, rows):
    """Against scipy: the least sum of any curve, and the least sum of squares among curves that fit."""
    spans, scores, length = drawn(seed, agreeing=True)
    if rows == "sum":
        values = np.random.default_rng(seed).uniform(0.02, 0.98, length)
        scores = dense(system(spans, scores, length, "sum"), length) @ values
    whole = dense(system(spans, scores, length, rows), length)
    centre, least = (curve(spans, scores, length, rows=rows, solver=s) for s in SOLVERS)
    for x in (centre, least):
        assert np.abs(whole @ x - scores).max() < 1e-6
        assert (x >= 0).all() and (x <= 1).all()
    optimum = linprog(np.ones(length), A_eq=whole, b_eq=scores, bounds=(0, 1), method="highs")
    if optimum.status == 0:  # HiGHS itself finds some nearly dependent rows infeasible
        assert centre.sum() == pytest.approx(optimum.fun, abs=1e-3, rel=1e-3)
    heavy = np.concatenate([np.eye(length), 1e4 * whole / np.abs(whole).max(1, keepdims=True)])
    goal = np.concatenate([np.zeros(length), 1e4 * scores / np.abs(whole).max(1)])
    other = lsq_linear(heavy, goal, (0, 1), tol=1e-14, max_iter=500)
    assert (least**2).sum() <= (other.x**2).sum() * (1 + 1e-4) + 1e-6


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SOLVERS), st.sampled_from(["sum", "mean"]), st.booleans())
def test_contradictions_meet_in_the_sense_of_least_squares(seed, solver, rows, released):
    spans, scores, length = drawn(seed, agreeing=False)
    constraints = system(spans, scores, length, rows, released)
    x = solve(constraints, solver)
    assert np.isfinite(x).all() and (x >= 0).all() and (x <= 1).all()
    scale = constraints.rows.max(axis=1)
    whole = constraints.rows * np.diff(constraints.edges) / scale[:, None]
    best = lsq_linear(whole, scores / scale, (0, 1), tol=1e-12)
    assert ((whole @ x - scores / scale) ** 2).sum() <= 2 * best.cost + 1e-3 * (1 + 2 * best.cost)


def test_a_segment_alone_has_the_same_value_throughout():
    for solver in SOLVERS:
        plain = curve([[4, 12]], [0.4], 30, solver=solver)
        np.testing.assert_allclose(plain[4:12], 0.05, atol=1e-6)
        assert plain[:4].max() < 1e-6 and plain[12:].max() < 1e-6
        np.testing.assert_allclose(curve([[4, 12]], [0.4], 30, solver=solver, rows="mean")[4:12], 0.4, atol=1e-6)


def test_classes_are_apart_and_order_does_not_matter():
    spans, scores = np.array([[2.0, 9.0], [8.0, 14.0], [3.0, 5.0]]), np.array([0.5, 0.3, 0.7])
    labels = np.array([1, 1, 3])
    whole = snippet_targets(spans, scores, labels, 20, 4)
    again = snippet_targets(spans[::-1], scores[::-1], labels[::-1], 20, 4)
    np.testing.assert_allclose(whole, again, atol=1e-9)
    assert not whole[:, [0, 2]].any()
    np.testing.assert_allclose(whole[:, 3], curve([[3, 5]], [0.7], 20), atol=1e-12)
    assert snippet_targets(np.zeros((0, 2)), np.zeros(0), np.zeros(0, int), 7, 4).shape == (7, 4)


def test_edges_at_the_ends_of_a_video():
    """A segment is never empty; the released margins leave the last snippet out."""
    for spans in ([[-1.0, 0.2]], [[19.7, 25.0]], [[7.2, 7.3]], [[0.0, 20.0]]):
        constraints = system(np.array(spans), np.array([0.3]), 20)
        assert constraints.edges[0] >= 0 and constraints.edges[-1] <= 20
        assert (constraints.rows > 0).any(axis=1).all()
    late = np.array([[10.0, 18.0]])
    assert system(late, np.array([0.3]), 19).edges[-1] == 19
    assert system(late, np.array([0.3]), 19, released_edges=True).edges[-1] == 18
    nearest = system(np.array([[4.6, 9.6]]), np.array([0.3]), 20)
    assert nearest.edges.tolist() == [4, 5, 10, 11]
    assert system(np.array([[4.6, 9.6]]), np.array([0.3]), 20, released_edges=True).edges.tolist() == [3, 4, 9, 10]


def test_plain_targets_are_the_best_score_of_what_holds_a_snippet() -> None:
    spans = np.array([[2.0, 6.0], [4.0, 8.0], [4.0, 8.0], [10.0, 12.0]])
    found = snippet_targets(spans, np.array([0.3, 0.5, -0.2, 1.5]), np.array([0, 0, 0, 1]), 14, 3, solver="plain")
    want = np.zeros((14, 3))
    want[2:4, 0], want[4:8, 0], want[10:12, 1] = 0.3, 0.5, 1.0
    np.testing.assert_array_equal(found, want)


def test_the_longest_video_in_time():
    rng = np.random.default_rng(0)
    start = rng.uniform(0, 2180, 122)
    spans = np.stack([start, np.minimum(start + rng.gamma(2, 4, 122) + 1, 2200)], axis=1)
    taken = []
    for rows in ("sum", "mean"):
        for solver in SOLVERS:
            begin = time.process_time()
            curve(spans, rng.uniform(0.02, 0.5, 122), 2200, rows=rows, solver=solver)
            taken.append(time.process_time() - begin)
    assert max(taken) < 0.5, taken


# -- the loss ---------------------------------------------------------------------------------------------------


def test_targets_that_did_not_change_teach_nothing():
    targets = torch.rand(2, 9, 3)
    change = delta_target(targets, targets, 2.0)
    assert not change.any()
    logits = torch.randn(2, 9, 4, requires_grad=True)
    for bounded in (True, False):
        loss = target_loss(logits, change, torch.ones(2, 9, dtype=torch.bool), bounded)
        assert not loss.any() and not torch.autograd.grad(loss.sum(), logits)[0].any()
    small = delta_target(targets + 0.01 * torch.sign(torch.randn_like(targets)), targets, 2.0, dead_zone=0.02)
    assert not small.any()


def test_the_bounded_loss_pushes_most_where_the_model_is_wrong_and_has_a_bound():
    """Gradients of -m at p: m p (bounded), m (1 - p) (released); the same for positive targets."""
    for high in (-3.0, 0.0, 3.0, 40.0):
        logits = torch.tensor([[[high, 0.0, 0.0]]], dtype=torch.float64, requires_grad=True)
        mask, p = torch.ones(1, 1, dtype=torch.bool), logits.softmax(-1)[0, 0, 0].item()
        for size, bounded, expected in (
            (-0.3, True, 0.3 * p),
            (-0.3, False, 0.3 * (1 - p)),
            (0.3, True, -0.3 * (1 - p)),
            (0.3, False, -0.3 * (1 - p)),
        ):
            target = torch.tensor([[[size, 0.0]]], dtype=torch.float64)
            loss = target_loss(logits, target, mask, bounded)
            (gradient,) = torch.autograd.grad(loss.sum(), logits)
            assert gradient[0, 0, 0].item() == pytest.approx(expected, abs=1e-9), (high, size, bounded)
            assert loss.item() >= 0 or not bounded


def test_padding_does_not_count():
    logits, targets = torch.randn(1, 5, 3), torch.randn(1, 5, 2)
    alone = target_loss(logits, targets, torch.ones(1, 5, dtype=torch.bool))
    padded = [torch.cat([x, torch.randn(1, 4, x.shape[2])], dim=1) for x in (logits, targets)]
    mask = torch.arange(9)[None] < 5
    torch.testing.assert_close(target_loss(*padded, mask), alone)


def test_a_step_with_positive_targets_raises_the_labelled_class():
    logits = torch.zeros(1, 6, 3, requires_grad=True)
    targets = torch.zeros(1, 6, 2)
    targets[0, 2:4, 1] = 0.4
    target_loss(logits, targets, torch.ones(1, 6, dtype=torch.bool)).sum().backward()
    p = (logits - logits.grad).softmax(-1)[0, :, 1]
    assert (p[2:4] > 1 / 3).all() and torch.allclose(p[[0, 1, 4, 5]], torch.tensor(1 / 3))
