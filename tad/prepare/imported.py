"""What importers have in common: rows of published annotations, mended or refused, writing, and the result."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from tad.data.csv_table import video_id as file_stem
from tad.data.feature_arrays import CONTAINERS
from tad.data.manifest import ROLES, FeatureGrid, parse_manifest
from tad.data.videos import Unusable, check_id, video_of
from tad.errors import DataError, few, shortened
from tad.evaluation.ground_truth import ROUNDING, wrong_unit
from tad.files import name_of, number, regular
from tad.prepare.feature_files import Features, Lookup
from tad.prepare.joint_features import JointFeatures
from tad.prepare.output import output_folder
from tad.prepare.write import LabelRows, Transfer, write_dataset


class Told(NamedTuple):
    """What the user is told of an import: what was mended on the way, and choices such as the order of classes."""

    warnings: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Imported:
    """What an import wrote: number of videos per role, points, feature files; and what is told of it."""

    videos: dict[str, int]
    points: int
    features: int
    warnings: list[str]
    notes: list[str] = field(default_factory=list)


@dataclass
class Dropped:
    """Segments of published files that are none: of zero length, or reversed by rounding."""

    rows: list[str] = field(default_factory=list)

    def keep(self, where: str, start: float, end: float) -> bool:
        """Whether start < end; a segment that rounding has emptied is counted.

        Raises:
            ValueError: it is reversed, or not finite.
        """
        if not (math.isfinite(start) and math.isfinite(end)) or start - end > ROUNDING:
            raise ValueError(f"segment [{start:g}, {end:g}] must be [start, end], in seconds")
        if start >= end:
            self.rows.append(f"{where}: [{start:g}, {end:g}]")
        return start < end

    def notes(self) -> list[str]:
        if not self.rows:
            return []
        return [f"dropped {len(self.rows)} segments of no length: {few(self.rows, 3)}"]


@dataclass
class Untimed:
    """Videos whose duration published files do not tell, as of those that are gone from the web. They are left out."""

    videos: list[str] = field(default_factory=list)

    def duration(self, video_id: str, entry: Mapping[str, Any]) -> float | None:
        """Seconds: the video's `duration`, else its `frame` / `fps`. None if neither is told; then it is counted.

        Null, NaN and an empty field tell nothing.

        Raises:
            ValueError: a number that is told is not positive and finite.
        """
        if _told(entry, "duration"):
            return positive(entry, "duration")
        if _told(entry, "frame") and _told(entry, "fps"):
            return positive(entry, "frame") / positive(entry, "fps")
        self.videos.append(video_id)
        return None

    def warnings(self, ignored: Collection[str] = ()) -> list[str]:
        """One line that counts them and names some; those that are ignored anyway do not count."""
        left = [v for v in self.videos if v not in ignored]
        if not left:
            return []
        named = few([shortened(v) if unsafe(v) else v for v in left])
        return [f"{len(left)} videos without a duration were left out: {named}"]

    def empty(self, subsets: Mapping[str, str], kept: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """What to say of subsets of which no video is left.

        Args:
            subsets: subset of each video that was left out.
        """
        gone = {subsets[v] for v in self.videos if v in subsets} - {entry["subset"] for entry in kept.values()}
        return [f"no video of subset {subset} has a duration" for subset in sorted(gone)]


def _told(entry: Mapping[str, Any], key: str) -> bool:
    value = entry.get(key)
    return value is not None and value != "" and value == value


def segments(video_id: str, items: Any, problems: list[str], dropped: Dropped) -> list[dict[str, Any]]:
    """The rows of ActivityNet-style annotations: {"segment": [start, end], "label": name}, blanks around names cut off.

    Bad rows become problems; None or an empty list is no row.
    """
    rows: list[dict[str, Any]] = []
    if items is None:
        return rows
    if not isinstance(items, list):
        problems.append(f"video {video_id}: annotations must be a list")
        return rows
    for i, item in enumerate(items):
        where = f"video {video_id}, row {i}"
        if not isinstance(item, dict):
            problems.append(f"{where}: must hold segment and label")
            continue
        try:
            times, label = item["segment"], item["label"]
            if not isinstance(times, list) or len(times) != 2:
                raise ValueError(f"segment {shortened(times)} must be [start, end], in seconds")
            if type(label) not in (str, int) or not (label := name_of(label)):
                raise ValueError(f"label {shortened(label)} must be a class name")
            start, end = number(times[0]), number(times[1])
            if dropped.keep(where, start, end):
                rows.append({"segment": [start, end], "label": label})
        except KeyError as error:
            problems.append(f"{where}: has no {error.args[0]!r}")
        except ValueError as error:
            problems.append(f"{where}: {error}")
    return rows


def positive(entry: Mapping[str, Any], key: str) -> float:
    """A positive, finite number of a video's entry.

    Raises:
        ValueError: it is missing or none.
    """
    if entry.get(key) is None:
        raise ValueError(f"has no {key}")
    try:
        value = number(entry[key])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{key} {value:g} must be positive")
    return value


def known(name: str, videos: Container[str]) -> str | None:
    """The video that a list of a data set means: by its id, its file or path, or with or without "v_"; None if none.

    Published lists name the same videos differently: `video_1`, `features/video_1.npy`, `v_video_1`.
    """
    if name in videos:
        return name
    stem = file_stem(name)
    return next((v for v in (stem, stem.removeprefix("v_"), f"v_{stem}") if v in videos), None)


def unsafe(video_id: str) -> str | None:
    """What to say of a video id that cannot be a file name; None if it can."""
    return _said(lambda: check_id(video_id))


def unusable(video_id: str, entry: Mapping[str, Any]) -> str | None:
    """What to say of a video that no command would read: of its id, subset, duration or fps; None if it is good."""
    return _said(lambda: video_of(video_id, entry, None))


def _said(check: Callable[[], object]) -> str | None:
    try:
        check()
    except Unusable as error:
        return f"{error.video}: {error}"
    return None


def feature_folder(src: Path, lookup: Lookup) -> Path | None:
    """Where features are looked for: what the user chose, SRC/features, or the only folder of SRC named like that.

    Raises:
        DataError: the chosen one is not there, or can hold no features.
    """
    if lookup.folder is not None:
        chosen = src / lookup.folder
        if not chosen.exists():
            raise DataError(f"{chosen}: no such feature folder")
        if not chosen.is_dir() and regular(chosen).suffix.lower() not in CONTAINERS:
            raise DataError(f"{chosen}: is no folder of features, nor one file of all videos ({', '.join(CONTAINERS)})")
        return chosen
    if (src / "features").is_dir():
        return src / "features"
    named = [path for path in sorted(src.glob("*feat*")) if path.is_dir()]
    return named[0] if len(named) == 1 else None


def not_seconds(database: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A problem if most segments lie beyond the end of their video."""
    starts = [(row["segment"][0], entry["duration"]) for entry in database.values() for row in entry["annotations"]]
    wrong = wrong_unit(sum(start >= duration for start, duration in starts), len(starts))
    return [] if wrong is None else [wrong]


