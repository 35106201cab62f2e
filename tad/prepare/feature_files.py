"""Brings feature files of other code bases into a dataset folder: found, examined, linked or converted.

An importer calls `find` with the folder in which each video's file may be and, when nothing is wrong, `write`. A plain
.npy file ([T, D], float16 or float32) is linked or copied as it is; all else is converted once, one video at a time.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tad.errors import DataError, few, listing
from tad.prepare.feature_arrays import FLOATS, Stored, look, matrix_shape, refusal, values
from tad.prepare.feature_names import Located, locate
from tad.prepare.object_arrays import load
from tad.prepare.output import check_room
from tad.prepare.write import Transfer, transfer_features
from tad.words import size

CUT = 1
"""Rows by which rgb and flow of a video may differ: extractors end them differently."""


@dataclass(frozen=True)
class Lookup:
    """What the user says of the feature files; all may be left out.

    Attributes:
        folder: folder, or one file that holds all videos; relative to the source.
        pattern: how files are named; see tad.prepare.feature_names.
        key: name of the array in files that hold several.
        transpose: the arrays are [D, T].
    """

    folder: str | None = None
    pattern: str | None = None
    key: str | None = None
    transpose: bool = False


class Plan(NamedTuple):
    """What is done with one video's files.

    Attributes:
        parts: its array, or those of its streams.
        shape: rows and width of what will be written.
        dtype: float16 or float32.
        plain: the file can be linked or copied as it is.
    """

    parts: tuple[Stored, ...]
    shape: tuple[int, int]
    dtype: str
    plain: bool

    @property
    def bytes(self) -> int:
        return self.shape[0] * self.shape[1] * np.dtype(self.dtype).itemsize


@dataclass
class Features:
    """The feature files of a source.

    Attributes:
        plans: of each video that has any.
        width, dtype: those of all files; None without files. dtype is float16 if every file is.
        notes: how files are named, and what will be converted.
    """

    plans: dict[str, Plan] = field(default_factory=dict)
    width: int | None = None
    dtype: str | None = None
    notes: list[str] = field(default_factory=list)
    transpose: bool = False

    def __len__(self) -> int:
        return len(self.plans)

    def write(self, folder: Path, how: Transfer) -> list[str]:
        """Links or copies plain files to folder/features/ID.npy and converts the others there.

        Args:
            folder: a new one, of `tad.prepare.output.output_folder`.

        Returns:
            Warnings: videos whose converted features hold NaN or Inf.

        Raises:
            DataError: a file is damaged behind its header, or the disk has too little room.
        """
        transfer_features({v: p.parts[0].path for v, p in self.plans.items() if p.plain}, folder, how)
        others = {v: p for v, p in self.plans.items() if not p.plain}
        if others:
            (folder / "features").mkdir(exist_ok=True)
            check_room(folder, sum(plan.bytes for plan in others.values()))
        bad = []
        for video_id, plan in _bar("converting features", others):
            array = self._converted(plan)
            with (folder / "features" / f"{video_id}.npy").open("xb") as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            broken = np.count_nonzero(~np.isfinite(array))
            if broken:
                bad.append(f"video {video_id}: {broken} of {array.size} values ({plan.parts[0].where})")
        return [f"features with NaN or Inf: {listing(bad, 5)}"] if bad else []

    def paths(self) -> list[Path]:
        """All files that will be read."""
        return list(dict.fromkeys(part.path for plan in self.plans.values() for part in plan.parts))

    def _converted(self, plan: Plan) -> np.ndarray:
        rows, width = plan.shape
        joined = np.empty((rows, width), dtype=plan.dtype)
        at = 0
        for part in plan.parts:
            matrix = values(part).reshape(matrix_shape(part.shape) or ())
            matrix = matrix.T if self.transpose else matrix
            with np.errstate(over="ignore"):  # what is beyond float32 becomes Inf and is reported
                joined[:, at : at + matrix.shape[1]] = matrix[:rows]
            at += matrix.shape[1]
        return joined


def find(
    where: Mapping[str, Path],
    lookup: Lookup,
    rows: Mapping[str, int],
    problems: list[str],
    warnings: list[str],
    ignored: Collection[str] = (),
) -> Features:
    """Finds the feature files of videos and examines their headers.

    Args:
        where: folder (or file that holds many videos) of each video; `lookup.folder` does not enter here.
        rows: how many rows the feature grid expects of a video, where that is known: it tells [T, D] from [D, T].
        problems: all that makes the import wrong is appended.
        warnings: videos without a file, and streams that were cut, are appended.
        ignored: videos that nothing reads; their files are not looked at and stay behind.
    """
    return examine(where, find_names(where, lookup, problems), lookup, rows, problems, warnings, ignored)


def find_names(where: Mapping[str, Path], lookup: Lookup, problems: list[str]) -> dict[Path, Located]:
    """The first half of `find`: which file belongs to which video, by folder."""
    folders = {folder: [v for v in where if where[v] == folder] for folder in dict.fromkeys(where.values())}
    return {
        folder: locate(folder, videos, lookup.pattern, problems)
        for folder, videos in folders.items()
        if folder.is_dir() or folder.is_file()
    }


def folders_of(located: Mapping[Path, Located]) -> list[Path]:
    """Folders in which the files lie, below those that were searched."""
    paths = [place.path.parent for found in located.values() for places in found.files.values() for place in places]
    return list(dict.fromkeys([*paths, *(p if p.is_dir() else p.parent for p in located)]))


def examine(
    where: Mapping[str, Path],
    located: Mapping[Path, Located],
    lookup: Lookup,
    rows: Mapping[str, int],
    problems: list[str],
    warnings: list[str],
    ignored: Collection[str] = (),
) -> Features:
    """The second half of `find`: the headers of all files, and what will be done with each."""
    files = {v: p for found in located.values() for v, p in found.files.items() if v not in ignored}
    before = len(problems)
    stored: dict[str, list[Stored]] = {}
    for video_id, places in _bar("looking at features", files):
        try:
            stored[video_id] = [look(place.path, lookup.key, place.member) for place in places]
        except DataError as error:
            problems.append(str(error))
    found = _planned(stored, rows, lookup.transpose, problems, warnings)
    absent = [v for v in where if v not in files and v not in ignored]
    if absent and located and len(problems) == before:
        warnings.append(_absent(absent, len(where), located))
    patterns = dict.fromkeys(f.pattern for f in located.values() if f.pattern not in (None, "{id}.npy"))
    if patterns:
        found.notes.insert(0, f"feature files are named {', '.join(map(str, patterns))}")
    return found


def unpack(
    path: Path, ids: Sequence[str], lookup: Lookup, rows: Mapping[str, int], problems: list[str], warnings: list[str]
) -> Features:
    """As `find`, of one .npy file with the features of all videos: an array of objects, or [N, T, D] of resized ones.

    Arrays stay in the file until they are written.

    Args:
        ids: the video of each item; those that `rows` has are taken.
    """
    items = load(path)
    if items.ndim == 0 or len(items) != len(ids):
        shape = "x".join(map(str, items.shape))
        problems.append(f"{path.name}: {shape} in place of one array for each of {len(ids)} videos")
        return Features()
    arrays = {video: item for video, item in zip(ids, items, strict=True) if video in rows}
    for video in [v for v, item in arrays.items() if not isinstance(item, np.ndarray)]:
        problems.append(f"{path.name}: video {video}: {type(arrays.pop(video)).__name__} is no [T, D] array of floats")
    if sum(array.nbytes for array in arrays.values()) > path.stat().st_size:
        problems.append(f"{path.name}: several videos refer to the same array")
    stored = {v: [Stored(path, f"video {v}", a.shape, a.dtype.name, array=a)] for v, a in arrays.items()}
    found = _planned(stored, rows, lookup.transpose, problems, warnings)
    if arrays:
        found.notes.insert(0, f"features of {len(arrays)} videos are taken out of {path.name}, as {found.dtype}")
    return found


def _planned(
    stored: Mapping[str, Sequence[Stored]],
    rows: Mapping[str, int],
    transpose: bool,
    problems: list[str],
    warnings: list[str],
) -> Features:
    """What will be done with the arrays of each video."""
    before = len(problems)
    problems += [text for parts in stored.values() for part in parts if (text := refusal(part)) is not None]
    good = {v: parts for v, parts in stored.items() if all(refusal(part) is None for part in parts)}
    uneven: list[str] = []
    plans = {v: _plan(v, parts, transpose, problems, uneven) for v, parts in good.items()}
    if uneven:
        warnings.append(f"streams that differ by a row are cut to the shorter one: {listing(uneven, 5)}")
    if len(problems) == before:
        problems += _orientation({v: p.shape for v, p in plans.items()}, rows, transpose)
    widths = Counter(p.shape[1] for p in plans.values())
    if len(widths) > 1 and len(problems) == before:
        problems.append("features: several widths: " + ", ".join(f"{w} ({n} files)" for w, n in widths.items()))
    dtypes = {p.dtype for p in plans.values()}
    dtype = ("float16" if dtypes == {"float16"} else "float32") if dtypes else None
    return Features(plans, next(iter(widths), None), dtype, _notes(plans), transpose)


def _plan(video_id: str, parts: Sequence[Stored], transpose: bool, problems: list[str], uneven: list[str]) -> Plan:
    shapes = [matrix_shape(part.shape) or (0, 0) for part in parts]
    shapes = [shape[::-1] if transpose else shape for shape in shapes]
    lengths = [shape[0] for shape in shapes]
    if max(lengths) - min(lengths) > CUT:
        problems.append(
            f"video {video_id}: its streams have {' and '.join(map(str, lengths))} rows "
            f"({', '.join(part.where for part in parts)}); they may differ by {CUT}"
        )
    elif max(lengths) > min(lengths):
        uneven.append(f"video {video_id}: {' and '.join(map(str, lengths))} rows, cut to {min(lengths)}")
    dtypes = {FLOATS[part.dtype] for part in parts}
    plain = len(parts) == 1 and parts[0].plain and len(parts[0].shape) == 2 and not transpose
    shape = (min(lengths), sum(width for _, width in shapes))
    return Plan(tuple(parts), shape, "float16" if dtypes == {"float16"} else "float32", plain)


def _orientation(shapes: Mapping[str, tuple[int, int]], rows: Mapping[str, int], transpose: bool) -> list[str]:
    """A problem if rows and columns look exchanged: by the width that all share, else by the rows that are expected."""
    heights, widths = ({shape[i] for shape in shapes.values()} for i in (0, 1))
    known = [v for v in shapes if v in rows]
    fits = [sum(_near(shapes[v][i], rows[v]) for v in known) for i in (0, 1)]
    if len(widths) == 1 and len(heights) > 1:
        exchanged = False
    elif len(heights) == 1 and len(widths) > 1:
        exchanged = not fits[0] > fits[1]
    else:
        exchanged = fits[1] > fits[0]
    if not exchanged:
        return []
    video_id = known[0] if known else next(iter(shapes))
    expected = f"; the feature grid expects {rows[video_id]} rows" if known else ""
    shape = f"[{shapes[video_id][0]}, {shapes[video_id][1]}]"
    cure = "leave out --transpose" if transpose else "give --transpose"
    return [f"features: look transposed, [D, T] in place of [T, D]: video {video_id} has {shape}{expected}; {cure}"]


def _near(length: int, expected: int) -> bool:
    return abs(length - expected) <= max(2, 0.1 * expected)


def _absent(absent: Sequence[str], total: int, located: Mapping[Path, Located]) -> str:
    unused = [name for found in located.values() for name in found.unused]
    patterns = ", ".join(dict.fromkeys(found.pattern for found in located.values() if found.pattern is not None))
    text = f"features: no file for {len(absent)} of {total} videos: {few(absent)}"
    if patterns:
        text += f"; files are named {patterns}"
    return text + (f"; these belong to no video: {few(unused)}" if unused else "")


def _notes(plans: Mapping[str, Plan]) -> list[str]:
    """What a user wants to know of files that are not simply in float16 or float32."""
    notes = []
    keys = Counter(p.parts[0].member for p in plans.values() if p.parts[0].member is not None)
    if len(keys) == 1 and len(plans) > 1:
        notes.append(f"the array {next(iter(keys))!r} of each file is taken")
    converted = [p for p in plans.values() if not p.plain]
    if converted:
        types = sorted({part.dtype for p in converted for part in p.parts} - {"float16", "float32"})
        lossy = f"; {', '.join(types)} becomes float32" if types else ""
        total = size(sum(plan.bytes for plan in converted))
        notes.append(f"converted feature files: {len(converted)} ({total}){lossy}")
    return notes


def _bar(what: str, items: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    from tqdm import tqdm

    return tqdm(items.items(), desc=what, unit="video", disable=not sys.stderr.isatty())
