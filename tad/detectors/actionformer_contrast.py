"""Contrast between frames beside the losses of the detector `actionformer`.

Source: APL (ECCV 2024), section 3.3 and its supplement: what pre-trains the encoder without labels stays on afterwards,
with labels in the place of clusters. In each video frames of actions and of background repel each other; over a batch
frames of different classes do, background being one more. The contrast itself is in tad.ops.contrast.

Shapes: B windows of a batch, K frames of each, L levels, W width.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tad.detectors.windows import Labels
from tad.ops.contrast import Gather, coarse_contrast, fine_contrast, frame_labels, sample_frames
from tad.stage import Total


def draw_frames(
    length: int, labels: Labels, ignored: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One frame of each of `count` equal parts of a window, and their labels.

    Args:
        length: rows of the window.
        labels: of the window.
        ignored: [M, 2] zones where frames of no action take no part.
        count: most frames; 0: none are wanted.
        rng: of the item.

    Returns:
        [count] int64 rows and labels: class + 1, 0 for background, -1 for none. Short windows have fewer; the rest is
        row 0 with label -1.
    """
    frames, found = np.zeros(count, np.int64), np.full(count, -1)
    if not count:
        return frames, found
    rows = sample_frames(length, count, rng)
    frames[: len(rows)], found[: len(rows)] = rows, frame_labels(labels.spans, labels.classes, rows)
    inside = ((frames[:, None] >= ignored[:, 0]) & (frames[:, None] <= ignored[:, 1])).any(1)
    return frames, np.where(inside & (found == 0), -1, found)


def frame_contrast(z: Tensor, labels: Tensor, items: Tensor, count: int, total: Total, temperature: float) -> Tensor:
    """This worker's share of the coarse and the fine contrast of some windows, summed.

    Args:
        z: [B, K, L * W] the pyramid at the frames.
        labels: [B, K] of `draw_frames`.
        items: [B] which item each window is of, different on all workers.
        count: items of the task.
        total: sums over all workers.
        temperature: tau.
    """
    gather = Gather(items, count, total)
    coarse = coarse_contrast(z, labels.clamp(max=1), total, temperature)
    return coarse + fine_contrast(z, gather(labels), gather, temperature)
