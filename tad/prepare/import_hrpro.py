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
from typing import Any, Unpack

from tad.data.csv_table import read_csv
from tad.data.dataset import ROLES, Role
from tad.data.labels import POINTS
from tad.errors import DataError, listing
from tad.files import name_of, number, read_json, read_text
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.published import Entry, known, positive

NTSC = {23.976: 24000 / 1001, 29.97: 30000 / 1001, 59.94: 60000 / 1001}
"""Rates that gt_full.json rounds: half an hour into the video, a point would be two milliseconds off."""


def import_hrpro(src: Path, out: Path, *, points: str | None = None, **options: Unpack[Options]) -> Imported:
    """Writes the dataset folder `out` from the HR-Pro layout in `src`.

    Args:
        points: file name in point_labels/ where there are several.
        options: the feature grid is that of the layout.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    options.setdefault("fps", 25.0)
    job = Import("hrpro", src, out, **options)
    document = read_json(src / "gt_full.json")
    source = document.get("database") if isinstance(document, dict) else None
    if not isinstance(source, dict) or not source:
        raise DataError(f'{src / "gt_full.json"}: expected {{"database": {{video: ...}}}}')
    roles = _splits(src, source, job.problems)
    for video, role in roles.items():
        job.add(video, source[video], role, _clock)
    job.tell_untimed()
    labels = {name_of(a["label"]) for e in source.values() for a in _items(e) if type(a.get("label")) in (str, int)}
    path = _points_file(src / "point_labels", points)
    if path is None:
        job.warnings.append(f"{src / 'point_labels'}: no point labels; the dataset has none")
    rows = {} if path is None else {POINTS: _points(path, job, set(roles), labels)}
    ambiguous = ambiguous_rows(src / "Ambiguous_test.txt", job)
    folder = job.folder()
    by_role = folder is not None and any((folder / role).is_dir() for role in ROLES)
    found = job.find({v: folder / roles[v] for v in job.database} if folder is not None and by_role else folder)
    subsets: dict[str, Role] = {role: role for role in ROLES if role in roles.values()}
    return job.write(sorted(labels), "the alphabet", subsets, found, rows, ambiguous=ambiguous)


def _splits(src: Path, database: Mapping[str, Any], problems: list[str]) -> dict[str, Role]:
    """Role of every listed video."""
    roles: dict[str, Role] = {}
    for role in ROLES:
        path = src / f"split_{role}.txt"
        if not path.is_file():
            problems += [f"{path.name}: missing"] if role != "dev" else []
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


def _clock(entry: Entry, duration: float) -> tuple[float, float]:
    fps = positive(entry, "fps")
    return duration, NTSC.get(fps, fps)


def _points_file(folder: Path, name: str | None) -> Path | None:
    if name is not None:
        if not (folder / name).is_file():
            raise DataError(f"{folder / name}: no such point file")
        return folder / name
    files = sorted(folder.glob("*.csv"))
    if len(files) > 1:
        raise DataError(f"{folder}: several point files ({', '.join(f.name for f in files)}); choose one with --points")
    return files[0] if files else None


def _points(path: Path, job: Import, listed: set[str], labels: set[str]) -> list[tuple[str, str, float]]:
    """(video, label, seconds) of each point of a listed video; of a row only these three fields are looked at."""
    try:
        table = [(line, row["video_id"], name_of(row["class"]), row["point"]) for line, row in read_csv(path).rows]
    except KeyError as error:
        needed = f"{path.name}: needs the columns video_id, class, point; there is no {error.args[0]}"
        job.problems.append(needed)
        return []
    except DataError as error:
        job.problems.append(str(error))
        return []
    rows: list[tuple[str, str, float]] = []
    clipped = []
    left_out = 0
    for line, name, label, point in table:
        video = known(name, listed)
        left_out += video is None
        if video is None or video not in job.database:  # left out, or already reported
            continue
        where, entry = f"{path.name}, line {line}: video {video}", job.database[video]
        try:
            time = number(point) / entry["fps"]
        except ValueError:
            time = math.nan
        if not 0 <= time < math.inf:
            job.problems.append(f"{where}: point {point!r} is not a frame number")
        elif label not in labels:
            job.problems.append(f"{where}: class {label!r} is not in gt_full.json")
        else:
            if time > entry["duration"]:
                clipped.append(f"line {line}: video {video}: {time:.3f} s of {entry['duration']:.3f} s")
            rows.append((video, label, min(time, entry["duration"])))
    if clipped:
        moved = "points beyond the end of their video, moved to its end"
        job.warnings.append(f"{path.name}: {moved}: {listing(clipped, 5)}")
    if left_out:
        job.warnings.append(f"{path.name}: {left_out} points of videos in no split list were left out")
    return rows


def ambiguous_rows(path: Path, job: Import) -> list[tuple[str, float, float]]:
    """Rows `video start end`, separated by any number of blanks; of videos of the database only."""
    rows = []
    for line, text in enumerate(read_text(path).splitlines() if path.exists() else (), start=1):
        fields = text.split()
        if not fields:
            continue
        try:
            name, start, end = fields[0], number(fields[1]), number(fields[2])
            whole = job.keeps(f"{path.name}, line {line}", start, end)
        except (IndexError, ValueError):
            job.problems.append(f"{path.name}, line {line}: {text!r} is not `video start end`")
            continue
        if (video := known(name, job.database)) is not None and whole:
            rows.append((video, start, end))
    return rows
