"""`tad labels`: a dataset with weaker labels, or with some boundaries of its training videos as full labels.

This module, which `tad split --labelled` uses, too, is the one way by which boundaries of annotations.json become
labels that training reads, and the one by which classes of videos are taken from points or annotations. dataset.yaml
says what was done. Labels of test videos are never written.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset, Derived, Role
from tad.data.labels import SUPERVISION, FullLabels, Supervision
from tad.data.segments import Segments
from tad.errors import DataError, listing
from tad.evaluation.ground_truth import repaired
from tad.prepare.output import output_folder
from tad.prepare.split import sources, stratified_parts, write_split

Kind = Supervision | Literal["keep"]
KINDS: tuple[Kind, ...] = (*SUPERVISION, "keep")
Origin = Literal["given", "annotations"]


class Made(NamedTuple):
    """What `derive_labels` wrote.

    Attributes:
        folder: where it stands.
        kinds: number of training videos by what they were left with.
        classes: rows of labels.csv; points: rows of points.csv; boundaries: segments of full_labels.csv.
    """

    folder: Path
    kinds: dict[Kind, int]
    classes: int
    points: int
    boundaries: int


def one_kind(data: Dataset, kind: Kind, videos: Collection[str] | None = None) -> dict[str, Kind]:
    """The same kind of label for all training videos, or for some; the others keep what they have.

    Raises:
        DataError: lists every one of `videos` that is not a training video.
    """
    train = data.videos("train")
    strangers = sorted(set(videos or ()) - set(train))
    if strangers:
        raise DataError(f"{data.root}: not among the training videos: {listing([f'video {v}' for v in strangers])}")
    return {v: kind if videos is None or v in videos else "keep" for v in train}


def drawn(data: Dataset, shares: Mapping[Kind, float], seed: int) -> dict[str, Kind]:
    """A kind of label for each training video: shares of the videos, stratified by class, the same for the same seed.

    Classes are those of the given labels, or of the annotations of a video that has none.

    Raises:
        DataError: the shares are not positive or do not sum to 1.
    """
    if not shares or min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1, abs_tol=1e-6):
        text = ", ".join(f"{kind}={share:g}" for kind, share in shares.items())
        raise DataError(
            f"shares of labels must be positive and sum to 1, found {text or 'none'}; `keep` is a kind, too"
        )
    videos, share = data.videos("train"), np.array(list(shares.values()))
    exact = share * len(videos)
    sizes = np.floor(exact + 1e-9).astype(np.int64)
    sizes[np.argsort(sizes - exact, kind="stable")[: len(videos) - sizes.sum()]] += 1  # largest remainders
    bare = [v for v in videos if data.supervision(v) == "none"]
    classes = {v: set(data.video_classes(v).tolist()) for v in videos} | annotated_classes(data, bare)
    parts = stratified_parts(classes, sizes, sizes / max(1, len(videos)), seed)
    kind_of = {v: kind for kind, part in zip(shares, parts, strict=True) for v in part}
    return {v: kind_of[v] for v in videos}


def annotated_classes(data: Dataset, videos: Collection[str]) -> dict[str, set[int]]:
    """The classes of each video's annotated segments; empty where it has none."""
    annotated = repaired(data, list(videos))[0].by_video() if videos else {}
    return {v: set(_labels(data, annotated.get(v)).tolist()) for v in videos}


def derive_labels(
    data: Dataset,
    kinds: Mapping[str, Kind],
    out: Path,
    *,
    classes_from: Origin = "given",
    seed: int | None = None,
    name: str | None = None,
    force: bool = False,
) -> Made:
    """Writes OUT: the dataset with other labels. Features are linked; ignored videos are left out.

    A video of kind "full" gets its annotated segments and keeps its points; "points" keeps its points alone; "classes"
    gets its classes alone; "none" loses all; "keep" changes nothing. Dev videos keep their labels, but where all
    training videos are left with classes or nothing, they get their classes alone, too.

    Args:
        kinds: of every training video.
        classes_from: "given": any labels that the dataset has; "annotations": the classes of a video's segments.
        seed: by which `kinds` was drawn, for the record.
        name: of the new dataset; by default that of `data` and the kinds.
        force: replace an earlier output of `tad labels`.

    Raises:
        DataError: lists every video that lacks what its kind needs; annotations are malformed; or `out` cannot be used.
    """
    with output_folder(out, "labels", force=force, sources=sources(data)) as fresh:
        made = write_labels(data, kinds, fresh, classes_from=classes_from, seed=seed, name=name)
    return made._replace(folder=out)


