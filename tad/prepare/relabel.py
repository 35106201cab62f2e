"""`tad labels` and `tad split --labelled`: a dataset with other labels of its training videos.

Weaker labels, or some boundaries of annotations.json as full labels. This module is the one way by which boundaries
become labels that training reads, and the one by which classes of videos are taken from points or annotations.
dataset.yaml says what was done. Labels of test videos are never written.

`split_labelled` is the setting of semi-supervised detection (SSTAP, APL): a few training videos get all their
boundaries as labels, the others none. The published splits were never released; which videos are drawn moves results
at 10 % more than most options do, so the lists are written and the seed is recorded.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset, Derived
from tad.data.labels import CLASSES, FULL, POINTS, SUPERVISION, Classes, FullLabels, Supervision
from tad.data.segments import Segments
from tad.errors import DataError, listing
from tad.evaluation.ground_truth import segments_of
from tad.files import write_json
from tad.prepare.derive import check_share, roles_of, sources, write_derived
from tad.prepare.output import output_folder
from tad.prepare.stratify import stratified

Kind = Supervision | Literal["keep"]
KINDS: tuple[Kind, ...] = (*SUPERVISION, "keep")
Origin = Literal["given", "annotations"]
Mode = Literal["stratified", "uniform"]
LISTS = "labelled.json"


class Made(NamedTuple):
    """What was written.

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

    def __str__(self) -> str:
        kinds = ", ".join(f"{n} {kind}" for kind, n in self.kinds.items())
        return (
            f"{self.folder}: training videos: {kinds}\n"
            f"labels: {self.boundaries} full, {self.points} points, {self.classes} classes of videos"
        )


class Labelled(NamedTuple):
    """What `split_labelled` wrote, the number of training videos, and the classes that no labelled video holds."""

    made: Made
    videos: int
    unseen: list[str]

    def __str__(self) -> str:
        made = self.made
        unseen = f"classes without a labelled video: {', '.join(self.unseen)}" if self.unseen else "every class is seen"
        return (
            f"{made.folder}: full labels of {made.kinds.get('full', 0)} of {self.videos} training videos with "
            f"{made.boundaries} actions; the lists are in {LISTS}\n{unseen}"
        )


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


def draw_kinds(data: Dataset, shares: Mapping[Kind, float], seed: int) -> dict[str, Kind]:
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
    parts = stratified(classes, sizes, seed)
    kind_of = {v: kind for kind, part in zip(shares, parts, strict=True) for v in part}
    return {v: kind_of[v] for v in videos}


def annotated_classes(data: Dataset, videos: Collection[str]) -> dict[str, set[int]]:
    """The classes of each video's annotated segments; empty where it has none."""
    annotated = segments_of(data, list(videos)).by_video() if videos else {}
    return {v: set(annotated.get(v, Segments.empty()).label_index(data.classes).tolist()) for v in videos}


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
    record = _record(data, kinds, classes_from, seed)
    with output_folder(out, "labels", force=force, sources=sources(data)) as fresh:
        name = name or "-".join([data.name, *(k for k in record.kinds if k != "keep")])
        return _write(data, kinds, fresh, name, record)._replace(folder=out)


def split_labelled(
    data: Dataset, share: float, mode: Mode, seed: int, out: Path, *, others: Kind = "none", force: bool = False
) -> Labelled:
    """Writes OUT: the dataset with full labels of some training videos, and labelled.json beside them with the lists.

    Full labels are all that a labelled video has: its points, which they hold, are not written. Dev and test videos
    stay what they are.

    Args:
        share: of the training videos, between 0 and 1.
        mode: see `labelled_videos`.
        others: what the other training videos are left with; classes are those of their annotations.
        force: replace an earlier output of `tad split`.

    Raises:
        DataError: the share cannot be had, annotations are missing or malformed, or `out` cannot be used.
    """
    classes = annotated_classes(data, data.videos("train"))
    chosen = labelled_videos(data, classes, share, mode, seed)
    kinds: dict[str, Kind] = dict.fromkeys(classes, others) | dict.fromkeys(chosen, "full")
    bare = replace(data, points_by_id={v: p for v, p in data.points_by_id.items() if kinds.get(v) != "full"})
    rest = [v for v in classes if kinds[v] != "full"]
    lists = {"share": share, "mode": mode, "seed": seed, "labelled": chosen, "unlabelled": rest}
    record = _record(data, kinds, "annotations" if others == "classes" else "given", seed, mode)
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        made = _write(bare, kinds, fresh, f"{data.name}-labelled-{share:g}-seed-{seed}", record)
        write_json(fresh / LISTS, lists)
    seen = {c for v in chosen for c in classes[v]}
    unseen = [name for c, name in enumerate(data.classes) if c not in seen]
    return Labelled(made._replace(folder=out), len(classes), unseen)


