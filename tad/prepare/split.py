"""`tad split`: something is held out of the training videos to choose by.

K folds for datasets on which one split is too noisy, each a dataset folder of its own; or one folder in which training
videos became dev videos, or training points were hidden. Only given labels decide which video goes where; annotations
are copied unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.dataset import ROLES, Dataset, Role, Split
from tad.errors import DataError, listing
from tad.prepare.derive import check_share, roles_of, sources, write_derived
from tad.prepare.output import output_folder
from tad.prepare.stratify import stratified, stratified_folds


class Part(NamedTuple):
    """One dataset folder of a split.

    Attributes:
        videos: how many of each role.
        points: that training sees.
        hidden: points that it does not see: of the fold's own videos in the source (those of test videos are not
            written), or of training videos.
        missing: classes without a label in the training videos.
        unjudged: classes that no label of what is held out names.
    """

    folder: Path
    videos: dict[Role, int]
    points: int
    hidden: int
    missing: list[str]
    unjudged: list[str]


def split_kfold(data: Dataset, k: int, seed: int, out: Path, *, pool: bool = False, force: bool = False) -> list[Part]:
    """Writes OUT/fold-0 .. OUT/fold-(K-1); no fold is written if anything is wrong.

    Training and dev videos are folded: in OUT/fold-i those of fold i have the role dev, the others train, and test
    videos stay what they are. With `pool`, test videos are folded, too, and those of fold i have the role test.

    Args:
        k: number of folds, at least 2.
        pool: fold all videos, for cross-validation.
        force: replace an earlier output of `tad split`.

    Raises:
        DataError: `k` does not fit the number of videos, videos without any label would have to train (all are
            listed), or `out` cannot be used.
    """
    roles: tuple[Role, ...] = ROLES if pool else ("train", "dev")
    role_of = roles_of(data)
    videos = [v for v in data.videos_by_id if role_of.get(v) in roles]
    if not 2 <= k <= len(videos):
        raise DataError(
            f"{data.root}: {k} folds of {len(videos)} videos ({', '.join(roles)}); needs 2 to {len(videos)}"
        )
    bare = [f"video {v} ({role_of[v]}) has none" for v in videos if data.supervision(v) == "none"]
    if bare:
        hint = ", or leave out --pool" if pool else ""
        raise DataError(
            f"{data.root}: every video that is folded trains in some fold, so it needs a label: "
            f"{listing(bare)}\nAdd their labels, list them under `ignored` in dataset.yaml{hint}"
        )
    written = []
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        for i, fold in enumerate(stratified_folds(_classes(data, videos), k, seed)):
            assigned: dict[str, Role] = {} if pool else dict.fromkeys(data.videos("test"), "test")
            assigned.update((v, ("test" if pool else "dev") if v in fold else "train") for v in videos)
            (fresh / f"fold-{i}").mkdir()
            write_derived(data, assigned, fresh / f"fold-{i}", f"{data.name}-{'pooled-' if pool else ''}fold-{i}")
            made = _part(Dataset.open(fresh / f"fold-{i}"), out / f"fold-{i}")
            written.append(made._replace(hidden=sum(len(data.points(v).time) for v in fold)))
    return written


def split_holdout(
    data: Dataset, dev: float | None, hide: float | None, seed: int, out: Path, *, force: bool = False
) -> Part:
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
        if share is not None:
            check_share(data, share)
    roles = roles_of(data)
    if dev is not None:
        roles.update(dict.fromkeys(dev_videos(data, dev, seed), "dev"))
    train = [v for v, role in roles.items() if role == "train"]
    hidden = hide_points(data, train, hide, seed) if hide is not None else {}
    suffix = ("-dev" if dev is not None else "") + ("-hidden" if hide is not None else "")
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        made = Split(dev=dev, hidden=hide, seed=seed)
        write_derived(data, roles, fresh, data.name + suffix, hidden=hidden, made=made)
        return _part(Dataset.open(fresh), out)


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
    classes = _classes(data, [v for v in data.videos("train") if data.supervision(v) != "none"])
    count = round(share * len(classes))
    if not 0 < count < len(classes):
        raise DataError(
            f"{data.root}: a share of {share:g} of {len(classes)} training videos with labels is {count} dev videos; "
            "both sides need one at least"
        )
    return stratified(classes, [count, len(classes) - count], seed, np.array([share, 1 - share]))[0]


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


def holdout_summary(made: Part) -> str:
    """What `split_holdout` wrote, in a few lines."""
    videos = ", ".join(f"{n} {role}" for role, n in made.videos.items())
    hidden = f", {made.hidden} held out" if made.hidden else ""
    lines = [f"{made.folder}: {videos} videos, {made.points} training points{hidden}"]
    if made.missing:
        lines.append(f"classes without a training label: {', '.join(made.missing)}")
    if made.unjudged:
        lines.append(f"classes of which nothing is held out: {', '.join(made.unjudged)}")
    return "\n".join(lines)


def kfold_summary(folds: Sequence[Part]) -> str:
    """A table: each fold's videos and points, and the classes that its training videos do not teach."""
    lines = [
        f"{'fold':<8}{'train':>7}{'points':>8}{'held out':>10}{'points':>8}{'as':>6}   classes without a training label"
    ]
    for fold in folds:
        role: Role = "dev" if "dev" in fold.videos else "test"
        lines.append(
            f"{fold.folder.name:<8}{fold.videos['train']:>7}{fold.points:>8}{fold.videos[role]:>10}{fold.hidden:>8}"
            f"{role:>6}   {', '.join(fold.missing) or '-'}"
        )
    return "\n".join(lines)


def _part(data: Dataset, folder: Path) -> Part:
    """What a dataset that was just written holds; `folder` is where it will be."""
    train = data.videos("train")
    taught, judged = (set().union(*_classes(data, data.videos(role)).values()) for role in ("train", "dev"))
    judged |= {c for v in train for c in data.held_out(v).label.tolist()}
    missing, unjudged = ([name for c, name in enumerate(data.classes) if c not in own] for own in (taught, judged))
    videos = {role: n for role in ROLES if (n := len(data.videos(role)))}
    hidden = sum(len(data.held_out(v).time) for v in train)
    return Part(folder, videos, data.point_count("train"), hidden, missing, unjudged)


def _classes(data: Dataset, videos: Iterable[str]) -> dict[str, set[int]]:
    return {v: set(data.video_classes(v).tolist()) for v in videos}
