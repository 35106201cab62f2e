"""Splits of a dataset folder: K folds for datasets on which one split is too noisy.

Each fold becomes a dataset folder of its own (tad.prepare.holdout makes a single one). Only given labels decide which
video goes where; annotations are copied unread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.dataset import ROLES, Dataset, Role, Split
from tad.errors import DataError, listing
from tad.evaluation.ground_truth import ambiguous
from tad.files import read_json
from tad.prepare.output import output_folder
from tad.prepare.write import FullRow, LabelRows, full_rows, transfer_features, write_dataset

Row = tuple[str, str, float]
"""Of points.csv: video, class, seconds."""


class Fold(NamedTuple):
    """One dataset folder of a split."""

    folder: Path
    held_out: Role
    """Role of the fold's own videos: dev or test."""
    videos: dict[Role, int]
    points: int
    """Of the training videos."""
    held_out_points: int
    """Of the fold's own videos, in the source; those of test videos are not written."""
    missing: list[str]
    """Classes without a label in the training videos."""


def split_kfold(data: Dataset, k: int, seed: int, out: Path, *, pool: bool = False, force: bool = False) -> list[Fold]:
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
    chosen = {v for role in roles for v in data.videos(role)}
    videos = [v for v in data.videos_by_id if v in chosen]
    if not 2 <= k <= len(videos):
        raise DataError(
            f"{data.root}: {k} folds of {len(videos)} videos ({', '.join(roles)}); needs 2 to {len(videos)}"
        )
    bare = [f"video {v} ({_role(data, v)}) has none" for v in videos if data.supervision(v) == "none"]
    if bare:
        hint = ", or leave out --pool" if pool else ""
        raise DataError(
            f"{data.root}: every video that is folded trains in some fold, so it needs a label: "
            f"{listing(bare)}\nAdd their labels, list them under `ignored` in dataset.yaml{hint}"
        )
    folds = stratified_folds({v: set(data.video_classes(v).tolist()) for v in videos}, k, seed)
    held_out: Role = "test" if pool else "dev"
    written = []
    with output_folder(out, "split", force=force, sources=sources(data)) as fresh:
        for i, fold in enumerate(folds):
            assigned: dict[str, Role] = {} if pool else dict.fromkeys(data.videos("test"), "test")
            assigned.update((v, held_out if v in fold else "train") for v in videos)
            (fresh / f"fold-{i}").mkdir()
            write_split(data, assigned, fresh / f"fold-{i}", f"{data.name}-{'pooled-' if pool else ''}fold-{i}")
            train = [v for v, role in assigned.items() if role == "train"]
            taught = _classes(data, train)
            written.append(
                Fold(
                    out / f"fold-{i}",
                    held_out,
                    {role: n for role in ROLES if (n := sum(r == role for r in assigned.values()))},
                    _points(data, train),
                    _points(data, fold),
                    [name for c, name in enumerate(data.classes) if c not in taught],
                )
            )
    return written


def sources(data: Dataset) -> list[Path]:
    """What a dataset made of this one links to; none of it may be written to or replaced."""
    return [data.root, *(path for v in data.videos_by_id if (path := data.feature_path(v)).is_file())]


