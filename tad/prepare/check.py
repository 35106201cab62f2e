"""`tad check`: every problem of a dataset folder at once, where opening it stops at the first bad file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tad.data.check_ids import check_classes, check_ids
from tad.data.findings import Finding, error, warning
from tad.data.labels import POINTS, read_held_out, read_points, unlike
from tad.data.manifest import Manifest, beside, read_manifest
from tad.data.remote import RemoteFolder, is_uri
from tad.data.videos import Unusable, Video, database_of, subset_of, video_of
from tad.errors import DataError
from tad.evaluation.ground_truth import State, annotated, judged, read_ambiguous, wrong_unit
from tad.files import Doubled, parse_json, read_text
from tad.prepare.check_features import check_features
from tad.prepare.check_labels import check_labels

SEGMENTS: dict[State, tuple[str, str]] = {
    "exceeds": ("segment exceeds video", "of {duration:g} s: clipped"),
    "beyond": ("segment beyond video", "of {duration:g} s: dropped"),
    "duplicate": ("duplicate segment", "the copy is dropped"),
    "zero length": ("zero-length segment", "dropped"),
    "reversed by rounding": ("segment reversed by rounding", "dropped"),
}
"""Kind and remark of the warnings about segments."""


def check(root: Path | str, progress: Callable[[Iterable[Path]], Iterable[Path]] = iter) -> list[Finding]:
    """Every finding of a dataset folder: manifest, annotations, labels, ambiguous intervals, features.

    Args:
        root: the folder; of a URI all files are fetched to the cache, as training would.
        progress: wraps the iteration over feature files, for a progress bar.

    Raises:
        DataError: there is no such folder, or it cannot be fetched; everything else is a finding.
    """
    if is_uri(root):
        remote = RemoteFolder(str(root))
        remote.fetch_small()
        remote.fetch_features(progress)
        return check(remote.here, progress)
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such dataset folder")
    findings: list[Finding] = []
    manifest = _manifest(root, findings)
    found = _annotations(root / "annotations.json", manifest, findings)
    if manifest is not None and found.readable:
        _against_manifest(manifest, found, findings)
    findings += check_ids(found.videos)
    findings += check_labels(root, manifest, found.videos, found.ids, found.spans, known=found.readable)
    if manifest is not None and manifest.ambiguous is not None:
        _ambiguous(root, manifest.ambiguous, found, findings)
    if manifest is not None and manifest.held_out is not None and not any(f.severity == "error" for f in findings):
        _held_out(root, manifest, found, findings)
    features = check_features(root, manifest, found.videos, found.ids, progress)
    return findings + [f for f in features if found.readable or f.kind != "extra file"]


@dataclass
class _Found:
    """What annotations.json holds."""

    readable: bool = False
    ids: set[str] = field(default_factory=set)
    """Every id, also of unusable videos and of subsets without a role."""
    videos: dict[str, Video] = field(default_factory=dict)
    """Usable videos of subsets with a role."""
    subsets: Counter[str] = field(default_factory=Counter)
    spans: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    """Start and end of the usable segments by video and class."""


def _manifest(root: Path, findings: list[Finding]) -> Manifest | None:
    try:
        return read_manifest(root)
    except DataError as problem:
        findings.append(error("dataset.yaml", "dataset.yaml", _without(root, problem)))
        return None


def _without(root: Path, problem: DataError) -> str:
    """The text of an error whose file, at its front, is named anyway."""
    text = str(problem).replace(f"{root}/", "")
    return re.sub(r"^[^/:\s]+: ", "", text, count=1)


def _annotations(path: Path, manifest: Manifest | None, findings: list[Finding]) -> _Found:
    found = _Found()
    doubled: list[Doubled] = []
    try:
        database = database_of(parse_json(read_text(path), path.name, doubled), path.name)
    except DataError as problem:
        findings.append(error("annotations.json", "annotations.json", _without(path.parent, problem)))
        return found
    found.readable = True
    states: Counter[State] = Counter()
    for key, values in doubled:
        findings.append(_doubled(key, values))
    for video_id, entry in database.items():
        found.ids.add(video_id)
        subset = subset_of(entry)
        if subset is not None:
            found.subsets[subset] += 1
        try:
            video = video_of(video_id, entry, manifest)
        except Unusable as problem:
            findings.append(error(problem.kind, problem.video, str(problem)))
            continue
        if video is not None:
            _segments(video, entry, manifest, found.spans, states, findings)
            found.videos[video_id] = video
    if (wrong := wrong_unit(states["beyond"], states.total())) is not None:
        findings.append(error("segments not in seconds", "annotations.json", wrong))
    return found


def _doubled(key: str, values: list[Any]) -> Finding:
    subsets = {s for value in values if (s := subset_of(value)) is not None}
    if not subsets:
        return error("duplicate key", f"key {key}", f"appears {len(values)} times in one object")
    if len(subsets) > 1:
        return error("video in two subsets", f"video {key}", f"is in the subsets {', '.join(sorted(subsets))}")
    return error("duplicate id", f"video {key}", f"appears {len(values)} times in annotations.json")


def _segments(
    video: Video,
    entry: Any,
    manifest: Manifest | None,
    spans: dict[tuple[str, str], list[tuple[float, float]]],
    states: Counter[State],
    findings: list[Finding],
) -> None:
    problems: list[str] = []
    rows = annotated(video.id, entry, problems)
    for problem in problems:
        where, _, detail = problem.partition(": ")
        findings.append(error("malformed segment", where, detail))
    for row, state in judged(rows, video.duration):
        where = f"video {video.id}, row {row.number}"
        states[state] += 1
        spans.setdefault((video.id, row.label), []).append((row.start, row.end))
        if manifest is not None and row.label not in manifest.classes:
            findings.append(
                error("unknown class", where, f"not in dataset.yaml: {unlike(row.label, manifest.classes)}")
            )
        if state == "malformed":
            findings.append(error("reversed segment", where, f"{row}: start must be before end, both finite"))
        elif state in SEGMENTS:
            kind, remark = SEGMENTS[state]
            findings.append(warning(kind, where, f"{row}: " + remark.format(duration=video.duration)))


def _against_manifest(manifest: Manifest, found: _Found, findings: list[Finding]) -> None:
    for subset in manifest.subsets:
        if not found.subsets[subset]:
            names = ", ".join(sorted(found.subsets)) or "none"
            findings.append(error("empty subset", f"subset {subset}", f"no video is in it; found {names}"))
    train = {v.id for v in found.videos.values() if manifest.subsets[v.subset] == "train"}
    if train and train <= set(manifest.ignored):
        findings.append(error("empty subset", "role train", "dataset.yaml ignores all its videos"))
    findings += check_classes(manifest.classes)
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
    file = str(manifest.held_out)
    try:
        points = read_points(root / POINTS, manifest.classes, durations)
        read_held_out(beside(root, file, "held_out"), manifest.classes, durations, training, points)
    except DataError as problem:
        findings.append(error("held-out points", file, _without(root, problem)))


def _ambiguous(root: Path, file: str, found: _Found, findings: list[Finding]) -> None:
    try:
        intervals = read_ambiguous(beside(root, file, "ambiguous"))
    except DataError as problem:
        findings.append(error("ambiguous intervals", file, _without(root, problem)))
        return
    for video_id in sorted(set(intervals) - found.ids):
        findings.append(warning("ambiguous intervals", f"video {video_id}", "is not in annotations.json"))
