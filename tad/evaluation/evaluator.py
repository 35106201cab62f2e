"""Mean average precision of detections, ActivityNet style (the rule that almost all published codes share).

Per class, the detections of all videos are taken by descending score. At each threshold a detection takes the ground
truth of its class and video with the largest tIoU that is not yet taken and reaches the threshold (tIoU >= threshold):
a true positive; if there is none it is a false positive. AP is the area under the precision envelope over recall
(all-point interpolation), mAP its mean over the classes of the ground truth; a class without detections counts 0.
What is left out beforehand is the protocol's choice: tad.evaluation.protocols. Protocol `thumos14` has its own matching
and AP, those of the THUMOS toolkit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from tad.data.detections import Detections
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError, few
from tad.evaluation.protocols import protocol_named
from tad.ops.matching import by_detection, by_truth

if TYPE_CHECKING:  # not at run time: tad.selection.label_free_scores uses this module and must not reach boundaries
    from tad.evaluation.ground_truth import RawGroundTruth

DEFAULT_TIOUS = tuple(round(0.1 * k, 10) for k in range(1, 8))
"""0.1:0.7:0.1, the thresholds of point-supervised work on THUMOS14."""

AVERAGES = {
    "0.1:0.5": tuple(0.1 * k for k in range(1, 6)),
    "0.3:0.7": tuple(0.1 * k for k in range(3, 8)),
    "0.1:0.7": tuple(0.1 * k for k in range(1, 8)),
    "0.5:0.95": tuple(0.5 + 0.05 * k for k in range(10)),
}
"""The averages that papers report, each given where all its thresholds were evaluated."""


Ambiguous = Mapping[str, Sequence[tuple[float, float]]]
"""Intervals (seconds) by video, as tad.evaluation.ground_truth.ambiguous gives them."""


@dataclass(frozen=True)
class Evaluation:
    """The result of `evaluate`.

    Attributes:
        protocol: name of the protocol.
        tious: T thresholds.
        classes: C classes of the ground truth, sorted.
        ap: [C, T] average precision, 0..1.
        instances, detections: [C] how many of each class were scored.
        counts: totals, and what was left out.
    """

    protocol: str
    tious: tuple[float, ...]
    classes: list[str]
    ap: np.ndarray
    instances: np.ndarray
    detections: np.ndarray
    counts: dict[str, int]

    @property
    def mean_ap(self) -> np.ndarray:
        """[T] mAP at each threshold."""
        return self.ap.mean(axis=0)

    @property
    def average(self) -> float:
        """Mean of mAP over all given thresholds."""
        return float(self.mean_ap.mean())

    @property
    def averages(self) -> dict[str, float]:
        """The usual averages whose thresholds were all evaluated."""
        found = {}
        for name, wanted in AVERAGES.items():
            near = np.abs(np.subtract.outer(np.array(wanted), np.array(self.tious))) < 1e-6
            if near.any(axis=1).all():
                found[name] = float(self.mean_ap[near.argmax(axis=1)].mean())
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values: mAP, average, averages, per_class, counts; precisions are fractions 0..1."""
        keys = [tiou_key(t) for t in self.tious]
        return {
            "protocol": self.protocol,
            "mAP": dict(zip(keys, self.mean_ap.tolist(), strict=True)),
            "average": self.average,
            "averages": self.averages,
            "per_class": {
                name: {
                    "ap": dict(zip(keys, self.ap[c].tolist(), strict=True)),
                    "average": float(self.ap[c].mean()),
                    "ground_truth": int(self.instances[c]),
                    "detections": int(self.detections[c]),
                }
                for c, name in enumerate(self.classes)
            },
            "counts": dict(self.counts),
        }


def tiou_key(tiou: float) -> str:
    """A threshold as a JSON key: 0.5 is "0.5", 0.30000000000000004 is "0.3"."""
    return f"{tiou:.6g}"


