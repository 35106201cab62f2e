"""A pyramid of local self-attention over several videos in one sequence: the backbone of ActionFormer and of POTLoc.

Source: ActionFormer (ECCV 2022), section 3.2 and its released configuration, which POTLoc (Vahdani and Tian) takes
over; the neck is one LayerNorm for each level. There is no position encoding: the convolutions tell where a row is.

The videos of a batch lie one after the other in one sequence, so that short ones cost no padding to the longest. Each
starts at a multiple of m = 2 ** (L - 1) rows and is followed by at least m rows of padding before the next (`slot`):
then one row or more of padding parts them on every level. Padding is zero before each convolution and left out of
pooling and attention, so a video's output is the same alone and in any batch.

Shapes: T rows of all videos and padding, D feature width, W model width, L levels,
P = T (1 + 1/2 + ... + 1/2 ** (L - 1)) points, level by level; R = P + L rows of all levels.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tad.methods.common.attention import banded_attention


def padded_length(length: int, levels: int) -> int:
    """The least multiple of 2 ** (levels - 1) that holds `length` rows: what a video takes alone."""
    return -(-length // 2 ** (levels - 1)) * 2 ** (levels - 1)


def slot(length: int, levels: int) -> int:
    """Rows that a video of `length` rows takes in a sequence of several, with the padding before the next."""
    return padded_length(length, levels) + 2 ** (levels - 1)


class Levels(NamedTuple):
    """All levels as one sequence for the heads; a row of padding ends each, as the zero padding of each alone would."""

    rows: Tensor
    """[R, W], zero on padding."""
    video: Tensor
    """[R] int64, which video a row belongs to, -1 on padding."""
    level: Tensor
    """[P] int64, the level of each point."""
    point: Tensor
    """[P] int64, the row of each point; the others only part the levels."""

    @property
    def mask(self) -> Tensor:
        """[P] bool, False on padding."""
        return self.video[self.point] >= 0


class Backbone(nn.Module):
    """An embedding by convolutions, blocks at full rate (the stem), and one block for each halving.

    Args:
        dim: width D of the features.
        width: width W.
        heads: attention heads; divides the width.
        levels: levels L of the pyramid, strides 1 ... 2 ** (L - 1).
        window: rows that attention sees on every level; an even number sees one more, window // 2 to either side.
        drop_path: chance that a residual branch is dropped for a video, in training.
        input_dropout: chance that a feature channel is dropped for a video, in training.
        stem: blocks at full rate.
        gain: factor of each residual branch at the start; learned, channel by channel.
    """

    def __init__(
        self,
        dim: int,
        width: int,
        heads: int,
        levels: int,
        window: int,
        drop_path: float,
        input_dropout: float = 0.0,
        stem: int = 2,
        gain: float = 1e-4,
    ) -> None:
        super().__init__()
        self.levels, self.input_dropout = levels, input_dropout
        self.embedding = ConvStack(dim, width)
        self.stem = nn.ModuleList(Block(width, heads, window, 1, drop_path, gain) for _ in range(stem))
        self.branch = nn.ModuleList(Block(width, heads, window, 2, drop_path, gain) for _ in range(levels - 1))
        self.necks = nn.ModuleList(nn.LayerNorm(width) for _ in range(levels))

    def encode(self, features: Tensor, video: Tensor, videos: int | None = None) -> Levels:
        """From features to the rows of all levels.

        Args:
            features: [T, D].
            video: [T] int64, which video of the batch each row belongs to, -1 on padding.
            videos: how many there are; needed for input dropout, in training.

        Raises:
            ValueError: T is not a multiple of 2 ** (levels - 1), or `videos` is missing.
        """
        if len(features) % 2 ** (self.levels - 1):
            raise ValueError(f"{len(features)} rows are no multiple of {2 ** (self.levels - 1)}; pad them")
        x = features * (video >= 0)[:, None]
        if self.training and self.input_dropout:
            if videos is None:
                raise ValueError("training with input dropout needs to know how many videos there are")
            channels = x.new_ones(videos, x.shape[1])
            x = x * F.dropout(channels, self.input_dropout)[video]
        x = self.embedding(x, video)
        for block in self.stem:
            x, video = block(x, video)
        pyramid, owners = [x], [video]
        for block in self.branch:
            x, video = block(x, video)
            pyramid.append(x)
            owners.append(video)
        x = torch.cat([F.pad(norm(x), (0, 0, 0, 1)) for norm, x in zip(self.necks, pyramid, strict=True)])
        level = torch.cat([torch.full_like(v, i) for i, v in enumerate(owners)])
        point = torch.arange(len(level), device=level.device) + level  # each level before has one row that is no point
        video = torch.cat([F.pad(v, (0, 1), value=-1) for v in owners])
        return Levels(x * (video >= 0)[:, None], video, level, point)


def real_points(video: Tensor, levels: int) -> Tensor:
    """[P] bool, as `Levels.mask`: which points are not padding, from the video [T] of each row alone."""
    return torch.cat([video[:: 2**level] for level in range(levels)]) >= 0


class Conv(nn.Conv1d):
    """A convolution of three rows, [T, in] to [T, out]; weights and their start are those of nn.Conv1d."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True) -> None:
        super().__init__(inputs, outputs, 3, padding=1, bias=bias)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        # One product on rows side by side: no transposes around it, and faster than conv1d on a CPU.
        around = F.pad(x, (0, 0, 1, 1))
        triples = torch.cat([around[:-2], x, around[2:]], 1)
        return F.linear(triples, self.weight.permute(0, 2, 1).flatten(1), self.bias)


