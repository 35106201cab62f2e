"""Features of segments: one-dimensional RoI align and RoI max-pooling over ragged videos.

Every bin is a weighted sum of feature rows, so pooling is one sparse weighted gather (`embedding_bag`): memory grows
with the number of samples, not with samples x channels. Source: PseR and TadTR (align), Fast R-CNN (max).
Legend: V videos, T rows, D channels, R rois, P bins.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def roi_align(
    features: Tensor, rois: Tensor, bins: int, video: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """Mean of interpolated feature rows in equal bins of each roi.

    A roi shorter than 1 is extended to 1 at its end. Each bin of width h is read at ceil(h) evenly spread samples and
    averaged. A sample at x interpolates rows floor(x) and floor(x) + 1; it reads row 0 for x in [-1, 0), the last row
    beyond it up to x = T, and zeros further out. T is the own length of each roi's video.

    Row i is taken to lie at coordinate i: pass positions (`SnippetGrid.to_position`) for the content of the roi; pass
    edges for PseR's published reading, which lies half a snippet late.

    Args:
        features: [T, D], or [V, T, D] padded.
        rois: [R, 2] starts and ends.
        bins: number of bins P.
        video: [R] long, which video each roi is of; needed when V > 1.
        lengths: [V] rows of each video; None: all T.

    Returns:
        [R, D, P] in the type of `features`; differentiable with respect to them.

    Raises:
        ValueError: shapes that disagree.
    """
    table, first, own_length = _tables(features, rois, video, lengths)
    start, size = _extents(rois)
    width = size / bins
    samples = torch.ceil(width).clamp(min=1).long()

    # One entry for each sample: its roi, and its rank among the samples of the roi (bin-major).
    per_roi = samples * bins
    roi = torch.repeat_interleave(torch.arange(len(rois), device=rois.device), per_roi)
    rank = torch.arange(len(roi), device=rois.device) - (per_roi.cumsum(0) - per_roi)[roi]
    count = samples[roi]
    box = torch.div(rank, count, rounding_mode="floor")
    x = start[roi] + (box + (rank.double() - box * count + 0.5) / count) * width[roi]

    rows = own_length[roi]
    inside = (x >= -1) & (x <= rows)
    x = torch.minimum(x.clamp(min=0), (rows - 1).to(x.dtype))
    low = x.floor()
    share = x - low
    low = low.long()
    high = torch.minimum(low + 1, rows - 1)
    weight = inside.to(x.dtype) / count
    weights = torch.stack([(1 - share) * weight, share * weight], dim=1).reshape(-1)
    index = (torch.stack([low, high], dim=1) + first[roi][:, None]).reshape(-1)
    bounds = _bag_starts(2 * torch.repeat_interleave(samples, bins))
    pooled = F.embedding_bag(index, table, bounds, mode="sum", per_sample_weights=weights.to(table.dtype))
    return pooled.view(len(rois), bins, table.shape[1]).transpose(1, 2)


def roi_max_pool(
    features: Tensor, rois: Tensor, bins: int, video: Tensor | None = None, lengths: Tensor | None = None
) -> Tensor:
    """Maximum of the feature rows that each bin of a roi touches.

    Row i covers [i, i + 1): pass edges (`SnippetGrid.to_edge`). A roi shorter than 1 is extended to 1 at its end.

    Args:
        features: [T, D], or [V, T, D] padded.
        rois: [R, 2] starts and ends.
        bins: number of bins P.
        video: [R] long, which video each roi is of; needed when V > 1.
        lengths: [V] rows of each video; None: all T.

    Returns:
        [R, D, P]; zeros for a bin outside its video. Differentiable with respect to the features.

    Raises:
        ValueError: shapes that disagree.
    """
    table, first, own_length = _tables(features, rois, video, lengths)
    start, size = _extents(rois)
    edges = start[:, None] + torch.arange(bins + 1, device=rois.device) * (size / bins)[:, None]
    last_row = own_length[:, None]
    low = torch.minimum(edges[:, :-1].floor().long().clamp(min=0), last_row)
    high = torch.minimum(edges[:, 1:].ceil().long().clamp(min=0), last_row)
    count = (high - low).clamp(min=0).reshape(-1)
    box = torch.repeat_interleave(torch.arange(len(count), device=rois.device), count)
    rank = torch.arange(len(box), device=rois.device) - (count.cumsum(0) - count)[box]
    index = (low + first[:, None]).reshape(-1)[box] + rank
    pooled = F.embedding_bag(index, table, _bag_starts(count), mode="max")
    return pooled.view(len(rois), bins, table.shape[1]).transpose(1, 2)


def _tables(
    features: Tensor, rois: Tensor, video: Tensor | None, lengths: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """All rows of all videos [V * T, D], and of each roi the first row and the length of its video."""
    if features.dim() == 2:
        features = features[None]
    if features.dim() != 3 or rois.dim() != 2 or rois.shape[1] != 2:
        raise ValueError(
            f"expected features [T, D] or [V, T, D] and rois [R, 2], got {tuple(features.shape)}, {tuple(rois.shape)}"
        )
    videos, rows, channels = features.shape
    if video is None:
        if videos != 1:
            raise ValueError(f"{videos} videos need a video index for each roi")
        video = torch.zeros(len(rois), dtype=torch.long, device=rois.device)
    if lengths is None:
        lengths = torch.full((videos,), rows, dtype=torch.long, device=rois.device)
    if video.shape != rois.shape[:1] or lengths.shape != (videos,):
        raise ValueError(
            f"{len(rois)} rois of {videos} videos need a video index of shape [{len(rois)}] and lengths of shape "
            f"[{videos}], got {tuple(video.shape)} and {tuple(lengths.shape)}"
        )
    return features.reshape(videos * rows, channels), video * rows, lengths.to(rois.device, torch.long)[video]


def _extents(rois: Tensor) -> tuple[Tensor, Tensor]:
    """Start and size (at least 1) in float64: float32 loses 1e-4 of a row in long videos."""
    rois = rois.detach().double()
    return rois[:, 0], (rois[:, 1] - rois[:, 0]).clamp(min=1)


def _bag_starts(counts: Tensor) -> Tensor:
    return counts.cumsum(0) - counts
