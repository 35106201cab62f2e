"""Windowed attention: exact at all borders, and without an array of all pairs."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from tad.methods.common.attention import banded_attention


def dense(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, video: torch.Tensor, radius: int
) -> torch.Tensor:
    """The definition, with a mask over all pairs."""
    place = torch.arange(len(query))
    allowed = ((place[:, None] - place).abs() <= radius) & (video[:, None] == video)
    scores = torch.einsum("qhe,khe->hqk", query, key) / query.shape[-1] ** 0.5
    weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
    return torch.einsum("hqk,khe->qhe", weights, value)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 70), st.integers(0, 25), st.integers(1, 3), st.integers(0, 99))
def test_banded_attention_is_dense_masked_attention(rows: int, radius: int, videos: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, rows, 2, 4, generator=generator, dtype=torch.float64)
    video = torch.randint(-1, videos, (rows,), generator=generator).sort().values
    expected = dense(query, key, value, video, radius)
    assert torch.allclose(banded_attention(query, key, value, video, radius), expected, atol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 33, 64])
@pytest.mark.parametrize("radius", [64, 200])
def test_a_window_longer_than_the_sequence_is_whole_attention(rows: int, radius: int) -> None:
    torch.manual_seed(rows)
    query, key, value = torch.randn(3, rows, 2, 4, dtype=torch.float64)
    video = torch.zeros(rows, dtype=torch.long)
    whole = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(0, 1) for x in (query, key, value)))
    assert torch.allclose(banded_attention(query, key, value, video, radius), whole.transpose(0, 1), atol=1e-12)


@pytest.mark.parametrize("radius", [6, 9, 40])
def test_gradients_are_those_of_dense_attention_and_padding_reaches_none(radius: int) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(70, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    video = torch.tensor([0] * 31 + [-1] * 9 + [1] * 5 + [-1] * 3 + [2] * 17 + [-1] * 5)
    weight = torch.randn(70, 2, 4, dtype=torch.float64) * (video >= 0)[:, None, None]
    grads = [
        torch.autograd.grad((attend(*inputs, video, radius) * weight).sum(), inputs)
        for attend in (banded_attention, dense)
    ]
    for banded, expected in zip(*grads, strict=True):
        assert torch.allclose(banded, expected, atol=1e-12)
        assert (banded[video < 0] == 0).all()


class Largest(TorchDispatchMode):
    """Remembers how many elements the largest result of any operation has."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("radius", [6, 9])
def test_memory_grows_with_the_rows_not_with_their_square(radius: int) -> None:
    most = []
    for rows in (1024, 4096):
        inputs = torch.randn(3, rows, 2, 8)
        with Largest() as largest:
            banded_attention(*inputs, torch.zeros(rows, dtype=torch.long), radius)
        most.append(largest.elements)
    assert most[1] == 4 * most[0]
    assert most[1] < 4096 * 4096 / 32
