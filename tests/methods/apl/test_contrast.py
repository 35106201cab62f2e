"""Contrast of frames: the loss itself, which frames take part, and one result for any number of workers."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tad.methods.apl.contrast import (
    Gather,
    anchors,
    cluster,
    coarse_contrast,
    fine_contrast,
    frame_labels,
    pyramid_rows,
    sample_frames,
)
from tad.methods.common.pyramid import Backbone
from tad.stages import one_worker

TAU = 0.1


def by_hand(z, labels):
    """The mean over anchors of the mean over positives, from the equation, in float64."""
    z = F.normalize(z.double(), dim=1)
    terms = []
    for i in range(len(z)):
        positives = [j for j in range(len(z)) if j != i and labels[j] == labels[i] >= 0]
        negatives = [j for j in range(len(z)) if labels[j] != labels[i] and min(labels[i], labels[j]) >= 0]
        if positives and negatives:
            k = torch.exp(z @ z[i] / TAU)
            repelled = sum(k[n] for n in negatives)
            terms.append(sum(-torch.log(k[p] / (k[p] + repelled)) for p in positives) / len(positives))
    return float(sum(terms) / len(terms))


def alone(z, labels):
    """The fine contrast [B, K, W] of a single worker."""
    gather = Gather(torch.arange(len(z)), len(z), one_worker)
    return fine_contrast(z, labels, gather, TAU)


# -- the loss -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_the_loss_is_the_equation(seed):
    torch.manual_seed(seed)
    z, labels = torch.randn(2, 9, 4), torch.randint(-1, 3, (2, 9))
    assert float(alone(z, labels)) == pytest.approx(by_hand(z.flatten(0, 1), labels.flatten()), rel=1e-5)
    coarse = [by_hand(z[v], labels[v]) for v in range(2)]
    assert float(coarse_contrast(z, labels, one_worker, TAU)) == pytest.approx(np.mean(coarse), rel=1e-5)


def test_names_of_clusters_and_lengths_of_vectors_do_not_matter():
    z, labels = torch.randn(2, 8, 4), torch.randint(0, 3, (2, 8))
    renamed = torch.tensor([2, 0, 1])[labels]
    torch.testing.assert_close(alone(z, labels), alone(z * torch.rand(2, 8, 1).add(0.1), renamed))


@pytest.mark.parametrize("labels", [[0, 0, 0, 0], [-1, -1, -1, -1], [0, 1, 2, 3], [1, 1, -1, -1]])
def test_without_anchors_it_is_zero_and_differentiable(labels):
    """One cluster has no negatives, clusters of one no positives."""
    z = torch.randn(1, 4, 3, requires_grad=True)
    for loss in (alone(z, torch.tensor([labels])), coarse_contrast(z, torch.tensor([labels]), one_worker, TAU)):
        (gradient,) = torch.autograd.grad(loss, z)
        assert loss == 0 and not gradient.any()


def test_a_video_without_anchors_does_not_count_in_the_mean():
    z = torch.randn(2, 6, 4)
    labels = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    torch.testing.assert_close(
        coarse_contrast(z, labels, one_worker, TAU), coarse_contrast(z[:1], labels[:1], one_worker, TAU)
    )


def test_frames_that_take_no_part_change_nothing_and_are_not_changed():
    z = torch.randn(1, 8, 4, requires_grad=True)
    labels = torch.tensor([[0, 0, 1, 1, 2, 2, -1, -1]])
    loss = alone(z, labels)
    torch.testing.assert_close(loss, alone(z[:, :6], labels[:, :6]))
    (gradient,) = torch.autograd.grad(loss, z)
    assert not gradient[:, 6:].any() and gradient[:, :6].any(-1).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_is_finite_where_vectors_are_extreme(dtype):
    z = torch.tensor([[1e4, 0], [1e4, 0], [-1e4, 0], [0, 0], [0, 0]], dtype=dtype).requires_grad_()
    loss = anchors(z, torch.tensor([0, 0, 1, 1, 1]), None, 0.01).loss.sum()
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(z.grad).all()


def test_descent_separates_the_clusters():
    torch.manual_seed(0)
    z, labels = torch.randn(1, 30, 8, requires_grad=True), torch.arange(30)[None] % 3
    optimiser = torch.optim.Adam([z], lr=0.1)
    for _ in range(100):
        optimiser.zero_grad()
        alone(z, labels).backward()
        optimiser.step()
    cosine = F.normalize(z[0], dim=1) @ F.normalize(z[0], dim=1).T
    same = labels[0][:, None] == labels[0]
    assert cosine[same].min() > 0.5 and cosine[~same].max() < 0.0


# -- several workers ------------------------------------------------------------------------------------------------


def together(parts, work):
    """work(part, total) of several workers at once, each in a thread; `total` sums over all of them."""
    meet, added = threading.Barrier(len(parts)), [None] * len(parts)

    def run(rank):
        def total(value):
            added[rank] = value
            meet.wait()
            whole = sum(added)
            meet.wait()
            return whole

        return work(parts[rank], total)

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(run, range(len(parts))))


@pytest.mark.parametrize("parts", [[[0, 2], [1, 3]], [[3], [0, 1, 2]], [[2], [0], [1], [3]]])
def test_workers_together_have_the_loss_and_the_gradient_of_one(parts):
    torch.manual_seed(0)
    z, labels, items = torch.randn(4, 6, 5), torch.randint(-1, 3, (4, 6)), torch.tensor([7, 2, 9, 4])

    def work(part, total):
        own = z[part].requires_grad_()
        gather = Gather(items[part], 10, total)
        assert gather.size == 4
        fine = fine_contrast(own, gather(labels[part]), gather, TAU)
        loss = fine + coarse_contrast(own, labels[part].clip(max=1), total, TAU)
        return loss.detach(), torch.autograd.grad(loss, own)[0]

    loss, gradient = work([0, 1, 2, 3], one_worker)
    shares = together(parts, work)
    torch.testing.assert_close(sum(share for share, _ in shares), loss)
    for part, (_, own) in zip(parts, shares, strict=True):
        torch.testing.assert_close(own, gradient[part])


# -- frames and their labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2, 79, 80, 81, 159, 160, 1000])
def test_one_frame_of_each_equal_part(length):
    for seed in range(20):
        frames = sample_frames(length, 80, np.random.default_rng(seed))
        assert len(frames) == min(length, 80) and frames[0] >= 0 and frames[-1] < length
        assert (np.diff(frames) > 0).all()
        if length >= 80:
            assert np.array_equal(frames * 80 // length, np.arange(80)) or length % 80
            assert (np.abs(frames - (np.arange(80) + 0.5) * length / 80) <= length / 160 + 1).all()


def test_gathered_rows_are_those_of_dense_upsampling():
    torch.manual_seed(0)
    levels, length, real = 4, 24, 19
    module = Backbone(6, 8, 2, levels, 3, 0.0).eval()
    video = torch.where(torch.arange(length) < real, 0, -1)
    rows = module.encode(torch.randn(length, 6), video).rows
    sizes = [length >> level for level in range(levels)]
    parts = [part[:-1] for part in rows.split([size + 1 for size in sizes])]
    dense = torch.cat([F.interpolate(part.T[None], size=length, mode="nearest")[0].T for part in parts], 1)
    frames = torch.arange(real)[torch.randperm(real)].view(1, real)
    found = pyramid_rows(rows, length, levels, frames)
    assert torch.equal(found, dense[frames]) and found.view(real, levels, 8).any(-1).all()


def test_the_shortest_action_names_a_frame():
    spans = np.array([[2.0, 10.0], [4.0, 6.0], [9.0, 12.5]])
    labels = frame_labels(spans, np.array([0, 2, 1]), np.arange(14))
    assert labels.tolist() == [0, 0, 1, 1, 3, 3, 3, 1, 1, 2, 2, 2, 2, 0]
    assert not frame_labels(np.zeros((0, 2)), np.zeros(0, np.int64), np.arange(3)).any()


# -- clusters -------------------------------------------------------------------------------------------------------


def test_clusters_are_found_and_depend_on_the_seed_alone():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 60)
    features = (np.eye(3)[truth] * 5 + rng.normal(0, 0.2, (60, 3))).astype(np.float32)
    found = cluster(features, 3, np.random.default_rng(1))
    assert len(set(zip(truth, found, strict=True))) == 3
    assert np.array_equal(found, cluster(features, 3, np.random.default_rng(1)))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("different", [1, 2, 3])
def test_identical_rows_and_few_rows_leave_fewer_clusters(different):
    rows = np.eye(4, dtype=np.float32)[np.arange(12) % different]
    assert len(set(cluster(rows, 5, np.random.default_rng(0)))) == different
    assert cluster(rows[:1], 2, np.random.default_rng(0)).tolist() == [0]
    assert not len(cluster(rows[:0], 2, np.random.default_rng(0)))


@pytest.mark.filterwarnings("error")
def test_an_empty_cluster_does_no_harm():
    """Means of means can lose all their rows on the way; over many draws that happens."""
    for seed in range(200):
        rng = np.random.default_rng(seed)
        labels = cluster(rng.integers(0, 3, (9, 2)).astype(np.float32), 6, rng)
        assert labels.shape == (9,) and labels.min() >= 0 and labels.max() < 6
