"""A dataset folder that is made of another dataset: some of its videos, in other roles and with other labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tad.data.dataset import ROLES, Dataset, Role, Split
from tad.data.labels import CLASSES, FULL, POINTS, TYPES, Classes, Points, rows_of
from tad.errors import DataError
from tad.evaluation.ground_truth import ambiguous
from tad.files import read_json
from tad.prepare.write import transfer_features, write_dataset


def sources(data: Dataset) -> list[Path]:
    """What a dataset made of this one links to; none of it may be written to or replaced."""
    return [data.root, *(path for view in views(data) for path in feature_files(view, view.videos_by_id).values())]


def views(data: Dataset) -> list[Dataset]:
    """The dataset with each of its kinds of features."""
    return [data.reading(name) for name in data.manifest.grids]


def feature_files(data: Dataset, videos: Iterable[str]) -> dict[str, Path]:
    """Those that exist, by video."""
    return {v: path for v in videos if (path := data.feature_path(v)).is_file()}


def roles_of(data: Dataset) -> dict[str, Role]:
    """The role of each video that is not ignored."""
    return {video: role for role in ROLES for video in data.videos(role)}


def check_share(data: Dataset, share: float) -> None:
    """Raises DataError if a share does not lie between 0 and 1."""
    if not 0 < share < 1:
        raise DataError(f"{data.root}: a share must lie between 0 and 1, found {share}")


def write_derived(
    data: Dataset,
    roles: Mapping[str, Role],
    folder: Path,
    name: str,
    *,
    hidden: Mapping[str, np.ndarray] | None = None,
    made: Split | None = None,
    linked: Sequence[Dataset] | None = None,
) -> None:
    """Writes a dataset folder with some of a dataset's videos in new roles; subsets are named like the roles.

    Labels of test videos are left out: nothing may read them. Features are linked, those that exist. Held-out points
    of videos that train stay held out; those of dev videos become points. Of full labels of dev videos the classes are
    kept, because their boundaries judge.

    Args:
        folder: a new one, of `output_folder`.
        hidden: points to hold out, too: [G] bool over `data.points(video)` of training videos (`hide_points`).
        made: what dataset.yaml tells of the split.
        linked: the `views` whose features are linked; None: all of them.

    Raises:
        DataError: annotations are malformed, or features cannot be linked.
    """
    source = read_json(data.root / "annotations.json")["database"]
    videos = [v for v in data.videos_by_id if v in roles]
    intervals = {v: rows for v, rows in ambiguous(data).items() if v in roles}
    labels: dict[Any, list[tuple[Any, ...]]] = {kind: [] for kind in TYPES}
    unseen: list[tuple[Any, ...]] = []
    for video in (v for v in videos if roles[v] != "test"):
        seen, held = _points(data, video, roles[video], (hidden or {}).get(video))
        labels[POINTS] += rows_of(video, seen, POINTS, data.classes)
        unseen += rows_of(video, held, POINTS, data.classes)
        given = {kind: data.labels(kind)[video] for kind in TYPES[1:] if video in data.labels(kind)}
        if FULL in given and roles[video] == "dev":
            del given[FULL]
            given[CLASSES] = Classes(data.video_classes(video))
        for kind, own in given.items():
            labels[kind] += rows_of(video, own, kind, data.classes)
    if not (labels[POINTS] or data.points_by_id):
        del labels[POINTS]
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
    for view in views(data) if linked is None else linked:
        transfer_features(feature_files(view, videos), folder, "link", view.folder)


def _points(data: Dataset, video: str, role: Role, hidden: np.ndarray | None) -> tuple[Points, Points]:
    """A video's points that training will see, and those that stay held out."""
    points, held = data.points(video), data.held_out(video)
    mask = np.zeros(len(points.time), dtype=bool) if hidden is None else hidden
    mask = np.append(mask, np.full(len(held.time), role == "train"))
    time, label = np.append(points.time, held.time), np.append(points.label, held.label)
    order = np.argsort(time, kind="stable")
    time, label, mask = time[order], label[order], mask[order]
    return Points(time[~mask], label[~mask]), Points(time[mask], label[mask])
