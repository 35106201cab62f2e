"""Imports a user's own CSV tables: segments (video, label, start, end), points (video, label, time), classes of videos.

Times become seconds. Their unit is said by the user or by the name of a column, or found: the one unit in which the
last time of all lies in the last nine tenths of its video. Durations stand in a column or a table of videos; else they
are those that the features cover. Nothing is guessed: what is missing or could be two things is an error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tad.data.class_list import read_classes
from tad.data.csv_table import UNITS, Table, Unit, clock, read_table, video_id
from tad.data.dataset import FeatureGrid, Role
from tad.errors import DataError, few, listing
from tad.evaluation.ground_truth import ROUNDING
from tad.files import name_of, number
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.imported import (
    Dropped,
    Imported,
    Told,
    expected_rows,
    feature_folder,
    fitted,
    order_note,
    unsafe,
    unusable,
    write,
)
from tad.prepare.write import FullRow, LabelRows, Transfer, feature_grid

Kind = Literal["annotations", "full", "points", "classes"]
Row = tuple[str, str, float, float]
"""Video, class, start and end in seconds."""
NEEDS: dict[Kind, tuple[str, ...]] = {
    "annotations": ("start", "end"),
    "full": ("start", "end"),
    "points": ("time",),
    "classes": (),
}
"""Columns of time that each kind of table has."""
SLACK = 1.0
"""Seconds by which a time may lie beyond its video: durations are rounded, and features end a window early."""
LEAST = 0.1
"""Share of its video at which the last time of all lies at least; in a wrong unit it lies far before or beyond."""


@dataclass
class _Videos:
    """What is known of each video."""

    duration: dict[str, float] = field(default_factory=dict)
    fps: dict[str, float] = field(default_factory=dict)
    subset: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


def import_csv(
    src: Path,
    out: Path,
    *,
    kind: Kind | None = None,
    points: Path | None = None,
    videos: Path | None = None,
    classes: Path | None = None,
    columns: Sequence[str] | None = None,
    unit: Unit | None = None,
    video_fps: float | None = None,
    subset: str = "train",
    name: str | None = None,
    features: Transfer = "link",
    files: Lookup | None = None,
    fps: float | Literal["native"] = "native",
    stride: float = 4,
    window: float = 16,
    offset: float = 0,
    length: int | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` from the table `src`.

    Args:
        kind: what the table holds; by default what its columns say. Segments are ground truth, which training does not
            read; of kind full those of training videos are full labels, too.
        points: another table, of points.
        videos: a table of videos with duration, and fps and subset where they are known.
        classes: class list, which gives the order; alphabetical by default.
        columns: what the columns of `src` and `points` are, if they have no header.
        unit: of times; by default told by the names of columns, or found.
        video_fps: frames a second of all videos whose rate no table tells.
        subset: of videos whose subset no table tells.
        features, files, fps, stride, window, offset, length, dim, force: as in import_opentad.

    Raises:
        DataError: lists every problem of the tables; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped = Dropped()
    table = read_table(src, columns)
    kind = kind or _kind(table)
    tables: list[tuple[Table, Kind]] = [(table, kind)]
    if points is not None:
        tables.append((read_table(points, columns if kind == "points" else None), "points"))
    for one, its in tables:
        missing = [key for key in ("label", *NEEDS[its]) if key not in one.columns]
        if missing:
            raise DataError(f"{one.path}: {its} need a column of {' and '.join(missing)}; it has {_header(one)}")
    known = _Videos()
    for one in [*([read_table(videos)] if videos is not None else []), *(one for one, _ in tables)]:
        _describe(one, known, problems)
    if not known.names:
        raise DataError(f"{src}: holds no video")
    for video in known.names:
        known.subset.setdefault(video, subset)
        if video_fps is not None:
            known.fps.setdefault(video, video_fps)
    roles = _roles(set(known.subset.values()), problems)
    grid = feature_grid(fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or 1)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    lookup = files or Lookup()
    folder = feature_folder(src.parent, lookup) if features != "none" else None
    where = {} if folder is None else dict.fromkeys(known.names, folder)
    rows = {v: expected for v in known.duration if (expected := _expected(grid, known, v)) is not None}
    found = find(where, lookup, rows, problems, warnings)
    notes = _measure(grid, known, found, problems)
    made: list[tuple[Kind, list[Row]]] = []
    for one, its in tables:
        used, how = _unit(one, its, unit, known, problems)
        notes += how
        made.append((its, _labels(one, its, used, known, problems, warnings, dropped)))
    names, order = _classes(classes, made, problems)
    if not problems:
        expected_rows(grid, {v: {"duration": known.duration[v], "fps": known.fps.get(v)} for v in known.names})
    grid = fitted(grid, dim, 2048, found, problems)
    if problems:
        raise DataError(f"{src}: " + listing(problems))

    database = {
        v: {"subset": known.subset[v], "duration": known.duration[v]}
        | ({"fps": known.fps[v]} if v in known.fps else {})
        | {"annotations": []}
        for v in known.names
    }
    unfit = [wrong for v, entry in database.items() if (wrong := unusable(v, entry)) is not None]
    if unfit:
        raise DataError(f"{src}: " + listing(unfit))
    labels = _written(made, database, {v for v, s in known.subset.items() if roles[s] == "train"})
    notes = [order_note(names, order), *notes, *found.notes, *dropped.notes()]
    if kind == "annotations":
        notes.append(
            "the segments are ground truth, which training does not read: `--as full` gives those of training videos "
            "to training, and `tad labels` makes points or classes of them"
        )
    described = {"name": name or src.resolve().stem, "classes": names, "subsets": roles, "grid": grid}
    sources = [path for path in (src, points, videos, classes) if path is not None]
    return write(out, "csv", described, database, labels, found, features, sources, force, Told(warnings, notes))


def _kind(table: Table) -> Kind:
    has = set(table.columns)
    if {"start", "end"} <= has and "time" in has:
        raise DataError(f"{table.path}: has segments and points ({_header(table)}); choose one by --as full or points")
    if {"start", "end"} <= has:
        return "annotations"
    if "time" in has:
        return "points"
    if has & {"start", "end"}:
        raise DataError(f"{table.path}: has a start or an end without the other ({_header(table)})")
    return "classes"


def _header(table: Table) -> str:
    return ", ".join(f"{column} ({key})" if column != key else key for key, column in table.columns.items())


def _describe(table: Table, known: _Videos, problems: list[str]) -> None:
    """Adds a table's videos, and what it says of them; contradictions are problems."""
    scale = {"seconds": 1.0, "ms": 1e-3}.get(table.units.get("duration", "seconds"))
    if scale is None:
        raise DataError(f"{table.path}: {table.columns['duration']}: give durations in seconds")
    for line, row in table.rows:
        where = f"{table.path.name}, line {line}"
        video = video_id(row["video"])
        if (wrong := unsafe(video)) is not None:
            problems.append(f"{where}: {wrong}")
        elif known.names.setdefault(video, row["video"]) != row["video"] and "/" in known.names[video] + row["video"]:
            problems.append(f"{where}: {row['video']} and {known.names[video]} are both called {video}")
        if row.get("subset") and known.subset.setdefault(video, row["subset"]) != row["subset"]:
            problems.append(f"{where}: video {video} is in subset {row['subset']}, and elsewhere {known.subset[video]}")
        for key, values, factor in (("duration", known.duration, scale), ("fps", known.fps, 1.0)):
            if not row.get(key):
                continue
            try:
                value = (clock(row[key]) if key == "duration" else number(row[key])) * factor
            except ValueError as error:
                problems.append(f"{where}: {key} {error}")
                continue
            if not 0 < value < math.inf:
                problems.append(f"{where}: video {video}: {key} {row[key]} must be positive")
            elif not math.isclose(values.setdefault(video, value), value, rel_tol=1e-6):
                problems.append(f"{where}: video {video} has {key} {value:g}, and elsewhere {values[video]:g}")