def evaluate(
    detections: Segments | Detections,
    ground_truth: Segments | RawGroundTruth,
    tious: Sequence[float] = DEFAULT_TIOUS,
    protocol: str = "anet",
    ambiguous: Ambiguous | None = None,
    videos: Collection[str] | None = None,
) -> Evaluation:
    """AP of every class at every threshold. Equal scores are taken by video id, start and end; row order is irrelevant.

    Args:
        detections: scored segments, as they are: empty or reversed ones are false positives, and so are those in videos
            without ground truth.
        ground_truth: all instances of the evaluated videos. Protocol `thumos14` reads their order within a video.
        tious: thresholds in (0, 1].
        protocol: a name in tad.evaluation.protocols.PROTOCOLS.
        ambiguous: the protocols `hrpro`, `gaufuse` and `thumos14` leave out detections that meet them.
        videos: all evaluated videos; by default those that the ground truth names.

    Raises:
        DataError: no ground truth is left, or there are detections, but in none of the evaluated videos.
        ConfigError: unknown protocol or a threshold outside (0, 1].
    """
    thresholds = checked_tious(tious)
    matching = _Matching(detections, ground_truth, protocol, ambiguous, videos)
    hit = matching.hits(thresholds)
    ap = np.zeros((len(matching.classes), len(thresholds)))
    for c, rows in enumerate(matching.rows_by_class):
        for t in range(len(thresholds)):
            counted = hit[rows, t] | ~matching.excused[rows]
            ap[c, t] = average_precision(hit[rows, t][counted], int(matching.instances[c]), matching.rules.envelope)
    sizes = np.array([rows.stop - rows.start for rows in matching.rows_by_class], dtype=np.int64)
    return Evaluation(
        protocol, tuple(float(t) for t in thresholds), matching.classes, ap, matching.instances, sizes, matching.counts
    )


@dataclass(frozen=True)
class Judged:
    """N detections, by class and then descending score, each right or wrong at one tIoU.

    A detection is right or wrong whatever detections of lower score there are, so those from a score on are judged by
    a part of it (not with protocol `thumos14`).

    Attributes:
        classes: C classes of the ground truth, sorted.
        instances: [C] how many of each there are.
        label: [N] index of the class.
        score: [N].
        right: [N] bool.
    """

    classes: list[str]
    instances: np.ndarray
    label: np.ndarray
    score: np.ndarray
    right: np.ndarray


def judge(
    detections: Segments | Detections,
    ground_truth: Segments | RawGroundTruth,
    tiou: float = 0.5,
    protocol: str = "anet",
    ambiguous: Ambiguous | None = None,
    videos: Collection[str] | None = None,
) -> Judged:
    """Which detections are right, matched as in `evaluate`; what that leaves out is not among them.

    Raises:
        DataError, ConfigError: as `evaluate`.
    """
    matching = _Matching(detections, ground_truth, protocol, ambiguous, videos)
    hit = matching.hits(checked_tious([tiou]))[:, 0]
    sizes = [rows.stop - rows.start for rows in matching.rows_by_class]
    label = np.repeat(np.arange(len(sizes)), sizes)
    counted = hit | ~matching.excused
    return Judged(matching.classes, matching.instances, label[counted], matching.score[counted], hit[counted])


