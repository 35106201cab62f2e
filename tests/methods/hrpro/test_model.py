"""HR-Pro's model: padded batches, the published rules written out plainly, memory and contrast."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tad.methods.hrpro.model import HrproModel, ReliabilityBlock, prototype_contrast
from tad.methods.hrpro.proposer import class_means

LENGTHS = [1, 13, 7, 30]
DIM, CLASSES = 8, 3


def model(**changes: object) -> HrproModel:
    torch.manual_seed(0)
    options = {
        "attention_layers": 2,
        "heads": 2,
        "feedforward": 12,
        "attention_dropout": 0.1,
        "block_dropout": 0.3,
        "double_projection": False,
        "scrambled": False,
        "dim": DIM,
        "classes": CLASSES,
        "width": DIM,
    }
    net = HrproModel(**(options | changes))  # type: ignore[arg-type]
    net.initialise(torch.rand(CLASSES, DIM))
    return net


def batch() -> tuple[Tensor, Tensor]:
    """features [B, T, D] with junk on padding, and mask [B, T]."""
    rng = torch.Generator().manual_seed(3)
    features = torch.full((len(LENGTHS), max(LENGTHS), DIM), 9.0)
    for i, length in enumerate(LENGTHS):
        features[i, :length] = torch.rand(length, DIM, generator=rng) * 3
    return features, torch.arange(max(LENGTHS))[None] < torch.tensor(LENGTHS)[:, None]


@pytest.mark.parametrize("changes", [{}, {"double_projection": True, "scrambled": True}, {"attention_layers": 0}])
def test_a_padded_batch_equals_one_video_at_a_time(changes) -> None:
    net = model(**changes).eval()
    features, mask = batch()
    together = net(features, mask)
    for i, length in enumerate(LENGTHS):
        alone = net(features[i : i + 1, :length], mask[i : i + 1, :length])
        for a, b in zip(alone, together, strict=True):
            torch.testing.assert_close(a[0], b[i, :length], atol=1e-5, rtol=0)
            assert not b[i, length:].any()


def test_the_double_block_is_the_published_one() -> None:
    """Two convolutions of kernel 1, then torch's own attention layer with its in-projections, all tokens at once."""
    torch.manual_seed(1)
    block = ReliabilityBlock(DIM, heads=2, feedforward=12, attention_dropout=0.1, dropout=0.3, double=True).eval()
    published = nn.MultiheadAttention(DIM, 2, batch_first=True).eval()
    layers = (block.query, block.key, block.value)
    with torch.no_grad():
        published.in_proj_weight.copy_(torch.cat([x.weight for x in layers]))
        published.in_proj_bias.copy_(torch.cat([x.bias for x in layers]))
        published.out_proj.load_state_dict(block.output.state_dict())
    tokens = torch.rand(11, DIM)
    query, key = (torch.conv1d(tokens.T[None], layer.weight[..., None], layer.bias)[0].T for layer in block.first)  # type: ignore[union-attr]
    attended = published(query[None], key[None], tokens[None])[0][0]
    middle = block.norms[0](tokens + attended)
    want = block.norms[1](middle + block.feedforward(middle))
    torch.testing.assert_close(block(tokens, [11]), want, atol=1e-6, rtol=1e-5)


