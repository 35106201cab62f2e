"""Imports a user's own CSV tables: segments (video, label, start, end), points (video, label, time), classes of videos.

Times become seconds. Their unit is said by the user or by the name of a column, or found: the one unit in which the
last time of all lies in the last nine tenths of its video. Durations stand in a column or a table of videos; else they
are those that the features cover. Nothing is guessed: what is missing or could be two things is an error.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Unpack

from tad.data.class_list import read_classes
from tad.data.csv_table import UNITS, Table, Unit, clock, read_table, video_id
from tad.data.dataset import Role
from tad.data.labels import CLASSES, FULL, POINTS
from tad.data.videos import unsafe
from tad.errors import DataError, few, listing
from tad.evaluation.ground_truth import ROUNDING
from tad.files import name_of, number
from tad.prepare.feature_files import Features
from tad.prepare.importer import Import, Imported, Options
from tad.prepare.published import unusable
from tad.prepare.write import LabelRows

Kind = Literal["annotations", "full", "points", "classes"]
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
Videos = dict[str, dict[str, Any]]
"""What is known of each video: subset, duration, fps."""


class Row(NamedTuple):
    """A row of a table; times in seconds: two, one or none."""

    video: str
    label: str
    times: tuple[float, ...]


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
    **options: Unpack[Options],
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

    Raises:
        DataError: lists every problem of the tables; nothing is written then.
    """
    options.setdefault("stride", 4)
    job = Import("csv", src, out, **options)
    table = read_table(src, columns)
    kind = kind or _kind(table)
    tables: list[tuple[Table, Kind]] = [(table, kind)]
    if points is not None:
        tables.append((read_table(points, columns if kind == "points" else None), "points"))
    for one, its in tables:
        missing = [key for key in ("label", *NEEDS[its]) if key not in one.columns]
        if missing:
            raise DataError(f"{one.path}: {its} need a column of {' and '.join(missing)}; it has {_header(one)}")
    names: dict[str, str] = {}
    for one in [*([read_table(videos)] if videos is not None else []), *(one for one, _ in tables)]:
        _describe(one, job.database, names, job.problems)
    if not names:
        raise DataError(f"{src}: holds no video")
    for video in names:
        told = job.database[video]
        rate = {"fps": video_fps} if video_fps is not None else {}
        job.database[video] = {"subset": subset, **told, **(rate if "fps" not in told else {})}
    roles = _roles({entry["subset"] for entry in job.database.values()}, job.problems)
    job.grid()  # may be refused
    job.refuse()

    found = job.find(job.folder(src.parent))
    job.notes += _measure(job, found)
    made = []
    for one, its in tables:
        used = _unit(one, its, unit, job)
        made.append((its, _rows(one, its, used, job)))
    order, source = _classes(classes, made, job.problems)
    rateless = [v for v, entry in job.database.items() if "fps" not in entry]
    if job.needs_rates and rateless:
        job.problems.append(
            f"the feature grid counts frames of each video's own rate, and that of {len(rateless)} videos is not known "
            f"({few(rateless, 3)}): add a column fps, give --video-fps, or say by --fps how the features were made"
        )
    job.refuse()
    keys = ("subset", "duration", "fps")
    job.database = {v: {k: e[k] for k in keys if k in e} | {"annotations": []} for v, e in job.database.items()}
    job.problems += [wrong for v, entry in job.database.items() if (wrong := unusable(v, entry)) is not None]
    labels = _labels(made, job.database, {v for v, e in job.database.items() if roles[e["subset"]] == "train"})
    if kind == "annotations":
        job.notes.append(
            "the segments are ground truth, which training does not read: `--as full` gives those of training videos "
            "to training, and `tad labels` makes points or classes of them"
        )
    name, read = src.resolve().stem, (points, videos, classes)
    return job.write(order, source, roles, found, labels, name=name, read=read)


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


