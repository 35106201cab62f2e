"""Imports the layout of W-TALC, SF-Net and the weakly supervised methods that followed (GauFuse, CoLA and others).

SRC[/*-Annotations]/classlist.npy, videoname.npy, subset.npy, duration.npy (seconds), extracted_fps.npy (optional),
                    labels_all.npy (classes of each video), labels.npy and segments.npy (of each action, seconds)
                    Ambiguous_test.txt (optional): video start end
SRC[/..]/*-I3D-JOINTFeatures.npy       features of all videos in their order, [T, D] each: 16 frames at extracted_fps
or SRC/features/                       one file for each video

These are arrays of Python objects: tad.data.object_arrays reads them without unpickling. The classes of training videos
become labels.csv, the segments ground truth; clicks (SF-Net) become points.csv.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tad.data.csv_table import read_table
from tad.data.dataset import Role
from tad.data.object_arrays import load, text
from tad.errors import DataError, listing
from tad.files import number
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.import_hrpro import AMBIGUOUS, ambiguous_rows
from tad.prepare.import_opentad import default_roles
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
    unusable,
    write,
)
from tad.prepare.joint_features import JointFeatures
from tad.prepare.write import LabelRows, Transfer, feature_grid

MOST_ITEMS = 10_000_000
"""Actions or classes of all videos; a small file can refer to one long list from every video."""


def import_wtalc(
    src: Path,
    out: Path,
    *,
    points: Path | None = None,
    name: str | None = None,
    features: Transfer = "link",
    files: Lookup | None = None,
    fps: float | Literal["native"] = "native",
    stride: float = 16,
    window: float = 16,
    offset: float = 0,
    length: int | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` from the W-TALC layout in `src`.

    Args:
        points: clicks of SF-Net: lines video,second,label without a header, or CSV with one.
        features: the file of all videos is converted, files of each video are linked or copied; or take none.
        fps: rate of the frames that stride and window count; native is extracted_fps.npy.
        files, stride, window, offset, length, dim, force: as in import_opentad.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped, untimed = Dropped(), Untimed()
    home = _home(src)
    names = _texts(home / "classlist.npy")
    ids = _texts(home / "videoname.npy")
    subsets = _texts(home / "subset.npy", len(ids))
    duration = _numbers(home / "duration.npy", len(ids))
    rate = _numbers(home / "extracted_fps.npy", len(ids)) if (home / "extracted_fps.npy").exists() else None
    segments, listed = (_lists(home / f"{key}.npy", len(ids)) for key in ("segments", "labels"))
    weak = _lists(home / "labels_all.npy", len(ids)) if (home / "labels_all.npy").exists() else listed
    problems += [f"classlist.npy: class {c!r} appears {n} times" for c, n in Counter(names).items() if n > 1]
    problems += [f"videoname.npy: video {v} appears {n} times" for v, n in Counter(ids).items() if n > 1]
    if rate is None and fps == "native" and length is None:
        problems.append("no extracted_fps.npy: say with --fps at which rate frames were extracted")
    database: dict[str, dict[str, Any]] = {}
    classes: dict[str, list[str]] = {}
    for i, video in enumerate(ids):
        if math.isnan(duration[i]):
            untimed.videos.append(video)
            continue
        entry: dict[str, Any] = {"subset": subsets[i], "duration": duration[i]}
        if rate is not None:
            entry["fps"] = rate[i]
        if (wrong := unusable(video, entry)) is not None:
            problems.append(wrong)
            continue
        where = f"video {video}"
        try:
            classes[video] = list(dict.fromkeys(_known(text(label), names) for label in weak[i]))
            entry["annotations"] = _actions(where, segments[i], listed[i], names, dropped)
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        database[video] = entry
    warnings += untimed.warnings()
    acting = {v: s for v, s, spans in zip(ids, subsets, segments, strict=True) if len(spans)}
    problems += untimed.empty(acting, database)
    if problems:
        raise DataError(f"{home}: " + listing(problems))

    roles = default_roles(database, home)
    left_out = Counter(e["subset"] for e in database.values() if e["subset"] not in roles)
    warnings += [f"{n} videos of subset {s} have no action and were left out" for s, n in left_out.items()]
    database = {v: e for v, e in database.items() if e["subset"] in roles}
    rates = {e.get("fps") for e in database.values()}
    if fps == "native" and len(rates) == 1 and length is None:
        fps = rates.pop() or fps
    grid = feature_grid(fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or 1)
    found = _features(
        src, home, features, files or Lookup(), ids, database, expected_rows(grid, database), problems, warnings
    )
    grid = fitted(grid, dim, 2048, found, problems)
    problems += not_seconds(database)
    clicks = None if points is None else _clicks(points, database, roles, names, problems, warnings)
    ambiguous = ambiguous_rows(home / "Ambiguous_test.txt", database, problems, dropped)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    train = [v for v, e in database.items() if roles[e["subset"]] == "train"]
    notes = [order_note(names, "classlist.npy"), f"classes of {len(train)} training videos: labels.csv"]
    described = {
        "name": name or src.resolve().name,
        "classes": names,
        "subsets": roles,
        "grid": grid,
        "ambiguous": AMBIGUOUS if ambiguous else None,
    }
    labels = LabelRows(clicks, [(v, c) for v in train for c in classes[v]])
    sources = [src, *([points] if points is not None else [])]
    told = Told(warnings, [*notes, *found.notes, *dropped.notes()])
    return write(out, "wtalc", described, database, labels, found, features, sources, force, told, ambiguous)


def _home(src: Path) -> Path:
    """The folder of the annotation arrays: SRC, or its only subfolder that has them."""
    found = [p for p in (src, *sorted(src.iterdir())) if p.is_dir() and (p / "videoname.npy").exists()]
    if len(found) == 1 or (found and found[0] == src):
        return found[0]
    names = ", ".join(p.name for p in found) or "none"
    raise DataError(f"{src}: expected classlist.npy, videoname.npy and more, here or in one subfolder; found {names}")


def _list(path: Path, count: int | None = None) -> list[Any]:
    """The items of an array; each is a value of its own."""
    found = load(path)
    if found.ndim == 0 or (count is not None and len(found) != count):
        shape = "x".join(map(str, found.shape)) or "a single value"
        raise DataError(f"{path}: {shape} in place of one item for each of {count} videos of videoname.npy")
    return list(found)


def _texts(path: Path, count: int | None = None) -> list[str]:
    try:
        return [
            text(item.item() if isinstance(item, np.ndarray) and item.size == 1 else item)
            for item in _list(path, count)
        ]
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {error}; expected text") from None


def _numbers(path: Path, count: int) -> list[float]:
    """One number for each video, NaN for None; also where each stands in a list of its own."""
    try:
        return [_number(item) for item in _list(path, count)]
    except ValueError as error:
        raise DataError(f"{path}: {error}; expected numbers") from None


def _number(value: Any) -> float:
    for _ in range(2):
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        elif isinstance(value, list | tuple) and len(value) == 1:
            value = value[0]
    if value is None:
        return math.nan
    if isinstance(value, np.integer | np.floating):
        return float(value)
    if not isinstance(value, int | float | str):
        raise ValueError(f"{type(value).__name__} is not a number")
    return number(value)


def _lists(path: Path, count: int) -> list[Sequence[Any]]:
    """A list for each video. numpy makes no array of them: lists that hold each other would grow without end."""
    rows = _list(path, count)
    wrong = [i for i, row in enumerate(rows) if not isinstance(row, list | tuple | np.ndarray) or _flat(row)]
    if wrong:
        raise DataError(f"{path}: item {wrong[0]} is {type(rows[wrong[0]]).__name__}, not a list; expected one a video")
    if sum(map(len, rows)) > MOST_ITEMS:
        raise DataError(f"{path}: more than {MOST_ITEMS:,} items in all")
    return rows


def _flat(row: Any) -> bool:
    return isinstance(row, np.ndarray) and row.ndim == 0


def _known(label: str, names: Sequence[str]) -> str:
    if label not in names:
        raise ValueError(f"class {label!r} is not in classlist.npy")
    return label


def _actions(
    where: str, spans: Sequence[Any], labels: Sequence[Any], names: Sequence[str], dropped: Dropped
) -> list[dict[str, Any]]:
    """The actions of a video as annotations.json holds them."""
    if len(spans) != len(labels):
        raise ValueError(f"{len(spans)} segments, but {len(labels)} labels")
    rows = []
    for i, (span, label) in enumerate(zip(spans, labels, strict=True)):
        if not isinstance(span, list | tuple | np.ndarray) or len(span) != 2:
            raise ValueError(f"segment {i} is not [start, end]")
        start, end = _number(span[0]), _number(span[1])
        name = _known(text(label), names)
        if dropped.keep(f"{where}, row {i}", start, end):
            rows.append({"segment": [start, end], "label": name})
    return rows


def _features(
    src: Path,
    home: Path,
    how: Transfer,
    lookup: Lookup,
    ids: Sequence[str],
    database: Mapping[str, Any],
    rows: Mapping[str, int],
    problems: list[str],
    warnings: list[str],
) -> Features | JointFeatures:
    """The file of all videos, else a file for each."""
    if how == "none":
        return Features()
    if lookup.folder is None:
        places = dict.fromkeys((src, home, home.parent if home != src else src))
        joint = [path for place in places for path in sorted(place.glob("*Features*.npy"))]
    else:
        joint = [src / lookup.folder] if (src / lookup.folder).suffix == ".npy" else []
    if len(joint) > 1:
        problems.append(f"several feature files ({', '.join(p.name for p in joint)}); choose one with --feature-dir")
        return Features()
    if joint:
        return JointFeatures.open(joint[0], ids, database, lookup.transpose, problems)
    folder = feature_folder(src, lookup)
    return find({} if folder is None else dict.fromkeys(database, folder), lookup, rows, problems, warnings)


def _clicks(
    path: Path,
    database: Mapping[str, Any],
    roles: Mapping[str, Role],
    names: Sequence[str],
    problems: list[str],
    warnings: list[str],
) -> list[tuple[str, str, float]]:
    """The points of training videos; blanks around names are cut off."""
    headless = path.suffix.lower() == ".txt"
    table = read_table(path, ["video", "time", "label"] if headless else None)
    if not {"label", "time"} <= table.columns.keys():
        raise DataError(f"{path}: expected the columns video, time (seconds) and label")
    rows: list[tuple[str, str, float]] = []
    left_out = 0
    for line, row in table.rows:
        video = known(row["video"], database)
        if video is None or roles[database[video]["subset"]] != "train":
            left_out += 1
            continue
        entry = database[video]
        try:
            time = number(row["time"])
            if not 0 <= time <= entry["duration"] + 1:
                raise ValueError(f"{row['time']} s is outside the video of {entry['duration']:g} s")
            rows.append((video, _known(row["label"], names), min(time, entry["duration"])))
        except ValueError as error:
            problems.append(f"{path.name}, line {line} (video {row['video']}): {error}")
    if left_out:
        warnings.append(f"{path.name}: {left_out} points of videos that do not train were left out")
    return rows