class ConvStack(nn.Module):
    """Twice convolution, LayerNorm and ReLU; [T, in] to [T, W], zero on padding before and after."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList([Conv(inputs, width, bias=False), Conv(width, width, bias=False)])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))

    def forward(self, x: Tensor, video: Tensor) -> Tensor:
        keep = (video >= 0)[:, None]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = torch.relu(norm(conv(x))) * keep
        return x


class Block(nn.Module):
    """A pre-norm transformer block; stride 2 halves the rows. [T, W] to [T / stride, W], zero on padding.

    Queries, keys and values each come from a depthwise convolution of three rows, LayerNorm and a linear map; the
    convolution strides, and the skip connection takes the maximum of three rows.
    """

    def __init__(self, width: int, heads: int, window: int, stride: int, drop_path: float, gain: float) -> None:
        super().__init__()
        self.heads, self.radius, self.stride, self.drop_path = heads, window // 2, stride, drop_path
        self.norm_attention, self.norm_mlp = nn.LayerNorm(width), nn.LayerNorm(width)
        self.taps = nn.Parameter(torch.empty(3, 3, width).uniform_(-(3**-0.5), 3**-0.5))
        """[query/key/value, earlier/same/later row, W]: the depthwise kernels, started as nn.Conv1d would."""
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.maps = nn.ModuleList(_linear(width, width) for _ in range(3))
        self.out = _linear(width, width)
        self.widen, self.narrow = _linear(width, 4 * width), _linear(4 * width, width)
        self.gain_attention = nn.Parameter(torch.full((width,), gain))
        self.gain_mlp = nn.Parameter(torch.full((width,), gain))

    def forward(self, x: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
        T = len(x)
        around = F.pad(self.norm_attention(x) * (video >= 0)[:, None], (0, 0, 1, 1))
        if self.stride == 2:
            x, video = pool(x, video)
        rows = [around[k : k + T : self.stride] for k in range(3)]
        query, key, value = (
            linear(norm(torch.addcmul(torch.addcmul(rows[0] * tap[0], rows[1], tap[1]), rows[2], tap[2]))).unflatten(
                -1, (self.heads, -1)
            )
            for tap, norm, linear in zip(self.taps, self.norms, self.maps, strict=True)
        )
        mixed = self.out(banded_attention(query, key, value, video, self.radius).flatten(1))
        x = torch.addcmul(x, mixed * self.gain_attention, self._keep(x, video))
        mixed = self.narrow(F.gelu(self.widen(self.norm_mlp(x))))
        return torch.addcmul(x, mixed * self.gain_mlp, self._keep(x, video)), video

    def _keep(self, x: Tensor, video: Tensor) -> Tensor:
        """[T, 1] factor of a residual branch: 0 on padding and for dropped videos."""
        keep = (video >= 0).to(x.dtype)
        if self.training and self.drop_path:
            # One draw for each video; there are at most as many videos as rows.
            keep = keep * F.dropout(torch.ones_like(keep), self.drop_path)[video]
        return keep[:, None]


def pool(x: Tensor, video: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum over rows 2i - 1, 2i and 2i + 1 that are not padding; [T, W] and video [T] with even T to half."""
    padding = torch.zeros_like(x[:, :1]).masked_fill((video < 0)[:, None], -torch.inf)
    around = F.pad(x + padding, (0, 0, 1, 0), value=-torch.inf)
    best = torch.maximum(torch.maximum(around[:-1:2], around[1::2]), around[2::2])
    video = video[::2]
    return best.masked_fill((video < 0)[:, None], 0.0), video


def _linear(inputs: int, outputs: int) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    nn.init.zeros_(linear.bias)
    return linear