def expected_rows(grid: FeatureGrid, database: Mapping[str, Mapping[str, Any]]) -> dict[str, int]:
    """Rows that the grid expects of each video."""
    return {v: grid.expected_length(entry["duration"], entry.get("fps")) for v, entry in database.items()}


def fitted(
    grid: FeatureGrid, dim: int | None, usual: int, found: Features | JointFeatures, problems: list[str]
) -> FeatureGrid:
    """The grid with the width and type of the files; a width that contradicts them is a problem.

    Args:
        dim: what the user said; None takes that of the files.
        usual: where there are no files.
    """
    if dim is not None and found.width is not None and dim != found.width:
        problems.append(f"the feature files are {found.width} wide, not {dim}; leave out --dim")
    return grid.model_copy(update={"dim": dim or found.width or usual, "dtype": found.dtype or "float32"})


def order_note(classes: Sequence[str], source: str) -> str:
    """One line on the order of the classes, which fixes their indices inside models."""
    shown = list(classes) if len(classes) <= 24 else [*classes[:20], "...", classes[-1]]
    return f"{len(classes)} classes in the order of {source}: {', '.join(shown)}"


def write(
    out: Path,
    layout: str,
    described: Mapping[str, Any],
    database: Mapping[str, Mapping[str, Any]],
    labels: LabelRows,
    found: Features | JointFeatures,
    how: Transfer,
    sources: Sequence[Path],
    force: bool,
    told: Told,
    ambiguous: Iterable[tuple[str, float, float]] = (),
) -> Imported:
    """Writes the dataset folder of an importer, when nothing is wrong with its source.

    Args:
        layout: the importer's name on the command line.
        described: the keys of dataset.yaml.
        database: the videos, as annotations.json holds them.
        sources: what was read, besides the features.

    Raises:
        DataError: a key of dataset.yaml cannot be what it is, or the folder cannot be written.
    """
    manifest = parse_manifest(described, "dataset.yaml of this source")
    with output_folder(out, f"import {layout}", force=force, sources=[*sources, *found.paths()]) as fresh:
        write_dataset(fresh, manifest, database, labels, ambiguous)
        warnings = [*told.warnings, *found.write(fresh, how)]
    held = Counter(manifest.subsets[entry["subset"]] for entry in database.values())
    videos: dict[str, int] = {role: held[role] for role in ROLES if role in manifest.subsets.values()}
    return Imported(videos, len(labels.points or ()), len(found), warnings, told.notes)
