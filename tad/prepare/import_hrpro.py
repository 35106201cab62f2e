"""Imports the HR-Pro / LACP dataset layout.

SRC/gt_full.json              {"database": {video: {subset, duration, fps, annotations}}}, seconds
SRC/point_labels/*.csv        class,...,start_frame,stop_frame,video_id,point: frames of the video's own rate
SRC/split_{train,test}.txt    one video per line (split_dev.txt is read where it exists)
SRC/Ambiguous_test.txt        optional: video start end
SRC/features/{train,test}/    optional: ID.npy, I3D features of 16-frame snippets at 25 frames a second

The frame columns start_frame and stop_frame are boundaries: they are dropped as the file is read. The split lists alone
decide roles; videos in none of them are left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tad.data.dataset import ROLES, Role
from tad.errors import DataError, listing
from tad.files import name_of, number, read_json, read_rows, read_text
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.imported import (
    Dropped,
    Imported,
    Told,
    Untimed,
    expected_rows,
    feature_folder,
    fitted,
    known,
    not_seconds,
    order_note,
    positive,
    segments,
    unusable,
    write,
)
from tad.prepare.write import LabelRows, Transfer, feature_grid

AMBIGUOUS = "ambiguous.csv"
NTSC = {23.976: 24000 / 1001, 29.97: 30000 / 1001, 59.94: 60000 / 1001}
"""Rates that gt_full.json rounds: half an hour into the video, a point would be two milliseconds off."""


def import_hrpro(
    src: Path,
    out: Path,
    *,
    name: str | None = None,
    features: Transfer = "link",
    files: Lookup | None = None,
    points: str | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` from the HR-Pro layout in `src`.

    Args:
        name: name of the dataset; the folder's by default.
        features: link or copy the plain feature files, or take none.
        files: where and how the feature files are named; found by itself by default.
        points: file name in point_labels/ where there are several.
        dim: width of the features; by default that of the files, or 2048 where there are none.
        force: replace an earlier output of `tad import hrpro`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped, untimed = Dropped(), Untimed()
    document = read_json(src / "gt_full.json")
    source = document.get("database") if isinstance(document, dict) else None
    if not isinstance(source, dict) or not source:
        raise DataError(f'{src / "gt_full.json"}: expected {{"database": {{video: ...}}}}')
    roles = _splits(src, source, problems)
    entries = {v: _entry(v, source[v], role, problems, dropped, untimed) for v, role in roles.items()}
    database = {v: entry for v, entry in entries.items() if entry is not None}
    warnings += untimed.warnings()
    problems += untimed.empty(dict(roles), database)
    labels = {name_of(a["label"]) for e in source.values() for a in _items(e) if type(a.get("label")) in (str, int)}
    path = _points_file(src / "point_labels", points)
    seconds = [] if path is None else _points(path, database, set(roles), labels, problems, warnings)
    if path is None:
        warnings.append(f"{src / 'point_labels'}: no point labels; the dataset has none")
    ambiguous = ambiguous_rows(src / "Ambiguous_test.txt", database, problems, dropped)
    grid = feature_grid(fps=25, stride=16, window=16, dim=dim or 1)
    kept = {v: role for v, role in roles.items() if v in database}
    found = _features(src, kept, features, files or Lookup(), expected_rows(grid, database), problems, warnings)
    grid = fitted(grid, dim, 2048, found, problems)
    problems += not_seconds(database)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    described = {
        "name": name or src.resolve().name,
        "classes": sorted(labels),
        "subsets": {role: role for role in ROLES if role in roles.values()},
        "grid": grid,
        "ambiguous": AMBIGUOUS if ambiguous else None,
    }
    rows = LabelRows(None if path is None else seconds)
    told = Told(warnings, [order_note(sorted(labels), "the alphabet"), *found.notes, *dropped.notes()])
    return write(out, "hrpro", described, database, rows, found, features, [src], force, told, ambiguous)


def _splits(src: Path, database: Mapping[str, Any], problems: list[str]) -> dict[str, Role]:
    """Role of every listed video."""
    roles: dict[str, Role] = {}
    for role in ROLES:
        path = src / f"split_{role}.txt"
        if not path.is_file():
            if role != "dev":
                problems.append(f"{path.name}: missing")
            continue
        for name in read_text(path).split():
            if (video_id := known(name, database)) is None:
                problems.append(f"{path.name}: video {name} is not in gt_full.json")
            elif roles.setdefault(video_id, role) != role:
                problems.append(f"{path.name}: video {video_id} is in split_{roles[video_id]}.txt, too")
        if role == "train" and not roles and not problems:
            problems.append(f"{path.name}: lists no video")
    return roles


def _items(entry: Any) -> list[Any]:
    items = entry.get("annotations") if isinstance(entry, dict) else None
    return [a for a in items if isinstance(a, dict)] if isinstance(items, list) else []


def _entry(
    video_id: str, entry: Any, role: Role, problems: list[str], dropped: Dropped, untimed: Untimed
) -> dict[str, Any] | None:
    """One video as annotations.json holds it: role as the subset, seconds, no other keys. None if it cannot be used."""
    if not isinstance(entry, dict):
        problems.append(f"gt_full.json: video {video_id} needs duration, fps and annotations")
        return None
    try:
        if (duration := untimed.duration(video_id, entry)) is None:
            return None
        fps = positive(entry, "fps")
    except ValueError as error:
        problems.append(f"gt_full.json: video {video_id}: {error}")
        return None
    rows = segments(video_id, entry.get("annotations"), problems, dropped)
    row = {"subset": role, "duration": duration, "fps": NTSC.get(fps, fps), "annotations": rows}
    if (wrong := unusable(video_id, row)) is not None:
        problems.append(f"gt_full.json: {wrong}")
        return None
    return row


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
    database: Mapping[str, Mapping[str, Any]],
    listed: set[str],
    labels: set[str],
    problems: list[str],
    warnings: list[str],
) -> list[tuple[str, str, float]]:
    """(video, label, seconds) of each point of a listed video; of a row only these three fields are looked at."""
    columns = ("video_id", "class", "point")
    try:
        table = [
            (line, known(row["video_id"], listed), name_of(row["class"]), row["point"]) for line, row in read_rows(path)
        ]
    except KeyError as error:
        problems.append(f"{path.name}: needs the columns {', '.join(columns)}; there is no {error.args[0]}")
        return []
    except DataError as error:
        problems.append(str(error))
        return []
    rows: list[tuple[str, str, float]] = []
    clipped = []
    for line, video_id, label, point in table:
        if video_id is None or video_id not in database:  # left out, or already reported
            continue
        where = f"{path.name}, line {line}: video {video_id}"
        try:
            time = number(point) / database[video_id]["fps"]
        except ValueError:
            time = math.nan
        duration = database[video_id]["duration"]
        if not 0 <= time < math.inf:
            problems.append(f"{where}: point {point!r} is not a frame number")
        elif label not in labels:
            problems.append(f"{where}: class {label!r} is not in gt_full.json")
        else:
            if time > duration:
                clipped.append(f"line {line}: video {video_id}: {time:.3f} s of {duration:.3f} s")
            rows.append((video_id, label, min(time, duration)))
    if clipped:
        warnings.append(f"{path.name}: points beyond the end of their video, moved to its end: {listing(clipped, 5)}")
    left_out = sum(video_id is None for _, video_id, _, _ in table)
    if left_out:
        warnings.append(f"{path.name}: {left_out} points of videos in no split list were left out")
    return rows


def ambiguous_rows(
    path: Path, kept: Mapping[str, Any], problems: list[str], dropped: Dropped
) -> list[tuple[str, float, float]]:
    """Rows `video start end`, separated by any number of blanks; of kept videos only."""
    rows = []
    if path.exists():
        for line, text in enumerate(read_text(path).splitlines(), start=1):
            fields = text.split()
            if not fields:
                continue
            try:
                video_id, start, end = fields[0], number(fields[1]), number(fields[2])
                whole = dropped.keep(f"{path.name}, line {line}", start, end)
            except (IndexError, ValueError):
                problems.append(f"{path.name}, line {line}: {text!r} is not `video start end`")
                continue
            if (video := known(video_id, kept)) is not None and whole:
                rows.append((video, start, end))
    return rows


def _features(
    src: Path,
    roles: Mapping[str, Role],
    how: Transfer,
    files: Lookup,
    rows: Mapping[str, int],
    problems: list[str],
    warnings: list[str],
) -> Features:
    """The feature files: in a folder for each role, or all in one."""
    folder = feature_folder(src, files) if how != "none" else None
    if folder is None:
        return Features()
    by_role = any((folder / role).is_dir() for role in ROLES)
    where = {v: folder / role if by_role else folder for v, role in roles.items()}
    return find(where, files, rows, problems, warnings)
