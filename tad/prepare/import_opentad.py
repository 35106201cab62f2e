"""Imports the dataset layout of OpenTAD, ActionFormer and MMAction2.

Annotations {"database": {video: {subset, duration, frame or fps, annotations}}}, or MMAction2's files, one for each
subset, {video: {duration_second, duration_frame, annotations}}; a class list (one name per line, optionally after its
index), a folder of feature files, and block lists of videos to ignore. Boundaries only: this layout has no points.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tad.data.dataset import Role
from tad.data.feature_names import Located
from tad.errors import DataError, listing
from tad.prepare.feature_files import Features, Lookup, examine, find_names, folders_of
from tad.prepare.imported import (
    Dropped,
    Imported,
    Told,
    Untimed,
    expected_rows,
    feature_folder,
    fitted,
    not_seconds,
    order_note,
    positive,
    segments,
    unusable,
    write,
)
from tad.prepare.opentad_files import annotation_files, block_list, class_list, read_database
from tad.prepare.write import LabelRows, Transfer, feature_grid


def import_opentad(
    src: Path,
    out: Path,
    *,
    name: str | None = None,
    annotations: str | Sequence[str] = (),
    classes: str | None = None,
    block: str | None = None,
    features: Transfer = "link",
    files: Lookup | None = None,
    subsets: Mapping[str, Role] | None = None,
    fps: float | Literal["native"] = "native",
    stride: float = 4,
    window: float = 16,
    offset: float = 0,
    length: int | None = None,
    dim: int | None = None,
    force: bool = False,
) -> Imported:
    """Writes the dataset folder `out` from the OpenTAD or ActionFormer layout in `src`.

    Args:
        annotations, classes, block: paths relative to `src`; found in it, in annotations/ and beside the features.
            Without a class list the order is that of the label_id of the annotations, or alphabetical.
        features: link or copy the plain feature files, or take none.
        files: where and how the feature files are named; found by itself by default.
        subsets: role of each subset; by default `default_roles`.
        fps, stride, window, offset, length: the feature grid. Length is for features resized in time.
        dim: width of the features; by default that of the files, or 2048 where there are none.
        force: replace an earlier output of `tad import opentad`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped, untimed = Dropped(), Untimed()
    paths = annotation_files(src, (annotations,) if isinstance(annotations, str) else annotations)
    source = read_database(paths, problems)
    roles = dict(subsets) if subsets is not None else default_roles(source, paths[0])
    chosen = _in_roles(source, roles, problems, warnings)
    lookup = files or Lookup()
    folder = feature_folder(src, lookup) if features != "none" else None
    where = {} if folder is None else dict.fromkeys(chosen, folder)
    located = find_names(where, lookup, problems)
    beside = [src, src / "annotations", src / "features", *(path.parent for path in paths), *folders_of(located)]
    places = list(dict.fromkeys(beside))
    blocked = block_list(src, block, places)
    ignored = _known(blocked.names, chosen, located)
    database: dict[str, dict[str, Any]] = {}
    for video_id, entry in chosen.items():
        unusable: list[str] = []
        needs_fps, resized = fps == "native" and length is None, length is not None
        row = _entry(video_id, entry, needs_fps, resized, unusable, dropped, untimed)
        if row is not None:
            database[video_id] = row
        if video_id not in ignored:
            problems += unusable
    warnings += untimed.warnings(ignored)
    left_out = {video_id: str(chosen[video_id].get("subset")).strip() for video_id in untimed.videos}
    problems += untimed.empty(left_out, database)
    names, order = class_list(src, classes, places, source)
    unknown = Counter(a["label"] for e in database.values() for a in e["annotations"] if a["label"] not in set(names))
    problems += [f"class {label!r} of {n} annotations is not in the class list {order}" for label, n in unknown.items()]
    grid = feature_grid(fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or 1)
    found = Features()
    if not problems:
        where = {video_id: place for video_id, place in where.items() if video_id not in left_out}
        rows = expected_rows(grid, database)
        found = examine(where, located, lookup, rows, problems, warnings, {*ignored, *left_out})
    grid = fitted(grid, dim, 2048, found, problems)
    problems += not_seconds(database)
    if problems:
        raise DataError(f"{paths[0]}: " + listing(problems))

    described = {
        "name": name or src.resolve().name,
        "classes": names,
        "subsets": roles,
        "grid": grid,
        "ignored": [video_id for video_id in ignored if video_id in database],
    }
    notes = [order_note(names, order), *found.notes, *dropped.notes()]
    if ignored:
        notes.append(f"ignored videos: {len(ignored)}, listed in {', '.join(blocked.sources)}")
    return write(out, "opentad", described, database, LabelRows(), found, features, [src], force, Told(warnings, notes))


