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

from benchmarks.references.mean_ap import case, loop_mean_ap
from tad.data.segments import Segments
from tad.evaluation.evaluator import DEFAULT_TIOUS, evaluate


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
