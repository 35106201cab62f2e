"""Speed of tad.ops on one core, beside a straightforward loop for each: `python -m benchmarks.speed.ops`.

One thread; bars and ratios are of CPU time (medians), which other work on the machine disturbs least; loops are timed
once. Bars are milliseconds; the best published C++ operator (one core of a similar machine) takes 1.4 ms for class-wise
soft-NMS of 2,000 segments and 103 ms for 40,000.
"""

# ruff: noqa: E402 - thread counts must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[_name] = "1"

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tad.methods.pser.bags import clear_of, negative_spans, perturb, seed_tious
from tad.ops.grouping import outer_inner_contrast, threshold_runs
from tad.ops.iou import tiou
from tad.ops.nms import classwise_nms
from tad.ops.roi import roi_align

SCALES, SHIFTS = [0.5, 0.7, 0.9, 1.0, 1.1, 1.3, 1.5], [0.0, -0.1, 0.1]


@dataclass
class Case:
    """One row of the table: the operation, a plain loop that does the same, and its bar in milliseconds."""

    name: str
    fast: Callable[[], Any]
    loop: Callable[[], Any]
    bar: float | None = None


# -- inputs ----------------------------------------------------------------------------------------------------------


def clustered(count: int, classes: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Random segments with about 40 overlapping candidates per cluster, Beta(.6, 4) scores and uniform labels."""
    rng = np.random.default_rng(seed)
    clusters = max(1, count // 40)
    which = rng.integers(clusters, size=count)
    centre = rng.uniform(0, 10.0 * clusters, clusters)[which] + rng.normal(0, 1.5, count)
    length = rng.lognormal(1.2, 0.6, clusters)[which] * rng.lognormal(0, 0.4, count)
    spans = np.stack([centre - length / 2, centre + length / 2], 1).astype(np.float32)
    return spans, rng.beta(0.6, 4, count).astype(np.float32), rng.integers(classes, size=count)


# -- straightforward loops -------------------------------------------------------------------------------------------


def loop_overlap(a: np.ndarray, b: np.ndarray) -> float:
    inter = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = (a[1] - a[0]) + (b[1] - b[0]) - inter
    return inter / union if inter > 0 else 0.0


def loop_soft_nms(spans: np.ndarray, scores: np.ndarray, labels: np.ndarray, limit: int) -> list[tuple[float, int]]:
    """Gaussian soft-NMS of each class as in most published Python: numpy over the rest, a loop over the kept."""
    kept: list[tuple[float, int]] = []
    for c in np.unique(labels):
        rows = np.flatnonzero(labels == c)
        s, q = spans[rows], scores[rows].copy()
        while len(rows):
            top = int(q.argmax())
            kept.append((float(q[top]), int(rows[top])))
            inter = np.maximum(0, np.minimum(s[top, 1], s[:, 1]) - np.maximum(s[top, 0], s[:, 0]))
            union = (s[top, 1] - s[top, 0]) + (s[:, 1] - s[:, 0]) - inter + 1e-6
            q = q * np.exp(-((inter / union) ** 2) / 0.5)
            live = q >= 0.001
            live[top] = False
            s, q, rows = s[live], q[live], rows[live]
    return sorted(kept, reverse=True)[:limit]


def loop_hard_nms(spans: np.ndarray, scores: np.ndarray, threshold: float) -> list[int]:
    kept: list[int] = []
    for i in np.argsort(-scores, kind="stable"):
        if all(loop_overlap(spans[i], spans[j]) < threshold for j in kept):
            kept.append(int(i))
    return kept


def loop_tiou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.array([[loop_overlap(x, y) for y in b] for x in a])


def loop_group(curve: np.ndarray, thresholds: np.ndarray) -> list[tuple[int, int, float]]:
    found = []
    for threshold in thresholds:
        mask = (curve >= threshold) & (curve > 0)
        t = 0
        while t < len(curve):
            if not mask[t]:
                t += 1
                continue
            end = t
            while end < len(curve) and mask[end]:
                end += 1
            rows = int(np.ceil(0.25 * (end - t)))
            outer = np.concatenate([curve[max(0, t - rows) : t], curve[end : end + rows]])
            found.append((t, end, curve[t:end].mean() - (outer.mean() if len(outer) else 0.0)))
            t = end
    return found


def loop_bags(seeds: np.ndarray, u1: np.ndarray, u2: np.ndarray, extent: float) -> tuple[Any, Any, Any]:
    """Bags, their tIoU labels and the valid negatives with one tIoU row at a time, as the published code does."""
    members, labels = [], []
    for start, end in seeds:
        bag = []
        for scale in SCALES:
            for shift in SHIFTS:
                width = scale * (end - start)
                centre = (start + end) / 2 + shift * width
                bag.append((centre - width / 2, centre + width / 2))
        labels.append([loop_overlap((start, end), m) for m in bag])  # type: ignore[arg-type]
        members += bag
    start = -0.2 * extent + 1.2 * extent * u1
    negatives = np.stack([start, start + u2 * (1.2 * extent - start)], 1)
    clear = np.ones(len(negatives), dtype=bool)
    for member in members:
        inter = np.maximum(0, np.minimum(negatives[:, 1], member[1]) - np.maximum(negatives[:, 0], member[0]))
        union = (negatives[:, 1] - negatives[:, 0]) + (member[1] - member[0]) - inter
        clear &= inter / union < 0.3
    return np.array(members), np.array(labels), clear


def loop_roi(features: np.ndarray, rois: np.ndarray, bins: int) -> np.ndarray:
    rows = len(features)
    out = np.zeros((len(rois), features.shape[1], bins), dtype=np.float32)
    for r, (start, end) in enumerate(rois):
        width = max(end - start, 1.0) / bins
        count = int(np.ceil(width))
        for p in range(bins):
            for k in range(count):
                x = start + p * width + (k + 0.5) * width / count
                if x < -1 or x > rows:
                    continue
                x = min(max(x, 0.0), rows - 1)
                low = int(x)
                high = min(low + 1, rows - 1)
                out[r, :, p] += ((1 - (x - low)) * features[low] + (x - low) * features[high]) / count
    return out


# -- cases -----------------------------------------------------------------------------------------------------------


def nms_cases() -> list[Case]:
    small, large = clustered(2000, 20), clustered(40_000, 20)
    spans, scores, _ = small
    rule: dict[str, Any] = {"method": "gaussian", "sigma": 0.5, "min_score": 0.001}
    one_class = np.zeros(len(scores), dtype=np.int64)
    return [
        Case(
            "class-wise soft-NMS, 2,000 segments, 20 classes",
            lambda: classwise_nms(*small, limit=200, **rule),
            lambda: loop_soft_nms(*small, limit=200),
            bar=3,
        ),
        Case(
            "  the same, none cut (limit 2,000)",
            lambda: classwise_nms(*small, limit=2000, **rule),
            lambda: loop_soft_nms(*small, limit=2000),
            bar=3,
        ),
        Case(
            "class-wise soft-NMS, 40,000 segments, 20 classes",
            lambda: classwise_nms(*large, limit=200, **rule),
            lambda: loop_soft_nms(*large, limit=200),
            bar=150,
        ),
        Case(
            "  the same, none cut (limit 40,000)",
            lambda: classwise_nms(*large, limit=40_000, **rule),
            lambda: loop_soft_nms(*large, limit=40_000),
            bar=150,
        ),
        Case(
            "hard NMS .5, 2,000 segments",
            lambda: classwise_nms(spans, scores, one_class, method="hard", min_score=-1.0),
            lambda: loop_hard_nms(spans, scores, 0.5),
        ),
    ]


def curve_cases() -> list[Case]:
    spans, _, _ = clustered(600, 1)
    rng = np.random.default_rng(1)
    curve = np.convolve(rng.normal(size=2000), np.hanning(25), "same")
    curve = (1 / (1 + np.exp(-curve))).astype(np.float32)
    thresholds = np.linspace(0.05, 0.95, 20)

    def group() -> np.ndarray:
        found, _ = threshold_runs(curve, thresholds)
        return outer_inner_contrast(curve, found)

    return [
        Case("tIoU matrix, 600 x 600", lambda: tiou(spans, spans), lambda: loop_tiou(spans, spans)),
        Case("runs + contrast, 2,000 rows, 20 thresholds", group, lambda: loop_group(curve, thresholds)),
    ]


def bag_cases() -> list[Case]:
    rng = np.random.default_rng(2)
    extent = 1400.0
    centre, length = np.sort(rng.uniform(0, extent, 128)), rng.lognormal(1.1, 0.8, 128)
    seeds = np.stack([centre - length / 2, centre + length / 2], 1)
    u1, u2 = rng.random(500), rng.random(500)

    def bags() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        members = perturb(seeds, SCALES, SHIFTS)
        return members, seed_tious(SCALES, SHIFTS), clear_of(negative_spans(u1, u2, extent), members, 0.3)

    rows = 327
    features = torch.from_numpy(rng.normal(size=(rows, 2048)).astype(np.float32))
    some = perturb(seeds[rng.integers(128, size=15)] * (rows / extent), SCALES, SHIFTS).reshape(-1, 2)
    rois = np.concatenate([some, negative_spans(u1, u2, rows)])
    return [
        Case("bags + labels + 500 negatives, 128 points", bags, lambda: loop_bags(seeds, u1, u2, extent), bar=5),
        Case(
            "RoI align, 815 rois x 2048 x 8 bins, 327 rows",
            lambda: roi_align(features, torch.from_numpy(rois), 8),
            lambda: loop_roi(features.numpy(), rois, 8),
        ),
    ]


# -- table -----------------------------------------------------------------------------------------------------------


def milliseconds(call: Callable[[], Any], budget: float = 2.0, most: int = 21) -> tuple[float, float]:
    """Median wall and CPU time of several calls after one to warm up (compilation, caches), for about `budget` s."""
    call()
    times = [timed(call) for _ in range(3)]
    while sum(wall for wall, _ in times) < 1e3 * budget and len(times) < most:
        times.append(timed(call))
    return statistics.median(wall for wall, _ in times), statistics.median(cpu for _, cpu in times)


def timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU milliseconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return 1e3 * (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu)


def import_seconds(module: str) -> float:
    """Best of three imports, each in a fresh interpreter, less the interpreter's own start."""
    code = f"import time; b = time.perf_counter(); import {module}; print(time.perf_counter() - b)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(3)]
    return min(float(run.stdout) for run in runs)


def main() -> None:
    torch.set_num_threads(1)
    print(f"{'operation':<52}{'wall ms':>9}{'CPU ms':>9}{'loop ms':>10}{'ratio':>8}{'bar ms':>8}  met")
    missed = 0
    for case in nms_cases() + curve_cases() + bag_cases():
        wall, cpu = milliseconds(case.fast)
        _, slow = timed(case.loop)
        met = "" if case.bar is None else ("yes" if cpu <= case.bar else "NO")
        missed += met == "NO"
        bar = "" if case.bar is None else f"{case.bar:g}"
        print(f"{case.name:<52}{wall:>9.2f}{cpu:>9.2f}{slow:>10.1f}{slow / cpu:>7.0f}x{bar:>8}  {met}")
    print(
        "\nimport, seconds: "
        + ", ".join(
            f"{module} {import_seconds(module):.2f}" for module in ("tad.ops.iou", "tad.ops.nms", "tad.ops.roi")
        )
    )
    if missed:
        raise SystemExit(f"{missed} bar(s) missed")


if __name__ == "__main__":
    main()
