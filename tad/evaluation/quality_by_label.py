"""How good pseudo-labels are, measured against ground truth, pseudo-label by pseudo-label: for videos without points.

Each pseudo-label is compared with its nearest action: the one of its video with the largest tIoU, whatever its class
(of equal ones, one of its own class). After the quality of pseudo-labels in APL (ECCV 2024, Fig. 3c).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.ops.iou import tiou

HIT = 0.5
"""tIoU from which a pseudo-label of the right class is a hit."""


def instance_quality(labels: Segments, dataset: Dataset, role: Role = "train") -> dict[str, Any] | None:
    """As `quality_of`, of a role's videos; training videos that are fully labelled are left out.

    None if no such video has a ground-truth action.
    """
    videos = [v for v in dataset.videos(role) if role != "train" or dataset.supervision(v) != "full"]
    truth = ground_truth(dataset, role)
    truth = truth.filter(np.isin(np.array(truth.video_ids, dtype=object), videos))
    return quality_of(labels, truth, videos) if len(truth) else None


def quality_of(labels: Segments, truth: Segments, videos: Iterable[str]) -> dict[str, Any]:
    """The quality of the pseudo-labels of some videos.

    Returns:
        `labels`, `actions`: their numbers; `class_accuracy`: share of the labels with their nearest action's class;
        `mean_tiou`: mean over labels of the tIoU with it; `hits`: share of the labels that have a tIoU of at least .5
        with an action of their class; `recall`: share of the actions that a hit finds. A label that meets no action
        counts as wrong, with a tIoU of 0. Without labels the middle three are None.
    """
    of_video, true_of = labels.by_video(), truth.by_video()
    accurate: list[np.ndarray] = []
    overlap: list[np.ndarray] = []
    hits: list[np.ndarray] = []
    found = number = 0
    for video in videos:
        rows, actions = of_video.get(video, Segments.empty()), true_of.get(video, Segments.empty())
        number += len(actions)
        if not len(rows):
            continue
        if not len(actions):
            nothing = np.zeros(len(rows))
            for part in (accurate, overlap, hits):
                part.append(nothing)
            continue
        shared = tiou(rows.spans, actions.spans)
        same = np.array(rows.labels)[:, None] == np.array(actions.labels)[None, :]
        best = shared.max(axis=1)
        own = np.where(same, shared, 0.0)
        accurate.append((best > 0) & (own.max(axis=1) >= best))
        overlap.append(best)
        hits.append(own.max(axis=1) >= HIT)
        found += int((own.max(axis=0) >= HIT).sum())

    def mean(parts: list[np.ndarray]) -> float | None:
        return float(np.concatenate(parts).mean()) if parts else None

    return {
        "labels": sum(len(part) for part in overlap),
        "actions": number,
        "class_accuracy": mean(accurate),
        "mean_tiou": mean(overlap),
        "hits": mean(hits),
        "recall": found / number if number else 0.0,
    }