def _roles(subsets: Collection[str], problems: list[str]) -> dict[str, Role]:
    """Role of each subset by its name; "val..." is the test set where there is no "test...", else the dev set."""
    tested = any(s.lower().startswith("test") for s in subsets)
    words: dict[str, Role] = {"train": "train", "test": "test", "dev": "dev", "val": "dev" if tested else "test"}
    roles = {s: role for s in sorted(subsets) for word, role in words.items() if s.lower().startswith(word)}
    unclear = sorted(set(subsets) - set(roles))
    problems += [f"subset {s!r}: call it train, dev or test, or something that begins so" for s in unclear]
    return roles


def _expected(grid: FeatureGrid, known: _Videos, video: str) -> int | None:
    """Rows that the grid expects; None where that is not known."""
    if grid.fps == "native" and grid.length is None and video not in known.fps:
        return None
    return grid.expected_length(known.duration[video], known.fps.get(video))


def _measure(grid: FeatureGrid, known: _Videos, found: Features, problems: list[str]) -> list[str]:
    """Durations of videos that no table gives: to the end of the last row's window."""
    without = [v for v in known.names if v not in known.duration]
    if not without:
        return []
    if grid.length is not None or (grid.fps == "native" and not all(v in known.fps for v in without)):
        problems.append(
            f"no duration of {len(without)} of {len(known.names)} videos ({few(without, 3)}): add a "
            "column or a table of videos (--videos), or say by --fps, --stride and --window how the features were made"
        )
        return []
    absent = [v for v in without if v not in found.plans]
    if absent:
        problems += [f"video {v}: neither a duration nor a feature file" for v in absent]
    for video in set(without) - set(absent):
        made = grid.grid(found.plans[video].shape[0], 1.0, known.fps.get(video))
        known.duration[video] = (made.offset + (made.length - 1) * made.stride + made.window) / made.fps
    return [f"durations of {len(without) - len(absent)} videos are those that their features cover"]


