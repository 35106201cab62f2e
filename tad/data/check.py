"""`tad check`: every problem of a dataset folder at once, where opening it stops at the first bad file."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tad.data.check_features import check_features
from tad.data.check_labels import check_labels
from tad.data.dataset import SAFE_ID, Manifest, Video, read_manifest
from tad.data.findings import Finding, error, warning
from tad.data.ground_truth import read_ambiguous
from tad.data.labels import POINTS, read_held_out, read_points
from tad.errors import DataError


def check(root: Path | str, progress: Callable[[Iterable[Path]], Iterable[Path]] = iter) -> list[Finding]:
    """Every finding of a dataset folder: manifest, annotations, labels, ambiguous intervals, features.

    Args:
        root: the folder.
        progress: wraps the iteration over feature files, for a progress bar.

    Raises:
        DataError: there is no such folder; everything else is a finding.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such dataset folder")
    findings: list[Finding] = []
    manifest = _manifest(root, findings)
    found = _annotations(root / "annotations.json", manifest, findings)
    if manifest is not None and found.readable:
        _against_manifest(manifest, found, findings)
    findings += check_labels(root, manifest, found.videos, found.ids)
    if manifest is not None and manifest.ambiguous is not None:
        _ambiguous(root / manifest.ambiguous, found, findings)
    if manifest is not None and manifest.held_out is not None and not any(f.severity == "error" for f in findings):
        _held_out(root, manifest, found, findings)
    findings += check_features(root, manifest, found.videos, found.ids, progress)
    return findings


@dataclass
class _Found:
    """What annotations.json holds."""

    readable: bool = False
    ids: set[str] = field(default_factory=set)
    """Every id, also of unusable videos and of subsets without a role."""
    videos: dict[str, Video] = field(default_factory=dict)
    """Usable videos of subsets with a role."""
    subsets: Counter[str] = field(default_factory=Counter)


class _Doubled(NamedTuple):
    """A key that stands in a JSON object more than once, and all its values."""

    key: str
    values: list[Any]


def _manifest(root: Path, findings: list[Finding]) -> Manifest | None:
    try:
        return read_manifest(root)
    except DataError as problem:
        findings.append(error("dataset.yaml", "dataset.yaml", str(problem)))
        return None


def _load(path: Path) -> tuple[Any, list[_Doubled]]:
    """The document, and the keys that stand twice in one of its objects (a plain parser keeps the last silently)."""
    doubled: list[_Doubled] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        count = Counter(key for key, _ in items)
        for key in (k for k, n in count.items() if n > 1):
            doubled.append(_Doubled(key, [value for k, value in items if k == key]))
        return dict(items)

    return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=pairs), doubled


def _annotations(path: Path, manifest: Manifest | None, findings: list[Finding]) -> _Found:
    found = _Found()
    try:
        document, doubled = _load(path)
    except (OSError, ValueError) as problem:
        findings.append(error("annotations.json", "annotations.json", f"cannot be read: {problem}"))
        return found
    database = document.get("database") if isinstance(document, dict) else None
    if not isinstance(database, dict):
        detail = 'expected {"database": {video: {subset, duration, fps, annotations}}}'
        findings.append(error("annotations.json", "annotations.json", detail))
        return found
    found.readable = True
    for key, values in doubled:
        subsets = {str(v.get("subset")) for v in values if isinstance(v, dict)}
        if not subsets:
            findings.append(error("duplicate key", f"key {key}", f"stands {len(values)} times in one object"))
        elif len(subsets) > 1:
            detail = f"is in the subsets {', '.join(sorted(subsets))}"
            findings.append(error("video in two subsets", f"video {key}", detail))
        else:
            findings.append(error("duplicate id", f"video {key}", f"stands {len(values)} times in annotations.json"))
    for video_id, entry in database.items():
        found.ids.add(video_id)
        if not SAFE_ID.fullmatch(video_id):
            detail = "cannot be a file name; use letters, digits and _ . + = @ -, at most 200"
            findings.append(error("unsafe id", f"video {video_id!r}", detail))
        video = _video(video_id, entry, manifest, findings)
        if video is None:
            continue
        found.subsets[video.subset] += 1
        role = None if manifest is None else manifest.subsets.get(video.subset)
        if manifest is None or role is not None:
            _segments(video, entry.get("annotations", []), manifest, findings)
            found.videos[video_id] = video
    return found


