"""What results are judged by: mAP, F1 at one score threshold, and the quality of pseudo-labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.evaluation.evaluator import tiou_key
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_label import instance_quality
from tad.evaluation.quality_by_point import label_quality
from tad.evaluation.subset import Subset
from tad.ops.iou import paired_tiou, tiou
from tad.ops.matching import by_detection

TIOUS = (0.3, 0.4, 0.5, 0.6, 0.7)
CHOSEN_AT = 0.5
"""tIoU of the F1 that the score threshold is chosen by."""


def mean_ap(
    found: Segments, data: Dataset, role: Role, tious: Sequence[float] = TIOUS, protocol: str = "anet"
) -> dict[str, float]:
    """mAP [%] at each threshold, and their mean."""
    result = Subset.of_dataset(data, role).evaluate(found, tious, protocol)
    values = {tiou_key(t): 100 * float(x) for t, x in zip(tious, result.mean_ap, strict=True)}
    return values | {"mean": 100 * float(result.average)}


# -- F1 --------------------------------------------------------------------------------------------------------------


def hits(found: Segments, truth: Segments, tious: Sequence[float]) -> np.ndarray:
    """[N, T] bool: which detections, by descending score, take a free action of their class and video."""
    found = found.take(np.argsort(-found.score, kind="stable"))
    of_truth = list(zip(truth.video_ids, truth.labels, strict=True))
    order = sorted(range(len(truth)), key=lambda i: of_truth[i])
    rows: dict[tuple[str, str], list[int]] = {}
    for place, i in enumerate(order):
        rows.setdefault(of_truth[i], []).append(place)
    own = [rows.get(key, [0, -1]) for key in zip(found.video_ids, found.labels, strict=True)]
    low, high = (np.array(ends, dtype=np.int64) for ends in ([r[0] for r in own], [r[-1] + 1 for r in own]))
    return by_detection(found.spans, low, high, truth.spans[order], np.array(tious))


def best_threshold(found: Segments, data: Dataset, role: Role) -> float:
    """The score from which detections are kept that gives the best F1 at tIoU .5 on a role's videos."""
    truth = ground_truth(data, role)
    right = np.cumsum(hits(found, truth, (CHOSEN_AT,))[:, 0])
    score = -np.sort(-found.score)
    value = 2 * right / (np.arange(1, len(score) + 1) + len(truth))
    last = np.append(score[1:] < score[:-1], True)  # equal scores are kept together
    return float(score[np.where(last, value, -1).argmax()])


def f1(found: Segments, threshold: float, data: Dataset, role: Role) -> dict[str, float]:
    """F1 [%] of the detections with at least a score, over all classes together."""
    truth = ground_truth(data, role)
    kept = found.filter(found.score >= threshold)
    right = hits(kept, truth, TIOUS).sum(axis=0)
    return {tiou_key(t): 100 * 2 * float(n) / (len(kept) + len(truth)) for t, n in zip(TIOUS, right, strict=True)}


# -- pseudo-labels ---------------------------------------------------------------------------------------------------


def quality(labels: Segments, data: Dataset) -> dict[str, Any] | None:
    """How good the pseudo-labels of training videos are; errors of starts and ends are in feature rows.

    None if none of them meets an action of its class.

    Of points, each point's label beside its own action (0 without one). Else each pseudo-label of a video without full
    labels beside the action of its class with the largest tIoU; `recall` is then the share of the actions that are hit.
    """
    if data.point_count("train") and not data.full_by_id:
        of_points = label_quality(labels, data)
        pseudo, truth, more = of_points.pseudo, of_points.truth, {"judged": "points", "unmatched": of_points.unmatched}
    else:
        pseudo, truth = nearest(labels, data)
        more = {"judged": "labels"} | (instance_quality(labels, data) or {})
    there = ~np.isnan(pseudo[:, 0]) & ~np.isnan(truth[:, 0])
    if not there.any():
        return None
    overlap = np.zeros(len(pseudo))
    overlap[there] = paired_tiou(pseudo[there], truth[there])
    ratio = np.log2((pseudo[there, 1] - pseudo[there, 0]) / (truth[there, 1] - truth[there, 0]))
    row = data.manifest.grid.stride / float(data.manifest.grid.fps)
    errors = (pseudo[there] - truth[there]) / row
    middle = np.median(errors, axis=0)
    return more | {
        "count": len(overlap),
        "matched": int(there.sum()),
        "mean_tiou": float(overlap.mean()),
        "share": {tiou_key(t): float((overlap >= t).mean()) for t in (0.5, 0.7)},
        "mean_log2_length_ratio": float(ratio.mean()),
        "error": dict(zip(("start", "end"), middle.tolist(), strict=True)),
        "error_mad": dict(zip(("start", "end"), np.median(np.abs(errors - middle), axis=0).tolist(), strict=True)),
    }


def nearest(labels: Segments, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """[N, 2] seconds: pseudo-labels of training videos without full labels, and the action beside each; NaN if none."""
    of_video, true_of = labels.by_video(), ground_truth(data, "train").by_video()
    pseudo, truth = [np.empty((0, 2))], [np.empty((0, 2))]
    for video in data.videos("train"):
        if data.supervision(video) == "full" or video not in of_video:
            continue
        rows, actions = of_video[video], true_of.get(video, Segments.empty())
        same = np.array(rows.labels)[:, None] == np.array(actions.labels, dtype=object)[None, :]
        shared = np.where(same, tiou(rows.spans, actions.spans), 0.0) if len(actions) else np.zeros((len(rows), 1))
        mates = np.full((len(rows), 2), np.nan)
        met = shared.max(axis=1) > 0
        mates[met] = actions.spans[shared.argmax(axis=1)[met]]
        pseudo.append(rows.spans)
        truth.append(mates)
    return np.concatenate(pseudo), np.concatenate(truth)
