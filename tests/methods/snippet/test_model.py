"""The snippet model and its losses: exact under padding, batching and several workers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tad.methods.snippet.mining import mine
from tad.methods.snippet.model import SnippetModel, video_scores
from tad.methods.snippet.training import TrainingConfig, video_losses

LENGTHS = [1, 13, 7, 30]
DIM, CLASSES = 6, 3


def model(kernel: int = 3, layers: int = 1, dropout: float = 0.0) -> SnippetModel:
    torch.manual_seed(0)
    return SnippetModel(DIM, CLASSES, width=8, kernel=kernel, layers=layers, dropout=dropout)


def losses_of(out, points: Tensor, mask: Tensor, config: TrainingConfig) -> dict[str, Tensor]:
    mined = mine(out.background, points, mask, config.action_threshold, config.background_threshold)
    return video_losses(out, points, points.any(1), mask, mined, config, 8)


def batch(lengths: list[int] = LENGTHS, filler: float = 7.0) -> tuple[Tensor, Tensor, Tensor]:
    """features [B, T, D] with junk on padding, points [B, T, C] and mask [B, T]."""
    rng = torch.Generator().manual_seed(3)
    longest = max(lengths)
    features = torch.full((len(lengths), longest, DIM), filler)
    points = torch.zeros(len(lengths), longest, CLASSES, dtype=torch.bool)
    for i, length in enumerate(lengths):
        features[i, :length] = torch.rand(length, DIM, generator=rng) * 3
        points[i, :length] = torch.rand(length, CLASSES, generator=rng) < 0.15
        points[i, length // 2, i % CLASSES] = True
    mask = torch.arange(longest)[None] < torch.tensor(lengths)[:, None]
    return features, points, mask


@pytest.mark.parametrize(("kernel", "layers"), [(3, 1), (1, 1), (5, 3)])
def test_a_padded_batch_equals_one_video_at_a_time(kernel: int, layers: int) -> None:
    net = model(kernel, layers)
    features, points, mask = batch()
    together = net(features, mask)
    losses = losses_of(together, points, mask, TrainingConfig(action_rows="mined"))
    for i, length in enumerate(LENGTHS):
        one = slice(i, i + 1)
        alone = net(features[one, :length], mask[one, :length])
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[i, :length], atol=1e-5, rtol=0)
        lone = losses_of(alone, points[one, :length], mask[one, :length], TrainingConfig(action_rows="mined"))
        for name, value in lone.items():
            torch.testing.assert_close(value[0], losses[name][i], atol=1e-5, rtol=1e-5)


def test_equals_a_plain_convolution() -> None:
    net = model()
    features = batch([9])[0]
    conv = net.embedding.convs[0]
    embedding = torch.relu(conv(features.transpose(1, 2))).transpose(1, 2)
    scores = torch.sigmoid(embedding @ net.classifier.weight.T)
    out = net(features, torch.ones(1, 9, dtype=torch.bool))
    torch.testing.assert_close(out.embedding, embedding)
    torch.testing.assert_close(out.cas(), scores[..., :-1] * (1 - scores[..., -1:]))


def test_padding_gets_no_gradient_and_zero_scores() -> None:
    features, _, mask = batch()
    features.requires_grad_()
    out = model()(features, mask)
    (out.classes.sum() + out.background.sum()).backward()
    assert features.grad is not None
    assert features.grad[~mask].abs().max() == 0
    assert features.grad[mask].abs().min(0).values.max() > 0
    assert out.embedding[~mask].abs().max() == 0


def test_gradients_of_two_workers_add_up_to_the_full_batch() -> None:
    features, points, mask = batch()
    weights = TrainingConfig(video_weight=1.0)

    def gradient(net: SnippetModel, rows: slice) -> list[Tensor]:
        net.zero_grad()
        out = net(features[rows], mask[rows])
        terms = losses_of(out, points[rows], mask[rows], weights)
        (sum(t.sum() for t in terms.values()) / len(LENGTHS)).backward()
        return [p.grad.clone() for p in net.parameters()]

    net = model()
    full = gradient(net, slice(0, 4))
    # Unequal shares, and the second worker's longest video differs from the first's.
    parts = [gradient(net, slice(0, 1)), gradient(net, slice(1, 4))]
    for whole, a, b in zip(full, *parts, strict=True):
        torch.testing.assert_close(a + b, whole, atol=1e-6, rtol=1e-5)


def test_video_score_is_the_mean_of_the_best_rows_of_the_true_length() -> None:
    features, _, mask = batch()
    scores = model()(features, mask).classes.detach()
    got = video_scores(scores, mask, ratio=4).numpy()
    for i, length in enumerate(LENGTHS):
        k = max(1, length // 4)
        want = np.sort(scores[i, :length].numpy(), axis=0)[-k:].mean(0)
        np.testing.assert_allclose(got[i], want, rtol=1e-6)


def test_losses_by_hand() -> None:
    """Two rows: a point of class 0 and a background row; the losses follow from the four numbers."""
    net = model()
    mask = torch.ones(1, 2, dtype=torch.bool)
    out = net(batch([2])[0], mask)
    points = torch.zeros(1, 2, CLASSES, dtype=torch.bool)
    points[0, 0, 0] = True
    terms = {name: value.item() for name, value in losses_of(out, points, mask, TrainingConfig()).items()}

    def focal(p: float, y: int) -> float:
        return (1 - p) ** 2 * -np.log(p) if y else p**2 * -np.log(1 - p)

    fused, background = out.cas()[0].tolist(), out.background[0].tolist()
    point = sum(focal(p, int(c == 0)) for c, p in enumerate(fused[0])) + focal(background[0], 0)
    empty = sum(focal(p, 0) for p in fused[1]) + focal(background[1], 1)
    assert terms["point"] == pytest.approx(point, rel=1e-4)
    assert terms["background"] == pytest.approx(empty, rel=1e-4)
    s = out.classes[0].tolist()
    means = [(s[0][c] + s[1][c]) / 2 for c in range(CLASSES)]
    best = max(s[0][0], s[1][0])
    video = -(np.log(best) + np.log(1 - means[1]) + np.log(1 - means[2])) / CLASSES
    assert terms["video"] == pytest.approx(video, rel=1e-5)