def test_prototypes_are_tokens_as_they_are_or_scrambled_as_published() -> None:
    seen: list[Tensor] = []
    features, mask = torch.rand(1, 5, DIM), torch.ones(1, 5, dtype=torch.bool)
    for scrambled in (False, True):
        net = model(scrambled=scrambled).eval()
        net.blocks[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
        net(features, mask)
    torch.testing.assert_close(seen[0], torch.cat([features[0], net.memory]))
    flat = net.memory.flatten()
    for j in range(CLASSES):
        for d in range(DIM):
            assert seen[1][5 + j, d] == flat[d * CLASSES + j]


def test_the_memory_reaches_the_scores() -> None:
    net = model().eval()
    features, mask = batch()
    before = net(features, mask).classes
    net.memory += 1.0
    assert (net(features, mask).classes - before).abs().max() > 1e-4


def test_learning_is_the_sequence_of_single_updates_whatever_the_order() -> None:
    """Two videos of one class: within (1 - momentum)^2 of updating one after the other, and classes not seen stay."""
    momentum, first, second = 0.99, torch.rand(DIM), torch.rand(DIM)
    net = model()
    start = net.memory.clone()
    sums = torch.zeros(CLASSES, DIM)
    sums[1] = first + second
    net.learn(sums, torch.tensor([0.0, 2.0, 0.0]), momentum, warm=False)
    want = momentum * (momentum * start[1] + (1 - momentum) * first) + (1 - momentum) * second
    assert (net.memory[1] - want).abs().max() < 2 * (1 - momentum) ** 2
    torch.testing.assert_close(net.memory[[0, 2]], start[[0, 2]])
    assert net.seen.tolist() == [0, 2, 0]


def test_a_warm_memory_is_the_plain_mean_until_momentum_remembers_longer() -> None:
    net, values = model(), torch.rand(6, CLASSES, DIM)
    for value in values:
        net.learn(value, torch.ones(CLASSES), 0.99, warm=True)
    torch.testing.assert_close(net.memory, values.mean(0))
    net.learn(torch.zeros(CLASSES, DIM), torch.ones(CLASSES), 0.5, warm=True)
    torch.testing.assert_close(net.memory, 0.5 * values.mean(0))


def test_means_of_each_video_and_class_by_hand() -> None:
    embedding = torch.arange(12.0).view(2, 3, 2)
    action = torch.zeros(2, 3, CLASSES, dtype=torch.bool)
    action[0, 0, 1] = action[0, 2, 1] = action[1, 1, 1] = action[1, 1, 0] = True
    sums, videos = class_means(embedding, action)
    assert videos.tolist() == [1, 2, 0]
    torch.testing.assert_close(sums[1], (embedding[0, 0] + embedding[0, 2]) / 2 + embedding[1, 1])
    torch.testing.assert_close(sums[0], embedding[1, 1])
    assert not sums[2].any()


def published_contrast(embedding, action, background, memory, temperature) -> float:
    """One video, in plain loops."""

    def s(row: Tensor, prototype: Tensor) -> float:
        cosine = torch.dot(row, prototype) / (row.norm() * prototype.norm())
        return float(torch.exp(cosine / temperature))

    terms = []
    for c in range(action.shape[1]):
        seeds = [embedding[t] for t in np.flatnonzero(action[:, c])]
        none = [embedding[t] for t in np.flatnonzero(background)]
        if seeds and none:
            to = [np.mean([s(row, m) for row in seeds]) for m in memory]
            away = np.mean([s(row, memory[c]) for row in none])
            terms.append(-0.5 * np.log(to[c] / sum(to)) - 0.5 * np.log(to[c] / (to[c] + away)))
    return float(np.mean(terms)) if terms else 0.0


def test_contrast_equals_plain_loops_and_moves_embeddings_only() -> None:
    rng = torch.Generator().manual_seed(2)
    embedding = torch.rand(4, 9, DIM, generator=rng, requires_grad=True)
    memory = torch.rand(CLASSES, DIM, generator=rng, requires_grad=True)
    action = torch.rand(4, 9, CLASSES, generator=rng) < 0.3
    background = (torch.rand(4, 9, generator=rng) < 0.4) & ~action.any(-1)
    action[2] = False  # a video without action rows, and one without background
    background[3] = False
    loss = prototype_contrast(embedding, action, background, memory, 0.1)
    for i in range(4):
        want = published_contrast(embedding[i].detach(), action[i], background[i], memory.detach(), 0.1)
        assert loss[i].item() == pytest.approx(want, abs=1e-5)
    assert loss[2] == 0 and loss[3] == 0 and loss[0] > 0
    loss.sum().backward()
    assert memory.grad is None and torch.isfinite(embedding.grad).all() and embedding.grad[0].any()
    assert not embedding.grad[2:].any()