def stratified_folds(classes: Mapping[str, set[int]], k: int, seed: int) -> list[list[str]]:
    """Videos in `k` folds whose sizes differ by at most one, each class spread over them as evenly as this allows.

    Iterative stratification (Sechidis et al., ECML PKDD 2011): of the class that the fewest unassigned videos have,
    each video goes to the fold that lacks this class most. Equally good folds: the emptiest, then by chance.

    Args:
        classes: video to the classes it contains; the order matters for chance only.

    Returns:
        k lists of videos, each in the order of `classes`.
    """
    room = np.full(k, len(classes) // k)
    room[: len(classes) % k] += 1
    return stratified_parts(classes, room, np.full(k, 1 / k), seed)


def stratified_parts(
    classes: Mapping[str, set[int]],
    sizes: np.ndarray,
    shares: np.ndarray,
    seed: int,
    fixed: Mapping[str, int] | None = None,
) -> list[list[str]]:
    """As `stratified_folds`, in parts of these sizes ([K] int, all videos together), each with its share of a class.

    Args:
        fixed: the part of some videos, dealt before all others.
    """
    k, room = len(sizes), np.array(sizes)
    rng = np.random.default_rng(seed)
    videos = [list(classes)[i] for i in rng.permutation(len(classes))]
    names = sorted({c for found in classes.values() for c in found})
    lack = {c: shares * sum(c in found for found in classes.values()) for c in names}
    fold_of: dict[str, int] = {}

    def deal(video: str, fold: int) -> None:
        fold_of[video] = fold
        room[fold] -= 1
        for c in classes[video]:
            lack[c][fold] -= 1

    for video, fold in (fixed or {}).items():
        deal(video, fold)
    while len(fold_of) < len(videos):
        rest = [v for v in videos if v not in fold_of]
        left = {c: n for c in names if (n := sum(c in classes[v] for v in rest))}
        rarest = min(left, key=lambda c: (left[c], c)) if left else None
        for video in rest:
            if rarest is not None and rarest not in classes[video]:
                continue
            need = lack[rarest] if rarest is not None else np.zeros(k)
            free = np.flatnonzero(room > 0)
            deal(video, int(free[np.lexsort((rng.random(len(free)), -room[free], -need[free]))[0]]))
    return [[v for v in classes if fold_of[v] == i] for i in range(k)]


def write_split(
    data: Dataset,
    roles: Mapping[str, Role],
    folder: Path,
    name: str,
    *,
    hidden: Mapping[str, np.ndarray] | None = None,
    made: Split | None = None,
) -> None:
    """Writes a dataset folder with some of a dataset's videos in new roles; subsets are named like the roles.

    Labels of test videos are left out: nothing may read them. Features are linked, those that exist. Held-out points
    of videos that train stay held out; those of dev videos become points. Of full labels of dev videos the classes are
    kept, because their boundaries judge.

    Args:
        folder: a new one, of `output_folder`.
        hidden: points to hold out, too: [G] bool over `data.points(video)` of training videos (`hide_points`).
        made: what dataset.yaml tells of the split.

    Raises:
        DataError: annotations are malformed, or features cannot be linked.
    """
    source = read_json(data.root / "annotations.json")["database"]
    videos = [v for v in data.videos_by_id if v in roles]
    intervals = {v: rows for v, rows in ambiguous(data).items() if v in roles}
    points, unseen = _divided(data, roles, hidden or {})
    labels = LabelRows(points if data.points_by_id else None, *_other_labels(data, roles))
    manifest = data.manifest.model_copy(
        update={
            "name": name,
            "subsets": {role: role for role in ROLES if role in roles.values()},
            "ignored": [],
            "ambiguous": "ambiguous.csv" if intervals else None,
            "held_out": "held_out.csv" if unseen else None,
            "split": made,
        }
    )
    rows = ((v, start, end) for v in videos for start, end in intervals.get(v, ()))
    write_dataset(folder, manifest, {v: source[v] | {"subset": roles[v]} for v in videos}, labels, rows, unseen)
    transfer_features({v: p for v in videos if (p := data.feature_path(v)).is_file()}, folder, "link")


def _divided(data: Dataset, roles: Mapping[str, Role], hidden: Mapping[str, np.ndarray]) -> tuple[list[Row], list[Row]]:
    """The rows of points.csv and of the held-out points; those of test videos are in neither."""
    seen: list[Row] = []
    unseen: list[Row] = []
    for video in data.videos_by_id:
        if roles.get(video, "test") == "test":
            continue
        points, held = data.points(video), data.held_out(video)
        mask = hidden.get(video, np.zeros(len(points.time), dtype=bool))
        mask = np.append(mask, np.full(len(held.time), roles[video] == "train"))
        time, label = np.append(points.time, held.time), np.append(points.label, held.label)
        for i in np.argsort(time, kind="stable"):
            (unseen if mask[i] else seen).append((video, data.classes[label[i]], float(time[i])))
    return seen, unseen


def _other_labels(data: Dataset, roles: Mapping[str, Role]) -> tuple[list[tuple[str, str]], list[FullRow]]:
    """The rows of labels.csv and of full_labels.csv."""
    classes: list[tuple[str, str]] = []
    full: list[FullRow] = []
    for video in data.videos_by_id:
        role, own, listed = roles.get(video, "test"), data.full_labels(video), data.classes_by_id.get(video)
        if role == "train" and own is not None:
            full += full_rows(video, own, data.classes)
        if role == "dev" and own is not None:
            listed = data.video_classes(video)
        if role != "test" and listed is not None:
            classes += [(video, data.classes[c]) for c in listed]
    return classes, full


def summary(folds: Iterable[Fold]) -> str:
    """A table: each fold's videos and points, and the classes that its training videos do not teach."""
    lines = [
        f"{'fold':<8}{'train':>7}{'points':>8}{'held out':>10}{'points':>8}{'as':>6}   classes without a training label"
    ]
    for fold in folds:
        own = fold.videos[fold.held_out]
        lines.append(
            f"{fold.folder.name:<8}{fold.videos['train']:>7}{fold.points:>8}{own:>10}{fold.held_out_points:>8}"
            f"{fold.held_out:>6}   {', '.join(fold.missing) or '-'}"
        )
    return "\n".join(lines)


def _role(data: Dataset, video: str) -> str:
    return data.manifest.subsets[data.videos_by_id[video].subset]


def _classes(data: Dataset, videos: Iterable[str]) -> set[int]:
    return {c for v in videos for c in data.video_classes(v).tolist()}


def _points(data: Dataset, videos: Iterable[str]) -> int:
    return sum(len(data.points(v).time) for v in videos)
