"""The models that a run trained, found again for other videos."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

from pydantic import ValidationError

from distributed.engine.store import Store
from tad.data.dataset import Dataset
from tad.data.remote import is_uri
from tad.errors import DataError, RunError, listing
from tad.recipe.recipe import Recipe
from tad.report.run import Run
from tad.stages import Artifact


class Trained(NamedTuple):
    """Models of a run."""

    recipe: Recipe
    proposer: Artifact
    round: int
    detector: Artifact
    """Of that round."""


def trained(folder: Path, data: Dataset, number: int | None, store: Path | str) -> Trained:
    """What a finished or running run has trained.

    The folder may be somebody else's: the models are looked for in `store` alone, never where the folder says.

    Args:
        number: of the round; None takes the best one, or the last.
        store: a folder or a URI, as the user gives it.

    Raises:
        DataError: not a run's folder, or a file of it is malformed.
        RunError: no such round, its artifact is not in the store, or the dataset's classes or features differ.
    """
    run = Run.open(folder)
    if run.info.dataset.classes != data.classes:
        theirs = ", ".join(run.info.dataset.classes)
        raise RunError(f"{data.root}: its classes are not those of {folder} ({theirs})")
    try:
        recipe = Recipe.model_validate(run.info.recipe)
    except ValidationError as error:
        problems = [f"recipe.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise DataError(f"{run.folder / 'run.json'}: not a recipe of this version: " + listing(problems)) from error
    models = {row.round: row.model for row in run.rounds}
    chosen = number if number is not None else run.info.best_round or max(models, default=0)
    rounds = [n for n in sorted(models) if n > 0 and models[n] is not None]
    if chosen not in rounds:
        hint = f"there are the rounds {rounds or 'none'}"
        if chosen == 0:
            hint += f"; round 0 is the proposer alone, its proposals are in {folder / 'round-0'}"
        if not rounds:
            more = "--rounds 1 and another --out" if not recipe.rounds else "the same command"
            hint += f". For a detector run the recipe again with {more}; finished stages are not run again"
        raise RunError(f"{folder}: no detector of round {chosen}; {hint}")
    found = _found([models.get(0), models[chosen]], store)
    if found is None:
        raise RunError(f"the models of {folder} are not in the store {store}; {_elsewhere(run, store)}")
    return Trained(recipe, found[0], chosen, found[1])


def _found(keys: list[str | None], store: Path | str) -> tuple[Artifact, Artifact] | None:
    if not is_uri(store) and not Path(store).expanduser().is_dir():  # one that is named by mistake is not made
        return None
    place = Store(store)
    proposer, detector = (place.find(key) if key is not None else None for key in keys)
    return None if proposer is None or detector is None else (proposer, detector)


def _elsewhere(run: Run, store: Path | str) -> str:
    theirs = run.info.store
    here = str(store) if is_uri(store) else str(Path(store).expanduser().resolve())
    if theirs is None or theirs == here:
        return "run the recipe again"
    return f"the run was made with another one; if you trust it, add --store {shlex.quote(theirs)}"
