"""BMN's sampling and network: sparse against dense, the released code's edges, gradients, sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tad.methods.bmn.model import Bmn
from tad.methods.bmn.sampling import BoundaryMatching, sampling_taps, valid_cells


def dense_mask(length: int, durations: int, samples: int, per_sample: int, published: bool) -> np.ndarray:
    """[T, N, D, T] as the layer is defined: position by position, cells that leave the window all zero.

    With `published`, the integer and the fractional part are those of truncation towards zero, with their sign.
    """
    mask = np.zeros((length, samples, durations, length))
    for d in range(durations):
        for j in range(length - d):
            places = np.linspace(j - (d + 1) / 2, j + d + (d + 1) / 2, samples * per_sample)
            for n, x in enumerate(places):
                if published:
                    part, low = math.modf(x)
                    high = math.ceil(x)
                else:
                    low, high = math.floor(x), math.floor(x) + 1
                    part = x - low
                for at, weight in ((int(low), 1 - part), (int(high), part)):
                    if 0 <= at < length:
                        mask[at, n // per_sample, d, j] += weight / per_sample
    return mask


@pytest.mark.parametrize("published", [False, True])
@pytest.mark.parametrize(("length", "durations", "samples", "per_sample"), [(7, 7, 4, 3), (12, 5, 8, 2), (1, 1, 2, 1)])
def test_taps_are_the_dense_mask(length, durations, samples, per_sample, published):
    cells = valid_cells(length, durations)
    taps = sampling_taps(cells, length, samples, per_sample, published)
    got = np.zeros((len(cells.start), length * samples))
    rows = np.repeat(np.arange(len(cells.start)), np.diff(taps.first, append=len(taps.column)))
    np.add.at(got, (rows, taps.column), taps.weight)
    mask = dense_mask(length, durations, samples, per_sample, published)
    want = mask[:, :, cells.duration, cells.start].transpose(2, 0, 1).reshape(len(got), -1)
    assert got == pytest.approx(want, abs=1e-6)
    beyond = np.ones((durations, length), dtype=bool)
    beyond[cells.duration, cells.start] = False
    assert not mask[:, :, beyond].any() and beyond.sum() == durations * (durations - 1) // 2
    assert len(np.unique(rows * length * samples + taps.column)) == len(rows)
    assert np.bincount(rows * samples + taps.column % samples).max() <= 2 * per_sample


def test_the_released_edges_differ_only_in_front_of_the_first_bin():
    cells = valid_cells(20, 20)
    even, uneven = (sampling_taps(cells, 20, published_edges=flag) for flag in (False, True))

    def totals(taps):
        rows = np.repeat(np.arange(len(cells.start)), np.diff(taps.first, append=len(taps.column)))
        return np.bincount(rows, taps.weight, len(cells.start))

    # Cell (0, 0) is read from -1/2 to 1/2: half of it in front of bin 0, where weights are 1 - |x|, or 1.
    assert totals(even)[0] == pytest.approx(16 + 16 * (1 - (0.5 + 0.5 / 95) / 2))
    assert totals(uneven)[0] == pytest.approx(32)
    far = cells.start - (cells.duration + 1) / 2 >= 0
    assert np.array_equal(totals(even)[far], totals(uneven)[far])
    # Fading alike on both sides, the mirrored cell reads as much.
    mirrored = {(d, 20 - 1 - d - j): i for i, (d, j) in enumerate(zip(*cells, strict=True))}
    order = [mirrored[d, j] for d, j in zip(*cells, strict=True)]
    assert totals(even)[order] == pytest.approx(totals(even), abs=1e-4)
    assert not np.allclose(totals(uneven)[order], totals(uneven), atol=1e-2)


@pytest.mark.parametrize("published", [False, True])
def test_sampling_and_reduction_equal_the_dense_layer_and_a_convolution(published):
    torch.manual_seed(0)
    length, durations, samples, width, out = 9, 6, 5, 4, 7
    layer = BoundaryMatching(length, durations, width, out, samples, 2, published).double()
    layer.bias.data.normal_()
    mask = torch.from_numpy(dense_mask(length, durations, samples, 2, published))
    reduce = torch.nn.Conv3d(width, out, (samples, 1, 1)).double()
    with torch.no_grad():
        reduce.weight.copy_(layer.weight[..., None, None])
        reduce.bias.copy_(layer.bias)
    x = torch.randn(3, length, width, dtype=torch.double, requires_grad=True)
    cells = valid_cells(length, durations)
    want = reduce(torch.einsum("btc,tndj->bcndj", x, mask))[:, :, 0, cells.duration, cells.start].transpose(1, 2)
    got = layer(x)
    assert torch.allclose(got, want, atol=1e-6)
    probe = torch.randn_like(got)
    gradients = torch.autograd.grad((got * probe).sum(), [x, layer.weight, layer.bias], retain_graph=True)
    expected = torch.autograd.grad((want * probe).sum(), [x, reduce.weight, reduce.bias])
    for mine, theirs in zip(gradients, expected, strict=True):
        assert torch.allclose(mine, theirs.reshape(mine.shape), atol=1e-5)


def test_the_network_equals_its_published_form():
    """Layer by layer with the dense mask, where cells that leave the window pass biases alone."""
    torch.manual_seed(0)
    net = Bmn(8, 10, 6, width=8, samples=4, published_edges=True)
    for p in net.parameters():
        p.data.normal_(0, 0.5)
    x = torch.randn(2, 10, 8)
    mask = torch.from_numpy(dense_mask(10, 6, 4, 3, True)).float()
    base = net.base(x.transpose(1, 2))
    sampled = torch.einsum("bct,tndj->bcndj", net.reduce(base), mask)
    reduced = torch.relu(
        torch.einsum("bcndj,ocn->bodj", sampled, net.matching.weight) + net.matching.bias[:, None, None]
    )
    want = net.maps(torch.relu(net.project(reduced.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))
    got = net(x, torch.ones(2, 10, dtype=torch.bool))
    assert got.maps.shape == (2, 2, 6, 10)
    assert torch.allclose(got.maps, want, atol=1e-4, rtol=1e-4)
    assert torch.allclose(got.start, net.start(base)[:, 0], atol=1e-5)
    assert torch.allclose(got.end, net.end(base)[:, 0], atol=1e-5)


@pytest.mark.parametrize(("dim", "millions"), [(400, 2.78), (2048, 3.10)])
def test_size_is_the_published_one(dim, millions):
    assert sum(p.numel() for p in Bmn(dim, 16, 16).parameters()) / 1e6 == pytest.approx(millions, abs=0.006)


def test_padding_is_not_read():
    torch.manual_seed(0)
    net = Bmn(5, 12, 12, width=8, samples=4).eval()
    mask = torch.arange(12)[None] < 9
    x = torch.randn(1, 12, 5)
    other = torch.where(mask[..., None], x, torch.randn(1, 12, 5))
    assert all(torch.equal(a, b) for a, b in zip(net(x, mask), net(other, mask), strict=True))
    assert not torch.equal(net(x, mask).maps, net(x, torch.ones_like(mask)).maps)


def test_only_weights_are_saved():
    state = Bmn(5, 12, 12, width=8).state_dict()
    assert not [name for name in state if "tap" in name or "back" in name or "place" in name]


def test_grids_that_cannot_be_are_refused():
    for length, durations in ((4, 5), (4, 0)):
        with pytest.raises(ValueError, match="durations must be 1 to the length"):
            valid_cells(length, durations)