def _describe(table: Table, videos: Videos, names: dict[str, str], problems: list[str]) -> None:
    """Adds a table's videos, and what it says of them; contradictions are problems.

    Args:
        names: what a table calls each video.
    """
    scale = {"seconds": 1.0, "ms": 1e-3}.get(table.units.get("duration", "seconds"))
    if scale is None:
        raise DataError(f"{table.path}: {table.columns['duration']}: give durations in seconds")
    for line, row in table.rows:
        where = f"{table.path.name}, line {line}"
        video = video_id(row["video"])
        known = videos.setdefault(video, {})
        if (wrong := unsafe(video)) is not None:
            problems.append(f"{where}: {wrong.where}: {wrong.detail}")
        elif names.setdefault(video, row["video"]) != row["video"] and "/" in names[video] + row["video"]:
            problems.append(f"{where}: {row['video']} and {names[video]} are both called {video}")
        names.setdefault(video, row["video"])
        if row.get("subset") and known.setdefault("subset", row["subset"]) != row["subset"]:
            problems.append(f"{where}: video {video} is in subset {row['subset']}, and elsewhere {known['subset']}")
        for key, read, factor in (("duration", clock, scale), ("fps", number, 1.0)):
            if not row.get(key):
                continue
            try:
                value = read(row[key]) * factor
            except ValueError as error:
                problems.append(f"{where}: {key} {error}")
                continue
            if not 0 < value < math.inf:
                problems.append(f"{where}: video {video}: {key} {row[key]} must be positive")
            elif not math.isclose(known.setdefault(key, value), value, rel_tol=1e-6):
                problems.append(f"{where}: video {video} has {key} {value:g}, and elsewhere {known[key]:g}")


def _roles(subsets: Collection[str], problems: list[str]) -> dict[str, Role]:
    """Role of each subset by its name; "val..." is the test set where there is no "test...", else the dev set."""
    tested = any(s.lower().startswith("test") for s in subsets)
    words: dict[str, Role] = {"train": "train", "test": "test", "dev": "dev", "val": "dev" if tested else "test"}
    roles = {s: role for s in sorted(subsets) for word, role in words.items() if s.lower().startswith(word)}
    unclear = sorted(set(subsets) - set(roles))
    problems += [f"subset {s!r}: call it train, dev or test, or something that begins so" for s in unclear]
    return roles


def _measure(job: Import, found: Features) -> list[str]:
    """Durations of videos that no table gives: to the end of the last row's window."""
    videos, grid = job.database, job.grid()
    without = [v for v in videos if "duration" not in videos[v]]
    if not without:
        return []
    if job.length is not None or (job.needs_rates and not all("fps" in videos[v] for v in without)):
        job.problems.append(
            f"no duration of {len(without)} of {len(videos)} videos ({few(without, 3)}): add a "
            "column or a table of videos (--videos), or say by --fps, --stride and --window how the features were made"
        )
        return []
    absent = [v for v in without if v not in found.plans]
    job.problems += [f"video {v}: neither a duration nor a feature file" for v in absent]
    for video in set(without) - set(absent):
        made = grid.grid(found.plans[video].shape[0], 1.0, videos[video].get("fps"))
        videos[video]["duration"] = (made.offset + (made.length - 1) * made.stride + made.window) / made.fps
    return [f"durations of {len(without) - len(absent)} videos are those that their features cover"]


def _unit(table: Table, kind: Kind, said: Unit | None, job: Import) -> Unit:
    """The unit of a table's times; a note says so if it was found."""
    keys = NEEDS[kind]
    told = {table.units[key] for key in keys if key in table.units}
    if len(told) > 1 or (said is not None and told - {said}):
        job.problems.append(f"{table.path.name}: columns in {' and '.join(sorted(told))}, --unit {said or 'not given'}")
    if said is not None:
        return said
    texts = [(video_id(row["video"]), row[key]) for _, row in table.rows for key in keys]
    if told or not keys or any(":" in text for _, text in texts):
        return next(iter(told), "seconds")
    last: dict[str, float] = {}
    for video, text in texts:
        try:
            last[video] = max(last.get(video, 0.0), number(text))
        except ValueError:
            continue
    if not last:
        return "seconds"
    fits = _fitting(last, job.database)
    # The first frames of a video would pass for its seconds.
    unsure = len(last) < 3 and not any("." in text for _, text in texts)
    if len(fits) == 1 and not unsure:
        unit, share = next(iter(fits.items()))
        job.notes.append(f"{table.path.name}: times are {unit}: the last of all lies at {share:.0%} of its video")
        return unit
    why = " or ".join(fits) or "none of seconds, frames (at the videos' fps) and ms, by the durations"
    why += ", by whole numbers of fewer than three videos" if len(fits) == 1 else ""
    job.problems.append(f"{table.path.name}: the unit of its times is not clear ({why}); say it with --unit")
    return "seconds"


