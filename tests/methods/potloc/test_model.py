"""The network of `potloc`: parameters, reach, padding, and what it says before it has learned."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.methods.potloc.model import Potloc
from tests.support.pyramid import sizes, together


def small(levels: int = 3, **more: object) -> Potloc:
    torch.manual_seed(0)
    network = Potloc(**{"dim": 5, "classes": 3, "width": 16, "heads": 2, "levels": levels, "window": 6} | more)
    with torch.no_grad():  # visible residual branches and biases, so that padding cannot hide
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def test_published_sizes() -> None:
    network = Potloc(2048, 20, width=512, levels=3)
    count = {name: sum(p.numel() for p in part.parameters()) for name, part in network.named_children()}
    assert count["embedding"] + count["stem"] + count["branch"] == 16_578_560
    assert count["necks"] == 3_072
    assert count["decoder"] + count["head"] == 1_607_189
    assert sum(count.values()) == 18_188_821


def test_without_blocks_convolutions_remain() -> None:
    network = Potloc(2048, 20, width=512, levels=1, stem=0)
    names = {name.split(".")[0] for name, _ in network.named_parameters()}
    assert names == {"embedding", "necks", "decoder", "head"}


@pytest.mark.parametrize(("window", "reach"), [(12, 7), (19, 10)])
def test_a_block_sees_its_window_and_the_convolution_before_it(window: int, reach: int) -> None:
    """6 or 9 rows to either side by attention and one more by the depthwise convolution, as released."""
    block = small(window=window, levels=1).stem[0]
    rows = torch.randn(60, 16, requires_grad=True)
    out, _ = block(rows, torch.zeros(60, dtype=torch.long))
    (gradient,) = torch.autograd.grad(out[30].sum(), rows)
    seen = gradient.abs().sum(1).nonzero()[:, 0]
    assert (int(seen.min()), int(seen.max())) == (30 - reach, 30 + reach)


def test_all_probabilities_start_near_one_percent() -> None:
    torch.manual_seed(0)
    network = Potloc(5, 3, width=64, heads=2, levels=3, window=7).eval()
    scores = network(*together([torch.randn(40, 5)], levels=3))
    for part in (scores.classes, scores.background):
        assert float(part[scores.mask].detach().mean()) == pytest.approx(0.01, abs=0.01)
        assert part[scores.mask].max() < 0.2
        assert (part[~scores.mask] == 0).all()


def test_fused_scores_are_those_of_classes_times_actionness() -> None:
    scores = small()(*together([torch.randn(12, 5), torch.randn(3, 5)], levels=3))
    assert scores.classes.shape == (len(scores.mask), 3)
    assert torch.equal(scores.cas(), scores.classes * (1 - scores.background)[:, None])
    assert scores.background[scores.mask].min() > 0 and scores.background.max() < 1


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 45), min_size=1, max_size=4), st.integers(1, 4), st.integers(0, 2))
def test_a_batch_gives_what_each_video_gives_alone(lengths: list[int], levels: int, stem: int) -> None:
    generator = torch.Generator().manual_seed(sum(lengths))
    videos = [torch.randn(n, 5, generator=generator) for n in lengths]
    network = small(levels, stem=stem)
    with torch.no_grad():
        features, video = together(videos, levels)
        batch = network(features, video)
        parts = [part.split(sizes(batch.mask, levels)) for part in batch]
        for index, rows in enumerate(videos):
            alone = network(*together([rows], levels))
            first = int((video == index).nonzero()[0, 0])
            singles = [part.split(sizes(alone.mask, levels)) for part in alone]
            for level in range(levels):
                keep = singles[2][level]
                real = slice(first >> level, (first >> level) + int(keep.sum()))
                assert parts[2][level][real].all()
                for whole, single in zip(parts[:2], singles[:2], strict=True):
                    assert torch.allclose(whole[level][real], single[level][keep], atol=1e-5)


def test_padding_reaches_no_gradient() -> None:
    features, video = together([torch.randn(7, 5), torch.randn(3, 5)], levels=3)
    features.requires_grad_()
    scores = small()(features, video)
    (scores.cas().sum() + scores.background.sum()).backward()
    assert features.grad is not None and torch.isfinite(features.grad).all()
    assert (features.grad[video < 0] == 0).all()
    assert (features.grad[video >= 0] != 0).any(1).all()
