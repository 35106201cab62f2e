"""What a run's folder holds, and waiting until a run has got so far."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

from tad.data.segments import Segments

OUTPUTS = [
    "round-1/labels",
    "round-2/labels",
    "round-2/detections",
    "round-2/detections-test",
    "round-0/proposals-test",
]


def digests(run: Path, names: list[str] = OUTPUTS) -> dict[str, str]:
    return {name: Segments.from_parquet(run / f"{name}.parquet").digest() for name in names}


def events(path: Path, stage: str) -> list[dict]:
    lines = [json.loads(line) for line in path.read_text().splitlines() if line.endswith("}")]
    return [e for e in lines if e["kind"] == "epoch" and e["name"] == stage]


def wait_for(path: Path, stage: str, epoch: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if path.exists() and any(e["epoch"] == epoch for e in events(path, stage)):
            return
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    raise AssertionError(f"{stage} never reached epoch {epoch}")
