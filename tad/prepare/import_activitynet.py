"""Imports the official files of ActivityNet (1.2, 1.3) and HACS Segments, as they are published.

{"version", "taxonomy": [{"nodeName", "parentName", ...}], "database": {video: {"duration", "subset", "annotations":
[{"segment": [start, end], "label"}], ...}}}; subsets training, validation and testing, the last without annotations.
Classes have the order of the taxonomy. The files hold no frame rates: the user says how the features were made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from tad.data.class_list import read_classes
from tad.data.dataset import Role
from tad.errors import DataError, few, listing
from tad.files import name_of, read_json
from tad.prepare.feature_files import Features, Lookup, find
from tad.prepare.import_opentad import default_roles, without_role
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
from tad.prepare.opentad_files import annotation_files, block_list
from tad.prepare.write import LabelRows, Transfer, feature_grid


def import_activitynet(
    src: Path,
    out: Path,
    *,
    annotations: str | None = None,
    classes: Path | None = None,
    block: str | None = None,
    subsets: Mapping[str, Role] | None = None,
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
    """Writes the dataset folder `out` from the official annotation file in `src`.

    Args:
        annotations: the file, relative to `src`; by default the only one there.
        classes: class list, which gives the order in place of the taxonomy.
        block: list of videos to ignore, relative to `src`; those with the usual names are found.
        subsets: role of each subset; by default training trains and validation tests.
        files, fps, stride, window, offset, length, dim, force: as in import_opentad; fps native needs fps in the file.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    dropped, untimed = Dropped(), Untimed()
    paths = annotation_files(src, () if annotations is None else (annotations,))
    document = read_json(paths[0])
    source = document.get("database") if isinstance(document, dict) else None
    if len(paths) > 1 or not isinstance(source, dict) or not source:
        raise DataError(f'{paths[0]}: expected {{"taxonomy": [...], "database": {{video: ...}}}}')
    roles = dict(subsets) if subsets is not None else default_roles(source, paths[0])
    database = _database(source, roles, problems, warnings, dropped, untimed)
    labels = sorted({row["label"] for entry in database.values() for row in entry["annotations"]})
    names, order = _classes(document, labels, classes, problems, warnings)
    timed = {v for v, entry in database.items() if "fps" in entry}
    if fps == "native" and length is None and len(timed) < len(database):
        problems.append(
            "the file tells no frame rates; say how the features were made: with --length ROWS if all videos were "
            "resized to as many rows, else with --fps, --stride and --window"
        )
    if problems:
        raise DataError(f"{paths[0]}: " + listing(problems))

    grid = feature_grid(fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or 1)
    lookup = files or Lookup()
    folder = feature_folder(src, lookup) if features != "none" else None
    where = {} if folder is None else dict.fromkeys(database, folder)
    blocked = block_list(src, block, [src, src / "annotations", *([folder] if folder is not None else [])])
    listed = {video.removeprefix("v_") for video in blocked.names} | set(blocked.names)
    ignored = [video for video in database if video in listed]
    found = Features()
    if folder is not None:
        found = find(where, lookup, expected_rows(grid, database), problems, warnings, ignored)
    warnings += untimed.warnings(listed)
    grid = fitted(grid, dim, 2048, found, problems)
    problems += not_seconds(database)
    if problems:
        raise DataError(f"{src}: " + listing(problems))
    described = {
        "name": name or src.resolve().name,
        "classes": names,
        "subsets": roles,
        "grid": grid,
        "ignored": ignored,
    }
    notes = [order_note(names, order), *found.notes, *dropped.notes()]
    if ignored:
        notes.append(f"ignored videos: {len(ignored)}, listed in {', '.join(blocked.sources)}")
    sources = [src, *([classes] if classes is not None else [])]
    return write(
        out, "activitynet", described, database, LabelRows(), found, features, sources, force, Told(warnings, notes)
    )


def _database(
    source: Mapping[str, Any],
    roles: Mapping[str, Role],
    problems: list[str],
    warnings: list[str],
    dropped: Dropped,
    untimed: Untimed,
) -> dict[str, dict[str, Any]]:
    """The videos of subsets that have a role, as annotations.json holds them; those without a duration are left out."""
    database: dict[str, dict[str, Any]] = {}
    others: Counter[str] = Counter()
    for video, entry in source.items():
        if not isinstance(entry, dict):
            problems.append(f"video {video}: needs subset, duration and annotations")
            continue
        subset = str(entry.get("subset")).strip()
        if subset not in roles:
            others[subset] += 1
            continue
        try:
            if (duration := untimed.duration(video, entry)) is None:
                continue
            kept: dict[str, Any] = {"subset": subset, "duration": duration}
            if entry.get("fps") is not None:
                kept["fps"] = positive(entry, "fps")
        except ValueError as error:
            problems.append(f"video {video}: {error}")
            continue
        if (wrong := unusable(video, kept)) is not None:
            problems.append(wrong)
            continue
        database[video] = kept | {"annotations": segments(video, entry.get("annotations"), problems, dropped)}
    left = {video: str(source[video].get("subset")).strip() for video in untimed.videos}
    problems += untimed.empty(left, database)
    problems += [
        f"no video is in subset {subset}; found {', '.join(sorted(others))}"
        for subset in roles
        if not any(e["subset"] == subset for e in database.values()) and not problems
    ]
    warnings += [without_role(subset, n) for subset, n in others.items()]
    return database


def _classes(
    document: Mapping[str, Any], labels: list[str], path: Path | None, problems: list[str], warnings: list[str]
) -> tuple[list[str], str]:
    """The class names, and where their order comes from: a list, else the leaves of the taxonomy, else the alphabet."""
    if path is not None:
        names = [name for _, name in sorted(read_classes(path, by_line=False).items())]
        problems += [f"class {label!r} is not in {path}" for label in labels if label not in set(names)]
        return names, str(path)
    nodes = document.get("taxonomy")
    nodes = [n for n in nodes if isinstance(n, dict)] if isinstance(nodes, list) else []
    inner = {name_of(node.get("parentName")) for node in nodes}
    ordered = list(dict.fromkeys(name_of(node.get("nodeName")) for node in nodes))
    names = [node for node in ordered if node not in inner or node in labels]
    beside = [label for label in labels if label not in set(names)]
    if names and beside:
        warnings.append(f"{len(beside)} classes are not in the taxonomy and come last: {few(beside)}")
    return names + beside, "the taxonomy" if names else "the alphabet"
