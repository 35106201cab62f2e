"""The study's folder, and what makes two studies the same.

STUDY/study.json   its name, and the command that made it
STUDY/study.db     the Optuna study, unless --storage names another place
STUDY/data/        the dataset without its test videos: all that trials read
STUDY/trials/N/    each trial's record, recipe and pseudo-labels
STUDY/best.yaml    the best recipe; STUDY/figures/
"""

from __future__ import annotations

import re
import shlex
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from distributed.run import run_folder
from distributed.run.run_folder import FILES, FOLDERS, refuse_links
from distributed.tuning.limits import NO_LIMITS, Limits
from distributed.tuning.study import digest, shown
from search_spaces.space import Space
from tad.data.dataset import Dataset, Role
from tad.data.remote import redacted
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ground_truth
from tad.files import cause, read_json, write_json
from tad.methods.file.proposer import FileProposer
from tad.prepare.derive import write_derived
from tad.prepare.output import output_folder
from tad.recipe.recipe import Recipe
from tad.recipe.renamed import former

MARKER = "study.json"
VERSION = 1
"""Of study.json; earlier ones, which name none, are read, too."""
MADE_FIRST = re.compile(r"\.?study\.(db|json)")
"""Files that another driver may have made before study.json says whose they are."""


DATABASE = ("study.db", "study.db-journal", "study.db-wal", "study.db-shm", ".study.db.lock")
OWN = (MARKER, *DATABASE, ".lock", "best.yaml", "data")
"""What a study's folder has besides what a run's has, and folders of figures and trials."""


def claim(out: Path, name: str) -> None:
    """Makes the folder, or knows it as this study's.

    Raises:
        RunError: it holds another study, or something else, or it cannot be made.
    """
    try:
        if (out / MARKER).exists():
            holds = name_in(out)
            if holds != name:
                raise RunError(f"{out}: holds the study {holds}; give {name} another folder with --out")
        elif out.is_dir() and any(not MADE_FIRST.match(p.name) for p in out.iterdir()):
            raise RunError(f"{out}: not empty and not a study's folder; choose another with --out")
    except OSError:
        pass  # `make` says why
    make(out)


def make(out: Path) -> None:
    """Makes a study's folder where it is missing.

    Raises:
        RunError: it cannot be made or written, or holds links: what is written below it stays below it.
    """
    run_folder.make(out)
    refuse_links(out, (*FILES, *OWN), (*FOLDERS, "trials", "figures"))


def sign(out: Path, name: str, storage: str | None) -> None:
    """STUDY/study.json: whose folder it is, and the command, without passwords.

    Args:
        storage: the URL that the command names, which may hold a password.
    """
    from sqlalchemy import make_url

    words = [word.replace(storage, shown(make_url(storage))) if storage else word for word in sys.argv]
    command = shlex.join(redacted(word) for word in words)
    try:
        write_json(out / MARKER, {"version": VERSION, "study": name, "command": command})
    except OSError as error:
        raise RunError(f"{out / MARKER}: cannot be written: {cause(error)}; choose another folder with --out") from None


def name_in(folder: Path) -> str:
    """The name of the study whose folder it is.

    Raises:
        RunError: its study.json is damaged or of a later version.
    """
    marker = folder / MARKER
    try:
        document = read_json(marker)
    except DataError as error:
        raise RunError(f"{error}; bring it back, or choose another folder") from None
    name, version = (document.get(k) for k in ("study", "version")) if isinstance(document, dict) else (None, None)
    if version not in (None, VERSION):
        raise RunError(f"{marker}: is of version {version!r}; this tad-selftrain reads version {VERSION}")
    if not isinstance(name, str) or not name:
        raise RunError(f"{marker}: names no study; bring it back, or choose another folder")
    return name


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
                write_derived(data, roles, fresh, data.name)
        own = Dataset.open(folder)
    for role in ("train", "dev"):
        if own.fingerprint(role) != data.fingerprint(role):  # type: ignore[arg-type]
            raise RunError(
                f"{folder}: holds other {role} videos, labels or features than {data.root}: it is another study's, or "
                "the dataset has changed. Give another folder with --out"
            )
    return own


NOT_SCORED = ("description", "select", "operating_point")
"""Of a recipe: changes no trial's score, or is told apart by another part of a study's identity."""


def identity(
    recipe: Recipe, space: Space, data: Dataset, seed: int, cost: bool, limits: Limits = NO_LIMITS
) -> dict[str, str]:
    """What makes two studies the same: all on which a trial's score depends, given its parameters."""
    labels = [ground_truth(data, "dev").digest() if recipe.select.startswith("dev-") else ""]
    if recipe.select == "points":
        held = {v: [data.held_out(v).time.tolist(), data.held_out(v).label.tolist()] for v in data.videos("train")}
        labels.append(digest(held))
    document = {k: v for k, v in former(recipe.identity()).items() if k not in NOT_SCORED}
    proposals = {}
    if isinstance(recipe.proposer, FileProposer):  # wherever the file lies
        document["proposer"] = document["proposer"] | {"path": ""}
        proposals["proposals"] = recipe.proposer.read(data).digest()
    if recipe.detector_features is not None:
        labels += [recipe.detector_data(data).fingerprint(role) for role in ("train", "dev")]
    return proposals | {
        "recipe": digest(document),
        "data": digest([data.fingerprint("train"), data.fingerprint("dev"), *labels]),
        "space": space.fingerprint,
        "objective": recipe.select + (" and cost" if cost else "") + (f" within {limits}" if limits else ""),
        "seed": str(seed),
    }
