"""`tad split --labelled`: a few training videos get all their boundaries as labels, the others none.

The setting of semi-supervised detection (SSTAP, APL). The published splits were never released; which videos are drawn
moves results at 10 % more than most options do, so the lists are written and the seed is recorded. The annotations of
training videos are read here, and what is written of them is the labels of the drawn videos alone
(tad.prepare.relabel).
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.files import write_json
from tad.prepare.output import output_folder
from tad.prepare.relabel import Kind, Made, annotated_classes, write_labels
from tad.prepare.split import sources, stratified_parts

Mode = Literal["stratified", "uniform"]
LISTS = "labelled.json"


class Labelled(NamedTuple):
    """What `split_labelled` wrote."""

    made: Made
    videos: int
    """Of training, labelled or not."""
    unseen: list[str]
    """Classes that no labelled video holds."""


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
    name = f"{data.name}-labelled-{share:g}-seed-{seed}"
    origin: Literal["given", "annotations"] = "annotations" if others == "classes" else "given"
    lists = {
        "share": share,
        "mode": mode,
        "seed": seed,
        "labelled": chosen,
        "unlabelled": [v for v in classes if kinds[v] != "full"],
    }
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        made = write_labels(bare, kinds, fresh, classes_from=origin, seed=seed, mode=mode, name=name)
        write_json(fresh / LISTS, lists)
    made = made._replace(folder=out)
    seen = {c for v in chosen for c in classes[v]}
    return Labelled(made, len(classes), [name for c, name in enumerate(data.classes) if c not in seen])


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
    if not 0 < share < 1:
        raise DataError(f"{data.root}: a share must lie between 0 and 1, found {share}")
    count = round(share * len(classes))
    sizes, shares = np.array([count, len(classes) - count]), np.array([share, 1 - share])
    if not sizes.all():
        raise DataError(
            f"{data.root}: a share of {share:g} of {len(classes)} training videos is {count} labelled ones; both sides "
            "need one at least"
        )
    if not any(classes.values()):
        raise DataError(f"{data.root}: no training video has a segment in annotations.json; nothing can be labelled")
    if mode == "uniform":
        drawn = {list(classes)[i] for i in np.random.default_rng(seed).permutation(len(classes))[:count]}
        return [v for v in classes if v in drawn]
    first = _one_of_each_class(classes, seed)
    if len(first) > count:
        present = set().union(*classes.values())
        raise DataError(
            f"{data.root}: a share of {share:g} of {len(classes)} training videos is {count} labelled ones, and the "
            f"{len(present)} classes need {len(first)} with seed {seed}; raise the share, try another seed, or use "
            "--mode uniform, which leaves classes out"
        )
    return stratified_parts(classes, sizes, shares, seed, fixed=dict.fromkeys(first, 0))[0]


def _one_of_each_class(classes: dict[str, set[int]], seed: int) -> list[str]:
    """Videos that together hold every class, drawn class by class, the rarest first."""
    rng = np.random.default_rng([seed, 1])
    holders = {c: [v for v in classes if c in classes[v]] for c in sorted(set().union(*classes.values()))}
    chosen: list[str] = []
    for c in sorted(holders, key=lambda c: (len(holders[c]), c)):
        if not any(c in classes[v] for v in chosen):
            chosen.append(holders[c][rng.integers(len(holders[c]))])
    return chosen


def summary(found: Labelled) -> str:
    """What was written, in a few lines."""
    made = found.made
    unseen = f"classes without a labelled video: {', '.join(found.unseen)}" if found.unseen else "every class is seen"
    return (
        f"{made.folder}: full labels of {made.kinds.get('full', 0)} of {found.videos} training videos with "
        f"{made.boundaries} actions; the lists are in {LISTS}\n{unseen}"
    )
