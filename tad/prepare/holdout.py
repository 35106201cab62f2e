"""One dataset folder with something held out to choose by: training videos that become dev, or training points."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.dataset import Dataset, Role, Split
from tad.errors import DataError
from tad.prepare.output import output_folder
from tad.prepare.split import sources, stratified_parts, write_split


class HeldOut(NamedTuple):
    """What `split_holdout` wrote."""

    folder: Path
    videos: dict[Role, int]
    points: int
    """That training sees."""
    hidden: int
    """Points of training videos that it does not see."""
    missing: list[str]
    """Classes without a label in the training videos."""
    unjudged: list[str]
    """Classes that no label of what is held out names."""


def split_holdout(
    data: Dataset, dev: float | None, hide: float | None, seed: int, out: Path, *, force: bool = False
) -> HeldOut:
    """Writes OUT: a share of the training videos has the role dev, a share of the other ones' points is held out.

    Test videos stay what they are. dataset.yaml records the shares and the seed.

    Args:
        dev: share of the training videos with labels, stratified by class; None for none.
        hide: share of the points of the videos that still train, see `hide_points`; None for none.
        force: replace an earlier output of `tad split`.

    Raises:
        DataError: the dataset has dev videos already, a share cannot be had, or `out` cannot be used.
    """
    for share in (dev, hide):
        if share is not None and not 0 < share < 1:
            raise DataError(f"{data.root}: a share must lie between 0 and 1, found {share}")
    roles: dict[str, Role] = {}
    for role in ("train", "dev", "test"):
        roles.update(dict.fromkeys(data.videos(role), role))
    if dev is not None:
        roles.update(dict.fromkeys(dev_videos(data, dev, seed), "dev"))
    train = [v for v, role in roles.items() if role == "train"]
    hidden = hide_points(data, train, hide, seed) if hide is not None else {}
    suffix = ("-dev" if dev is not None else "") + ("-hidden" if hide is not None else "")
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        made = Split(dev=dev, hidden=hide, seed=seed)
        write_split(data, roles, fresh, data.name + suffix, hidden=hidden, made=made)
        own = Dataset.open(fresh)
    taught = {c for v in train for c in own.video_classes(v).tolist()}
    judged = {c for v in train for c in own.held_out(v).label.tolist()}
    judged |= {c for v in own.videos("dev") for c in own.video_classes(v).tolist()}
    return HeldOut(
        out,
        {role: n for role in ("train", "dev", "test") if (n := len(own.videos(role)))},
        sum(len(own.points(v).time) for v in train),
        sum(len(own.held_out(v).time) for v in train),
        [name for c, name in enumerate(data.classes) if c not in taught],
        [name for c, name in enumerate(data.classes) if c not in judged],
    )


def dev_videos(data: Dataset, share: float, seed: int) -> list[str]:
    """The training videos that become dev: stratified by the classes of their labels, the same for the same seed.

    Videos without labels keep training: nothing says what is in them. A class of one video keeps it for training.

    Raises:
        DataError: there are dev videos already, or the share leaves no video on one side.
    """
    if data.videos("dev"):
        raise DataError(
            f"{data.root}: has {len(data.videos('dev'))} dev videos already; use them, or fold them anew with --kfold"
        )
    classes = {v: set(data.video_classes(v).tolist()) for v in data.videos("train") if data.supervision(v) != "none"}
    count = round(share * len(classes))
    if not 0 < count < len(classes):
        raise DataError(
            f"{data.root}: a share of {share:g} of {len(classes)} training videos with labels is {count} dev videos; "
            "both sides need one at least"
        )
    sizes, shares = np.array([count, len(classes) - count]), np.array([share, 1 - share])
    return stratified_parts(classes, sizes, shares, seed)[0]


def hide_points(data: Dataset, videos: list[str], share: float, seed: int) -> dict[str, np.ndarray]:
    """Which points are hidden from training: [G] bool over `data.points(video)`, for each video that has some.

    The share is taken of each class, spread evenly over its videos. A class keeps at least one point in every video
    that has it, so that what the points say of whole videos stays true; where most videos have one point of a class,
    fewer than the share are hidden. None is in fully labelled videos, where training would see them all the same.

    Raises:
        DataError: no point can be hidden.
    """
    rng = np.random.default_rng([seed, 1])
    videos = [v for v in videos if data.full_labels(v) is None]
    masks = {v: np.zeros(len(data.points(v).time), dtype=bool) for v in videos}
    for c in range(len(data.classes)):
        owed = 0.5
        groups = [(v, rows) for v in videos if len(rows := np.flatnonzero(data.points(v).label == c))]
        for i in rng.permutation(len(groups)):
            video, rows = groups[i]
            owed += share * len(rows)
            count = min(len(rows) - 1, int(owed + 1e-9))
            owed -= count
            masks[video][rng.permutation(rows)[:count]] = True
    if not any(mask.any() for mask in masks.values()):
        raise DataError(
            f"{data.root}: no point can be hidden: no class has enough points in one video to lose a share of "
            f"{share:g} and keep one; hold out whole videos with --dev instead"
        )
    return {v: mask for v, mask in masks.items() if mask.any()}


def summary(made: HeldOut) -> str:
    """What was written, in a few lines."""
    videos = ", ".join(f"{n} {role}" for role, n in made.videos.items())
    hidden = f", {made.hidden} held out" if made.hidden else ""
    lines = [f"{made.folder}: {videos} videos, {made.points} training points{hidden}"]
    if made.missing:
        lines.append(f"classes without a training label: {', '.join(made.missing)}")
    if made.unjudged:
        lines.append(f"classes of which nothing is held out: {', '.join(made.unjudged)}")
    return "\n".join(lines)
