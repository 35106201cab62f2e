"""Imports the OpenTAD / ActionFormer dataset layout.

An annotation file {"database": {video: {subset, duration, frame or fps, annotations}}}, a class list (one name per
line, optionally after its index), a folder of ID.npy feature files, and a block list of videos to ignore. Boundaries
only: this layout has no points.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tad.data.dataset import ROLES, SAFE_ID, FeatureGrid, Manifest, Role
from tad.data.folder import LabelRows, Transfer, feature_grid, transfer_features, write_dataset
from tad.data.import_hrpro import Imported, known_features
from tad.data.output import output_folder
from tad.errors import DataError, listing
from tad.files import read_json

CLASS_LISTS = ("category_idx.txt", "classes.txt")
BLOCK_LISTS = ("missing_files.txt", "block_list.txt")


def import_opentad(
    src: Path,
    out: Path,
    *,
    name: str | None = None,
    annotations: str | None = None,
    classes: str | None = None,
    block: str | None = None,
    feature_dir: str | None = None,
    features: Transfer = "link",
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
        annotations, classes, block, feature_dir: paths relative to `src`; found where there is only one candidate.
            Without a class list the order is that of the label_id of the annotations, or alphabetical.
        subsets: role of each subset; by default `default_roles`.
        fps, stride, window, offset, length: the feature grid. Length is for features resized in time.
        dim: width of the features; by default that of the files, or 2048 where there are none.
        force: replace an earlier output of `tad import opentad`.

    Raises:
        DataError: lists every problem of the source; nothing is written then.
    """
    problems: list[str] = []
    warnings: list[str] = []
    path = _one_file(src, annotations, _annotation_files(src), "annotation file", "--annotations")
    document = read_json(path)
    source = document.get("database") if isinstance(document, dict) else None
    if not isinstance(source, dict) or not source:
        raise DataError(f'{path}: expected {{"database": {{video: ...}}}}')
    roles = dict(subsets) if subsets is not None else default_roles(source)
    found = Counter(str(e.get("subset")) for e in source.values() if isinstance(e, dict))
    for subset in sorted(set(roles) - set(found)):
        problems.append(f"no video is in subset {subset}; found {', '.join(sorted(found))}")
    for subset in sorted(set(found) - set(roles)):
        warnings.append(f"{found[subset]} videos of subset {subset} have no role and were left out")
    database = {}
    for video_id, entry in source.items():
        if not isinstance(entry, dict) or str(entry.get("subset")) in roles:
            row = _entry(video_id, entry, fps == "native" and length is None, problems)
            if row is not None:
                database[video_id] = row
    names = _classes(src, classes, source, problems)
    known = set(names)
    unknown = Counter(a["label"] for e in database.values() for a in e["annotations"] if a["label"] not in known)
    problems += [f"class {label!r} of {n} annotations is not in the class list" for label, n in unknown.items()]
    ignored = [v for v in _block_list(src, block, feature_dir) if v in database]
    folder = _feature_folder(src, feature_dir) if features != "none" else None
    files, width = known_features(
        {v: folder / f"{v}.npy" for v in database if v not in ignored} if folder else {}, problems, warnings
    )
    if dim is not None and width is not None and dim != width:
        problems.append(f"the feature files are {width} wide, not {dim}; leave --dim away")
    if problems:
        raise DataError(f"{path}: " + listing(problems))

    grid: FeatureGrid = feature_grid(
        fps=fps, stride=stride, window=window, offset=offset, length=length, dim=dim or width or 2048
    )
    manifest = Manifest(name=name or src.resolve().name, classes=names, subsets=dict(roles), grid=grid, ignored=ignored)
    with output_folder(out, "import opentad", force=force, sources=[src, *files.values()]) as fresh:
        write_dataset(fresh, manifest, database, LabelRows())
        transfer_features(files, fresh, features)
    count: dict[str, int] = {
        r: sum(roles[e["subset"]] == r for e in database.values()) for r in ROLES if r in roles.values()
    }
    return Imported(count, 0, len(files), warnings)


def default_roles(database: Mapping[str, Any]) -> dict[str, Role]:
    """The usual meaning of subset names; subsets without any annotation have no role.

    "train..." trains. Beside it, "val..." is the test set (THUMOS14 in OpenTAD, ActivityNet), or the development set
    where an annotated "test..." exists. Without a "train...", "val..." trains (THUMOS14 in ActionFormer).

    Raises:
        DataError: the names do not tell a training subset.
    """
    annotated = {str(e.get("subset")) for e in database.values() if isinstance(e, dict) and e.get("annotations")}
    kinds = {s: kind for s in annotated for kind in ("train", "val", "test") if s.lower().startswith(kind)}
    has = set(kinds.values())
    meaning: dict[str, Role] = {"train": "train", "test": "test", "val": "test"}
    if "train" not in has:
        meaning["val"] = "train"
    elif "test" in has:
        meaning["val"] = "dev"
    roles = {subset: meaning[kind] for subset, kind in sorted(kinds.items())}
    if "train" not in roles.values():
        raise DataError(f"no training subset among {', '.join(sorted(annotated))}; name it with --train-subset")
    return roles


