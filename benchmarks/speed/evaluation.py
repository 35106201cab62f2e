"""Speed and memory of mAP: python -m benchmarks.speed.evaluation

Two inputs, each measured in a process of its own, on one core: THUMOS14-sized (213 videos with 200 detections each, 20
classes, 7 thresholds; bar 0.5 s) and 1,000,000 detections from a Parquet file (bars 5 s and 2 GB with reading). Beside
the first stands the loop that published evaluators run: one detection at a time, looking its video's ground truth up.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from tad.data.segments import Segments
from tad.evaluation.evaluator import DEFAULT_TIOUS, evaluate

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


def thumos_sized() -> dict[str, Any]:
    """Seconds of both implementations, and their largest difference in mAP."""
    detections, ground_truth = case(videos=213, detections=200, instances=16)
    first = seconds(lambda: evaluate(detections, ground_truth))
    ours = min(seconds(lambda: evaluate(detections, ground_truth)) for _ in range(5))
    start = time.perf_counter()
    expected = loop_mean_ap(detections, ground_truth, DEFAULT_TIOUS)
    loop = time.perf_counter() - start
    difference = np.abs(evaluate(detections, ground_truth).mean_ap - expected).max()
    return {"first": first, "seconds": ours, "loop": loop, "difference": float(difference), "peak": peak()}


def million(path: Path) -> dict[str, Any]:
    """Seconds to read 1,000,000 detections and to score them."""
    start = time.perf_counter()
    detections = Segments.from_parquet(path / "detections.parquet")
    ground_truth = Segments.from_parquet(path / "ground_truth.parquet")
    read = time.perf_counter() - start
    return {"read": read, "seconds": seconds(lambda: evaluate(detections, ground_truth)), "peak": peak()}


def seconds(job: Any) -> float:
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def peak() -> float:
    """Largest resident memory of this process so far, GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measured(*arguments: str) -> dict[str, Any]:
    """One case in a fresh process on one thread."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks.speed.evaluation", *arguments]
    result = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    values: dict[str, Any] = json.loads(result.stdout)
    return values


def main() -> None:
    small = measured("thumos")
    print("mAP, 213 videos x 200 detections, 3,408 ground-truth segments, 20 classes, 7 tIoUs")
    print(
        f"  tad            {1000 * small['seconds']:8.0f} ms  (first call {1000 * small['first']:.0f} ms; bar 500 ms)"
    )
    print(f"  loop           {1000 * small['loop']:8.0f} ms  {small['loop'] / small['seconds']:.0f} x slower")
    print(f"  largest difference in mAP {small['difference']:.1e}; peak memory {small['peak']:.2f} GB")
    with tempfile.TemporaryDirectory() as folder:
        detections, ground_truth = case(videos=5000, detections=200, instances=16)
        detections.to_parquet(Path(folder) / "detections.parquet")
        ground_truth.to_parquet(Path(folder) / "ground_truth.parquet")
        large = measured("million", folder)
    print(f"mAP, {len(detections):,} detections, {len(ground_truth):,} ground-truth segments, 20 classes, 7 tIoUs")
    print(f"  reading        {1000 * large['read']:8.0f} ms")
    print(f"  tad.evaluation.evaluator   {1000 * large['seconds']:8.0f} ms  (bar 5000 ms)")
    print(f"  peak memory {large['peak']:.2f} GB (bar 2 GB)")


if __name__ == "__main__":
    if sys.argv[1:2] == ["thumos"]:
        print(json.dumps(thumos_sized()))
    elif sys.argv[1:2] == ["million"]:
        print(json.dumps(million(Path(sys.argv[2]))))
    else:
        main()
