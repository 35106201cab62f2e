"""`tad synth`: I3D-like features conditioned on a dataset's annotations, or a whole invented dataset.

The same seed writes the same bytes. A video's features depend on the seed, the class list, the difficulty, the width
and the video itself, never on which other videos are written. The generator reads boundaries: synthetic features are
for demonstrations and tests, and say nothing about real videos.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tad.data.dataset import Dataset, FeatureGrid, Manifest, Role
from tad.data.folder import LabelRows, prepare, write_dataset
from tad.data.ground_truth import repaired
from tad.data.segments import Segments
from tad.data.synth_annotations import invent
from tad.data.synth_video import draw_latents
from tad.data.synth_world import World
from tad.errors import DataError
from tad.files import read_json

RECORD = "synth.json"


def make_dataset(
    folder: Path | str,
    *,
    videos: int = 24,
    classes: int = 5,
    dim: int = 128,
    seed: int = 0,
    difficulty: float = 0.5,
    dev: int = 0,
    test: int | None = None,
    force: bool = False,
) -> Dataset:
    """Invents a whole dataset: annotations, points and features (25 fps, 16-frame snippets).

    Args:
        folder: where it is written; must be empty or absent, or with `force` an invented dataset.
        videos: training videos.
        classes: number of classes.
        dim: width of the features.
        difficulty: 0 easy, 1 hard; see `tad.data.synth_world.Levels`.
        dev: development videos.
        test: test videos; half as many as training videos by default.

    Raises:
        DataError: the folder holds something, or a number is out of range.
    """
    folder = Path(folder)
    test = max(1, videos // 2) if test is None else test
    if videos < 1 or classes < 1 or dev < 0 or test < 0:
        raise DataError(f"cannot invent {videos} training, {test} test, {dev} dev videos of {classes} classes")
    _check_numbers(dim, difficulty)
    if force and folder.is_dir() and any(folder.iterdir()) and not _invented(folder):
        raise DataError(f"{folder}: holds something that was not invented here; choose another folder")
    prepare(folder, force)
    counts: dict[Role, int] = {"train": videos, "dev": dev, "test": test}
    counts = {role: n for role, n in counts.items() if n}
    invented = invent(counts, classes, seed)
    manifest = Manifest(
        name=folder.resolve().name,
        classes=invented.classes,
        subsets={role: role for role in counts},
        grid=FeatureGrid(fps=25, stride=16, window=16, dim=dim),
    )
    # The record comes first: it is what allows `force` to replace a folder whose writing was cut short.
    _record(folder, dim, seed, difficulty, {"videos": videos, "classes": classes, "dev": dev, "test": test})
    write_dataset(folder, manifest, invented.database, LabelRows(invented.points))
    write_features(folder, dim=dim, seed=seed, difficulty=difficulty, force=force)
    return Dataset.open(folder)


def write_features(
    root: Path | str, *, dim: int | None = None, seed: int = 0, difficulty: float = 0.5, force: bool = False
) -> int:
    """Writes features/ID.npy for every video of a dataset folder, on the grid of its dataset.yaml.

    Args:
        dim: width of the features, written to dataset.yaml; the width it names by default.
        force: replace feature files that are there.

    Returns:
        The number of files.

    Raises:
        DataError: the dataset cannot be read, or it has feature files and `force` is not given.
    """
    data = Dataset.open(root)
    dim = data.manifest.grid.dim if dim is None else dim
    _check_numbers(dim, difficulty)
    folder = data.root / "features"
    if folder.is_dir() and any(folder.glob("*.npy")):
        if not force:
            raise DataError(f"{folder}: holds feature files; replace them with --force")
        if _read_record(data.root):  # ours: files of videos that are gone would stay behind
            for path in folder.glob("*.npy"):
                path.unlink()
    _set_dim(data, dim)
    _record(data.root, dim, seed, difficulty, _read_record(data.root).get("invented"))
    folder.mkdir(exist_ok=True)
    world = World(data.classes, seed, difficulty, dim)
    ids = list(data.videos_by_id)
    truth = repaired(data, ids)[0].by_video()
    for video_id in tqdm(ids, desc="synth", unit="video", disable=not sys.stderr.isatty()):
        features = video_features(world, data, video_id, truth.get(video_id, Segments.empty()), seed)
        _save(folder / f"{video_id}.npy", features)
    return len(ids)


def video_features(world: World, data: Dataset, video_id: str, truth: Segments, seed: int) -> np.ndarray:
    """[T, dim] features of one video."""
    video, layout = data.videos_by_id[video_id], data.manifest.grid
    grid = layout.grid(layout.expected_length(video.duration, video.fps), video.duration, video.fps)
    key = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "little")
    rng = np.random.default_rng([seed, 3, key])
    latents = draw_latents(world, grid, truth.spans, truth.label_index(data.classes), rng)
    return world.render(latents, rng, layout.dtype)


def _record(root: Path, dim: int, seed: int, difficulty: float, invented: dict[str, int] | None) -> None:
    """synth.json: the arguments, `invented` only for a dataset that was invented as a whole."""
    arguments = {"dim": dim, "seed": seed, "difficulty": difficulty, "invented": invented}
    (root / RECORD).write_text(json.dumps(arguments, indent=1) + "\n", encoding="utf-8")


def _read_record(root: Path) -> dict[str, Any]:
    """synth.json; empty for a folder that this module did not write."""
    path = root / RECORD
    record = read_json(path) if path.is_file() else {}
    return record if isinstance(record, dict) else {}


def _invented(root: Path) -> bool:
    return _read_record(root).get("invented") is not None


def _check_numbers(dim: int, difficulty: float) -> None:
    if dim < 2 or not 0 <= difficulty <= 1:
        raise DataError(f"dim {dim} must be at least 2, and difficulty {difficulty} between 0 and 1")


def _save(path: Path, array: np.ndarray) -> None:
    """Under another name first: a file that has its name is whole. A link is replaced, not written through."""
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        np.save(file, array)
    os.replace(part, path)


def _set_dim(data: Dataset, dim: int) -> None:
    """Writes grid.dim into dataset.yaml and leaves the rest of the file, comments too, as it is."""
    path = data.root / "dataset.yaml"
    if data.manifest.grid.dim == dim:
        return
    before = path.read_text(encoding="utf-8")
    after = re.sub(r"(?m)^([^#\n]*\bdim\s*:\s*)\d+", rf"\g<1>{dim}", before)
    path.write_text(after, encoding="utf-8")
    wanted = data.manifest.model_copy(update={"grid": data.manifest.grid.model_copy(update={"dim": dim})})
    if Dataset.open(data.root).manifest != wanted:
        path.write_text(before, encoding="utf-8")
        raise DataError(f"{path}: cannot find grid.dim to set it; write `dim: {dim}` under `grid` yourself")
