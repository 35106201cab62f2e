"""`tad resize`: a dataset whose feature files all have the same number of rows, each file spanning its whole video.

Published on ActivityNet: ActionFormer reads 160 or 192 rows, BMN 100, POTLoc 192. A row is the linear interpolation of
the source's rows at the time of its centre; `SnippetGrid` says which time that is and where it lies in the source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tad.data.dataset import Dataset, FeatureGrid
from tad.data.grid import SnippetGrid
from tad.errors import DataError
from tad.prepare.check_features import require_features
from tad.prepare.derive import feature_files, roles_of, sources, views, write_derived
from tad.prepare.output import check_room, output_folder


class Resized(NamedTuple):
    """What was written: where, how many feature files, and the rows of each."""

    folder: Path
    files: int
    rows: int

    def __str__(self) -> str:
        return f"{self.folder}: {self.files} feature files of {self.rows} rows"


def resize(
    data: Dataset,
    rows: int,
    out: Path,
    *,
    check: bool = True,
    force: bool = False,
    progress: Callable[[Iterable[str]], Iterable[str]] = lambda videos: videos,
) -> Resized:
    """Writes OUT: the dataset with the usual features resized. Labels stay; further features are linked as they are.

    The source is only read. Ignored videos are left out.

    Args:
        rows: of every feature file.
        check: refuse feature files that do not fit the source's grid: their times would be wrong in OUT unseen.
        force: replace an earlier output of `tad resize`.
        progress: wraps the videos that are gone through.

    Raises:
        DataError: feature files are missing or do not fit the grid, a file cannot be read, or `out` cannot be used.
    """
    if check:
        require_features(data)
    source = data.manifest.grid
    files = feature_files(data, roles_of(data))
    if not files:
        raise DataError(f"{data.root}: no feature files to resize; put them into {data.folder}")
    grid = FeatureGrid(length=rows, dim=source.dim, dtype=source.dtype)
    changed = replace(data, manifest=data.manifest.model_copy(update={"grid": grid}))
    with output_folder(out, "resize", force=force, sources=sources(data)) as fresh:
        check_room(fresh, len(files) * rows * source.dim * np.dtype(source.dtype).itemsize)
        write_derived(
            changed, roles_of(data), fresh, f"{data.name}-{rows}", made=data.manifest.split, linked=views(data)[1:]
        )
        (fresh / data.folder).mkdir()
        for video in progress(files):
            features = data.features(video)
            target = SnippetGrid.resized(data.duration(video), rows)
            array = interpolated(features, data.grid(video, len(features)), target)
            np.save(fresh / data.folder / f"{video}.npy", array.astype(source.dtype))
        return Resized(out, len(files), rows)


def interpolated(features: np.ndarray, source: SnippetGrid, target: SnippetGrid) -> np.ndarray:
    """[target.length, D] float32: the rows [T, D] of one grid at the centres of the other's rows.

    Before the first and after the last row's centre stands that row.
    """
    position = source.to_position(target.from_position(np.arange(target.length, dtype=np.float64)))
    position = np.clip(position, 0, len(features) - 1)
    before = np.floor(position).astype(np.int64)
    after = np.minimum(before + 1, len(features) - 1)
    share = (position - before).astype(np.float32)[:, None]
    values = np.asarray(features, dtype=np.float32)
    return (1 - share) * values[before] + share * values[after]  # type: ignore[no-any-return]
