"""The videos of annotations.json: subset, duration, frame rate. tad.evaluation.ground_truth reads boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tad.data.findings import Finding, error, refuse
from tad.data.manifest import LEAST_RATE, MOST_RATE, SAFE_ID, Manifest
from tad.errors import DataError, shortened
from tad.files import number, read_json

SHORTEST, LONGEST = 1e-3, 30 * 86_400.0
"""Seconds of a video. A camera may run for days; more than 30 of them is a wrong unit (milliseconds, frames)."""
MOST_ROWS = 10**8
"""Feature rows of a video: 30 days of 38 rows a second."""
LAYOUT = 'expected {"database": {video: {subset, duration, fps, annotations}}}'


class Video(NamedTuple):
    """One video; duration in seconds, fps its own frame rate (None if unknown)."""

    id: str
    subset: str
    duration: float
    fps: float | None


def database_of(document: Any, where: str) -> dict[str, Any]:
    """The entries of the videos.

    Raises:
        DataError: the document has another layout.
    """
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        raise DataError(f"{where}: {LAYOUT}")
    return database


def subset_of(entry: Any) -> str | None:
    """The subset that an entry names; None if it names none."""
    subset = entry.get("subset") if isinstance(entry, dict) else None
    return str(subset).strip() if isinstance(subset, (str, int)) and not isinstance(subset, bool) else None


def unsafe(video_id: str) -> Finding | None:
    """What is wrong with a video id that cannot be a file name."""
    if SAFE_ID.fullmatch(video_id):
        return None
    detail = "unsafe as a file name; use letters, digits and _ . + = @ -, at most 200"
    return error("unsafe id", f"video {shortened(video_id)}", detail)


def video_of(video_id: str, entry: Any, manifest: Manifest | None) -> Video | Finding | None:
    """A video from its entry, or why it cannot be used: its id, subset, duration or rate.

    None if its subset has no role. Without a manifest every subset has one.
    """
    subset, where = subset_of(entry), f"video {video_id}"
    if manifest is not None and subset is not None and subset not in manifest.subsets:
        return None  # published files leave durations of such videos out
    if (wrong := unsafe(video_id)) is not None:
        return wrong
    if subset is None:
        return error("malformed video", where, "needs subset, duration (seconds) and fps")
    try:
        duration = number(entry.get("duration"))
        fps = None if entry.get("fps") is None else number(entry["fps"])
    except ValueError as problem:
        return error("malformed video", where, f"needs subset, duration (seconds) and fps: {problem}")
    if not SHORTEST <= duration <= LONGEST:
        limits = f"must be {SHORTEST:g} to {LONGEST:g} (30 days)"
        return error("malformed video", where, f"duration {duration} s; {limits}; is it in seconds?")
    if fps is not None and not LEAST_RATE <= fps <= MOST_RATE:
        return error("malformed video", where, f"fps {fps}; must be {LEAST_RATE:g} to {MOST_RATE:g}")
    if manifest is not None:
        grids = manifest.grids.values()
        if fps is None and any(grid.fps == "native" and grid.length is None for grid in grids):
            return error("no fps", where, "no fps, but the feature grid counts frames of the video (fps: native)")
        if (rows := max(grid.expected_length(duration, fps) for grid in grids)) > MOST_ROWS:
            detail = f"{rows} rows of {duration:g} s on the feature grid; at most {MOST_ROWS}"
            return error("malformed video", where, detail)
    return Video(video_id, subset, duration, fps)


def read_videos(path: Path, manifest: Manifest) -> dict[str, Video]:
    """The videos of annotations.json whose subset the manifest knows; boundaries are not kept.

    Raises:
        DataError: lists every video with an unsafe id or without a usable subset and duration.
    """
    database = database_of(read_json(path), str(path))
    found = {video_id: video_of(video_id, entry, manifest) for video_id, entry in database.items()}
    refuse(path, [problem for problem in found.values() if isinstance(problem, Finding)])
    videos = {video_id: video for video_id, video in found.items() if isinstance(video, Video)}
    if not videos:
        raise DataError(
            f"{path}: no video is in a subset of dataset.yaml ({', '.join(manifest.subsets)}); "
            f"found the subsets {', '.join(subsets_in(database)) or 'none'}"
        )
    return videos


def subsets_in(database: Mapping[str, Any]) -> list[str]:
    return sorted({subset for entry in database.values() if (subset := subset_of(entry)) is not None})
