"""The boundary-matching layer of BMN as a sparse operator: every proposal of a grid sampled and reduced at once.

Source: BMN (ICCV 2019) section 3.2 and its public re-implementations. Cell (d, j) of the grid is the proposal that
covers the bins j to j + d. It is sampled at N places spread over it and half its length on either side; each is the
mean of a few interpolated positions, so it reads at most twice as many of the T bins. The published layer multiplies
with a dense T x N x D x T mask and reduces the N samples by a convolution. Both maps are linear, so here the
convolution comes first: what it makes of each bin for each of its N taps is a table of T N rows, and a cell is a
weighted sum of a few of them. The numbers are the same, without the mask and without N samples of every cell.
Legend: B windows, T bins, D durations, N samples, K valid cells.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Cells(NamedTuple):
    """The cells of a grid that end inside it, duration by duration."""

    duration: np.ndarray
    """[K] index d; the proposal covers d + 1 bins."""
    start: np.ndarray
    """[K] first bin j."""

    @property
    def spans(self) -> np.ndarray:
        """[K, 2] float64 edges: the proposals [j, j + d + 1]."""
        return np.stack([self.start, self.start + self.duration + 1], 1).astype(np.float64)


class Taps(NamedTuple):
    """A sparse matrix, row by row: its entries that are not zero."""

    column: np.ndarray
    """[Z] int64."""
    first: np.ndarray
    """[rows] int64 entry at which each row begins."""
    weight: np.ndarray
    """[Z] float32."""


def valid_cells(length: int, durations: int) -> Cells:
    """The cells with j + d < `length`.

    Args:
        length: bins T.
        durations: D, the longest proposal in bins.

    Raises:
        ValueError: there is no bin, or a proposal would be longer than the grid.
    """
    if not 1 <= durations <= length:
        raise ValueError(f"durations must be 1 to the length, got {durations} durations and {length} bins")
    duration, start = np.nonzero(np.arange(length) + np.arange(durations)[:, None] < length)
    return Cells(duration.astype(np.int64), start.astype(np.int64))


def sampling_taps(
    cells: Cells, length: int, samples: int = 32, per_sample: int = 3, published_edges: bool = False
) -> Taps:
    """What every cell reads: rows are cells, column t * samples + n is sample n at bin t.

    Args:
        cells: from `valid_cells`.
        length: bins T.
        samples: N places of each cell, at least 2 positions in all.
        per_sample: positions that are averaged into one sample.
        published_edges: True: the released code at the left edge, where a position in (-1, 0) reads bin 0 with weight
            1, though one beyond the last bin by x reads it with 1 - x. False: both sides fade to 0 over one bin.
    """
    count = samples * per_sample
    size = cells.duration + 1.0
    # Both ends are read; the first and the last covered bin are at j and j + d.
    share = np.arange(count) / (count - 1)
    place = (cells.start - size / 2)[:, None] + (cells.duration + size)[:, None] * share
    low = np.floor(place)
    part = place - low
    cell = np.repeat(np.arange(len(size)), count)
    sample = np.tile(np.arange(count) // per_sample, len(size))
    rows, columns, weights = [], [], []
    for bins, weight in ((low, 1 - part), (low + 1, part)):
        if published_edges:
            weight = np.where((bins == 0) & (place > -1) & (place < 0), 1.0, weight)
        inside = ((bins >= 0) & (bins < length) & (weight > 0)).reshape(-1)
        rows.append(cell[inside])
        columns.append(bins.reshape(-1)[inside].astype(np.int64) * samples + sample[inside])
        weights.append(weight.reshape(-1)[inside] / per_sample)
    return _merged(np.concatenate(rows), np.concatenate(columns), np.concatenate(weights), len(size), length * samples)


class BoundaryMatching(nn.Module):
    """Samples all cells of a grid and reduces the samples of each: BMN's layer with the convolution after it.

    Args:
        length: bins T.
        durations: D.
        width: channels of the input.
        out: channels of the result.
        samples, per_sample, published_edges: see `sampling_taps`.
    """

    def __init__(
        self,
        length: int,
        durations: int,
        width: int,
        out: int,
        samples: int = 32,
        per_sample: int = 3,
        published_edges: bool = False,
    ) -> None:
        super().__init__()
        cells = valid_cells(length, durations)
        taps = sampling_taps(cells, length, samples, per_sample, published_edges)
        self.samples = samples
        self.weight = nn.Parameter(torch.empty(out, width, samples))
        self.bias = nn.Parameter(torch.zeros(out))
        nn.init.xavier_uniform_(self.weight)
        rows = np.repeat(np.arange(len(taps.first)), np.diff(taps.first, append=len(taps.column)))
        back = _merged(taps.column, rows, taps.weight, length * samples, len(taps.first))
        for name, part in (("tap_", taps), ("back_", back)):
            for field, value in part._asdict().items():
                self.register_buffer(name + field, torch.from_numpy(value), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, width] to [B, K, out], in the order of `valid_cells`."""
        batch, length, width = x.shape
        kernel = self.weight.permute(1, 2, 0).reshape(width, -1)
        table = (x.reshape(-1, width) @ kernel).view(batch, length * self.samples, -1)
        taps = (self.tap_column, self.tap_first, self.tap_weight, self.back_column, self.back_first, self.back_weight)
        return torch.stack([_SparseSum.apply(rows, *taps) for rows in table]) + self.bias


class _SparseSum(torch.autograd.Function):
    """Weighted sums of a table's rows; the gradient is the same with the transposed matrix, so nothing is scattered."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, index: Tensor, first: Tensor, weight: Tensor, *back: Tensor) -> Tensor:
        ctx.save_for_backward(*back)
        return F.embedding_bag(index, table, first, mode="sum", per_sample_weights=weight.to(table.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        index, first, weight = ctx.saved_tensors
        (grad,) = grads
        grad = F.embedding_bag(index, grad.contiguous(), first, mode="sum", per_sample_weights=weight.to(grad.dtype))
        return grad, None, None, None, None, None, None


def _merged(rows: np.ndarray, columns: np.ndarray, weights: np.ndarray, height: int, width: int) -> Taps:
    """Entries in any order, repeated ones added, as a sparse matrix of `height` rows and `width` columns."""
    key, inverse = np.unique(rows * width + columns, return_inverse=True)
    weight = np.bincount(inverse, weights=weights, minlength=len(key))
    first = np.searchsorted(key // width, np.arange(height))
    return Taps(key % width, first.astype(np.int64), weight.astype(np.float32))
