"""The ActionFormer network: parameters, shapes, padding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.actionformer.model import ActionFormer
from tad.methods.common.pyramid import pool, real_points, slot
from tests.support.pyramid import sizes, together


def small(levels: int = 3, dim: int = 5, **more: object) -> ActionFormer:
    torch.manual_seed(0)
    network = ActionFormer(dim, 4, width=16, heads=2, levels=levels, window=5, **more)
    with torch.no_grad():  # visible residual branches and biases, so that padding cannot hide
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def test_published_size() -> None:
    network = ActionFormer(2048, 20)
    assert sum(p.numel() for p in network.parameters()) == 29_251_612


def test_shapes_and_mask() -> None:
    features, video = together([torch.randn(9, 5), torch.randn(16, 5)], levels=3)
    assert len(features) == 16 + 20
    outputs = small()(features, video)
    P = 36 + 18 + 9
    assert outputs.logits.shape == (P, 4)
    assert outputs.offsets.shape == (P, 2)
    assert (outputs.offsets >= 0).all()
    assert outputs.mask.tolist() == (video >= 0).tolist() + (video[::2] >= 0).tolist() + (video[::4] >= 0).tolist()
    with pytest.raises(ValueError, match="35 rows are no multiple of 4"):
        small()(features[:35], video[:35])


def test_background_prior() -> None:
    network = ActionFormer(5, 4, width=16, heads=2, levels=2, window=5)
    assert torch.sigmoid(network.class_head.bias).tolist() == pytest.approx([0.01] * 4)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 45), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 99))
def test_a_batch_gives_what_each_video_gives_alone(lengths: list[int], levels: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    videos = [torch.randn(n, 5, generator=generator) for n in lengths]
    network = small(levels)
    with torch.no_grad():
        batch = network(*together(videos, levels))
        batch_level = [t.split(sizes(batch.mask, levels)) for t in (batch.logits, batch.offsets)]
        first = 0
        for rows in videos:
            size = slot(len(rows), levels)
            # Alone and without any padding that the pyramid does not need.
            least = size - 2 ** (levels - 1)
            features, video = (x[:least] for x in together([rows], levels))
            alone = network(features, video)
            mask = alone.mask.split(sizes(alone.mask, levels))
            for whole, single in zip(batch_level, (alone.logits, alone.offsets), strict=True):
                for level, part in enumerate(single.split(sizes(alone.mask, levels))):
                    at = first >> level
                    expected = part[mask[level]]
                    assert torch.allclose(whole[level][at : at + len(expected)], expected, atol=1e-5)
            first += size


def test_padding_reaches_no_gradient() -> None:
    features, video = together([torch.randn(7, 5), torch.randn(3, 5)], levels=3)
    features.requires_grad_()
    outputs = small()(features, video)
    (outputs.logits[outputs.mask].sum() + outputs.offsets[outputs.mask].sum()).backward()
    assert features.grad is not None
    assert (features.grad[video < 0] == 0).all()
    assert torch.isfinite(features.grad).all()
    assert (features.grad[video >= 0] != 0).any(1).all()


def test_pool_leaves_padding_out() -> None:
    x = torch.tensor([[-3.0], [-1.0], [-2.0], [9.0], [-5.0], [-4.0], [9.0], [9.0]])
    video = torch.tensor([0, 0, 0, -1, 1, 1, -1, -1])
    pooled, half = pool(x, video)
    assert pooled[:, 0].tolist() == [-1.0, -1.0, -4.0, 0.0]
    assert half.tolist() == [0, 0, 1, -1]


def test_dropout_is_one_draw_for_each_video() -> None:
    network = small(drop_path=0.0, input_dropout=0.5).train()
    seen: list[torch.Tensor] = []
    network.embedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    rows = together([torch.ones(6, 5), torch.ones(8, 5)], levels=3)
    network(*rows, torch.tensor([6, 8]))
    dropped = seen[0] == 0
    first, second = dropped[:6], dropped[12:20]
    assert (first == first[0]).all() and (second == second[0]).all()
    assert 0 < dropped[[0, 12]].sum() < 10
    with pytest.raises(ValueError, match="how many videos"):
        network(*rows)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 45), min_size=1, max_size=4), st.integers(1, 5))
def test_points_of_rows_are_told_without_the_network(lengths: list[int], levels: int) -> None:
    features, video = together([torch.randn(n, 5) for n in lengths], levels)
    network = small(levels)
    with torch.no_grad():
        found = network.encode(features, video)
    assert torch.equal(found.mask, real_points(video, levels))
    counts = [len(features) >> level for level in range(levels)]
    assert found.level.tolist() == [level for level, count in enumerate(counts) for _ in range(count)]
    assert len(found.point.unique()) == sum(counts)


def test_dropped_branches_leave_the_skip_connection() -> None:
    network = small(drop_path=0.5).train()
    block = network.stem[0]
    rows = torch.randn(4, 16).repeat(40, 1)
    video = torch.arange(40).repeat_interleave(4)
    out, _ = block(rows, video)
    same = (out == rows).view(40, -1).all(1)
    assert 0 < same.sum() < 40
