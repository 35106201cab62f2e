"""Imports the layout of W-TALC, SF-Net and the weakly supervised methods that followed (GauFuse, CoLA and others).

SRC[/*-Annotations]/classlist.npy, videoname.npy, subset.npy, duration.npy (seconds), extracted_fps.npy (optional),
                    labels_all.npy (classes of each video), labels.npy and segments.npy (of each action, seconds)
                    Ambiguous_test.txt (optional): video start end
SRC[/..]/*-I3D-JOINTFeatures.npy       features of all videos in their order, [T, D] each: 16 frames at extracted_fps
or SRC/features/                       one file for each video

These are arrays of Python objects: tad.prepare.object_arrays reads them without unpickling. The classes of training
videos become labels.csv, the segments ground truth; clicks (SF-Net) become points.csv.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from tad.data.csv_table import read_table
from tad.data.dataset import Role
from tad.data.labels import CLASSES, POINTS
from tad.errors import DataError
from tad.files import number
from tad.prepare.feature_files import Features, unpack
from tad.prepare.import_hrpro import ambiguous_rows
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.object_arrays import load, text
from tad.prepare.opentad_files import default_roles
from tad.prepare.published import known, unusable

MOST_ITEMS = 10_000_000
"""Actions or classes of all videos; a small file can refer to one long list from every video."""


def import_wtalc(src: Path, out: Path, *, points: Path | None = None, **options: Unpack[Options]) -> Imported:
    """Writes the dataset folder `out` from the W-TALC layout in `src`.

    Args:
        points: clicks of SF-Net: lines video,second,label without a header, or CSV with one.
        options: the features of all videos in one file are converted whatever `features` says, unless it is none; fps
            native is extracted_fps.npy.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    job = Import("wtalc", src, out, **options)
    job.where = home = _home(src)
    names, ids = _texts(home / "classlist.npy"), _texts(home / "videoname.npy")
    subsets = _texts(home / "subset.npy", len(ids))
    duration = _numbers(home / "duration.npy", len(ids))
    rate = _numbers(home / "extracted_fps.npy", len(ids)) if (home / "extracted_fps.npy").exists() else None
    segments, listed = (_lists(home / f"{key}.npy", len(ids)) for key in ("segments", "labels"))
    weak = _lists(home / "labels_all.npy", len(ids)) if (home / "labels_all.npy").exists() else listed
    for what, own in (("classlist.npy: class", [repr(name) for name in names]), ("videoname.npy: video", ids)):
        job.problems += [f"{what} {one} appears {n} times" for one, n in Counter(own).items() if n > 1]
    if rate is None and job.needs_rates:
        job.problems.append("no extracted_fps.npy: say with --fps at which rate frames were extracted")
    classes: dict[str, list[str]] = {}
    for i, video in enumerate(ids):
        if math.isnan(duration[i]):
            job.untimed[video] = subsets[i] if len(segments[i]) else ""
            continue
        entry: dict[str, Any] = {"subset": subsets[i], "duration": duration[i]}
        entry |= {"fps": rate[i]} if rate is not None else {}
        if (wrong := unusable(video, entry)) is not None:
            job.problems.append(wrong)
            continue
        try:
            classes[video] = list(dict.fromkeys(_known(text(label), names) for label in weak[i]))
            entry["annotations"] = _actions(video, segments[i], listed[i], names, job)
            job.database[video] = entry
        except ValueError as error:
            job.problems.append(f"video {video}: {error}")
    job.tell_untimed()
    job.refuse()

    roles = default_roles(job.database, home)
    left_out = Counter(e["subset"] for e in job.database.values() if e["subset"] not in roles)
    job.warnings += [f"{n} videos of subset {s} have no action and were left out" for s, n in left_out.items()]
    job.database = {v: e for v, e in job.database.items() if e["subset"] in roles}
    rates = {e.get("fps") for e in job.database.values()}
    if job.needs_rates and len(rates) == 1:
        job.fps = rates.pop() or job.fps
    job.where = src
    found = _features(job, home, ids)
    train = [v for v, e in job.database.items() if roles[e["subset"]] == "train"]
    labels: dict[Any, list[tuple[Any, ...]]] = {CLASSES: [(v, c) for v in train for c in classes[v]]}
    if points is not None:
        labels[POINTS] = _clicks(points, job, roles, names)
    ambiguous = ambiguous_rows(home / "Ambiguous_test.txt", job)
    job.notes.append(f"classes of {len(train)} training videos: labels.csv")
    return job.write(names, "classlist.npy", roles, found, labels, ambiguous=ambiguous, read=[points])


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
    items = _list(path, count)
    try:
        return [text(item.item() if isinstance(item, np.ndarray) and item.size == 1 else item) for item in items]
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
    for i, row in enumerate(rows):
        if not isinstance(row, list | tuple) and not (isinstance(row, np.ndarray) and row.ndim):
            raise DataError(f"{path}: item {i} is {type(row).__name__}, not a list; expected one a video")
    if sum(map(len, rows)) > MOST_ITEMS:
        raise DataError(f"{path}: more than {MOST_ITEMS:,} items in all")
    return rows


def _known(label: str, names: Sequence[str]) -> str:
    if label not in names:
        raise ValueError(f"class {label!r} is not in classlist.npy")
    return label


def _actions(
    video: str, spans: Sequence[Any], labels: Sequence[Any], names: Sequence[str], job: Import
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
        if job.keeps(f"video {video}, row {i}", start, end):
            rows.append({"segment": [start, end], "label": name})
    return rows


def _features(job: Import, home: Path, ids: Sequence[str]) -> Features:
    """The file of all videos, else a file for each."""
    if job.features == "none":
        return Features()
    if job.files.folder is None:
        places = dict.fromkeys((job.src, home, home.parent if home != job.src else job.src))
        joint = [path for place in places for path in sorted(place.glob("*Features*.npy"))]
    else:
        chosen = job.src / job.files.folder
        joint = [chosen] if chosen.suffix == ".npy" else []
    if len(joint) > 1:
        names = ", ".join(path.name for path in joint)
        job.problems.append(f"several feature files ({names}); choose one with --feature-dir")
        return Features()
    if joint:
        return unpack(joint[0], ids, job.files, job.rows(), job.problems, job.warnings)
    return job.find(job.folder())


def _clicks(path: Path, job: Import, roles: Mapping[str, Role], names: Sequence[str]) -> list[tuple[str, str, float]]:
    """The points of training videos; blanks around names are cut off."""
    headless = path.suffix.lower() == ".txt"
    table = read_table(path, ["video", "time", "label"] if headless else None)
    if not {"label", "time"} <= table.columns.keys():
        raise DataError(f"{path}: expected the columns video, time (seconds) and label")
    rows: list[tuple[str, str, float]] = []
    left_out = 0
    for line, row in table.rows:
        video = known(row["video"], job.database)
        if video is None or roles[job.database[video]["subset"]] != "train":
            left_out += 1
            continue
        duration = job.database[video]["duration"]
        try:
            time = number(row["time"])
            if not 0 <= time <= duration + 1:
                raise ValueError(f"{row['time']} s is outside the video of {duration:g} s")
            rows.append((video, _known(row["label"], names), min(time, duration)))
        except ValueError as error:
            job.problems.append(f"{path.name}, line {line} (video {row['video']}): {error}")
    if left_out:
        job.warnings.append(f"{path.name}: {left_out} points of videos that do not train were left out")
    return rows