def _fitting(last: Mapping[str, float], videos: Videos) -> dict[Unit, float]:
    """Units in which the last times of videos can be, and the largest share of its video at which one of them lies."""
    fits: dict[Unit, float] = {}
    for unit in UNITS:
        timed = [(time, videos[v]) for v, time in last.items() if "duration" in videos[v]]
        times = [(_seconds(time, unit, video), video["duration"]) for time, video in timed]
        share = max((time / duration for time, duration in times), default=0.0)
        if share >= LEAST and all(time <= duration + SLACK for time, duration in times):
            fits[unit] = share
    return fits


def _seconds(value: float, unit: Unit, video: Mapping[str, Any]) -> float:
    """Seconds; NaN for frames of a video of unknown rate."""
    return {"seconds": value, "ms": value / 1000, "frames": value / video.get("fps", math.nan)}[unit]


def _rows(table: Table, kind: Kind, unit: Unit, job: Import) -> list[Row]:
    """The good rows."""
    keys, rows, late = NEEDS[kind], list[Row](), list[str]()
    if unit == "frames" and keys:
        without = sorted({v for _, row in table.rows if "fps" not in job.database[v := video_id(row["video"])]})
        if without:
            job.problems.append(
                f"{table.path.name}: times are frames, but the frame rate of {len(without)} videos is not known "
                f"({few(without, 3)}): add a column fps, or give --video-fps"
            )
            return rows
    for line, row in table.rows:
        video, label = video_id(row["video"]), name_of(row["label"])
        where, known = f"{table.path.name}, line {line}: video {video}", job.database[video]
        if not label:
            if any(row[key] for key in keys) or kind == "classes":
                job.problems.append(f"{where}: no label")
            continue  # a row with only a video: it holds nothing
        try:
            texts = [row[key] for key in keys]
            times = [clock(text) if ":" in text else _seconds(number(text), unit, known) for text in texts]
            duration = known.get("duration", math.inf)
            if times and not 0 <= times[0] <= times[-1] + ROUNDING < math.inf:
                raise ValueError(f"{' to '.join(texts)} is no time")
            if times and times[-1] > duration + SLACK:
                end = f"its end at {duration:.3f} s"
                raise ValueError(f"{times[-1]:.3f} s is beyond {end}; is the unit ({unit}) right?")
            if len(times) == 2 and not job.keeps(where, *times):
                continue
        except ValueError as error:
            job.problems.append(f"{where}: {error}")
            continue
        if times and times[-1] > duration:
            late.append(f"{where}: {times[-1]:.3f} s of {duration:.3f} s")
        rows.append(Row(video, label, tuple(min(time, duration) for time in times)))
    if late:
        job.warnings.append(f"times a little beyond the end of their video, moved to its end: {listing(late, 5)}")
    return rows


def _classes(path: Path | None, made: list[tuple[Kind, list[Row]]], problems: list[str]) -> tuple[list[str], str]:
    """The class names, and where their order comes from; rows that name their class by its id get the name."""
    labels = [row.label for _, rows in made for row in rows]
    if path is None:
        if not labels and not problems:
            problems.append("no row has a label")
        return sorted(set(labels)), "the alphabet"
    classes = read_classes(path, by_line=False)
    names = [name for _, name in sorted(classes.items())]
    if labels and set(names).isdisjoint(labels) and all(label.isdecimal() for label in labels):
        ids = {str(number): name for number, name in classes.items()}
        for _, rows in made:
            rows[:] = [row._replace(label=ids.get(row.label, row.label)) for row in rows]
        labels = [ids.get(label, label) for label in labels]
    unknown = Counter(label for label in labels if label not in set(names))
    problems += [f"class {label!r} of {n} rows is not in {path}" for label, n in unknown.items()]
    return names, str(path)


def _labels(made: Sequence[tuple[Kind, Sequence[Row]]], database: Videos, train: Collection[str]) -> LabelRows:
    """The rows of the label files; segments go into the database."""
    labels: dict[Any, list[tuple[Any, ...]]] = {}
    for kind, rows in made:
        flat = [(row.video, row.label, *row.times) for row in rows]
        if kind in ("points", "classes"):
            labels[POINTS if kind == "points" else CLASSES] = flat if kind == "points" else list(dict.fromkeys(flat))
            continue
        for row in rows:
            database[row.video]["annotations"].append({"segment": list(row.times), "label": row.label})
        if kind == "full":
            held = {row.video for row in rows}
            labels[FULL] = [row for row in dict.fromkeys(flat) if row[0] in train]
            labels[FULL] += [(video, "", "", "") for video in database if video in train and video not in held]
    return labels
