"""Findings of points.csv."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping
from pathlib import Path

from tad.data.dataset import Manifest, Video
from tad.data.findings import Finding, error, warning

HEADER = ["video_id", "label", "time"]


def check_points(path: Path, manifest: Manifest | None, videos: Mapping[str, Video], ids: set[str]) -> list[Finding]:
    """Bad rows, then classes and training videos that have no point.

    Args:
        videos: usable videos of subsets with a role.
        ids: every id of annotations.json; points of the others are errors.
    """
    if not path.is_file():
        return [warning("no points", path.name, "missing: methods that learn from points cannot train")]
    findings: list[Finding] = []
    seen: set[tuple[str, str, float]] = set()
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.DictReader(file)
        if reader.fieldnames != HEADER:
            detail = f"must be {','.join(HEADER)}, without columns that could hold boundaries; found "
            return [error("points header", path.name, detail + ",".join(reader.fieldnames or []))]
        for line, row in enumerate(reader, start=2):
            video_id, label = row["video_id"], row["label"]
            where = f"line {line}, video {video_id}"
            try:
                time = float(row["time"])
            except (TypeError, ValueError):
                time = math.nan
            if not math.isfinite(time):
                findings.append(error("malformed point", where, f"time {row['time']!r} is not a number"))
                continue
            video = videos.get(video_id)
            if video is None:
                detail = "has no usable entry in a subset with a role" if video_id in ids else "not in annotations.json"
                findings.append(error("point of unknown video", where, detail))
                continue
            if manifest is not None and label not in manifest.classes:
                findings.append(error("unknown class", where, f"{label!r} is not in dataset.yaml"))
            if not 0 <= time <= video.duration:
                findings.append(error("point outside video", where, f"{time:g} s of {video.duration:g} s"))
            if (video_id, label, time) in seen:
                findings.append(warning("duplicate point", where, f"{label} at {time:g} s stands twice"))
            seen.add((video_id, label, time))
    if manifest is not None:
        train = {v.id for v in videos.values() if manifest.subsets.get(v.subset) == "train"} - set(manifest.ignored)
        pointed = {video_id for video_id, _, _ in seen}
        taught = {label for video_id, label, _ in seen if video_id in train}
        for label in manifest.classes:
            if label not in taught:
                findings.append(warning("class without point", label, "no training video has a point of it"))
        for video_id in sorted(train - pointed):
            findings.append(warning("video without point", f"video {video_id}", "a training video without any point"))
    return findings
