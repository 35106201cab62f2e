"""The RSKP model: its random walk, its prototypes, its memory, and that padding changes nothing."""

from __future__ import annotations

import torch

from tad.methods.gaufuse.model import Rows, RskpModel, assign, over_time, random_walk, summarise


def model(**changes: object) -> RskpModel:
    torch.manual_seed(0)
    return RskpModel(**{"dim": 6, "classes": 3, "width": 8, "prototypes": 4, "slots": 2} | changes)


def everything(length: int) -> torch.Tensor:
    return torch.ones(1, length, dtype=torch.bool)


def test_prototypes_and_walk_match_the_golden_vectors(golden) -> None:
    toy = golden("gaufuse")["base_toy"]
    x, start, mu, walked = (
        torch.tensor(toy[k], dtype=torch.float64) for k in ("x", "mu_init", "mu_after", "reallocated_x")
    )
    found = summarise(Rows.of(x, everything(5)), start, toy["em_iter"], toy["temperature"])
    torch.testing.assert_close(found[0], mu, atol=1e-6, rtol=0)
    again = random_walk(Rows.of(x, everything(5)), found, toy["w"], toy["temperature"])
    torch.testing.assert_close(again.x, walked, atol=1e-6, rtol=0)


def test_the_small_system_is_the_dense_one() -> None:
    generator = torch.Generator().manual_seed(1)
    x, mu = (torch.rand(2, n, 7, generator=generator, dtype=torch.float64) for n in (40, 5))
    mask = torch.arange(40)[None] < torch.tensor([[40], [23]])
    rows = Rows.of(x[mask], mask)
    z = assign(rows, mu, 5.0)
    a = z.transpose(1, 2) @ over_time(z)
    torch.testing.assert_close(a.sum(2), mask.double())  # row-stochastic
    dense = 0.6 * torch.linalg.solve(torch.eye(40) - 0.4**2 * a, 0.4 * z.transpose(1, 2) @ mu + x * mask[..., None])
    torch.testing.assert_close(random_walk(rows, mu, 0.4, 5.0).x, dense[mask], atol=1e-10, rtol=0)


def test_a_constant_video_is_a_fixed_point() -> None:
    row = torch.rand(7, dtype=torch.float64)
    x, mu = row.expand(30, 7), row.expand(1, 4, 7)
    torch.testing.assert_close(random_walk(Rows.of(x, everything(30)), mu, 0.5, 5.0).x, x, atol=1e-12, rtol=0)


def test_prototypes_out_of_use_do_not_walk() -> None:
    rows, mu = Rows.of(torch.rand(20, 7), everything(20)), torch.rand(1, 5, 7)
    use = torch.tensor([[True, True, False, True, False]])
    some = random_walk(rows, mu, 0.5, 5.0, use)
    torch.testing.assert_close(some.x, random_walk(rows, mu[use][None], 0.5, 5.0).x)
    nothing = random_walk(rows, mu, 0.5, 5.0, torch.zeros_like(use))
    torch.testing.assert_close(nothing.x, 0.5 * rows.x)


def test_padding_and_companions_change_nothing() -> None:
    one = model().eval()
    with torch.no_grad():
        one.embedding.bias += 0.1  # so that padding would not embed to zero by itself
    one.remember(torch.rand(6, 8), torch.rand(6, 3))
    short, long = torch.randn(7, 6), torch.randn(19, 6)
    classes = torch.tensor([[True, False, True], [False, True, False]])
    features = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True)
    both = one(features, torch.arange(19)[None] < torch.tensor([[7], [19]]), classes)
    alone = one(short[None], everything(7), classes[:1])
    for branch in ("own", "walk", "memory"):
        for padded, exact in zip(getattr(both, branch), getattr(alone, branch), strict=True):
            padded = padded[:1, :7] if exact.shape[1] == 7 else padded[:1]
            torch.testing.assert_close(padded, exact, atol=1e-5, rtol=1e-5)
    assert not both.own.logits[0, 7:].any() and not both.walk.attention[0, 7:].any()
    torch.testing.assert_close(both.prototypes[:1], alone.prototypes, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both.snippets(0.8)[:1, :7], alone.snippets(0.8), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone.video(0.6).sum(1), torch.ones(1))


