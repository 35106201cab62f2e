"""Writes a dataset folder: what the importers and the generator have in common."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml
from pydantic import ValidationError

from tad.data.dataset import FeatureGrid, Manifest
from tad.data.labels import CLASSES, FULL, HEADERS, POINTS, FullLabels
from tad.data.manifest import problems_of
from tad.errors import DataError, listing
from tad.prepare.output import check_room

Transfer = Literal["link", "copy", "none"]

_MANIFEST = """\
# A dataset of tad. All keys: docs/data.md. Times are seconds everywhere.
name: {name}

# The order fixes the class indices inside models.
classes:
{classes}

# Role (train, dev or test) of each subset of annotations.json; videos of other subsets are left out.
subsets:
{subsets}

# Row i of a feature file sees the frames [offset + i * stride, offset + i * stride + window) at `fps` frames a second.
grid:
{grid}

# Videos that no stage and no evaluation reads.
ignored: {ignored}
"""
_AMBIGUOUS = """
# Intervals in which a detection is neither right nor wrong: video_id,start,end.
ambiguous: {ambiguous}
"""
_HELD_OUT = """
# Points of training videos that training does not see; scores without boundaries read them. Columns as in points.csv.
held_out: {held_out}
"""
_SPLIT = """
# What `tad split` held out: shares of the training videos (now dev) and of their points.
split:
{split}
"""
_LABELS = """
# What `tad labels` or `tad split --labelled` made of the labels of another dataset: number of training videos by the
# label they were left with.
labels:
{labels}
"""

FullRow = tuple[str, str, float | str, float | str]
"""Of full_labels.csv: video, class, start, end."""


class LabelRows(NamedTuple):
    """The rows of the label files; None or none at all writes no file.

    Attributes:
        points: video, class, seconds.
        classes: video, class.
        full: video, class, start and end in seconds; `(video, "", "", "")` says that the video holds no action.
    """

    points: Sequence[tuple[str, str, float]] | None = None
    classes: Sequence[tuple[str, str]] = ()
    full: Sequence[FullRow] = ()


def write_dataset(
    folder: Path,
    manifest: Manifest,
    database: Mapping[str, Mapping[str, Any]],
    labels: LabelRows,
    ambiguous: Iterable[tuple[str, float, float]] = (),
    held_out: Sequence[tuple[str, str, float]] = (),
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
    for name, rows in ((POINTS, labels.points), (CLASSES, labels.classes or None), (FULL, labels.full or None)):
        if rows is not None:
            _write_csv(folder / name, HEADERS[name], rows)
    if manifest.ambiguous is not None:
        _write_csv(folder / manifest.ambiguous, ("video_id", "start", "end"), ambiguous)
    if manifest.held_out is not None:
        _write_csv(folder / manifest.held_out, HEADERS[POINTS], held_out)


def full_rows(video: str, full: FullLabels, classes: Sequence[str]) -> list[FullRow]:
    """The rows of full_labels.csv for one video."""
    if not len(full.label):
        return [(video, "", "", "")]
    rows = zip(full.spans.tolist(), full.label, strict=True)
    return [(video, classes[label], start, end) for (start, end), label in rows]


def manifest_text(manifest: Manifest) -> str:
    """dataset.yaml with its comments."""
    grid = manifest.grid.model_dump()
    used = {k: v for k, v in grid.items() if v is not None}
    if manifest.grid.length is not None:  # resized features have no clock
        used = {k: grid[k] for k in ("length", "dim", "dtype")}
    parts = {
        "name": _dump(manifest.name),
        "classes": _dump(manifest.classes),
        "subsets": _indented(manifest.subsets),
        "grid": _indented({k: _plain(v) for k, v in used.items()}),
        "ignored": yaml.safe_dump(manifest.ignored, default_flow_style=True, allow_unicode=True, width=10**6).strip(),
    }
    text = _MANIFEST.format(**parts)
    if manifest.ambiguous is not None:
        text += _AMBIGUOUS.format(ambiguous=_dump(manifest.ambiguous))
    if manifest.held_out is not None:
        text += _HELD_OUT.format(held_out=_dump(manifest.held_out))
    if manifest.split is not None:
        text += _SPLIT.format(split=_indented(manifest.split.model_dump(exclude_none=True)))
    if manifest.labels is not None:
        text += _LABELS.format(labels=_indented(manifest.labels.model_dump(exclude_none=True)))
    return text


def transfer_features(paths: Mapping[str, Path], folder: Path, how: Transfer) -> None:
    """Links (absolute symlinks) or copies feature files to folder/features/ID.npy.

    Args:
        folder: as `write_dataset`.

    Raises:
        FileExistsError: one of the files is there.
        DataError: the file system has no links, or too little room for copies.
    """
    if how == "none" or not paths:
        return
    target = folder / "features"
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


def feature_grid(**keys: Any) -> FeatureGrid:
    """A FeatureGrid from options; DataError names what is wrong."""
    try:
        return FeatureGrid(**keys)
    except ValidationError as error:
        raise DataError("the feature grid cannot be so: " + listing(problems_of(error))) from None


def _write(path: Path, text: str) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        file.write(text)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open("x", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)


def _dump(value: Any) -> str:
    text = yaml.safe_dump(value, default_flow_style=False, sort_keys=False, allow_unicode=True, width=10**6).strip()
    return text.removesuffix("\n...")


def _indented(value: Any) -> str:
    return "\n".join(f"  {line}" for line in _dump(value).splitlines())


def _plain(value: Any) -> Any:
    """25.0 as 25."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
