"""`tad check`: every problem of a dataset folder at once, where opening it stops at the first bad file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tad.data.findings import Finding, error, warning
from tad.data.labels import POINTS, open_held_out, open_labels, unlike
from tad.data.manifest import Manifest, beside, read_manifest
from tad.data.remote import RemoteFolder, is_uri
from tad.data.videos import Video, database_of, subset_of, video_of
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
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for devices, with any extension."""
NO_ACTION = {"background", "bg", "none", "null", "nan", "na", "n/a", "no action", "noaction", "ambiguous", "unlabeled"}
"""What other tools call the time without an action, or an empty cell, in small letters."""


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
    manifest = None
    try:
        manifest = read_manifest(root)
    except DataError as problem:
        findings.append(_refused("dataset.yaml", "dataset.yaml", root, problem))
    found = _annotations(root, manifest, findings)
    if manifest is not None and found.readable:
        findings += _against_manifest(manifest, found)
    findings += _ids(found.videos)
    findings += check_labels(root, manifest, found.videos, found.spans, known=found.readable)
    if manifest is not None and manifest.ambiguous is not None:
        findings += _ambiguous(root, manifest.ambiguous, found)
    if manifest is not None and manifest.held_out is not None and not any(f.severity == "error" for f in findings):
        findings += _held_out(root, manifest, found.videos)
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
    spans: dict[tuple[str, str], list[tuple[float, ...]]] = field(default_factory=dict)
    """Start and end of the usable segments by video and class."""
    states: Counter[State] = field(default_factory=Counter)
    """Of all segments."""


def _refused(kind: str, file: str, root: Path, problem: DataError) -> Finding:
    """An error that a whole file is; its name, which the finding has anyway, is cut off the text."""
    text = str(problem).replace(f"{root}/", "")
    return error(kind, file, re.sub(r"^[^/:\s]+: ", "", text, count=1))


def _annotations(root: Path, manifest: Manifest | None, findings: list[Finding]) -> _Found:
    found, path = _Found(), root / "annotations.json"
    doubled: list[Doubled] = []
    try:
        database = database_of(parse_json(read_text(path), path.name, doubled), path.name)
    except DataError as problem:
        findings.append(_refused(path.name, path.name, root, problem))
        return found
    found.readable = True
    findings += [_doubled(key, values) for key, values in doubled]
    for video_id, entry in database.items():
        found.ids.add(video_id)
        subset = subset_of(entry)
        if subset is not None:
            found.subsets[subset] += 1
        video = video_of(video_id, entry, manifest)
        if isinstance(video, Finding):
            findings.append(video)
        elif video is not None:
            findings += _segments(video, entry, manifest, found)
            found.videos[video_id] = video
    if (wrong := wrong_unit(found.states["beyond"], found.states.total())) is not None:
        findings.append(error("segments not in seconds", path.name, wrong))
    return found


def _doubled(key: str, values: list[Any]) -> Finding:
    subsets = {s for value in values if (s := subset_of(value)) is not None}
    if not subsets:
        return error("duplicate key", f"key {key}", f"appears {len(values)} times in one object")
    if len(subsets) > 1:
        return error("video in two subsets", f"video {key}", f"is in the subsets {', '.join(sorted(subsets))}")
    return error("duplicate id", f"video {key}", f"appears {len(values)} times in annotations.json")


def _segments(video: Video, entry: Any, manifest: Manifest | None, found: _Found) -> Iterator[Finding]:
    problems: list[str] = []
    rows = annotated(video.id, entry, problems)
    for problem in problems:
        where, _, detail = problem.partition(": ")
        yield error("malformed segment", where, detail)
    for row, state in judged(rows, video.duration):
        where = f"video {video.id}, row {row.number}"
        found.states[state] += 1
        found.spans.setdefault((video.id, row.label), []).append((row.start, row.end))
        if manifest is not None and row.label not in manifest.classes:
            yield error("unknown class", where, f"class not in dataset.yaml: {unlike(row.label, manifest.classes)}")
        if state == "malformed":
            yield error("reversed segment", where, f"{row}: start must be before end, both finite")
        elif state in SEGMENTS:
            kind, remark = SEGMENTS[state]
            yield warning(kind, where, f"{row}: " + remark.format(duration=video.duration))


def _against_manifest(manifest: Manifest, found: _Found) -> Iterator[Finding]:
    for subset in manifest.subsets:
        if not found.subsets[subset]:
            names = ", ".join(sorted(found.subsets)) or "none"
            yield error("empty subset", f"subset {subset}", f"no video is in it; found {names}")
    train = {v.id for v in found.videos.values() if manifest.subsets[v.subset] == "train"}
    if train and train <= set(manifest.ignored):
        yield error("empty subset", "role train", "dataset.yaml ignores all its videos")
    yield from _classes(manifest.classes)
    for subset, count in sorted(found.subsets.items()):
        if subset not in manifest.subsets:
            detail = f"has no role in dataset.yaml: its {count} videos are left out"
            yield warning("subset without role", f"subset {subset}", detail)
    for video_id in manifest.ignored:
        if video_id not in found.ids:
            yield warning("unknown ignored video", f"video {video_id}", "is not in annotations.json")


def _classes(classes: Iterable[str]) -> Iterator[Finding]:
    """Classes that would be learnt as actions and look like none, and classes that look like one."""
    alike: dict[str, list[str]] = {}
    for name in classes:
        plain = " ".join(re.split(r"[\s_-]+", name.casefold()))
        alike.setdefault(plain, []).append(name)
        if plain in NO_ACTION:
            detail = (
                "is learnt as an action; background needs no class: if it is none, leave the class and its rows out"
            )
            yield warning("class that may be no action", f"class {name}", detail)
    for group in alike.values():
        if len(group) > 1:
            what = "differ in case or blanks only, and are two classes"
            yield warning("classes alike", f"classes {', '.join(group)}", what)


def _ids(ids: Iterable[str]) -> Iterator[Finding]:
    """Such a dataset works here, and breaks when it is copied to Windows or macOS."""
    alike: dict[str, list[str]] = {}
    for video_id in ids:
        alike.setdefault(video_id.lower(), []).append(video_id)
        if RESERVED.fullmatch(video_id):
            yield warning("id reserved on Windows", f"video {video_id}", "is the name of a device there")
        elif video_id.endswith("."):
            yield warning("id reserved on Windows", f"video {video_id}", "the dot at its end is lost there")
    for group in alike.values():
        if len(group) > 1:
            what = "differ in case only: one file on macOS and Windows"
            yield warning("ids alike", f"videos {', '.join(group)}", what)


def _held_out(root: Path, manifest: Manifest, videos: dict[str, Video]) -> Iterator[Finding]:
    file = str(manifest.held_out)
    try:
        points = open_labels(root / POINTS.file, POINTS, manifest, videos)
        open_held_out(beside(root, file, "held_out"), manifest, videos, points)
    except DataError as problem:
        yield _refused("held-out points", file, root, problem)


def _ambiguous(root: Path, file: str, found: _Found) -> Iterator[Finding]:
    try:
        intervals = read_ambiguous(beside(root, file, "ambiguous"))
    except DataError as problem:
        yield _refused("ambiguous intervals", file, root, problem)
        return
    for video_id in sorted(set(intervals) - found.ids):
        yield warning("ambiguous intervals", f"video {video_id}", "is not in annotations.json")
