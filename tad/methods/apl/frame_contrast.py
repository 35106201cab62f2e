"""Contrast between frames beside the losses of a detector.

Source: APL (ECCV 2024), section 3.3 and its supplement: what pre-trains the encoder without labels stays on afterwards,
with labels in the place of clusters. In each video frames of actions and of background repel each other; over a batch
frames of different classes do, background being one more. The contrast itself is in tad.methods.apl.contrast.

Shapes: B windows of a batch, K frames of each, W width of a frame's representation.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tad import bounds
from tad.methods.apl.contrast import Gather, coarse_contrast, fine_contrast, frame_labels, sample_frames
from tad.methods.common.windows import Labels
from tad.options import option
from tad.ranges import Choice, Float
from tad.stages import StageConfig, Total


class ContrastOptions(StageConfig):
    """Of a detector's training."""

    contrast_weight: bounds.Weight = option(
        0.0,
        "of the contrast between frames of different labels",
        tune=Float(0.0, 0.2),
        why="APL .1; 0 leaves the contrast to pre-training",
        when=("labeler.method", "apl"),
    )
    contrast_frames: int = option(
        80,
        "frames of each window, one from each of as many parts",
        ge=2,
        le=bounds.SNIPPETS,
        tune=Choice(20, 40, 80, 160),
        why="not published; the authors' other code has 20 to 80",
        when=("labeler.method", "apl"),
    )
    contrast_temperature: bounds.Temperature = option(
        0.1,
        "of similarities; lower looks at the nearest more",
        tune=Float(0.05, 0.2, log=True),
        why="not published; .07 and .1 are usual",
        when=("labeler.method", "apl"),
    )
    contrast_unlabelled: bool = option(
        True, "videos without full labels are contrasted by their pseudo-labels; false: not at all"
    )
    contrast_coarse_weight: bounds.Weight = option(
        1.0, "of action against background in each video, within the contrast", neutral=1.0
    )
    contrast_fine_weight: bounds.Weight = option(
        1.0, "of class against class over a batch, within the contrast", neutral=1.0
    )


def draw_frames(
    length: int, labels: Labels, ignored: np.ndarray, config: ContrastOptions, full: bool, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """One frame of each of some equal parts of a window, and their labels.

    Args:
        length: rows of the window.
        labels: of the window.
        ignored: [M, 2] zones where frames of no action take no part.
        config: the number of frames; with weight 0 there are none.
        full: whether the video is fully labelled.
        rng: of the item.

    Returns:
        [K] int64 rows and labels: class + 1, 0 for background, -1 for none. Short windows have fewer; the rest is row 0
        with label -1.
    """
    count = config.contrast_frames if config.contrast_weight else 0
    frames, found = np.zeros(count, np.int64), np.full(count, -1)
    if not count:
        return frames, found
    rows = sample_frames(length, count, rng)
    frames[: len(rows)] = rows
    if full or config.contrast_unlabelled:
        found[: len(rows)] = frame_labels(labels.spans, labels.classes, rows)
    inside = ((frames[:, None] >= ignored[:, 0]) & (frames[:, None] <= ignored[:, 1])).any(1)
    return frames, np.where(inside & (found == 0), -1, found)


def frame_contrast(
    z: Tensor, labels: Tensor, items: Tensor, count: int, total: Total, config: ContrastOptions
) -> Tensor:
    """This worker's share of the coarse and the fine contrast of some windows, weighted and summed.

    Args:
        z: [B, K, W] the network's representation of the frames.
        labels: [B, K] of `draw_frames`.
        items: [B] which item each window is of, different on all workers.
        count: items of the task.
        total: sums over all workers.
        config: temperature and weights.
    """
    gather = Gather(items, count, total)
    coarse = coarse_contrast(z, labels.clamp(max=1), total, config.contrast_temperature)
    fine = fine_contrast(z, gather(labels), gather, config.contrast_temperature)
    return config.contrast_coarse_weight * coarse + config.contrast_fine_weight * fine
