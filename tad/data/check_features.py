"""Findings of the feature files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from tad.data.dataset import FeatureGrid, Manifest, Video
from tad.data.findings import Finding, error, warning

BLOCK = 4096
"""Rows read at a time: memory does not grow with the length of a video."""


def check_features(
    root: Path,
    manifest: Manifest | None,
    videos: Mapping[str, Video],
    ids: set[str],
    progress: Callable[[Iterable[Path]], Iterable[Path]],
) -> list[Finding]:
    """Missing, extra and unusable files.

    Args:
        videos: those of subsets with a role; the ones that dataset.yaml ignores need no file.
        ids: every id of annotations.json; files of others are extra.
    """
    folder = root / "features"
    entries = [p for p in sorted(folder.iterdir()) if not p.name.startswith(".")] if folder.is_dir() else []
    if not entries:
        return [error("no features", "features", f"no feature files; put them there or run `tad synth {root}`")]
    findings: list[Finding] = []
    ignored = set() if manifest is None else set(manifest.ignored)
    needed = [v for v in videos if v not in ignored]
    present = {path.stem for path in folder.glob("*.npy")}
    for video_id in needed:
        if video_id not in present:
            findings.append(error("missing feature file", f"video {video_id}", f"no features/{video_id}.npy"))
    for path in entries:
        if path.suffix != ".npy" or path.stem not in ids:
            findings.append(warning("extra file", f"features/{path.name}", "no video of this name; it is not read"))
    grid = None if manifest is None else manifest.grid
    for path in progress([folder / f"{v}.npy" for v in needed if v in present]):
        findings += _check_file(path, grid, videos[path.stem])
    return findings


def _check_file(path: Path, grid: FeatureGrid | None, video: Video) -> list[Finding]:
    where = f"features/{path.name}"
    if not path.exists():
        return [error("missing feature file", where, f"a link to {path.readlink()}, which is not there")]
    if path.stat().st_size == 0:
        return [error("empty feature file", where, "0 bytes")]
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as problem:
        return [error("unreadable feature file", where, f"not a plain .npy file: {problem}")]
    if array.ndim != 2:
        return [error("feature shape", where, f"{list(array.shape)}, expected [T, D]")]
    if array.size == 0:
        return [error("empty feature file", where, f"shape {list(array.shape)}")]
    findings: list[Finding] = []
    if grid is not None and array.shape[1] != grid.dim:
        findings.append(error("feature width", where, f"{array.shape[1]}, expected {grid.dim} (grid.dim)"))
    if array.dtype.name not in ("float16", "float32"):
        findings.append(error("feature dtype", where, f"{array.dtype}, expected float16 or float32"))
    elif grid is not None and array.dtype.name != grid.dtype:
        findings.append(warning("feature dtype", where, f"{array.dtype}, dataset.yaml says {grid.dtype}"))
    if array.dtype.kind == "f":
        bad = [0, 0]
        for begin in range(0, len(array), BLOCK):
            block = array[begin : begin + BLOCK]
            bad[0] += int(np.isnan(block).sum())
            bad[1] += int(np.isinf(block).sum())
        findings += [
            error(f"{name} in features", where, f"{count} of {array.size} values")
            for name, count in zip(("NaN", "Inf"), bad, strict=True)
            if count
        ]
    return findings if grid is None else findings + _check_length(where, len(array), grid, video)


def _check_length(where: str, length: int, grid: FeatureGrid, video: Video) -> list[Finding]:
    """Rows against duration and grid: extractors differ by a row or two at the end, not by a tenth of the video."""
    expected = grid.expected_length(video.duration, video.fps)
    off = abs(length - expected)
    detail = f"{length} rows, {expected} expected of {video.duration:g} s on this grid"
    if grid.length is not None:
        return [error("feature length", where, detail)] if off else []
    if off > max(2, 0.1 * expected):
        return [error("feature length", where, detail + "; check grid.fps, stride and window")]
    return [warning("feature length", where, detail)] if off > max(2, 0.02 * expected) else []
