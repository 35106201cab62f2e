"""Imports the HR-Pro / LACP dataset layout.

SRC/gt_full.json              {"database": {video: {subset, duration, fps, annotations}}}, seconds
SRC/point_labels/*.csv        class,...,start_frame,stop_frame,video_id,point: frames of the video's own rate
SRC/split_{train,test}.txt    one video per line (split_dev.txt is read where it exists)
SRC/Ambiguous_test.txt        optional: video start end
SRC/features/{train,test}/    optional: ID.npy, I3D features of 16-frame snippets at 25 frames a second

The frame columns start_frame and stop_frame are boundaries: they are dropped while the file is parsed. The split lists
alone decide roles; videos in none of them are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from tad.data.dataset import ROLES, SAFE_ID, Manifest, Role
from tad.data.folder import LabelRows, Transfer, feature_grid, transfer_features, write_dataset
from tad.data.output import output_folder
from tad.errors import DataError, listing
from tad.files import read_json

AMBIGUOUS = "ambiguous.csv"
NTSC = {23.976: 24000 / 1001, 29.97: 30000 / 1001, 59.94: 60000 / 1001}
"""Rates that gt_full.json rounds: half an hour into the video, a point would be two milliseconds off."""


@dataclass(frozen=True)
class Imported:
    """What an import wrote: number of videos per role, points, feature files, and what was mended on the way."""

    videos: dict[str, int]
    points: int
    features: int
    warnings: list[str]


def import_hrpro(
    src: Path,
    out: Path,
    *,
    name: str | None = None,
    features: Transfer = "link",
    points: str | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` from the HR-Pro layout in `src`.

    Args:
        name: name of the dataset; the folder's by default.
        features: link or copy the feature files, or none.
        points: file name in point_labels/ where there are several.
        dim: width of the features; by default that of the files, or 2048 where there are none.
        force: replace an earlier output of `tad import hrpro`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    document = read_json(src / "gt_full.json")
    source = document.get("database") if isinstance(document, dict) else None
    if not isinstance(source, dict) or not source:
        raise DataError(f'{src / "gt_full.json"}: expected {{"database": {{video: ...}}}}')
    roles = _splits(src, source, problems)
    database = {v: entry for v, role in roles.items() if (entry := _entry(v, source[v], role, problems)) is not None}
    labels = {str(a["label"]) for e in source.values() if isinstance(e, dict) for a in _items(e) if "label" in a}
    rates = {v: float(entry["fps"]) for v, entry in database.items()}
    path = _points_file(src / "point_labels", points)
    seconds = [] if path is None else _points(path, rates, database, set(roles), labels, problems, warnings)
    if path is None:
        warnings.append(f"{src / 'point_labels'}: no point labels; the dataset has none")
    ambiguous = _ambiguous(src / "Ambiguous_test.txt", database, problems)
    files, width = _features(src / "features", roles, features, problems, warnings)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    manifest = Manifest(
        name=name or src.resolve().name,
        classes=sorted(labels),
        subsets={role: role for role in ROLES if role in roles.values()},
        grid=feature_grid(fps=25, stride=16, window=16, dim=dim or width or 2048),
        ambiguous=AMBIGUOUS if ambiguous else None,
    )
    if dim is not None and width is not None and dim != width:
        raise DataError(f"{src / 'features'}: the files are {width} wide, not {dim}; leave --dim away")
    with output_folder(out, "import hrpro", force=force, sources=[src, *files.values()]) as fresh:
        write_dataset(fresh, manifest, database, LabelRows(None if path is None else seconds), ambiguous)
        transfer_features(files, fresh, features)
    count = {role: sum(r == role for r in roles.values()) for role in manifest.subsets}
    return Imported(count, len(seconds), len(files), warnings)


def _splits(src: Path, database: Mapping[str, Any], problems: list[str]) -> dict[str, Role]:
    """Role of every listed video."""
    roles: dict[str, Role] = {}
    for role in ROLES:
        path = src / f"split_{role}.txt"
        if not path.is_file():
            if role != "dev":
                problems.append(f"{path.name}: missing")
            continue
        for video_id in path.read_text(encoding="utf-8").split():
            if video_id not in database:
                problems.append(f"{path.name}: video {video_id} is not in gt_full.json")
            elif not SAFE_ID.fullmatch(video_id):
                problems.append(f"{path.name}: video {video_id!r} is unsafe as a file name")
            elif roles.setdefault(video_id, role) != role:
                problems.append(f"{path.name}: video {video_id} is in split_{roles[video_id]}.txt, too")
    return roles


def _items(entry: Mapping[str, Any]) -> list[Any]:
    items = entry.get("annotations")
    return [a for a in items if isinstance(a, dict)] if isinstance(items, list) else []


def _entry(video_id: str, entry: Any, role: Role, problems: list[str]) -> dict[str, Any] | None:
    """One video as annotations.json holds it: role as the subset, seconds, no other keys."""
    try:
        duration, fps = float(entry["duration"]), float(entry["fps"])
        rows = [{"segment": [float(x) for x in a["segment"]], "label": str(a["label"])} for a in entry["annotations"]]
    except (KeyError, TypeError, ValueError) as error:
        problems.append(
            f"gt_full.json: video {video_id} needs duration, fps and annotations of segment and label "
            f"({type(error).__name__}: {error})"
        )
        return None
    if not (duration > 0 and fps > 0 and np.isfinite([duration, fps]).all()):
        problems.append(f"gt_full.json: video {video_id}: duration {duration} s, fps {fps}; both must be positive")
        return None
    for i, row in enumerate(rows):
        if len(row["segment"]) != 2 or not row["segment"][0] < row["segment"][1]:  # type: ignore[operator]
            problems.append(f"gt_full.json: video {video_id}, row {i}: segment {row['segment']} must be [start, end]")
    return {"subset": role, "duration": duration, "fps": NTSC.get(fps, fps), "annotations": rows}


def _points_file(folder: Path, name: str | None) -> Path | None:
    if name is not None:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such point file")
        return folder / name
    files = sorted(folder.glob("*.csv"))
    if len(files) > 1:
        raise DataError(f"{folder}: several point files ({', '.join(f.name for f in files)}); choose one with --points")
    return files[0] if files else None


def _points(
    path: Path,
    rates: Mapping[str, float],
    database: Mapping[str, Mapping[str, Any]],
    listed: set[str],
    labels: set[str],
    problems: list[str],
    warnings: list[str],
) -> list[tuple[str, str, float]]:
    """(video, label, seconds) of each point of a listed video; only these three columns are ever read."""
    columns = ["video_id", "class", "point"]
    convert = pacsv.ConvertOptions(include_columns=columns, column_types={c: pa.string() for c in columns})
    try:
        table = pacsv.read_csv(path, convert_options=convert)
    except (pa.ArrowInvalid, KeyError) as error:
        problems.append(f"{path.name}: needs the columns {', '.join(columns)}: {error}")
        return []
    rows: list[tuple[str, str, float]] = []
    clipped = []
    for line, row in enumerate(table.to_pylist(), start=2):
        video_id, label = row["video_id"], row["class"]
        if video_id not in listed or video_id not in rates:  # left out, or already reported
            continue
        try:
            time = float(row["point"]) / rates[video_id]
        except ValueError:
            time = np.nan
        if not time >= 0 or np.isinf(time):
            problems.append(f"{path.name}, line {line}: video {video_id}: point {row['point']!r} is not a frame number")
        elif label not in labels:
            problems.append(f"{path.name}, line {line}: video {video_id}: class {label!r} is not in gt_full.json")
        else:
            duration = database[video_id]["duration"]
            if time > duration:
                clipped.append(f"line {line}: video {video_id}: {time:.3f} s of {duration:.3f} s")
                time = duration
            rows.append((video_id, label, time))
    if clipped:
        warnings.append(f"{path.name}: points beyond the end of their video, moved to its end: {listing(clipped, 5)}")
    left_out = sum(row["video_id"] not in listed for row in table.to_pylist())
    if left_out:
        warnings.append(f"{path.name}: {left_out} points of videos in no split list were left out")
    return rows


def _ambiguous(path: Path, kept: Mapping[str, Any], problems: list[str]) -> list[tuple[str, float, float]]:
    """Rows `video start end`, separated by any number of blanks; of kept videos only."""
    rows = []
    if path.is_file():
        for line, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            fields = text.split()
            if not fields:
                continue
            try:
                video_id, start, end = fields[0], float(fields[1]), float(fields[2])
                if not start < end:
                    raise ValueError
            except (IndexError, ValueError):
                problems.append(f"{path.name}, line {line}: {text!r} is not `video start end`")
                continue
            if video_id in kept:
                rows.append((video_id, start, end))
    return rows


def _features(
    folder: Path, roles: Mapping[str, Role], how: Transfer, problems: list[str], warnings: list[str]
) -> tuple[dict[str, Path], int | None]:
    """The feature file of each video that has one, and their common width."""
    if how == "none" or not folder.is_dir():
        return {}, None
    for role in ROLES:
        if (folder / role / "rgb").is_dir():
            problems.append(f"features/{role}/rgb: two streams; first join rgb and flow along axis 1 into ID.npy")
            return {}, None
    paths = {v: folder / role / f"{v}.npy" for v, role in roles.items()}
    return known_features(paths, problems, warnings)


def known_features(
    paths: Mapping[str, Path], problems: list[str], warnings: list[str]
) -> tuple[dict[str, Path], int | None]:
    """Those of the files that exist, and their common width (None without files)."""
    found = {v: path for v, path in paths.items() if path.is_file()}
    widths: dict[int, list[str]] = {}
    for video_id, path in found.items():
        try:
            shape = np.load(path, mmap_mode="r", allow_pickle=False).shape
        except (ValueError, OSError, EOFError) as error:
            problems.append(f"{path}: not a plain .npy file: {error}")
            continue
        if len(shape) != 2:
            problems.append(f"{path}: shape {shape}, expected [T, D]")
        else:
            widths.setdefault(shape[1], []).append(video_id)
    if len(widths) > 1:
        problems.append("features: several widths: " + ", ".join(f"{w} ({len(v)} files)" for w, v in widths.items()))
    absent = [v for v in paths if v not in found]
    if absent:
        warnings.append(f"features: no file for {listing([f'video {v}' for v in absent], 5)}")
    return found, next(iter(widths), None)
