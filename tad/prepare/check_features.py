"""Findings of the feature files, for `tad check` and, from their headers alone, before a run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from tad.data.dataset import Dataset
from tad.data.features import Header, Unreadable, findings_of, header_of, values_of
from tad.data.findings import Finding, error, warning
from tad.data.manifest import FEATURES, ROLES, FeatureGrid, Manifest, Role, features_folder, grid_key
from tad.data.reading import in_threads
from tad.data.videos import Video
from tad.errors import DataError, listing
from tad.files import cause

BLOCK = 4096
"""Rows read at a time: memory does not grow with the length of a video."""


def require_features(data: Dataset, roles: Sequence[Role] = ROLES) -> None:
    """Refuses a dataset whose feature files do not fit it, by the rules of `tad check`; reads headers only.

    Values are not read, so NaN is not found here. 20,000 files take seconds.

    Raises:
        DataError: lists the videos of these roles whose file is missing or in error.
    """
    grid, key = data.manifest.grid, grid_key(data.read)

    def problems(video: str) -> list[Finding]:
        where = f"{data.folder}/{video}.npy"
        return _of_header(lambda: data.header(video), where, grid, data.videos_by_id[video], key)

    videos = [v for role in roles for v in data.videos(role)]
    found = in_threads(problems, videos, "headers of features")
    errors = [finding for findings in found for finding in findings if finding.severity == "error"]
    if errors:
        which = "features" if data.read is None else f"features {data.read!r}"
        what = f"the {which} of {len({f.where for f in errors})} of {len(videos)} videos cannot be used"
        how = "mend them, list the videos under `ignored` in dataset.yaml, or give --no-check if you know better"
        if all(f.kind == "missing feature file" for f in errors):
            how = f"put them there, run `tad synth {data.place}`, or list the videos under `ignored` in dataset.yaml"
        raise DataError(
            f"{data.place}: {what}; {how}. " + listing([f"{f.where}: {f.kind}: {f.detail}" for f in errors])
        )


def check_features(
    root: Path,
    manifest: Manifest | None,
    videos: Mapping[str, Video],
    ids: set[str],
    progress: Callable[[Iterable[Path]], Iterable[Path]],
) -> list[Finding]:
    """Missing, extra and unusable files, of the usual features and of those that dataset.yaml describes beside them.

    Args:
        videos: those of subsets with a role; the ones that dataset.yaml ignores need no file.
        ids: every id of annotations.json; files of others are extra.
    """
    names: Iterable[str | None] = [None] if manifest is None else manifest.grids
    findings = [finding for name in names for finding in _check_folder(root, name, manifest, videos, ids, progress)]
    described = {features_folder(name) for name in names}
    for path in sorted(root.glob(f"{FEATURES}-*")) if manifest is not None else ():
        if path.name not in described:
            detail = "dataset.yaml describes no such features; it is not read"
            findings.append(warning("extra folder", path.name, detail))
    return findings


def _check_folder(
    root: Path,
    name: str | None,
    manifest: Manifest | None,
    videos: Mapping[str, Video],
    ids: set[str],
    progress: Callable[[Iterable[Path]], Iterable[Path]],
) -> list[Finding]:
    where = features_folder(name)
    folder = root / where
    try:
        entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")] if folder.is_dir() else []
    except OSError as problem:
        return [error("no features", where, f"the folder cannot be read: {cause(problem)}")]
    if not entries:
        return [error("no features", where, "no feature files; put them there, or let `tad synth` invent some")]
    findings: list[Finding] = []
    ignored = set() if manifest is None else set(manifest.ignored)
    needed = [v for v in videos if v not in ignored]
    present = {path.stem for path in entries if path.suffix == ".npy"}
    for video_id in needed:
        if video_id not in present:
            findings.append(error("missing feature file", f"video {video_id}", f"no {where}/{video_id}.npy"))
    for path in entries:
        if path.suffix != ".npy" or path.stem not in ids:
            findings.append(warning("extra file", f"{where}/{path.name}", "no video of this name; it is not read"))
    grid = None if manifest is None else manifest.grids[name]
    for path in progress([folder / f"{v}.npy" for v in needed if v in present]):
        findings += _check_file(path, grid, videos[path.stem], grid_key(name))
    return findings


def _of_header(
    header: Callable[[], Header], where: str, grid: FeatureGrid | None, video: Video, key: str
) -> list[Finding]:
    try:
        return findings_of(header(), where, grid, video, key)
    except FileNotFoundError:
        return [error("missing feature file", where, "no such file, or a link to one that is not there")]
    except Unreadable as problem:
        kind = "empty feature file" if str(problem) == "0 bytes" else "unreadable feature file"
        return [error(kind, where, f"not a plain .npy file: {problem}")]


def _check_file(path: Path, grid: FeatureGrid | None, video: Video, key: str) -> list[Finding]:
    where = f"{path.parent.name}/{path.name}"
    findings = _of_header(lambda: header_of(path), where, grid, video, key)
    try:
        header, array = values_of(path)
    except (FileNotFoundError, Unreadable):
        return findings
    if header.dtype.kind != "f" or not header.shape:
        return findings
    bad = [0, 0]
    for begin in range(0, len(array), BLOCK):
        block = array[begin : begin + BLOCK]
        bad[0] += int(np.isnan(block).sum())
        bad[1] += int(np.isinf(block).sum())
    return findings + [
        error(f"{name} in features", where, f"{count} of {array.size} values")
        for name, count in zip(("NaN", "Inf"), bad, strict=True)
        if count
    ]