def _in_roles(
    source: Mapping[str, Any], roles: Mapping[str, Role], problems: list[str], warnings: list[str]
) -> dict[str, Any]:
    """The entries of subsets that have a role."""
    named = {video_id: str(e.get("subset")).strip() if isinstance(e, dict) else None for video_id, e in source.items()}
    found = Counter(subset for subset in named.values() if subset is not None)
    for subset in sorted(set(roles) - set(found)):
        problems.append(f"no video is in subset {subset}; found {', '.join(sorted(found))}")
    for subset in sorted(set(found) - set(roles)):
        warnings.append(without_role(subset, found[subset]))
    return {video_id: source[video_id] for video_id, subset in named.items() if subset is None or subset in roles}


def _known(names: Sequence[str], videos: Collection[str], located: Mapping[Path, Located]) -> list[str]:
    """The videos that a block list means: it may list names of feature files."""
    listed = set(names)
    patterns = [found.pattern for found in located.values() if found.pattern is not None]
    return [
        v for v in videos if v in listed or any(Path(pattern.replace("{id}", v)).stem in listed for pattern in patterns)
    ]


def without_role(subset: str, count: int) -> str:
    """The warning that the videos of a subset are left out."""
    return (
        f"{count} videos of subset {subset} have no role and were left out; --test-subset, --dev-subset or "
        "--train-subset takes them in, also without annotations"
    )


def default_roles(database: Mapping[str, Any], where: Path) -> dict[str, Role]:
    """The usual meaning of subset names; subsets without any annotation have no role.

    "train..." trains. Beside it, "val..." is the test set (THUMOS14 in OpenTAD, ActivityNet), or the development set
    where an annotated "test..." exists. Without a "train...", "val..." trains (THUMOS14 in ActionFormer).

    Raises:
        DataError: the names do not tell a training subset; `where` is what it calls the file.
    """
    named = [e for e in database.values() if isinstance(e, dict) and e.get("subset") is not None]
    annotated = {str(e["subset"]).strip() for e in named if e.get("annotations")}
    kinds = {s: kind for s in annotated for kind in ("train", "val", "test") if s.lower().startswith(kind)}
    has = set(kinds.values())
    meaning: dict[str, Role] = {"train": "train", "test": "test", "val": "test"}
    if "train" not in has:
        meaning["val"] = "train"
    elif "test" in has:
        meaning["val"] = "dev"
    roles = {subset: meaning[kind] for subset, kind in sorted(kinds.items())}
    if "train" not in roles.values():
        if not named:
            raise DataError(f'{where}: no training subset: no video has a "subset"')
        if not annotated:
            raise DataError(f"{where}: no training subset: no video has annotations; name it with --train-subset")
        raise DataError(
            f"{where}: no training subset among {', '.join(sorted(annotated))}, by names that begin with train or val; "
            "name it with --train-subset"
        )
    return roles


def _entry(
    video_id: str, entry: Any, needs_fps: bool, resized: bool, problems: list[str], dropped: Dropped, untimed: Untimed
) -> dict[str, Any] | None:
    """One video as annotations.json holds it; None if it cannot be used."""
    if not isinstance(entry, dict):
        problems.append(f"video {video_id}: needs subset, duration, fps or frame, and annotations")
        return None
    try:
        duration, rate = untimed.duration(video_id, entry), None
        if duration is None:
            return None
        if entry.get("fps") is not None:
            rate = positive(entry, "fps")
        elif entry.get("frame") is not None:
            rate = positive(entry, "frame") / duration
        if resized and entry.get("feature_frame") is not None:
            # MMAction2's rows share the frames that were read, which are up to a window less than the video's.
            duration *= min(1.0, positive(entry, "feature_frame") / positive(entry, "frame"))
    except ValueError as error:
        problems.append(f"video {video_id}: {error}")
        return None
    if rate is None and needs_fps:
        problems.append(f"video {video_id}: neither fps nor frame, but the feature grid counts frames of the video")
        return None
    rows = segments(video_id, entry.get("annotations"), problems, dropped)
    kept = {"subset": str(entry.get("subset")).strip(), "duration": duration} | ({} if rate is None else {"fps": rate})
    if (wrong := unusable(video_id, kept)) is not None:
        problems.append(wrong)
        return None
    return kept | {"annotations": rows}
