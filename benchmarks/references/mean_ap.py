"""mAP as published evaluators compute it, one detection at a time, and invented detections to compare on."""

from __future__ import annotations

import numpy as np

from tad.data.segments import Segments

CLASSES = 20


def case(videos: int, detections: int, instances: int, seed: int = 0) -> tuple[Segments, Segments]:
    """Ground truth with about `instances` segments a video, and `detections` a video: half of them near a segment."""
    rng = np.random.default_rng(seed)
    names = np.array([f"video_{i:06d}" for i in range(videos)])
    labels = np.array([f"class_{i:02d}" for i in range(CLASSES)])
    gt_video = np.repeat(np.arange(videos), instances)
    gt_label = (gt_video + rng.integers(0, 2, len(gt_video))) % CLASSES
    gt_start = rng.uniform(0, 200, len(gt_video))
    gt_end = gt_start + rng.gamma(2, 2, len(gt_video)) + 0.2
    ground_truth = Segments.of(names[gt_video], gt_start, gt_end, labels[gt_label])

    video = np.repeat(np.arange(videos), detections)
    near = video * instances + rng.integers(0, instances, len(video))
    follow = rng.random(len(video)) < 0.5
    length = gt_end[near] - gt_start[near]
    start = np.where(
        follow, gt_start[near] + 0.3 * length * rng.normal(size=len(video)), rng.uniform(0, 200, len(video))
    )
    end = np.where(
        follow, gt_end[near] + 0.3 * length * rng.normal(size=len(video)), start + rng.gamma(2, 2, len(video))
    )
    start = np.maximum(start, 0.0)
    label = np.where(follow, gt_label[near], rng.integers(0, CLASSES, len(video)))
    score = rng.permutation(len(video)) / len(video)
    found = Segments.of(names[video], start, np.maximum(end, start + 0.1), labels[label], score)
    return found, ground_truth


def loop_mean_ap(detections: Segments, ground_truth: Segments, tious: tuple[float, ...]) -> np.ndarray:
    """[T] mAP by the published evaluators' steps: class by class, detection by detection, threshold by threshold."""
    video, span = np.array(ground_truth.video_ids), ground_truth.spans
    label, labels = np.array(ground_truth.labels), np.array(detections.labels)
    found_video, found_span, score = np.array(detections.video_ids), detections.spans, detections.score
    precisions = []
    for name in np.unique(label):
        of_class = np.flatnonzero(label == name)
        order = np.flatnonzero(labels == name)
        order = order[np.argsort(score[order])[::-1]]
        taken = np.zeros((len(tious), len(of_class)), dtype=bool)
        hit = np.zeros((len(tious), len(order)), dtype=bool)
        for n, row in enumerate(order):
            own = np.flatnonzero(video[of_class] == found_video[row])
            if not len(own):
                continue
            start, end = span[of_class[own]].T
            inter = np.clip(np.minimum(end, found_span[row, 1]) - np.maximum(start, found_span[row, 0]), 0, None)
            overlap = inter / (end - start + found_span[row, 1] - found_span[row, 0] - inter)
            for t, threshold in enumerate(tious):
                for g in np.argsort(overlap)[::-1]:
                    if overlap[g] < threshold:
                        break
                    if not taken[t, own[g]]:
                        taken[t, own[g]] = hit[t, n] = True
                        break
        found = np.cumsum(hit, axis=1)
        recall = np.concatenate([np.zeros((len(tious), 1)), found / len(of_class), np.ones((len(tious), 1))], axis=1)
        precision = found / np.arange(1, len(order) + 1)
        precision = np.concatenate([np.zeros((len(tious), 1)), precision, np.zeros((len(tious), 1))], axis=1)
        envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        precisions.append((np.diff(recall, axis=1) * envelope[:, 1:]).sum(axis=1))
    return np.mean(precisions, axis=0)