def precision_recall(
    detections: Segments | Detections,
    ground_truth: Segments | RawGroundTruth,
    label: str,
    tiou: float = 0.5,
    protocol: str = "anet",
    ambiguous: Ambiguous | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision of one class after each of its N scored detections, best first: two [N] arrays, 0..1.

    The measured points, without the envelope that AP takes.

    Raises:
        DataError: as `evaluate`, or the ground truth has no such class.
    """
    matching = _Matching(detections, ground_truth, protocol, ambiguous, None)
    if label not in matching.classes:
        raise DataError(f"the ground truth has no class {label!r}; it has {', '.join(matching.classes)}")
    c = matching.classes.index(label)
    rows = matching.rows_by_class[c]
    hit = matching.hits(checked_tious([tiou]))[rows, 0]
    hit = hit[hit | ~matching.excused[rows]]
    found = np.cumsum(hit)
    return found / matching.instances[c], found / np.arange(1, len(hit) + 1)


def checked_tious(tious: Sequence[float]) -> np.ndarray:
    """[T] float64 thresholds.

    Raises:
        ConfigError: none, one outside (0, 1], or one given twice.
    """
    thresholds = np.asarray(tious, dtype=np.float64).reshape(-1)
    if not len(thresholds) or not ((thresholds > 0) & (thresholds <= 1)).all():
        raise ConfigError(f"tIoU thresholds must lie in (0, 1], got {list(tious)}")
    if len({tiou_key(t) for t in thresholds}) < len(thresholds):
        raise ConfigError(f"a tIoU threshold is given twice: {list(tious)}")
    return thresholds


def average_precision(hit: np.ndarray, instances: int, envelope: bool = True) -> float:
    """AP from hits ([N] bool, by descending score) and the number of true segments.

    The area under the precision envelope or, without it, the sum of the precisions at the hits by `instances`. Recall
    rises only at hits, and the envelope's maxima lie at hits, so only they are summed.
    """
    at = np.flatnonzero(hit)
    precision = np.arange(1, len(at) + 1) / (at + 1)
    if envelope:
        precision = np.maximum.accumulate(precision[::-1])
    return float(precision.sum() / instances)


def best_first(label: np.ndarray, score: np.ndarray, video: np.ndarray, span: np.ndarray) -> np.ndarray:
    """[N] the order by label, descending score, video, start, end. label, video, score: [N]; span: [N, 2] seconds."""
    order = np.argsort(-score, kind="stable")
    order = order[np.argsort(label[order], kind="stable")]
    # Equal scores are rare: only their rows are sorted by all five keys, which takes several times longer.
    new = (np.diff(score[order]) != 0) | (np.diff(label[order]) != 0)
    run = np.cumsum(np.append(False, new)) if len(order) else order
    tied = np.bincount(run)[run] > 1 if len(order) else order.astype(bool)
    rows = order[tied]
    order[tied] = rows[np.lexsort((span[rows, 1], span[rows, 0], video[rows], run[tied]))]
    return order


class _Matching:
    """Detections and ground truth that the protocol keeps, grouped by class and video.

    Attributes:
        rules: the protocol.
        classes: C names, sorted. instances: [C] ground truth of each.
        span, score: [N, 2] and [N], detections by class, then descending score; rows_by_class: the rows of each class.
        key: [N] int code of class and video; gt_key: [G] the same of gt_span, ascending.
        gt_span: [G, 2] by class, video, then start or (if the protocol reads it) the order given.
        excused: [N] bool: no false positive if it takes nothing.
        counts: see Evaluation.
    """

    def __init__(
        self,
        detections: Segments | Detections,
        ground_truth: Segments | RawGroundTruth,
        protocol: str,
        ambiguous: Ambiguous | None,
        videos: Collection[str] | None,
    ) -> None:
        self.rules = rules = protocol_named(protocol)
        gt_ids, gt_labels, given = _columns(ground_truth)
        given = given if videos is None else sorted(set(videos))
        check_videos(detections, given)
        row_video, names = detections.codes("video_id")
        rank = {v: i for i, v in enumerate(sorted({*given, *gt_ids, *names}))}

        gt_video = _codes(gt_ids, rank)
        gt_span = np.stack([ground_truth.start, ground_truth.end], axis=1)
        found = {c: i for i, c in enumerate(sorted(set(gt_labels)))}
        kept = rules.kept_ground_truth(gt_video, _codes(gt_labels, found), gt_span)
        if not kept.any():
            raise DataError(
                f"no ground truth: {len(kept)} segments in {len(given)} videos, of which {protocol} keeps none"
            )
        self.classes = sorted({c for c, keep in zip(gt_labels, kept, strict=True) if keep})
        gt_label = _codes(gt_labels, {c: i for i, c in enumerate(self.classes)})[kept]
        gt_video, gt_span = gt_video[kept], rules.read(gt_span[kept])
        self.instances = np.bincount(gt_label, minlength=len(self.classes))

        label = detections.label_index(self.classes)
        video = _codes(names, rank)[row_video] if names else row_video
        span = rules.read(detections.spans)
        clear = np.ones(len(detections), dtype=bool)
        if ambiguous:
            pairs = [(rank[v], interval) for v in sorted(ambiguous) if v in rank for interval in ambiguous[v]]
            at = np.array([code for code, _ in pairs], dtype=np.int64)
            clear = rules.clear_of_ambiguous(video, span, at, np.array([i for _, i in pairs]).reshape(-1, 2))
        scored = (label >= 0) & (clear | rules.takes_ambiguous)
        self.counts = {
            "videos": len(given),
            "ground_truth": len(gt_span),
            "detections": int(scored.sum()),
            "classes": len(self.classes),
            "ground_truth_left_out": int((~kept).sum()),
            "detections_of_unknown_classes": int((label < 0).sum()),
            "detections_ambiguous": int(((label >= 0) & ~clear).sum()),
            "detections_in_unknown_videos": int((scored & ~np.isin(video, _codes(given, rank))).sum()),
            "detections_empty": int((scored & (span[:, 0] >= span[:, 1])).sum()),
            "detections_before_start": int((scored & (span.min(axis=1, initial=np.inf) < 0)).sum()),
        }

        rows = np.flatnonzero(scored)
        order = rows[best_first(label[rows], detections.score[rows], video[rows], span[rows])]
        label, video, self.excused = label[order], video[order], ~clear[order]
        self.score = np.asarray(detections.score)[order]
        bounds = np.searchsorted(label, np.arange(len(self.classes) + 1)).tolist()
        self.rows_by_class = [slice(a, b) for a, b in pairwise(bounds)]
        gt_key = gt_label * len(rank) + gt_video
        by_time = (gt_span[:, 1], gt_span[:, 0]) if rules.takes == "detection" else ()
        gt_order = np.lexsort((*by_time, gt_key))
        self.key, self.gt_key = label * len(rank) + video, gt_key[gt_order]
        self.span, self.gt_span = map(np.ascontiguousarray, rules.comparable(span[order], gt_span[gt_order]))

    def hits(self, thresholds: np.ndarray) -> np.ndarray:
        """[N, T] bool: true positives."""
        if self.rules.takes == "detection":
            low, high = (np.searchsorted(self.gt_key, self.key, side=side) for side in ("left", "right"))
            return by_detection(self.span, low, high, self.gt_span, thresholds)
        rows = np.argsort(self.key, kind="stable")
        low, high = (np.searchsorted(self.key[rows], self.gt_key, side=side) for side in ("left", "right"))
        return by_truth(self.span, rows, low, high, self.gt_span, thresholds)


def check_videos(
    found: Segments | Detections, videos: Collection[str], what: str = "detections share no video with the ground truth"
) -> None:
    """Raises DataError if there are segments, but none in any of the videos; `what` says so, and a few are named."""
    names = found.codes("video_id")[1]
    if names and set(names).isdisjoint(videos):
        there, wanted = few(sorted(names), 3), few(sorted(videos), 3)
        raise DataError(
            f"the {what}: they are in {len(names)} videos ({there}), evaluated are {len(videos)} videos ({wanted})"
        )


def _columns(ground_truth: Segments | RawGroundTruth) -> tuple[list[str], list[str], list[str]]:
    """Video ids and labels of the rows, and the evaluated videos."""
    if isinstance(ground_truth, Segments):
        return ground_truth.video_ids, ground_truth.labels, sorted(set(ground_truth.video_ids))
    return ground_truth.video_id.tolist(), ground_truth.label.tolist(), list(ground_truth.videos)


def _codes(values: Sequence[str], names: dict[str, int]) -> np.ndarray:
    """[N] int64: the code of each value, -1 where `names` has none."""
    return np.fromiter((names.get(v, -1) for v in values), dtype=np.int64, count=len(values))
