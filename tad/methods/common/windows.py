"""What detectors on a pyramid train on: pseudo-labels on the snippet grid, and windows of videos in one sequence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tad.data.dataset import Dataset
from tad.errors import DataError, listing
from tad.methods.common.pyramid import slot
from tad.stages import Context

SHORT = 16.0
"""Snippets; where the median pseudo-label is shorter, the features are refined: fewer rows than that fit into it."""

LONGEST = 2304
"""Snippets of the longest window that is derived: ActionFormer's."""


class Labels(NamedTuple):
    """The pseudo-labels of one video on its snippet grid."""

    spans: np.ndarray
    """[N, 2] float64 positions."""
    classes: np.ndarray
    """[N] int64 class indices."""
    weights: np.ndarray
    """[N] float32 weights of their losses."""
    points: np.ndarray
    """[N] float64 positions of the annotated points that they answer to; the centre where there is none."""


def read_labels(context: Context, score_weight: float = 0.0) -> dict[str, Labels]:
    """The pseudo-labels of each training video on its grid, from the input "labels"; empty where it has none.

    Args:
        context: of the training stage.
        score_weight: 0 gives every pseudo-label weight 1, 1 its score; between, the mean of the two so weighted.

    Raises:
        DataError: a class or a video is not the dataset's, or no training video has a pseudo-label.
    """
    artifact, data = context.inputs["labels"], context.data
    by_video = artifact.by_video()
    problems = [f"class {name!r} is not in dataset.yaml" for name in sorted(by_video.labels - set(data.classes))]
    problems += [f"video {v!r} is not in annotations.json" for v in sorted(by_video.keys() - data.videos_by_id.keys())]
    if problems:
        raise DataError(f"{artifact.path / 'segments.parquet'}: " + listing(problems))
    if not by_video.keys() & set(context.videos):
        raise DataError(
            f"{artifact.path / 'segments.parquet'}: none of the {len(context.videos)} training videos has "
            "a pseudo-label; there is nothing to learn"
        )
    labels = {}
    for video_id in context.videos:
        rows = by_video.get(video_id)
        if rows is None:
            labels[video_id] = Labels(np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0, np.float32), np.zeros(0))
            continue
        weights = (1 - score_weight) + score_weight * np.clip(rows.score, 0, 1)
        # The expected length is enough to convert, so the feature file need not be opened.
        grid = data.grid(video_id, expected_length(data, video_id))
        points = np.where(np.isnan(rows.point), rows.spans.mean(1), rows.point)
        labels[video_id] = Labels(
            grid.to_position(rows.spans),
            rows.label_index(data.classes),
            weights.astype(np.float32),
            grid.to_position(points),
        )
    return labels


def read_ignored(context: Context) -> dict[str, np.ndarray]:
    """Zones [M, 2] of which nothing is to be learned, in positions of each video's snippet grid, from the input
    "ignored", if there is one; for videos that have any."""
    if "ignored" not in context.inputs:
        return {}
    data = context.data
    return {
        video: data.grid(video, expected_length(data, video)).to_position(rows.spans)
        for video, rows in context.inputs["ignored"].by_video().items()
        if video in data.videos_by_id
    }


def teaching(context: Context, labels: Mapping[str, Labels]) -> list[str]:
    """The training videos that a detector learns from.

    A video without a pseudo-label is all background if its full labels say so, or if its points have led to none.
    Elsewhere it only means that nothing was found, so the video is left out.
    """
    data = context.data

    def background(video: str) -> bool:
        full = data.full_labels(video)
        return data.supervision(video) == "points" if full is None else not len(full.label)

    return [v for v in context.videos if len(labels[v].spans) or background(v)]


def refine(features: np.ndarray, factor: int) -> np.ndarray:
    """Features [T, D] to [(T - 1) * factor + 1, D] float32: row j is the linear interpolation at position j / factor.

    So a position p of the snippet grid becomes p * factor, and the first and last row stay what they were.
    """
    features = np.array(features, dtype=np.float32)
    if factor == 1:
        return features
    fine = np.repeat(features, factor, axis=0)[: (len(features) - 1) * factor + 1]
    for step in range(1, factor):
        share = np.float32(step / factor)
        fine[step::factor] = (1 - share) * features[:-1] + share * features[1:]
    return fine


def derived_upsample(labels: Mapping[str, Labels]) -> int:
    """Rows that a network should see for each snippet, by the median length of all pseudo-labels."""
    spans = np.concatenate([of_video.spans for of_video in labels.values()])
    return 2 if np.median(spans[:, 1] - spans[:, 0]) < SHORT else 1


def expected_length(data: Dataset, video_id: str) -> int:
    """Snippets of a video by its duration."""
    video = data.videos_by_id[video_id]
    return data.manifest.grid.expected_length(video.duration, video.fps)


def usual_length(data: Dataset, videos: list[str]) -> int:
    """Snippets that 95 % of the videos do not exceed; at most `LONGEST`."""
    lengths = [expected_length(data, v) for v in videos]
    return min(LONGEST, int(np.percentile(lengths, 95, method="higher")))


def pack(windows: list[np.ndarray], levels: int) -> tuple[Tensor, Tensor, list[int]]:
    """Windows [T_i, D] one after the other, as the backbone wants them (see tad.methods.common.pyramid).

    Returns:
        features [T, D] float32, video [T] int64 (-1 on padding), and the rows that each window takes with its padding.
    """
    slots = [slot(len(window), levels) for window in windows]
    features = torch.zeros(sum(slots), windows[0].shape[1])
    video = torch.full((sum(slots),), -1)
    first = 0
    for index, (window, size) in enumerate(zip(windows, slots, strict=True)):
        end = first + len(window)
        features[first:end], video[first:end] = torch.from_numpy(window), index
        first += size
    return features, video, slots


RANGE = 4.0
"""Rows: level 0 of a pyramid answers for segments whose farther end is up to this away; each further one doubles it."""


def levels_for(length: float) -> int:
    """Levels until half of `length` rows is in range, 3 to 8; the open end of the last one takes longer segments."""
    return min(8, max(3, 1 + math.ceil(math.log2(max(1.0, length / 2 / RANGE)))))


class Crop(NamedTuple):
    """A window of a video for training."""

    start: int
    """First row."""
    size: int
    """Number of rows."""
    kept: np.ndarray
    """[N] bool: the segments of which at least half is inside."""
    spans: np.ndarray
    """[N, 2] all segments cut to the window, in positions of the window."""


def random_crop(length: int, spans: np.ndarray, longest: int, margin: float, rng: np.random.Generator) -> Crop:
    """A random window: `longest` rows of a longer video, 90 to 100 % of another.

    Up to 200 windows are drawn until one keeps a segment; after that, and for a video without any, the last one stays.
    A segment is kept if at least half of it is inside, and cut to the window (ActionFormer's released code).

    Args:
        length: rows of the video.
        spans: [N, 2] positions.
        longest: most rows of a window.
        margin: how far what the first and last row show reaches beyond their positions.
        rng: of the item.
    """
    if length > longest:
        size = longest
    else:
        size = int(rng.integers(max(round(0.9 * length), 1), length, endpoint=True))
    for _ in range(200):
        start = int(rng.integers(0, length - size, endpoint=True))
        cut = np.clip(spans, start - margin, start + size - 1 + margin)
        kept = (cut[:, 1] - cut[:, 0]) >= 0.5 * (spans[:, 1] - spans[:, 0])
        if kept.any() or not len(spans) or size == length:
            break
    return Crop(start, size, kept, cut - start)
