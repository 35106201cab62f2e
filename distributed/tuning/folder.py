"""The study's folder, and what makes two studies the same.

STUDY/study.json   its name, and the command that made it
STUDY/study.db     the Optuna study, unless --storage names another place
STUDY/data/        the dataset without its test videos: all that trials read
STUDY/trials/N/    each trial's record, recipe and pseudo-labels
STUDY/best.yaml    the best recipe; STUDY/figures/
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from distributed.tuning.study import digest
from search_spaces.space import Space
from tad.config import Recipe
from tad.data.dataset import Dataset, Role
from tad.data.ground_truth import ground_truth
from tad.data.output import output_folder
from tad.data.split import write_split
from tad.errors import RunError
from tad.files import write_json


def claim(out: Path, name: str) -> None:
    """Makes the folder, or knows it as this study's.

    Raises:
        RunError: it holds another study, or something else.
    """
    marker = out / "study.json"
    if marker.is_file():
        holds = json.loads(marker.read_text())["study"]
        if holds != name:
            raise RunError(f"{out}: holds the study {holds}; give {name} another folder with --out")
    elif out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out}: not empty and not a study's folder; choose another with --out")
    out.mkdir(parents=True, exist_ok=True)
    write_json(marker, {"study": name, "command": shlex.join(sys.argv)})


def clear_scratch(out: Path, living: set[str], driver: str) -> Path:
    """A folder for Ray Tune's files of this driver; what dead drivers left is removed."""
    folders = {name: out / f".tune-{digest(name)}" for name in living}
    for old in out.glob(".tune-*"):
        if old not in folders.values():
            shutil.rmtree(old, ignore_errors=True)
    return folders[driver]


def study_data(data: Dataset, out: Path) -> Dataset:
    """STUDY/data: the dataset without its test videos, so that nothing in a search can read them.

    Raises:
        RunError: the folder is there and holds other data.
        DataError: the dataset cannot be copied.
    """
    folder = out / "data"
    roles: dict[str, Role] = {v: role for role in ("train", "dev") for v in data.videos(role)}  # type: ignore[misc]
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / ".lock"):
        if not folder.exists():
            with output_folder(folder, "tune") as fresh:
                write_split(data, roles, fresh, data.name)
        own = Dataset.open(folder)
    for role in ("train", "dev"):
        if own.fingerprint(role) != data.fingerprint(role):  # type: ignore[arg-type]
            raise RunError(
                f"{folder}: holds other {role} videos, labels or features than {data.root}: it is another study's, or "
                "the dataset has changed. Give another folder with --out"
            )
    return own


def identity(recipe: Recipe, space: Space, data: Dataset, seed: int, cost: bool) -> dict[str, str]:
    """What makes two studies the same: all on which a trial's score depends, given its parameters."""
    labels = [ground_truth(data, "dev").digest() if recipe.select.startswith("dev-") else ""]
    if recipe.select == "points":
        held = {v: [data.held_out(v).time.tolist(), data.held_out(v).label.tolist()] for v in data.videos("train")}
        labels.append(digest(held))
    return {
        "recipe": digest(recipe.model_dump(mode="json", exclude={"description", "select"})),
        "data": digest([data.fingerprint("train"), data.fingerprint("dev"), *labels]),
        "space": space.fingerprint,
        "objective": recipe.select + (" and cost" if cost else ""),
        "seed": str(seed),
    }
