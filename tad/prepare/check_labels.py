"""What label files say that contradicts each other or the annotations, and what they leave out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tad.data.findings import Finding, warning
from tad.data.labels import CLASSES, FULL, POINTS, TYPES, LabelType, Row, read_labels
from tad.data.manifest import Manifest
from tad.data.videos import Video

OUTSIDE, FEW = 0.5, 10
"""Share of the points that may lie outside the annotated segments (annotators slip, but seldom), and the number of
points from which it says something."""
Spans = Mapping[tuple[str, str], Sequence[tuple[float, ...]]]
"""Start and end of segments by video and class."""


def check_labels(
    root: Path, manifest: Manifest | None, videos: Mapping[str, Video], spans: Spans, *, known: bool
) -> list[Finding]:
    """Bad rows, then contradictions between the files, then classes and training videos without any label.

    Args:
        videos: usable videos of subsets with a role.
        spans: annotated segments.
        known: whether annotations.json could be read; else nothing is said of videos that it may hold.
    """
    if not any((root / kind.file).exists() for kind in TYPES):
        others = " and ".join(kind.file for kind in TYPES[1:])
        return [warning("no labels", POINTS.file, f"missing, and so are {others}: nothing can be trained")]
    findings: list[Finding] = []
    given = {kind: read_labels(root / kind.file, kind, manifest, videos, findings) for kind in TYPES}
    if not known:
        return [f for f in findings if not f.kind.endswith("of unknown video")]
    findings += _beside_segments(given[POINTS], spans)
    for kind in (CLASSES, FULL):
        findings += _lacking(kind, given)
    findings += _outside_full_labels(given[POINTS], given[FULL])
    if manifest is not None:
        train = {v.id for v in videos.values() if manifest.subsets.get(v.subset) == "train"} - set(manifest.ignored)
        found = [row for rows in given.values() for row in rows if row.video in train]
        taught, labelled = {row.label for row in found}, {row.video for row in found}
        untaught = [label for label in manifest.classes if label not in taught]
        findings += [warning("class without label", c, "no training video has a label of it") for c in untaught]
        bare = [f"video {video}" for video in sorted(train - labelled)]
        findings += [warning("video without label", video, "a training video without any label") for video in bare]
    return findings


def _beside_segments(points: Sequence[Row], spans: Spans) -> list[Finding]:
    """A warning if most points of videos with segments of their class lie in none of them."""
    judged = [row for row in points if (row.video, row.label) in spans]
    outside = sum(not _inside(row, spans) for row in judged)
    if len(judged) < FEW or outside <= OUTSIDE * len(judged):
        return []
    detail = (
        f"{outside} of {len(judged)} lie in no annotated segment of their class: points are seconds; is their unit or "
        "the frame rate by which they were made right?"
    )
    return [warning("points outside segments", POINTS.file, detail)]


def _inside(row: Row, spans: Spans) -> bool:
    return any(start <= row.times[0] <= end for start, end in spans[row.video, row.label])


def _lacking(kind: LabelType, given: Mapping[LabelType, Sequence[Row]]) -> Iterator[Finding]:
    """Classes that another file gives a video, and a file that should hold all of them does not."""
    whole = _classes(given[kind])
    for other, rows in given.items():
        found = _classes(rows)
        for video in sorted(whole.keys() & found.keys()) if other is not kind else ():
            for label in sorted(found[video] - whole[video] - {""}):
                detail = f"{other.file} has {label}, {kind.file} does not: it counts as a class of the video"
                yield warning(f"class missing in {kind.file}", f"video {video}", detail)


def _outside_full_labels(points: Sequence[Row], full: Sequence[Row]) -> Iterator[Finding]:
    spans: dict[tuple[str, str], list[tuple[float, ...]]] = {}
    for row in full:
        if row.times:
            spans.setdefault((row.video, row.label), []).append(row.times)
    for row in points:
        if (row.video, row.label) in spans and not _inside(row, spans):
            detail = f"{row.label} at {row.times[0]:g} s lies in no full label of its class"
            yield warning("point outside full labels", f"video {row.video}", detail)


def _classes(rows: Sequence[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.video, set()).add(row.label)
    return found
