"""Contrast between frames: those of one class (or cluster) attract each other and repel all others.

Source: APL (ECCV 2024) section 3.3, "action-aware contrastive pre-training". The loss is infoNCE with sets of positives
and negatives (equation 11, rebuilt from the text); its temperature and the number of frames are not published.

A label of -1 takes a frame out: it is neither anchor nor positive nor negative.

With several workers the fine contrast is over the frames of all of them, as if there were one: `Gather` lets each see
the others' frames. Its value is shared out by anchors; its gradient flows to a worker's own frames from all anchors.

Shapes: N frames, W width of a level, L levels, D feature width, B videos of a batch on this worker, A on all workers,
K frames of each video.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

FAR = -1e4
"""Stands for a pair that does not count: far below any similarity, and without the NaN gradients of -inf."""


def sample_frames(length: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """One random row out of each of `count` equal parts of `length` rows; all rows if there are fewer.

    Returns:
        [min(length, count)] int64, ascending.
    """
    if length <= count:
        return np.arange(length)
    edges = np.arange(count + 1) * length // count
    return rng.integers(edges[:-1], edges[1:])


def pyramid_rows(rows: Tensor, length: int, levels: int, frames: Tensor) -> Tensor:
    """All levels at some frames, side by side: what upsampling every level to full rate would give there.

    Args:
        rows: [R, W] rows of all levels, level by level, with one row of padding after each (see `Levels`).
        length: rows of level 0, without the one of padding.
        levels: number of levels L; level l has length / 2 ** l rows.
        frames: int64, any shape, rows of level 0.

    Returns:
        [*frames.shape, L * W]; of level l the row frame // 2 ** l (nearest upsampling).
    """
    first, places = 0, []
    for level in range(levels):
        places.append(first + (frames >> level))
        first += (length >> level) + 1
    return rows[torch.stack(places, -1)].flatten(-2)


def frame_labels(spans: np.ndarray, classes: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Labels of frames by (pseudo-)labelled segments: the class of the shortest segment around it.

    Args:
        spans: [M, 2] positions of the segments, both ends included.
        classes: [M] their class indices, >= 0.
        frames: [N] positions of the frames.

    Returns:
        [N] int64: class + 1, or 0 for background. `labels.clip(max=1)` are those of the coarse contrast.
    """
    labels = np.zeros(len(frames), dtype=np.int64)
    for i in np.argsort(spans[:, 0] - spans[:, 1], kind="stable"):  # the longest first; shorter ones write over it
        labels[(frames >= spans[i, 0]) & (frames <= spans[i, 1])] = classes[i] + 1
    return labels


def cluster(features: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """K-means labels [N] of the rows of features [N, D], at most `count` different ones.

    Fewer where fewer rows differ, or where a cluster runs empty.
    """
    # NaN features are for the training loop to report, by the loss.
    if len(features) < 2 or not np.isfinite(features).all():
        return np.zeros(len(features), dtype=np.int64)
    # Where all rows lie on centres already, k-means++ divides 0 by 0 and takes the first row again.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "One of the clusters is empty", UserWarning)
        from scipy.cluster.vq import kmeans2  # half a second, which every other start is spared

        _, labels = kmeans2(features, min(count, len(features)), minit="++", seed=rng)
    return labels.astype(np.int64)


class Anchors(NamedTuple):
    """The loss of each frame as an anchor."""

    loss: Tensor
    """[N], 0 where the frame is none."""
    valid: Tensor
    """[N] bool: it has a positive and a negative."""


def anchors(z: Tensor, labels: Tensor, group: Tensor | None = None, temperature: float = 0.1) -> Anchors:
    """Mean infoNCE of each frame over its positives, each against all of the frame's negatives.

    Args:
        z: [N, W] representations; only their direction counts.
        labels: [N] int64; -1 takes no part.
        group: [N] int64: only frames of one group meet; None: all do.
        temperature: tau.
    """
    z = F.normalize(z.float(), dim=-1)
    scores = z @ z.T / temperature
    part = labels >= 0
    meet = part[:, None] & part[None]
    if group is not None:
        meet = meet & (group[:, None] == group[None])
    same = labels[:, None] == labels[None]
    positive = meet & same & ~torch.eye(len(z), dtype=torch.bool, device=z.device)
    negative = meet & ~same
    # -ln(k_p / (k_p + sum k_n)) = softplus(ln sum k_n - s_p)
    repelled = scores.masked_fill(~negative, FAR).logsumexp(1, keepdim=True)
    number = positive.sum(1)
    loss = (F.softplus(repelled - scores) * positive).sum(1) / number.clamp(min=1)
    valid = (number > 0) & negative.any(1)
    return Anchors(loss * valid, valid)


class Gather:
    """Brings what each worker knows of its videos into one table of all workers' videos, the same on each.

    Args:
        items: [B] int64 indices of this worker's items, different on all workers.
        count: number of items of the task.
        total: sums a tensor over all workers.
    """

    def __init__(self, items: Tensor, count: int, total: Callable[[Tensor], Tensor]) -> None:
        present = total(torch.zeros(count, dtype=torch.int64, device=items.device).index_fill_(0, items, 1))
        self.size = int(present.sum())
        """Number A of videos on all workers."""
        self.places = (present.cumsum(0) - 1)[items]
        """[B] rows of this worker's videos: the table is in the order of the items, however they were dealt out."""
        self.total = total

    def __call__(self, x: Tensor) -> Tensor:
        """x [B, ...] of this worker to [A, ...] of all; no gradient flows through."""
        table = x.new_zeros(self.size, *x.shape[1:]).detach()
        return self.total(table.index_copy_(0, self.places, x.detach()))


def coarse_contrast(z: Tensor, labels: Tensor, total: Callable[[Tensor], Tensor], temperature: float) -> Tensor:
    """This worker's share of the contrast within each video, averaged over all videos that have an anchor.

    Args:
        z: [B, K, W]; labels: [B, K] int64.
        total: sums a tensor over all workers.
        temperature: tau.
    """
    video = torch.arange(len(z), device=z.device).repeat_interleave(z.shape[1])
    each = anchors(z.flatten(0, 1), labels.flatten(), video, temperature)
    number = each.valid.view(labels.shape).sum(1)
    means = each.loss.view(labels.shape).sum(1) / number.clamp(min=1)
    return means.sum() / total((number > 0).sum().float()).clamp(min=1)


def fine_contrast(z: Tensor, labels: Tensor, gather: Gather, temperature: float) -> Tensor:
    """This worker's share of the contrast over all videos of the batch, those of other workers included.

    Args:
        z: [B, K, W] of this worker.
        labels: [A, K] int64 of all workers, a table of `gather`.
        gather: of the batch.
        temperature: tau.
    """
    table = gather(z).index_copy(0, gather.places, z)
    each = anchors(table.flatten(0, 1), labels.flatten(), None, temperature)
    losses = each.loss.view(labels.shape).sum(1)
    share = losses[gather.places].sum()
    # Others' anchors pull and push this worker's frames too; their values are in the others' shares.
    others = losses.sum() - share
    return (share + others - others.detach()) / each.valid.sum().clamp(min=1)
