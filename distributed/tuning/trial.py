"""What one trial does: a self-training with some of the recipe's values changed, up to its score."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from distributed.engine.engine import Engine, Resources
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.run.selftrain import LOOKS, SelfTraining
from distributed.tuning.limits import Memory
from tad.data.dataset import Dataset
from tad.data.remote import redacted
from tad.errors import TadError, first_line, printable
from tad.files import read_text, write_text
from tad.recipe.recipe import Recipe, changed, dump
from tad.selection.best_round import selecting

Tell = Callable[[dict[str, Any]], None]
"""Called after each round, and before it as `Work.looks` says, with the best "value" so far (None: it has none), the
number of the "round", the "step" (`LOOKS` for each round), how many rounds are "left", and what the trial cost up to
now; what it raises ends the trial."""


@dataclass(frozen=True)
class Work:
    """What all trials of a study have in common; travels to their processes.

    Attributes:
        recipe: with the study's objective as its `select`.
        data: the study's own dataset folder, without test videos.
        store: artifacts, shared by all trials.
        folder: STUDY/trials; each trial has a folder below, by its number.
        resources: of one trial.
        gpus: of one trial; without any it must not use those it might see.
        looks: whether trials tell how a detector in training does, not only how a round ended.
    """

    recipe: Recipe
    data: Path
    store: str
    folder: Path
    seed: int
    resources: Resources
    gpus: float = 0.0
    looks: bool = False


class Stopped(BaseException):
    """Raised in a trial that the scheduler stops; its last report says how far it came."""


class StageUse(NamedTuple):
    """A stage that a trial needed, by the trial's own record."""

    name: str
    fingerprint: str
    role: str
    round: int
    made: bool
    """By this trial; otherwise it was there."""


def folder_of(work: Work, number: int) -> Path:
    return work.folder / f"{number:04d}"


def evaluate(
    work: Work, number: int, values: Mapping[str, Any] | None, tell: Tell, run_id: str | None = None
) -> dict[str, Any]:
    """Runs a trial.

    Args:
        values: by recipe key; None: the recipe as it is.
        run_id: the trial's MLflow run, which the artifacts that it makes will name.

    Returns:
        Its last report: "value", "round", "finished", and what it cost. `cost`: seconds that all its stages took when
        they were made, whoever made them. `memory`: GiB that this process held at most. An exception of the trial is no
        exception here but "failed".
    """
    start, cpu, memory, folder = time.time(), time.process_time(), Memory(), folder_of(work, number)
    last: dict[str, Any] = {"value": None, "round": 0}
    training: SelfTraining | None = None

    def costs() -> dict[str, Any]:
        uses, store = stages_of(folder), Store(work.store)
        return {
            "seconds": round(time.time() - start, 3),
            "cpu_seconds": round(time.process_time() - cpu, 3),
            "made": sum(use.made for use in uses),
            "cached": sum(not use.made for use in uses),
            "looked": round(training.looked, 3) if training is not None else 0.0,
            "cost": round(sum(_seconds(store, use) for use in uses), 2),
            "memory": round(memory.peak(), 3),
        }

    try:
        recipe = changed(work.recipe, values) if values is not None else work.recipe
        record = Record(folder, quiet=True)
        record.mlflow_run = lambda byte: run_id
        write_text(folder / "recipe.yaml", dump(recipe))
        engine = Engine(_dataset(work.data), Store(work.store), record, work.seed, work.resources)
        reached: list[float] = []

        def watch(row: dict[str, Any]) -> None:
            now = row["round"]
            if now == 0 < recipe.rounds:  # the proposer, which is no candidate for the best
                return
            if row["scores"].get(recipe.select.replace("-", "_")) is not None:  # the proposer makes no pseudo-labels
                reached.append(selecting(row, recipe.select))
            value = max(reached, default=None)
            tell({"value": value, "round": now, "step": LOOKS * now, "left": recipe.rounds - now, **costs()})

        def look(now: int, fifth: int, value: float | None) -> None:
            value = max([*reached, *([] if value is None else [value])], default=None)
            step, left = LOOKS * (now - 1) + fifth, recipe.rounds - now + 1
            tell({"value": value, "round": now - 1, "step": step, "left": left, **costs()})

        training = SelfTraining(recipe, engine, {"scores": {}}, watch, look if work.looks else None)
        last |= {"value": training.score(), "round": len(training.rows) - 1, "finished": True}
    except Exception as error:  # the study learns of it; the search goes on
        last |= {"failed": reason(error)}
    last |= costs()
    return last


def reason(error: BaseException) -> str:
    """Why a trial failed, in one line: of a worker's error its cause, of a traceback its first line."""
    error = getattr(error, "cause", None) or error  # Ray's errors hold the worker's
    text = str(error) if isinstance(error, TadError) else first_line(error)
    return redacted(printable(" ".join(f"{type(error).__name__}: {text}".split())))


def stages_of(folder: Path) -> list[StageUse]:
    """The stages that a trial used, each once, in order; also those of an earlier attempt of the same trial."""
    path = folder / "events.jsonl"
    found: dict[str, StageUse] = {}
    for line in read_text(path).splitlines() if path.is_file() else []:
        with suppress(ValueError, KeyError, TypeError):  # the last line of a killed process
            event = json.loads(line)
            if event["kind"] in ("stage-done", "stage-cached"):
                made = event["kind"] == "stage-done"
                use = StageUse(event["name"], event["fingerprint"], event["role"], int(event["round"]), made)
                found.setdefault(use.fingerprint, use)
    return list(found.values())


@lru_cache(maxsize=2)
def _dataset(folder: Path) -> Dataset:
    return Dataset.open(folder)


def _seconds(store: Store, use: StageUse) -> float:
    seconds = store.meta(use.fingerprint).get("seconds")
    return float(seconds) if isinstance(seconds, (int, float)) and math.isfinite(seconds) else 0.0
