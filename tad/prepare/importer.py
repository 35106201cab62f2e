"""What importers have in common: the user's options, rows of published annotations, mended or refused, and writing."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypedDict

from pydantic import ValidationError

from tad.data.dataset import ROLES, FeatureGrid, Role
from tad.data.labels import POINTS
from tad.data.manifest import parse_manifest, problems_of
from tad.data.videos import unsafe
from tad.errors import DataError, few, listing, shortened
from tad.evaluation.ground_truth import ROUNDING, annotated, wrong_unit
from tad.files import name_of, regular
from tad.prepare.feature_arrays import CONTAINERS
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.output import output_folder
from tad.prepare.published import Entry, told_duration, unusable
from tad.prepare.write import LabelRows, Transfer, write_dataset


class Options(TypedDict, total=False):
    """What the user may say to every importer; `Import` has the defaults.

    name: of the dataset; by default that of the source.
    features: link or copy the plain feature files, or take none. files: where and how they are named.
    fps, stride, window, offset, length: the feature grid. Length is for features resized in time.
    dim: width of the features; by default that of the files, or the layout's usual one where there are none.
    force: replace an earlier output of the same command.
    """

    name: str | None
    features: Transfer
    files: Lookup
    fps: float | Literal["native"]
    stride: float
    window: float
    offset: float
    length: int | None
    dim: int | None
    force: bool


class Imported(NamedTuple):
    """What an import wrote: number of videos per role, points, feature files; and what the user is told of it."""

    videos: dict[str, int]
    points: int
    features: int
    warnings: list[str]
    notes: list[str]


@dataclass
class Import:
    """One import: its source, the user's options, and what is found on the way.

    Attributes:
        layout: the importer's name on the command line.
        problems: all that makes the import wrong; nothing is written if there are any.
        warnings, notes: what was mended on the way, and choices such as the order of classes.
        database: the videos, as annotations.json will hold them.
        untimed: subset of each video that was left out because no file tells its duration; "" if it does not matter.
        empty: segments of no length, which are dropped.
        where: what problems are problems of; the source by default.
    """

    layout: str
    src: Path
    out: Path
    name: str | None = None
    features: Transfer = "link"
    files: Lookup = field(default_factory=Lookup)
    fps: float | Literal["native"] = "native"
    stride: float = 16
    window: float = 16
    offset: float = 0
    length: int | None = None
    dim: int | None = None
    force: bool = False
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    database: dict[str, dict[str, Any]] = field(default_factory=dict)
    untimed: dict[str, str] = field(default_factory=dict)
    empty: list[str] = field(default_factory=list)
    where: Path | None = None

    def refuse(self) -> None:
        """Raises DataError with all problems, if there are any."""
        if self.problems:
            raise DataError(f"{self.where or self.src}: " + listing(self.problems))

    @property
    def needs_rates(self) -> bool:
        """Whether the feature grid counts frames of each video's own rate."""
        return self.fps == "native" and self.length is None

    def grid(self, dim: int = 1, dtype: str = "float32") -> FeatureGrid:
        """The feature grid that the user describes.

        Raises:
            DataError: names what is wrong with it.
        """
        keys = {key: getattr(self, key) for key in ("fps", "stride", "window", "offset", "length")}
        try:
            return FeatureGrid.model_validate({**keys, "dim": dim, "dtype": dtype})
        except ValidationError as error:
            raise DataError("the feature grid cannot be so: " + listing(problems_of(error))) from None

    # -- videos --------------------------------------------------------------------------------------------------------

    def add(
        self, video: str, entry: Any, subset: str, clock: Callable[[Entry, float], tuple[float, float | None]]
    ) -> None:
        """Takes a video into the database. What is wrong with it is a problem; without a duration it is left out.

        Args:
            clock: duration (seconds) and frame rate, from the entry and the duration that it tells; raises ValueError.
        """
        if not isinstance(entry, dict):
            self.problems.append(f"video {video}: needs subset, duration, fps or frame, and annotations")
            return
        try:
            if (told := told_duration(entry)) is None:
                self.untimed[video] = subset
                return
            duration, rate = clock(entry, told)
        except ValueError as error:
            self.problems.append(f"video {video}: {error}")
            return
        kept = {"subset": subset, "duration": duration} | ({} if rate is None else {"fps": rate})
        rows = self.segments(video, entry)
        if (wrong := unusable(video, kept)) is not None:
            self.problems.append(wrong)
        else:
            self.database[video] = kept | {"annotations": rows}

    def segments(self, video: str, entry: Entry) -> list[dict[str, Any]]:
        """The rows of annotations.json, {"segment": [start, end], "label": name}; bad ones are problems."""
        kept: list[dict[str, Any]] = []
        for row in annotated(video, entry, self.problems):
            where, label = f"video {video}, row {row.number}", name_of(row.label)
            try:
                if not label:
                    raise ValueError("label '' must be a class name")
                if self.keeps(where, row.start, row.end):
                    kept.append({"segment": [row.start, row.end], "label": label})
            except ValueError as error:
                self.problems.append(f"{where}: {error}")
        return kept

    def keeps(self, where: str, start: float, end: float) -> bool:
        """Whether start < end; a segment of zero length, or reversed by rounding, is dropped and counted.

        Raises:
            ValueError: it is reversed, or not finite.
        """
        if not (math.isfinite(start) and math.isfinite(end)) or start - end > ROUNDING:
            raise ValueError(f"segment [{start:g}, {end:g}] must be [start, end], in seconds")
        if start >= end:
            self.empty.append(f"{where}: [{start:g}, {end:g}]")
        return start < end

    def in_roles(self, source: Mapping[str, Any], roles: Mapping[str, Role]) -> dict[str, Any]:
        """The entries of subsets that have a role. Others are counted in warnings, absent subsets are problems."""
        subset_of = {v: str(e.get("subset")).strip() if isinstance(e, dict) else None for v, e in source.items()}
        found = Counter(subset for subset in subset_of.values() if subset is not None)
        for subset in sorted(set(roles) - set(found)):
            self.problems.append(f"no video is in subset {subset}; found {', '.join(sorted(found))}")
        for subset in sorted(set(found) - set(roles)):
            self.warnings.append(
                f"{found[subset]} videos of subset {subset} have no role and were left out; --test-subset, "
                "--dev-subset or --train-subset takes them in, also without annotations"
            )
        return {v: source[v] for v, subset in subset_of.items() if subset is None or subset in roles}

    def tell_untimed(self, ignored: Collection[str] = ()) -> None:
        """Warns of videos without a duration, but for ignored ones; a subset of which no video is left is a problem."""
        left = [v for v in self.untimed if v not in ignored]
        if left:
            named = few([shortened(v) if unsafe(v) else v for v in left])
            self.warnings.append(f"{len(left)} videos without a duration were left out: {named}")
        gone = set(self.untimed.values()) - {"", *(entry["subset"] for entry in self.database.values())}
        self.problems += [f"no video of subset {subset} has a duration" for subset in sorted(gone)]

    # -- features and writing ------------------------------------------------------------------------------------------

    def folder(self, base: Path | None = None) -> Path | None:
        """Where features are looked for: what the user chose, BASE/features, or the only folder there named like that.

        Args:
            base: the source by default.

        Raises:
            DataError: the chosen one is not there, or can hold no features.
        """
        base = base or self.src
        if self.features == "none":
            return None
        if self.files.folder is not None:
            chosen = base / self.files.folder
            if not chosen.exists():
                raise DataError(f"{chosen}: no such feature folder")
            if not chosen.is_dir() and regular(chosen).suffix.lower() not in CONTAINERS:
                kinds = ", ".join(CONTAINERS)
                raise DataError(f"{chosen}: is no folder of features, nor one file of all videos ({kinds})")
            return chosen
        if (base / "features").is_dir():
            return base / "features"
        named = [path for path in sorted(base.glob("*feat*")) if path.is_dir()]
        return named[0] if len(named) == 1 else None

    def rows(self) -> dict[str, int]:
        """Feature rows that the grid expects of each video whose duration, and rate if it counts, are known."""
        grid = self.grid()
        timed = {v: e for v, e in self.database.items() if "duration" in e and ("fps" in e or not self.needs_rates)}
        return {v: grid.expected_length(e["duration"], e.get("fps")) for v, e in timed.items()}

    def find(self, folder: Path | Mapping[str, Path] | None, ignored: Collection[str] = ()) -> Features:
        """The feature files of the videos, in one folder or in one for each video."""
        if not isinstance(folder, Mapping):
            folder = {} if folder is None else dict.fromkeys(self.database, folder)
        return find(folder, self.files, self.rows(), self.problems, self.warnings, ignored)

    def write(
        self,
        classes: Sequence[str],
        order: str,
        roles: Mapping[str, Role],
        found: Features,
        labels: LabelRows | None = None,
        *,
        name: str | None = None,
        usual_dim: int = 2048,
        ignored: Sequence[str] = (),
        ambiguous: Sequence[tuple[str, float, float]] = (),
        read: Iterable[Path | None] = (),
    ) -> Imported:
        """Writes the dataset folder, when nothing is wrong with its source.

        Args:
            classes: in the order that fixes their indices inside models; order: where that comes from.
            name: of the dataset, if the user names none; by default the source's.
            usual_dim: width of the features where there are no files.
            read: what was read outside the source, besides the features.

        Raises:
            DataError: lists every problem, or the folder cannot be written.
        """
        if self.dim is not None and found.width is not None and self.dim != found.width:
            self.problems.append(f"the feature files are {found.width} wide, not {self.dim}; leave out --dim")
        starts = [(r["segment"][0], e["duration"]) for e in self.database.values() for r in e["annotations"]]
        if (wrong := wrong_unit(sum(start >= duration for start, duration in starts), len(starts))) is not None:
            self.problems.append(wrong)
        self.refuse()
        described = {
            "name": self.name or name or self.src.resolve().name,
            "classes": list(classes),
            "subsets": dict(roles),
            "grid": self.grid(self.dim or found.width or usual_dim, found.dtype or "float32"),
            "ignored": list(ignored),
            "ambiguous": "ambiguous.csv" if ambiguous else None,
        }
        manifest = parse_manifest(described, "dataset.yaml of this source")
        shown = list(classes) if len(classes) <= 24 else [*classes[:20], "...", classes[-1]]
        notes = [f"{len(classes)} classes in the order of {order}: {', '.join(shown)}", *found.notes]
        if self.empty:
            notes.append(f"dropped {len(self.empty)} segments of no length: {few(self.empty, 3)}")
        notes += self.notes
        sources = [self.src, *(path for path in read if path is not None), *found.paths()]
        labels = labels or {}
        with output_folder(self.out, f"import {self.layout}", force=self.force, sources=sources) as fresh:
            write_dataset(fresh, manifest, self.database, labels, ambiguous)
            warnings = [*self.warnings, *found.write(fresh, self.features)]
        held = Counter(manifest.subsets[entry["subset"]] for entry in self.database.values())
        videos: dict[str, int] = {role: held[role] for role in ROLES if role in manifest.subsets.values()}
        return Imported(videos, len(labels.get(POINTS, ())), len(found), warnings, notes)