def _video(video_id: str, entry: Any, manifest: Manifest | None, findings: list[Finding]) -> Video | None:
    where = f"video {video_id}"
    try:
        fps = entry.get("fps")
        video = Video(video_id, str(entry["subset"]), float(entry["duration"]), None if fps is None else float(fps))
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        detail = f"needs subset and duration in seconds ({type(problem).__name__}: {problem})"
        findings.append(error("malformed video", where, detail))
        return None
    if not (math.isfinite(video.duration) and video.duration > 0) or (video.fps is not None and not video.fps > 0):
        detail = f"duration {video.duration} s, fps {video.fps}; both must be positive"
        findings.append(error("malformed video", where, detail))
        return None
    native = manifest is not None and manifest.grid.fps == "native" and manifest.grid.length is None
    if native and video.fps is None and manifest is not None and video.subset in manifest.subsets:
        findings.append(error("no fps", where, "the feature grid says fps: native, so every video needs its fps"))
        return None
    return video


def _segments(video: Video, annotations: Any, manifest: Manifest | None, findings: list[Finding]) -> None:
    if not isinstance(annotations, list):
        findings.append(error("malformed segment", f"video {video.id}", "annotations is not a list"))
        return
    seen: set[tuple[str, float, float]] = set()
    for i, item in enumerate(annotations):
        where = f"video {video.id}, row {i}"
        try:
            start, end = (float(x) for x in item["segment"])
            label = str(item["label"])
        except (KeyError, TypeError, ValueError) as problem:
            findings.append(error("malformed segment", where, f"{type(problem).__name__}: {problem}"))
            continue
        what = f"{label} [{start:g}, {end:g}] s"
        if manifest is not None and label not in manifest.classes:
            findings.append(error("unknown class", where, f"{label!r} is not in dataset.yaml"))
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            findings.append(error("reversed segment", where, f"{what}: start must be before end, both finite"))
        elif (label, start, end) in seen:
            findings.append(warning("duplicate segment", where, f"{what}: the copy is dropped"))
        elif start >= video.duration or end <= 0:
            findings.append(warning("segment beyond video", where, f"{what} of {video.duration:g} s: dropped"))
        elif start < 0 or end > video.duration:
            findings.append(warning("segment exceeds video", where, f"{what} of {video.duration:g} s: clipped"))
        seen.add((label, start, end))


def _against_manifest(manifest: Manifest, found: _Found, findings: list[Finding]) -> None:
    for subset in manifest.subsets:
        if not found.subsets[subset]:
            names = ", ".join(sorted(found.subsets)) or "none"
            findings.append(error("empty subset", f"subset {subset}", f"no video is in it; found {names}"))
    for subset, count in sorted(found.subsets.items()):
        if subset not in manifest.subsets:
            detail = f"has no role in dataset.yaml: its {count} videos are left out"
            findings.append(warning("subset without role", f"subset {subset}", detail))
    for video_id in manifest.ignored:
        if video_id not in found.ids:
            findings.append(warning("unknown ignored video", f"video {video_id}", "is not in annotations.json"))


def _held_out(root: Path, manifest: Manifest, found: _Found, findings: list[Finding]) -> None:
    durations = {v.id: v.duration for v in found.videos.values()}
    training = {v.id for v in found.videos.values() if manifest.subsets[v.subset] == "train"}
    try:
        points = read_points(root / POINTS, manifest.classes, durations)
        read_held_out(root / str(manifest.held_out), manifest.classes, durations, training, points)
    except DataError as problem:
        findings.append(error("held-out points", str(manifest.held_out), str(problem)))


def _ambiguous(path: Path, found: _Found, findings: list[Finding]) -> None:
    try:
        intervals = read_ambiguous(path)
    except DataError as problem:
        findings.append(error("ambiguous intervals", path.name, str(problem)))
        return
    for video_id in sorted(set(intervals) - found.ids):
        findings.append(warning("ambiguous intervals", f"video {video_id}", "is not in annotations.json"))
