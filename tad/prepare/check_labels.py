"""Findings of the label files: points.csv, labels.csv and full_labels.csv."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tad.data.findings import Finding, error, warning
from tad.data.labels import CLASSES, FULL, HEADERS, POINTS, is_empty, rows, time_of, unlike
from tad.data.manifest import Manifest
from tad.data.videos import Video
from tad.errors import DataError, shortened

WORDS = {POINTS: "point", CLASSES: "label", FULL: "full label"}


class _Row(NamedTuple):
    """A usable row; `label` is empty and `times` are none where a video is said to hold no action."""

    video: str
    label: str
    times: tuple[float, ...]
    """Seconds: of a point, or start and end."""


OUTSIDE, FEW = 0.5, 10
"""Share of the points that may lie outside the annotated segments (annotators slip, but seldom), and the number of
points from which it says something."""
Spans = Mapping[tuple[str, str], Sequence[tuple[float, float]]]


def check_labels(
    root: Path, manifest: Manifest | None, videos: Mapping[str, Video], ids: set[str], spans: Spans, *, known: bool
) -> list[Finding]:
    """Bad rows, then contradictions between the files, then classes and training videos without any label.

    Args:
        videos: usable videos of subsets with a role.
        ids: every id of annotations.json; labels of the others are errors.
        spans: annotated segments by video and class.
        known: whether annotations.json could be read; else nothing is said of videos that it may hold.
    """
    if not any((root / name).exists() for name in WORDS):
        return [warning("no labels", POINTS, f"missing, and so are {CLASSES} and {FULL}: nothing can be trained")]
    findings: list[Finding] = []
    given = {name: _rows(root / name, manifest, videos, ids, findings) for name in WORDS}
    if not known:
        return [f for f in findings if not f.kind.endswith("of unknown video")]
    findings += _beside_segments(given[POINTS], spans)
    _contradictions(given[POINTS], given[CLASSES], given[FULL], findings)
    if manifest is not None:
        train = {v.id for v in videos.values() if manifest.subsets.get(v.subset) == "train"} - set(manifest.ignored)
        found = [row for table in given.values() for row in table]
        taught = {row.label for row in found if row.video in train}
        for label in manifest.classes:
            if label not in taught:
                findings.append(warning("class without label", label, "no training video has a label of it"))
        for video_id in sorted(train - {row.video for row in found}):
            findings.append(warning("video without label", f"video {video_id}", "a training video without any label"))
    return findings


def _rows(
    path: Path, manifest: Manifest | None, videos: Mapping[str, Video], ids: Collection[str], findings: list[Finding]
) -> list[_Row]:
    """The rows of one file that can be used; the others become findings."""
    name, word = path.name, WORDS[path.name]
    found: list[_Row] = []
    uneven: list[tuple[int, str]] = []
    try:
        table = list(rows(path, HEADERS[name], uneven))
    except DataError as problem:
        text = str(problem).removeprefix(f"{path}: ")
        kind = f"{word}s header" if text.startswith("the header") else f"unreadable {word}s"
        findings.append(error(kind, name, text))
        return []
    prefix = "" if name == POINTS else f"{name} "
    findings += [error(f"malformed {word}", f"{prefix}line {line}", problem) for line, problem in uneven]
    seen: set[_Row] = set()
    for line, row in table:
        video_id, label = row["video_id"], row["label"]
        where = f"{prefix}line {line}, video {video_id}"
        empty = name == FULL and is_empty(row)
        times = () if empty else tuple(time_of(row[key]) for key in HEADERS[name][2:])
        if any(t is None or t != t or abs(t) == float("inf") for t in times):
            texts = ", ".join(f"{key} {shortened(row[key])}" for key in HEADERS[name][2:])
            findings.append(error(f"malformed {word}", where, f"{texts} is not a number"))
            continue
        video = videos.get(video_id)
        if video is None:
            detail = "has no usable entry in a subset with a role" if video_id in ids else "not in annotations.json"
            findings.append(error(f"{word} of unknown video", where, detail))
            continue
        one = _Row(video_id, label, times)  # type: ignore[arg-type]
        if manifest is not None and not empty and label not in manifest.classes:
            findings.append(error("unknown class", where, f"not in dataset.yaml: {unlike(label, manifest.classes)}"))
        if name == FULL and manifest is not None and manifest.subsets.get(video.subset) != "train":
            findings.append(
                error("full label outside training", where, "does not train: nothing may read its boundaries")
            )
        if name == FULL and not empty and not one.times[0] < one.times[1]:
            findings.append(error("reversed full label", where, f"[{one.times[0]:g}, {one.times[1]:g}] s"))
        elif any(not 0 <= t <= video.duration for t in one.times):
            texts = ", ".join(f"{t:g}" for t in one.times)
            findings.append(error(f"{word} outside video", where, f"{texts} s of {video.duration:g} s"))
        if one in seen:
            at = f" at {', '.join(f'{t:g}' for t in one.times)} s" if one.times else ""
            findings.append(warning(f"duplicate {word}", where, f"{label}{at} appears twice"))
        seen.add(one)
        found.append(one)
    return found


def _beside_segments(points: list[_Row], spans: Spans) -> list[Finding]:
    """A warning if most points of videos with segments of their class lie in none of them."""
    judged = [row for row in points if (row.video, row.label) in spans]
    outside = sum(not any(start <= row.times[0] <= end for start, end in spans[row.video, row.label]) for row in judged)
    if len(judged) < FEW or outside <= OUTSIDE * len(judged):
        return []
    detail = (
        f"{outside} of {len(judged)} lie in no annotated segment of their class: points are seconds; is their unit or "
        "the frame rate by which they were made right?"
    )
    return [warning("points outside segments", POINTS, detail)]


def _contradictions(points: list[_Row], listed: list[_Row], full: list[_Row], findings: list[Finding]) -> None:
    """What one file says of a video and a file that should hold all of it does not."""
    by_full, by_list = _classes(full), _classes(listed)
    for video_id in sorted(by_full):
        if "" in by_full[video_id] and len(by_full[video_id]) > 1:
            findings.append(error("full labels contradict", f"video {video_id}", "holds no action, and holds some"))
    pointed = _classes(points)
    for whole, name in ((by_list, CLASSES), (by_full, FULL)):
        for other, source in ((pointed, POINTS), (by_list, CLASSES), (by_full, FULL)):
            for video_id in sorted(whole.keys() & other.keys()) if source != name else ():
                for label in sorted(other[video_id] - whole[video_id] - {""}):
                    detail = f"{source} has {label}, {name} does not: it counts as a class of the video"
                    findings.append(warning(f"class missing in {name}", f"video {video_id}", detail))
    spans: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in full:
        spans.setdefault((row.video, row.label), []).append(row.times)
    for row in points:
        own = spans.get((row.video, row.label))
        if own is not None and not any(start <= row.times[0] <= end for start, end in own):
            detail = f"{row.label} at {row.times[0]:g} s lies in no full label of its class"
            findings.append(warning("point outside full labels", f"video {row.video}", detail))


def _classes(table: list[_Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in table:
        found.setdefault(row.video, set()).add(row.label)
    return found