def test_the_head_pools_each_class_with_its_own_scores() -> None:
    """Spec 2.4 written out with loops."""
    one, x = model(), torch.rand(1, 9, 8)
    head = one.head(Rows.of(x[0], everything(9)))
    cos = torch.nn.functional.cosine_similarity
    for c in range(4):
        logit = torch.stack([20 * cos(row, one.centres[c], dim=0) for row in x[0]])
        torch.testing.assert_close(head.logits[0, :, c], logit)
        weight = torch.sigmoid(logit)
        pooled = (weight[:, None] * x[0]).sum(0) / (weight.sum() + 1e-5)
        torch.testing.assert_close(head.whole[0, c], 20 * cos(pooled, one.centres[c], dim=0))
        weight = torch.stack([torch.sigmoid(20 * cos(row, one.foreground, dim=0)) for row in x[0]])
        pooled = (weight[:, None] * x[0]).sum(0) / (weight.sum() + 1e-5)
        torch.testing.assert_close(head.foreground[0, c], 20 * cos(pooled, one.centres[c], dim=0))


def test_the_foreground_starts_opposite_to_the_background_and_then_goes_its_own_way() -> None:
    one = model()
    assert torch.equal(one.foreground, -one.centres[-1])
    assert {name for name, _ in one.named_parameters()} == {
        "embedding.weight",
        "embedding.bias",
        "prototypes",
        "centres",
        "foreground",
    }


def test_the_published_size() -> None:
    one = RskpModel(dim=2048, classes=20, width=2048)
    assert sum(p.numel() for p in one.parameters()) == 4_257_792


def test_the_memory_keeps_the_best_of_each_class_by_itself() -> None:
    one = model()
    rows = torch.eye(8)[:4]
    scores = torch.tensor([[0.2, -1.0, -1.0], [0.9, 0.5, -1.0], [0.4, -1.0, -1.0], [0.4, 0.1, -1.0]])
    one.remember(rows, scores)
    assert torch.equal(one.memory[0], rows[[1, 2]])  # of equal scores the first
    assert torch.equal(one.memory[1], rows[[1, 3]])
    assert not one.memory[2].any() and (one.memory_scores[2] == -1).all()
    one.remember(2 * rows[:1], torch.tensor([[0.4, 0.3, 0.7]]))
    assert torch.equal(one.memory[0], rows[[1, 2]])  # what is there stays
    assert torch.equal(one.memory[1], torch.stack([rows[1], 2 * rows[0]]))
    assert torch.equal(one.memory_scores[2], torch.tensor([0.7, -1.0]))

    classes = torch.tensor([[False, True, True], [False, False, True], [True, True, False]])
    slots, use = one.recall(classes)
    assert use.tolist() == [[True] * 2 + [False] * 2, [False] * 4, [True] * 4]  # class 2 is not filled
    assert torch.equal(slots[0, :2], one.memory[1]) and torch.equal(slots[2], one.memory[:2].flatten(0, 1))
    scores = one(torch.randn(3, 5, 6), torch.ones(3, 5, dtype=torch.bool), classes)
    assert scores.remembered.tolist() == [True, False, True]
    one.forget()
    assert not one.memory.any() and (one.memory_scores == -1).all()


def test_gradients_reach_every_weight_and_stay_finite_on_dead_rows() -> None:
    one = model()
    features = torch.randn(2, 9, 6)
    features[0, :3] = 0  # the bias is zero, so these rows embed to zero
    scores = one(features, torch.ones(2, 9, dtype=torch.bool))
    sum(part.sum() for head in (scores.own, scores.walk) for part in head).backward()
    for name, parameter in one.named_parameters():
        assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
