"""Writes a dataset folder: what all makers of datasets have in common."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import yaml

from tad.data.dataset import Manifest
from tad.data.labels import POINTS, LabelType
from tad.data.manifest import FEATURES
from tad.errors import DataError
from tad.prepare.output import check_room

Transfer = Literal["link", "copy", "none"]
LabelRows = Mapping[LabelType, Sequence[tuple[Any, ...]]]
"""Rows of the label files: video, class, then seconds; `(video, "", "", "")` of full labels: it holds no action."""

COMMENTS = {
    "name": "A dataset of tad. All keys: docs/data.md. Times are seconds everywhere.",
    "classes": "The order fixes the class indices inside models.",
    "subsets": "Role (train, dev or test) of each subset of annotations.json; videos of other subsets are left out.",
    "grid": "Row i of a feature file sees the frames [offset + i * stride, offset + i * stride + window) at `fps` "
    "frames a second.",
    "features": "Further features, in features-NAME/ID.npy: the grid of each by its name. Recipes name what they read.",
    "ignored": "Videos that no stage and no evaluation reads.",
    "ambiguous": "Intervals in which a detection is neither right nor wrong: video_id,start,end.",
    "held_out": "Points of training videos that training does not see; scores without boundaries read them. Columns as "
    "in points.csv.",
    "split": "What `tad split` held out: shares of the training videos (now dev) and of their points.",
    "labels": "What `tad labels` or `tad split --labelled` made of the labels of another dataset: number of training "
    "videos by the label they were left with.",
}
"""What dataset.yaml says above each of its keys."""


def write_dataset(
    folder: Path,
    manifest: Manifest,
    database: Mapping[str, Mapping[str, Any]],
    labels: LabelRows,
    ambiguous: Iterable[tuple[str, float, float]] = (),
    held_out: Sequence[tuple[Any, ...]] = (),
) -> None:
    """dataset.yaml, annotations.json, the label files that have rows (an empty list of points writes its header), and
    the files of ambiguous intervals and held-out points where the manifest names them.

    Args:
        folder: a new one, of `tad.prepare.output.output_folder`.

    Raises:
        FileExistsError: one of the files is there; nothing is ever overwritten.
    """
    _write(folder / "dataset.yaml", manifest_text(manifest))
    _write(folder / "annotations.json", json.dumps({"database": database}, indent=1))
    for kind, rows in labels.items():
        if rows or kind is POINTS:
            _write_csv(folder / kind.file, kind.header, rows)
    if manifest.ambiguous is not None:
        _write_csv(folder / manifest.ambiguous, ("video_id", "start", "end"), ambiguous)
    if manifest.held_out is not None:
        _write_csv(folder / manifest.held_out, POINTS.header, held_out)


def manifest_text(manifest: Manifest) -> str:
    """dataset.yaml with its comments."""
    used = manifest.model_dump(exclude_none=True)
    used["grid"] = _grid(used["grid"])
    if further := {name: _grid(grid) for name, grid in used.pop("features").items()}:
        used["features"] = further
    return "\n".join(_commented(key, text, used[key]) for key, text in COMMENTS.items() if key in used)


def _grid(described: Mapping[str, Any]) -> dict[str, Any]:
    """What dataset.yaml says of a grid: resized features have no clock, and 25.0 is written as 25."""
    used = {k: described[k] for k in ("length", "dim", "dtype")} if "length" in described else described
    return {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in used.items()}


def _commented(key: str, text: str, value: Any) -> str:
    flow = None if key == "ignored" else False
    value = yaml.safe_dump({key: value}, default_flow_style=flow, sort_keys=False, allow_unicode=True, width=10**6)
    return textwrap.fill(text, 120, initial_indent="# ", subsequent_indent="# ") + f"\n{value}"


def transfer_features(paths: Mapping[str, Path], folder: Path, how: Transfer, name: str = FEATURES) -> None:
    """Links (absolute symlinks) or copies feature files to folder/features/ID.npy.

    Args:
        folder: as `write_dataset`.
        name: of the folder in it.

    Raises:
        FileExistsError: one of the files is there.
        DataError: the file system has no links, or too little room for copies.
    """
    if how == "none" or not paths:
        return
    target = folder / name
    if target.is_symlink():
        raise DataError(f"{target}: is a link; nothing is written through links")
    target.mkdir(exist_ok=True)
    if how == "copy":
        check_room(target, sum(path.stat().st_size for path in paths.values()))
    for video_id, path in paths.items():
        place = target / f"{video_id}.npy"
        if how == "link":
            _link(path.resolve(), place)
        else:
            with path.open("rb") as source, place.open("xb") as copy:
                shutil.copyfileobj(source, copy, 1 << 20)


def _link(target: Path, place: Path) -> None:
    try:
        os.symlink(target, place)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        raise DataError(
            "the file system of the output folder has no symbolic links; choose a folder on another one, or let "
            "`tad import` copy the feature files with --features copy"
        ) from None


def _write(path: Path, text: str) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        file.write(text)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