def labelled_videos(data: Dataset, classes: dict[str, set[int]], share: float, mode: Mode, seed: int) -> list[str]:
    """The training videos that are labelled: the same for the same seed, in the order of the dataset.

    A uniform draw leaves classes out: 10 % of THUMOS14 miss a class of ten videos once in three times. Stratified,
    every class gets a labelled video first, the rarest class before the others, and the rest follows the classes'
    shares.

    Args:
        data: named in errors.
        classes: of each training video.

    Raises:
        DataError: the share leaves no video on one side, no video has an action, or the labelled videos are too few to
            show every class.
    """
    check_share(data, share)
    count = round(share * len(classes))
    start = f"{data.root}: a share of {share:g} of {len(classes)} training videos is {count} labelled ones"
    if not 0 < count < len(classes):
        raise DataError(f"{start}; both sides need one at least")
    if not any(classes.values()):
        raise DataError(f"{data.root}: no training video has a segment in annotations.json; nothing can be labelled")
    if mode == "uniform":
        drawn = {list(classes)[i] for i in np.random.default_rng(seed).permutation(len(classes))[:count]}
        return [v for v in classes if v in drawn]
    first = _one_of_each_class(classes, seed)
    if len(first) > count:
        raise DataError(
            f"{start}, and the {len(set().union(*classes.values()))} classes need {len(first)} with seed {seed}; raise "
            "the share, try another seed, or use --mode uniform, which leaves classes out"
        )
    shares = np.array([share, 1 - share])
    return stratified(classes, [count, len(classes) - count], seed, shares, dict.fromkeys(first, 0))[0]


def _one_of_each_class(classes: dict[str, set[int]], seed: int) -> list[str]:
    """Videos that together hold every class, drawn class by class, the rarest first."""
    rng = np.random.default_rng([seed, 1])
    holders = {c: [v for v in classes if c in classes[v]] for c in sorted(set().union(*classes.values()))}
    chosen: list[str] = []
    for c in sorted(holders, key=lambda c: (len(holders[c]), c)):
        if not any(c in classes[v] for v in chosen):
            chosen.append(holders[c][rng.integers(len(holders[c]))])
    return chosen


def _record(
    data: Dataset, kinds: Mapping[str, Kind], classes_from: Origin, seed: int | None, mode: Mode | None = None
) -> Derived:
    """What dataset.yaml says of the new labels."""
    counts: dict[Kind, int] = {k: n for k in KINDS if (n := Counter(kinds.values())[k])}
    return Derived(source=data.name, classes_from=classes_from, kinds=counts, seed=seed, mode=mode)


def _write(data: Dataset, kinds: Mapping[str, Kind], fresh: Path, name: str, record: Derived) -> Made:
    """`derive_labels` into a new folder of `output_folder`."""
    wanted: dict[str, Kind] = dict(kinds)
    if set(kinds.values()) <= {"classes", "none"}:
        wanted.update((v, "classes") for v in data.videos("dev") if data.supervision(v) != "none")
    given = record.classes_from == "given"
    reads = [v for v, kind in wanted.items() if kind == "full" or (kind == "classes" and not given)]
    annotated = segments_of(data, reads).by_video()
    points, held_out = dict(data.points_by_id), dict(data.held_out_by_id)
    classes, full = dict(data.classes_by_id), dict(data.full_by_id)
    problems: list[str] = []
    for video, kind in wanted.items():
        if kind == "keep":
            continue
        segments = annotated.get(video, Segments.empty())
        labels = segments.label_index(data.classes)
        for found, stays in ((points, ("full", "points")), (held_out, ("points",)), (classes, ()), (full, ())):
            if kind not in stays:
                found.pop(video, None)
        if kind == "full":
            missing = set(data.video_classes(video).tolist()) - set(labels.tolist())
            if missing:  # without given classes, no segment means no action
                names = ", ".join(data.classes[c] for c in sorted(missing))
                problems.append(f"video {video}: its labels name {names}, but annotations.json has no segment of it")
            order = np.lexsort((labels, segments.end, segments.start))
            full[video] = FullLabels(segments.spans[order], labels[order])
        elif kind == "classes":
            own = data.video_classes(video) if given else np.unique(labels)
            if not len(own):
                hint = "give its labels, or take --from annotations" if given else "no segment"
                problems.append(f"video {video}: no class to write: {hint}")
            classes[video] = Classes(own)
        elif kind == "points" and not len(data.points(video).time):
            problems.append(f"video {video}: has no points; points cannot be made of other labels")
    if problems:
        raise DataError(f"{data.root}: " + listing(problems))
    changed = replace(
        data,
        manifest=data.manifest.model_copy(update={"labels": record}),
        points_by_id=points,
        held_out_by_id=held_out,
        classes_by_id=classes,
        full_by_id=full,
    )
    write_derived(changed, roles_of(data), fresh, name, made=data.manifest.split)
    made = Dataset.open(fresh)
    counts = [sum(len(own.label) for own in made.labels(kind).values()) for kind in (CLASSES, POINTS, FULL)]
    return Made(fresh, dict(record.kinds), *counts)