def _unit(table: Table, kind: Kind, said: Unit | None, known: _Videos, problems: list[str]) -> tuple[Unit, list[str]]:
    """The unit of a table's times, and a note if it was found."""
    keys = NEEDS[kind]
    told = {table.units[key] for key in keys if key in table.units}
    if len(told) > 1 or (said is not None and told - {said}):
        problems.append(f"{table.path.name}: columns in {' and '.join(sorted(told))}, --unit {said or 'not given'}")
    if said is not None:
        return said, []
    if told or not keys:
        return next(iter(told), "seconds"), []
    last: dict[str, float] = {}
    whole = True
    for _, row in table.rows:
        video = video_id(row["video"])
        if any(":" in row[key] for key in keys):
            return "seconds", []
        for key in keys:
            whole = whole and "." not in row[key]
            try:
                last[video] = max(last.get(video, 0.0), number(row[key]))
            except ValueError:
                continue
    if not last:
        return "seconds", []
    fits = _fitting(last, known)
    if len(fits) == 1 and not (whole and len(last) < 3):
        unit, share = next(iter(fits.items()))
        return unit, [f"{table.path.name}: times are {unit}: the last of all lies at {share:.0%} of its video"]
    why = " or ".join(fits) or "none of seconds, frames (at the videos' fps) and ms, by the durations"
    if len(fits) == 1:  # the first frames of a video would pass for its seconds
        why += ", by whole numbers of fewer than three videos"
    problems.append(f"{table.path.name}: the unit of its times is not clear ({why}); say it with --unit")
    return "seconds", []


def _fitting(last: Mapping[str, float], known: _Videos) -> dict[Unit, float]:
    """Units in which the last times of videos can be, and the largest share of its video at which one of them lies."""
    fits: dict[Unit, float] = {}
    for unit in UNITS:
        times = {v: _seconds(t, unit, known.fps.get(v)) for v, t in last.items() if v in known.duration}
        share = max((t / known.duration[v] for v, t in times.items()), default=0.0)
        if share >= LEAST and all(t <= known.duration[v] + SLACK for v, t in times.items()):
            fits[unit] = share
    return fits


def _seconds(value: float, unit: Unit, fps: float | None) -> float:
    """Seconds; NaN for frames of a video of unknown rate."""
    return {"seconds": value, "ms": value / 1000, "frames": value / fps if fps is not None else math.nan}[unit]


