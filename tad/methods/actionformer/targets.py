"""What each point of the pyramid should answer, and segments from what it answered.

Source: ActionFormer (ECCV 2022) section 3.3 and its released code: centre sampling, a regression range for each level,
the shortest segment wins. Times are positions of the rows the network sees; point i of level l lies at i * 2 ** l.

Shapes: P points (all levels), N segments, C classes.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tad.methods.common.windows import RANGE

TIE = 1e-3
"""Segments whose lengths differ by no more are equally short: all of them give their class to a point."""


class Pyramid(NamedTuple):
    """The points of all levels for one padded length."""

    position: Tensor
    """[P] float64."""
    stride: Tensor
    """[P] float64, 2 ** level."""
    reach: Tensor
    """[P, 2] float64: least and largest distance to the farther end that the point answers for, both included."""
    sizes: list[int]
    """Points of each level."""


class Targets(NamedTuple):
    """What the points should answer."""

    classes: Tensor
    """[P, C] bool; several where equally short segments meet, none on background."""
    offsets: Tensor
    """[P, 2] float32 distances to start and end in strides; 0 on background."""
    weights: Tensor
    """[P] float32: the segment's weight; 1 on background, 0 where a background point is ignored."""


def pyramid(length: int, levels: int) -> Pyramid:
    """The points over `length` rows, a multiple of 2 ** (levels - 1)."""
    sizes = [length >> level for level in range(levels)]
    strides = [2.0**level for level in range(levels)]
    highs = [RANGE * s for s in strides[:-1]] + [torch.inf]
    lows = [0.0, *highs[:-1]]
    position = torch.cat([torch.arange(n, dtype=torch.float64) * s for n, s in zip(sizes, strides, strict=True)])
    repeats = torch.tensor(sizes)
    stride, low, high = (
        torch.tensor(v, dtype=torch.float64).repeat_interleave(repeats) for v in (strides, lows, highs)
    )
    return Pyramid(position, stride, torch.stack([low, high], 1), sizes)


def assign(points: Pyramid, spans: Tensor, labels: Tensor, weights: Tensor, classes: int, radius: float) -> Targets:
    """Targets of one video.

    A segment is eligible at a point that lies strictly inside it and strictly within `radius` strides of its centre,
    if the distance to its farther end is in the point's range. Of the eligible segments the shortest wins.

    Args:
        spans: [N, 2] float64 positions.
        labels: [N] class indices.
        weights: [N] weights.
        classes: number of classes C.
        radius: of the centre zone, in strides of the level.
    """
    P, N = len(points.position), len(spans)
    onehot = torch.zeros(P, classes, dtype=torch.bool)
    if N == 0:
        return Targets(onehot, torch.zeros(P, 2), torch.ones(P))
    position, stride = points.position[:, None], points.stride[:, None]
    start, end = spans.double().T
    centre = (start + end) / 2
    inside = (position > torch.maximum(start, centre - radius * stride)) & (
        position < torch.minimum(end, centre + radius * stride)
    )
    to_ends = torch.stack([position - start, end - position], -1)  # [P, N, 2]
    farther = to_ends.amax(-1)
    eligible = inside & (farther >= points.reach[:, :1]) & (farther <= points.reach[:, 1:])
    shared = shortest(eligible, end - start)
    positive = shared.any(1)
    point, segment = shared.nonzero(as_tuple=True)
    onehot[point, labels[segment]] = True
    # The offsets come from the first of the tied segments, not from whichever is shorter by a hair.
    first = shared.int().argmax(1)
    offsets = to_ends[torch.arange(P), first] / points.stride[:, None]
    return Targets(
        onehot,
        torch.where(positive[:, None], offsets, 0.0).float(),
        torch.where(positive, weights.double()[first], 1.0).float(),
    )


def ignore(points: Pyramid, targets: Targets, zones: Tensor, spans: Tensor) -> Targets:
    """The targets with weight 0 at background points of which nothing is known.

    Args:
        zones: [M, 2] positions of segments that may be actions. Points inside them, ends included, get weight 0.
        spans: [N, 2] positions of labels. Points inside them keep their weight: which action is there is known.
    """
    position = points.position[:, None]
    doubtful, known = (((position >= s[:, 0]) & (position <= s[:, 1])).any(1) for s in (zones, spans))
    return targets._replace(weights=targets.weights.masked_fill(doubtful & ~known & ~targets.classes.any(1), 0.0))


def shortest(eligible: Tensor, length: Tensor) -> Tensor:
    """[..., N] bool: of the segments that are eligible [..., N], the shortest; several if their lengths [N] tie."""
    lengths = torch.where(eligible, length, torch.inf)
    return eligible & (lengths <= lengths.amin(-1, keepdim=True) + TIE)


def decode(points: Pyramid, offsets: Tensor) -> Tensor:
    """Predicted offsets [P, 2] in strides to segments [P, 2] in positions (float64); undoes `assign`."""
    ends = offsets.double().cpu() * points.stride[:, None]
    return torch.stack([points.position - ends[:, 0], points.position + ends[:, 1]], 1)
