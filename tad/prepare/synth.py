"""`tad synth`: I3D-like features conditioned on a dataset's annotations, or a whole invented dataset.

The same seed writes the same bytes. A video's features depend on the seed, the class list, the difficulty, the cues,
the width and the video itself, never on which other videos are written. The generator reads boundaries: synthetic
features are for demonstrations and tests, and say nothing about real videos.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
from pydantic import ValidationError
from tqdm import tqdm

from tad.data.dataset import Dataset, FeatureGrid, Manifest, Role
from tad.data.labels import POINTS
from tad.data.manifest import parse_manifest
from tad.data.segments import Segments
from tad.errors import DataError, listing
from tad.evaluation.ground_truth import segments_of
from tad.files import parse_yaml, read_json, read_text, whole, write_json, write_text
from tad.prepare.derive import views
from tad.prepare.output import check_room, output_folder, rewritten, stamp
from tad.prepare.synth_annotations import DURATION, invent
from tad.prepare.synth_video import draw_latents
from tad.prepare.synth_world import NO_CUES, Cues, World
from tad.prepare.write import write_dataset

RECORD = "synth.json"
MOST_VIDEOS, MOST_CLASSES, MOST_DIM = 1_000_000, 10_000, 65_536
FINER, MOST_FINER = "finer", 16
"""Further features that an invented dataset may have, and the most rows of them for one of the usual ones."""
MOST_ROWS = 5_000_000
"""Of one video: a month at the usual rate; it is made in memory."""


def make_dataset(
    folder: Path | str,
    *,
    videos: int = 24,
    classes: int = 5,
    dim: int = 128,
    seed: int = 0,
    difficulty: float = 0.5,
    cues: Cues = NO_CUES,
    dev: int = 0,
    test: int | None = None,
    finer: int | None = None,
    force: bool = False,
) -> Dataset:
    """Invents a whole dataset: annotations, points and features (25 fps, 16-frame snippets).

    Args:
        folder: where it is written; must be empty or absent, or with `force` an earlier invented dataset.
        videos: training videos.
        classes: number of classes.
        dim: width of the features.
        difficulty: 0 easy, 1 hard; see `tad.prepare.synth_world.Levels`.
        cues: what is to be other than the difficulty has it of how well features show boundaries.
        dev: development videos.
        test: test videos; half as many as training videos by default.
        finer: also writes further features, named "finer", with so many rows for one of the usual ones.

    Raises:
        DataError: the folder cannot be used, the disk is too small, or a number is out of range.
    """
    folder = Path(folder)
    test = max(1, videos // 2) if test is None else test
    counts: dict[Role, int] = {"train": videos, "dev": dev, "test": test}
    if not (0 < videos <= MOST_VIDEOS and min(dev, test) >= 0 and max(dev, test) <= MOST_VIDEOS):
        raise DataError(f"cannot invent {videos} training, {test} test, {dev} dev videos; {MOST_VIDEOS:,} at most")
    if not 0 < classes <= MOST_CLASSES:
        raise DataError(f"cannot invent {classes} classes; 1 to {MOST_CLASSES:,}")
    if finer is not None and not 2 <= finer <= MOST_FINER:
        raise DataError(f"finer features cannot have {finer} rows for one of the usual ones; 2 to {MOST_FINER}")
    _check_numbers(dim, difficulty, cues)
    with output_folder(folder, "synth", force=force) as fresh:
        grid = FeatureGrid(fps=25, stride=16, window=16, dim=dim)
        further = {} if finer is None else {FINER: grid.model_copy(update={"stride": grid.stride / finer})}
        layouts = [grid, *further.values()]
        rows = sum(counts.values()) * sum(layout.expected_length(sum(DURATION) / 2, None) for layout in layouts)
        check_room(fresh, rows * dim * np.dtype(grid.dtype).itemsize)
        counts = {role: n for role, n in counts.items() if n}
        invented = invent(counts, classes, seed)
        described = {
            "name": folder.resolve().name,
            "classes": invented.classes,
            "subsets": {role: role for role in counts},
            "grid": grid,
            "features": further,
        }
        manifest = parse_manifest(described, f"{folder}: dataset.yaml, named like its folder")
        write_dataset(fresh, manifest, invented.database, {POINTS: invented.points})
        arguments = {"videos": videos, "classes": classes, "dev": dev, "test": test}
        _record(fresh, dim, seed, difficulty, cues, arguments if finer is None else arguments | {FINER: finer})
        write_features(fresh, seed=seed, difficulty=difficulty, cues=cues)
    return Dataset.open(folder)


def write_features(
    root: Path | str,
    *,
    dim: int | None = None,
    seed: int = 0,
    difficulty: float = 0.5,
    cues: Cues = NO_CUES,
    force: bool = False,
) -> int:
    """Writes features/ID.npy for every video of a dataset folder, on the grid of its dataset.yaml; and those of each of
    the further features that it describes.

    Further features show the same classes in the same deviations of the video; what else is random is drawn anew.

    Args:
        dim: width of the usual features, written to dataset.yaml; the width it names by default.
        difficulty: 0 easy, 1 hard.
        cues: as for `make_dataset`.
        force: replace features that were written here; links are replaced, too, and what they lead to stays.

    Returns:
        The number of files.

    Raises:
        DataError: the dataset cannot be read; it has feature files, and they were not written here or `force` is not
            given; a number is out of range; a video is too long, or the disk too small.
    """
    data = Dataset.open(root)
    dim = data.manifest.grid.dim if dim is None else dim
    _check_numbers(dim, difficulty, cues)
    kinds = views(data)
    for view in kinds:
        _check_lengths(view)
    invented = _invented(data.root)
    path = data.root / "dataset.yaml"
    text, before = _with_dim(data, dim), stamp(path)
    old = path.read_bytes()
    try:
        with ExitStack() as stack:
            for view in kinds:
                fresh = stack.enter_context(output_folder(data.root / view.folder, "synth", force=force, links=True))
                own = dim if view.read is None else view.manifest.grid.dim
                _write_all(fresh, view, own, seed, difficulty, cues)
            if text is not None:
                write_text(path, text)
    except BaseException:
        if text is not None and stamp(path) != before:
            with whole(path) as temporary:
                temporary.write_bytes(old)
        raise
    rewritten(data.root, path.name, before)
    for view in kinds:
        rewritten(data.root, f"{view.folder}/", None)
    _record(data.root, dim, seed, difficulty, cues, invented)
    return len(data.videos_by_id)


def _write_all(folder: Path, data: Dataset, dim: int, seed: int, difficulty: float, cues: Cues) -> None:
    grid, videos = data.manifest.grid, data.videos_by_id.values()
    rows = sum(grid.expected_length(v.duration, v.fps) for v in videos)
    check_room(folder, rows * dim * np.dtype(grid.dtype).itemsize)
    truth = segments_of(data, list(data.videos_by_id)).by_video()
    world = World(data.classes, seed, difficulty, dim, cues)
    for video in tqdm(videos, desc="synth", unit="video", disable=not sys.stderr.isatty()):
        try:
            features = video_features(world, data, video.id, truth.get(video.id, Segments.empty()), seed)
        except MemoryError:
            raise DataError(
                f"video {video.id}: too long for this machine's memory: {video.duration:g} seconds"
            ) from None
        with (folder / f"{video.id}.npy").open("xb") as file:
            np.save(file, features)


def video_features(world: World, data: Dataset, video_id: str, truth: Segments, seed: int) -> np.ndarray:
    """[T, dim] features of one video."""
    video, layout = data.videos_by_id[video_id], data.manifest.grid
    grid = layout.grid(layout.expected_length(video.duration, video.fps), video.duration, video.fps)
    key = int.from_bytes(hashlib.sha256(video_id.encode()).digest()[:8], "little")
    rng = np.random.default_rng([seed, 3, key])
    latents = draw_latents(world, grid, truth.spans, truth.label_index(data.classes), rng)
    return world.render(latents, rng, layout.dtype)


def _record(root: Path, dim: int, seed: int, difficulty: float, cues: Cues, invented: dict[str, int] | None) -> None:
    """synth.json: the arguments, cues only if they are given, `invented` only for a whole invented dataset."""
    path = root / RECORD
    before = stamp(path) if path.exists() else None
    write_json(path, {"dim": dim, "seed": seed, "difficulty": difficulty, **cues.given(), "invented": invented})
    rewritten(root, RECORD, before)


def _invented(root: Path) -> dict[str, int] | None:
    """What synth.json says of an invented dataset.

    Raises:
        DataError: there is a file of this name that this module did not write.
    """
    path = root / RECORD
    if not os.path.lexists(path):
        return None
    record = read_json(path) if not path.is_symlink() else None
    if not isinstance(record, dict) or set(record) - set(vars(NO_CUES)) != {"dim", "seed", "difficulty", "invented"}:
        raise DataError(f"{path}: was not written by `tad synth`, which keeps its record there; rename it")
    return record["invented"]  # type: ignore[no-any-return]


def _check_numbers(dim: int, difficulty: float, cues: Cues) -> None:
    if not 2 <= dim <= MOST_DIM or not 0 <= difficulty <= 1:
        raise DataError(f"dim {dim} must be 2 to {MOST_DIM:,}, and difficulty {difficulty} between 0 and 1")
    for name, level in cues.given().items():
        if not 0 <= level <= 1:
            raise DataError(f"{name} {level} must be between 0 and 1; without it, the difficulty says what it is")


def _check_lengths(data: Dataset) -> None:
    grid = data.manifest.grid
    problems = [
        f"video {v.id}: {v.duration:g} seconds are {rows:,} rows; {MOST_ROWS:,} at most"
        for v in data.videos_by_id.values()
        if (rows := grid.expected_length(v.duration, v.fps)) > MOST_ROWS
    ]
    if problems:
        raise DataError(f"{data.root}: no features can be made: " + listing(problems))


def _with_dim(data: Dataset, dim: int) -> str | None:
    """dataset.yaml with another grid.dim; the rest, comments too, as it is. None if it has this one."""
    path = data.root / "dataset.yaml"
    if data.manifest.grid.dim == dim:
        return None
    wanted = data.manifest.model_copy(update={"grid": data.manifest.grid.model_copy(update={"dim": dim})})
    old = read_text(path)
    for found in re.finditer(r"(?m)^([^#\n]*?\bdim\s*:\s*)\d+", old):  # further features have a dim, too
        text = f"{old[: found.start()]}{found[1]}{dim}{old[found.end() :]}"
        with suppress(DataError, ValidationError):
            if Manifest.model_validate(parse_yaml(text, str(path))) == wanted and not path.is_symlink():
                return text
    raise DataError(f"{path}: cannot find grid.dim to set it; write `dim: {dim}` under `grid` yourself")