def write_labels(
    data: Dataset,
    kinds: Mapping[str, Kind],
    fresh: Path,
    *,
    classes_from: Origin,
    seed: int | None = None,
    mode: Literal["stratified", "uniform"] | None = None,
    name: str | None = None,
) -> Made:
    """As `derive_labels`, into a new folder of `output_folder`; `mode` is how `tad split --labelled` drew `kinds`."""
    wanted: dict[str, Kind] = dict(kinds)
    if set(kinds.values()) <= {"classes", "none"}:
        wanted.update((v, "classes") for v in data.videos("dev") if data.supervision(v) != "none")
    reads = [v for v, kind in wanted.items() if kind == "full" or (kind == "classes" and classes_from == "annotations")]
    annotated = repaired(data, reads)[0].by_video()
    points, held_out = dict(data.points_by_id), dict(data.held_out_by_id)
    classes, full = dict(data.classes_by_id), dict(data.full_by_id)
    problems: list[str] = []
    for video, kind in wanted.items():
        segments = annotated.get(video, Segments.empty())
        problem = None
        if kind == "keep":
            continue
        if kind == "full":
            problem = _lacking(data, video, segments)
            full[video] = _full(data, segments)
        else:
            full.pop(video, None)
        if kind == "classes":
            own = data.video_classes(video) if classes_from == "given" else np.unique(_labels(data, segments))
            if not len(own):
                hint = "give its labels, or take --from annotations" if classes_from == "given" else "no segment"
                problem = f"video {video}: no class to write: {hint}"
            classes[video] = own
        else:
            classes.pop(video, None)
        if kind == "points" and not len(data.points(video).time):
            problem = f"video {video}: has no points; points cannot be made of other labels"
        if kind in ("classes", "none"):
            points.pop(video, None)
        if kind != "points":
            held_out.pop(video, None)
        problems += [problem] if problem is not None else []
    if problems:
        raise DataError(f"{data.root}: " + listing(problems))
    count: dict[Kind, int] = {k: n for k in KINDS if (n := Counter(kinds.values())[k])}
    record = Derived(source=data.name, classes_from=classes_from, kinds=count, seed=seed, mode=mode)
    changed = replace(
        data,
        manifest=data.manifest.model_copy(update={"labels": record}),
        points_by_id=points,
        held_out_by_id=held_out,
        classes_by_id=classes,
        full_by_id=full,
    )
    roles: dict[str, Role] = {v: role for role in ("train", "dev", "test") for v in data.videos(role)}  # type: ignore[misc]
    title = name or "-".join([data.name, *(k for k in count if k != "keep")])
    write_split(changed, roles, fresh, title, made=data.manifest.split)
    made = Dataset.open(fresh)
    return Made(
        fresh,
        count,
        sum(len(own) for own in made.classes_by_id.values()),
        sum(len(own.time) for own in made.points_by_id.values()),
        sum(len(own.label) for own in made.full_by_id.values()),
    )


def summary(made: Made) -> str:
    """What was written, in two lines."""
    kinds = ", ".join(f"{n} {kind}" for kind, n in made.kinds.items())
    return (
        f"{made.folder}: training videos: {kinds}\n"
        f"labels: {made.boundaries} full, {made.points} points, {made.classes} classes of videos"
    )


def _full(data: Dataset, segments: Segments) -> FullLabels:
    order = np.lexsort((_labels(data, segments), segments.end, segments.start))
    return FullLabels(segments.spans[order], _labels(data, segments)[order])


def _labels(data: Dataset, segments: Segments | None) -> np.ndarray:
    """[N] int64 class indices."""
    return np.zeros(0, dtype=np.int64) if segments is None else segments.label_index(data.classes)


def _lacking(data: Dataset, video: str, segments: Segments) -> str | None:
    """Why annotations cannot be the full labels of a video; without given classes, no segment means no action."""
    missing = set(data.video_classes(video).tolist()) - set(_labels(data, segments).tolist())
    if not missing:
        return None
    names = ", ".join(data.classes[c] for c in sorted(missing))
    return f"video {video}: its labels name {names}, but annotations.json has no segment of it"