def _labels(
    table: Table, kind: Kind, unit: Unit, known: _Videos, problems: list[str], warnings: list[str], dropped: Dropped
) -> list[Row]:
    """Video, class, start and end in seconds (both the time of a point; 0 for classes) of each good row."""
    rows: list[Row] = []
    late: list[str] = []
    if unit == "frames" and NEEDS[kind]:
        without = sorted({video_id(row["video"]) for _, row in table.rows} - set(known.fps))
        if without:
            problems.append(
                f"{table.path.name}: times are frames, but the frame rate of {len(without)} videos is not known "
                f"({few(without, 3)}): add a column fps, or give --video-fps"
            )
            return rows
    for line, row in table.rows:
        video, label = video_id(row["video"]), name_of(row["label"])
        where = f"{table.path.name}, line {line}: video {video}"
        if not label:
            if any(row[key] for key in NEEDS[kind]) or kind == "classes":
                problems.append(f"{where}: no label")
            continue  # a row with only a video: it holds nothing
        try:
            times = [
                clock(row[key]) if ":" in row[key] else _seconds(number(row[key]), unit, known.fps.get(video))
                for key in NEEDS[kind]
            ]
            start, end = (times[0], times[-1]) if times else (0.0, 0.0)
            if not 0 <= start <= end + ROUNDING < math.inf:
                raise ValueError(f"{' to '.join(row[key] for key in NEEDS[kind])} is no time")
            duration = known.duration.get(video, math.inf)
            if end > duration + SLACK:
                raise ValueError(f"{end:.3f} s is beyond its end at {duration:.3f} s; is the unit ({unit}) right?")
            if len(times) == 2 and not dropped.keep(where, start, end):
                continue
        except ValueError as error:
            problems.append(f"{where}: {error}")
            continue
        if end > duration:
            late.append(f"{where}: {end:.3f} s of {duration:.3f} s")
        rows.append((video, label, min(start, duration), min(end, duration)))
    if late:
        warnings.append(f"times a little beyond the end of their video, moved to its end: {listing(late, 5)}")
    return rows


def _classes(path: Path | None, made: list[tuple[Kind, list[Row]]], problems: list[str]) -> tuple[list[str], str]:
    """The class names, and where their order comes from; rows that name their class by its id get the name."""
    labels = [row[1] for _, rows in made for row in rows]
    if path is None:
        if not labels and not problems:
            problems.append("no row has a label")
        return sorted(set(labels)), "the alphabet"
    classes = read_classes(path, by_line=False)
    names = [name for _, name in sorted(classes.items())]
    if labels and set(names).isdisjoint(labels) and all(label.isdecimal() for label in labels):
        ids = {str(number): name for number, name in classes.items()}
        for _, rows in made:
            rows[:] = [(video, ids.get(label, label), start, end) for video, label, start, end in rows]
        labels = [ids.get(label, label) for label in labels]
    unknown = Counter(label for label in labels if label not in set(names))
    problems += [f"class {label!r} of {n} rows is not in {path}" for label, n in unknown.items()]
    return names, str(path)


def _written(
    made: Sequence[tuple[Kind, Sequence[Row]]], database: Mapping[str, dict[str, Any]], train: Collection[str]
) -> LabelRows:
    """Puts segments into the database; the rows of the label files."""
    points: list[tuple[str, str, float]] | None = None
    classes: list[tuple[str, str]] = []
    full: list[FullRow] = []
    for kind, rows in made:
        if kind == "points":
            points = [(video, label, start) for video, label, start, _ in rows]
        elif kind == "classes":
            classes = list(dict.fromkeys((video, label) for video, label, _, _ in rows))
        else:
            for video, label, start, end in rows:
                database[video]["annotations"].append({"segment": [start, end], "label": label})
        if kind == "full":
            held = {video for video, *_ in rows}
            full = [row for row in dict.fromkeys(rows) if row[0] in train]
            full += [(video, "", "", "") for video in database if video in train and video not in held]
    return LabelRows(points, classes, full)