def _annotation_files(src: Path) -> list[Path]:
    """JSON files of SRC and SRC/annotations that look like annotations: a "database" near their beginning."""
    files = sorted(src.glob("*.json")) + sorted((src / "annotations").glob("*.json"))
    found = []
    for path in files:
        with path.open(encoding="utf-8", errors="replace") as file:
            if '"database"' in file.read(4096):
                found.append(path)
    return found


def _one_file(src: Path, chosen: str | None, candidates: list[Path], what: str, option: str) -> Path:
    if chosen is not None:
        if not (src / chosen).is_file():
            raise DataError(f"{src / chosen}: no such {what}")
        return src / chosen
    if len(candidates) != 1:
        names = ", ".join(str(p.relative_to(src)) for p in candidates) or "none"
        raise DataError(f"{src}: expected one {what}, found {names}; choose it with {option}")
    return candidates[0]


def _entry(video_id: str, entry: Any, needs_fps: bool, problems: list[str]) -> dict[str, Any] | None:
    if not SAFE_ID.fullmatch(video_id):
        problems.append(f"video {video_id!r}: unsafe as a file name; use letters, digits and _ . + = @ -")
        return None
    try:
        duration = float(entry["duration"])
        rate = entry.get("fps")
        if rate is None and entry.get("frame") is not None:
            rate = float(entry["frame"]) / duration
        rate = None if rate is None else float(rate)
        rows = [
            {"segment": [float(x) for x in a["segment"]], "label": str(a["label"])}
            for a in entry.get("annotations") or []
        ]
    except (KeyError, TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        problems.append(
            f"video {video_id}: needs duration, fps or frame, and annotations of segment and label "
            f"({type(error).__name__}: {error})"
        )
        return None
    if not (np.isfinite(duration) and duration > 0) or (rate is not None and not (np.isfinite(rate) and rate > 0)):
        problems.append(f"video {video_id}: duration {duration} s, fps {rate}; both must be positive")
        return None
    if rate is None and needs_fps:
        problems.append(f"video {video_id}: neither fps nor frame, but the feature grid counts frames of the video")
        return None
    for i, row in enumerate(rows):
        if len(row["segment"]) != 2 or not row["segment"][0] < row["segment"][1]:  # type: ignore[operator]
            problems.append(f"video {video_id}, row {i}: segment {row['segment']} must be [start, end]")
    kept = {"subset": str(entry["subset"]), "duration": duration} | ({} if rate is None else {"fps": rate})
    return kept | {"annotations": rows}


def _classes(src: Path, chosen: str | None, database: Mapping[str, Any], problems: list[str]) -> list[str]:
    """The ordered class names: of the class list, else by label_id, else alphabetical."""
    path = src / chosen if chosen is not None else next((src / n for n in CLASS_LISTS if (src / n).is_file()), None)
    if path is not None:
        if not path.is_file():
            raise DataError(f"{path}: no such class list")
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        if lines and all(re.match(r"\d+\s+\S", line) for line in lines):
            lines = [line.split(None, 1)[1] for line in sorted(lines, key=lambda line: int(line.split()[0]))]
        doubled = sorted(c for c, n in Counter(lines).items() if n > 1)
        if doubled:
            problems.append(f"{path.name}: classes listed twice: {', '.join(doubled)}")
        return lines
    items = [
        a for e in database.values() if isinstance(e, dict) for a in e.get("annotations") or [] if isinstance(a, dict)
    ]
    pairs = {(a.get("label_id"), str(a.get("label"))) for a in items}
    labels = sorted({label for _, label in pairs})
    if all(isinstance(i, int) for i, _ in pairs) and len(pairs) == len(labels) == len({i for i, _ in pairs}):
        return [label for _, label in sorted(pairs)]
    return labels


def _block_list(src: Path, chosen: str | None, feature_dir: str | None) -> list[str]:
    if chosen is not None:
        if not (src / chosen).is_file():
            raise DataError(f"{src / chosen}: no such block list")
        return (src / chosen).read_text(encoding="utf-8").split()
    places = [src, src / (feature_dir or "features")]
    path = next((p / n for p in places for n in BLOCK_LISTS if (p / n).is_file()), None)
    return path.read_text(encoding="utf-8").split() if path else []


def _feature_folder(src: Path, chosen: str | None) -> Path | None:
    if chosen is not None:
        if not (src / chosen).is_dir():
            raise DataError(f"{src / chosen}: no such feature folder")
        return src / chosen
    folders = [src / "features", *sorted(p for p in (src / "features").glob("*") if p.is_dir())]
    found = [p for p in folders if next(p.glob("*.npy"), None) is not None]
    if len(found) > 1:
        names = ", ".join(str(p.relative_to(src)) for p in found)
        raise DataError(f"{src}: several feature folders ({names}); choose one with --feature-dir")
    return found[0] if found else None
