"""One `tad run`: the run's folder, the tracker, the cluster, self-training, and the report at its end."""

from __future__ import annotations

import datetime
import importlib.metadata
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distributed.cluster import cluster
from distributed.engine import Engine, Placement, Resources
from distributed.record import Record
from distributed.selftrain import SelfTraining
from distributed.store import Store
from tad.config import Recipe
from tad.data.dataset import ROLES, Dataset
from tad.errors import RunError
from tad.files import read_json
from tad.report.budget import LabelBudget, label_budget
from tad.stage import Artifact

PACKAGES = ("tad-selftrain", "torch", "numpy", "pyarrow", "ray", "mlflow")


@dataclass(frozen=True)
class Options:
    """Where a run runs, and where it keeps what.

    Attributes:
        local: one process, no Ray and no MLflow unless `tracking` names one.
        workers: training workers; None chooses.
        gpus_per_worker: None chooses.
        placement: of the training workers.
        store: artifact store, a folder or a URI.
        out: the run's folder.
        tracking: MLflow URI; None is the default sqlite file, "none" no tracking.
    """

    out: Path
    store: Path | str
    seed: int = 0
    local: bool = False
    workers: int | None = None
    gpus_per_worker: float | None = None
    placement: Placement | None = None
    tracking: str | None = None


def self_train(name: str, recipe: Recipe, data: Dataset, options: Options) -> Path:
    """Runs a recipe to its end, or resumes it where it stopped.

    Returns:
        The path of the report.

    Raises:
        RunError: a stage failed, or the run's folder holds another run. What was finished stays.
    """
    document = _document(name, recipe, data, options)
    _refuse_another_run(options.out, document)
    store = Store(options.store)
    start = time.perf_counter()
    earlier = document["tracking"]
    record = Record(options.out)
    record.save("run.json", document)  # before anything can fail, so that the folder is known as this run's
    tracker = record.tracker = _tracker(name, recipe, data, options, record, earlier["run_id"] if earlier else None)
    document["tracking"] = {"uri": tracker.uri, "run_id": tracker.run_id()} if tracker is not None else None
    document["state"] = "running"
    record.save("run.json", document)
    try:
        with _resources(options, record) as resources:
            _greet(record, document, resources)
            engine = Engine(data, store, record, options.seed, resources)
            SelfTraining(recipe, engine, document).run()
        document["state"] = "finished"
    except KeyboardInterrupt:
        document["state"] = "interrupted"
        record.say("interrupted; the same command continues here")
        raise
    except BaseException:
        document["state"] = "failed"
        raise
    finally:
        document["seconds"] = round(time.perf_counter() - start, 1)
        record.save("run.json", document)
        report = _report(record, document["state"])
        if tracker is not None:
            tracker.finish({"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}[document["state"]])
    chosen = f"best round: {document['best_round']} (by {recipe.select})" if recipe.rounds else "the proposer alone"
    record.say(f"{chosen}; {document['seconds']:.0f} s in all")
    record.say(f"labels used: {LabelBudget.model_validate(document['labels'])}")
    return report


@contextmanager
def one_off(data: Dataset, options: Options) -> Iterator[Engine]:
    """An engine for a single command (`tad label`, `tad detect`): cached and resumable, but not tracked."""
    record = Record(options.out)
    with _resources(options, record) as resources:
        yield Engine(data, Store(options.store), record, options.seed, resources)


def trained(run: Path, data: Dataset, number: int | None) -> tuple[Recipe, Artifact, Artifact]:
    """The recipe of a finished or running run, its proposer's model, and its detector's of one round.

    `number` None takes the best round, or the last.

    Raises:
        RunError: not a run's folder, no such round, its artifact is gone, or the dataset's classes or features differ.
    """
    if not (run / "run.json").is_file() or not (run / "rounds.json").is_file():
        raise RunError(f"{run}: not the folder of a run with at least one round (no run.json and rounds.json)")
    document, rows = read_json(run / "run.json"), read_json(run / "rounds.json")
    if document["dataset"]["classes"] != data.classes:
        raise RunError(f"{data.root}: its classes are not those of {run} ({', '.join(document['dataset']['classes'])})")
    models = {row["round"]: row["model"] for row in rows}
    number = number if number is not None else document["best_round"] or max(models)
    trained_rounds = sorted(models)[1:]
    if number not in trained_rounds:
        hint = f"there are the rounds {trained_rounds or 'none'}"
        if number == 0:
            hint += f"; round 0 is the proposer alone, its proposals are in {run / 'round-0'}"
        if not trained_rounds:
            more = "--rounds 1 and another --out" if not document["recipe"]["rounds"] else "the same command"
            hint += f". For a detector run the recipe again with {more}; finished stages are not run again"
        raise RunError(f"{run}: no detector of round {number}; {hint}")
    store = Store(document["store"])
    proposer, detector = store.find(models[0]), store.find(models[number])
    if proposer is None or detector is None:
        raise RunError(f"{store.uri}: the models of {run} are gone; run the recipe again")
    return Recipe.model_validate(document["recipe"]), proposer, detector


@contextmanager
def _resources(options: Options, record: Record) -> Iterator[Resources]:
    if options.local:
        yield Resources()
    else:
        with cluster(options.workers, options.gpus_per_worker, options.placement, record.say) as resources:
            yield resources


def _report(record: Record, state: str) -> Path:
    """The report, also of a run that failed; then its own failure must not hide the run's."""
    from tad.report.html import write_report

    try:
        report = write_report(record.folder)
        record.artifact(report)
    except Exception as error:
        if state == "finished":
            raise
        record.warn(f"no report: {error}")
    return record.folder / "report.html"


def _tracker(
    name: str, recipe: Recipe, data: Dataset, options: Options, record: Record, earlier_run: str | None
) -> Any:
    if options.tracking == "none" or (options.local and options.tracking is None):
        return None
    from distributed.tracking import connect

    return connect(
        options.tracking,
        experiment=data.name,
        run_name=f"{name} seed {options.seed}",
        params={"recipe": recipe.model_dump(), "seed": options.seed, "dataset": data.name},
        tags={
            "recipe": name,
            "dataset": data.name,
            "select": recipe.select,
            "labels": str(label_budget(data, recipe.select)),
        },
        run_folder=options.out,
        resume_run_id=earlier_run,
        warn=record.warn,
    )


def _earlier_tracking(out: Path) -> dict[str, Any] | None:
    """Where an attempt of this run that did not finish was tracked."""
    earlier = read_json(out / "run.json") if (out / "run.json").is_file() else {}
    return earlier.get("tracking") if earlier.get("state") != "finished" else None


def _document(name: str, recipe: Recipe, data: Dataset, options: Options) -> dict[str, Any]:
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    videos = {role: len(data.videos(role)) for role in ROLES}
    return {
        "recipe_name": name,
        "recipe": recipe.model_dump(mode="json"),
        "dataset": {
            "name": data.name,
            "root": data.place,
            "classes": data.classes,
            "videos": {role: n for role, n in videos.items() if n},
            "points": sum(len(data.points(v).time) for v in data.videos("train")),
        },
        "seed": options.seed,
        "select": recipe.select,
        "labels": label_budget(data, recipe.select).model_dump(),
        "store": Store(options.store).uri,
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": None,
        "best_round": None,
        "versions": versions,
        "tracking": _earlier_tracking(options.out),
        "state": "failed",
        "command": " ".join(sys.argv),
        "scores": {},
    }


def _refuse_another_run(out: Path, document: dict[str, Any]) -> None:
    path = out / "run.json"
    if not path.is_file():
        if out.is_dir() and any(out.iterdir()):
            raise RunError(f"{out}: not empty and not a run's folder; choose another with --out")
        return
    earlier = read_json(path)
    differ = [key for key in ("recipe", "dataset", "seed") if earlier.get(key) != document[key]]
    if differ:
        raise RunError(
            f"{out}: holds another run (its {' and '.join(differ)} differ); choose another folder with --out, "
            "or remove this one. Finished stages are in the store and are not run again either way"
        )


def _greet(record: Record, document: dict[str, Any], resources: Resources) -> None:
    dataset = document["dataset"]
    counts = ", ".join(f"{n} {role}" for role, n in dataset["videos"].items())
    taught = LabelBudget.model_validate(document["labels"]).training
    record.say(f"{document['recipe_name']} on {dataset['name']}: {counts} videos; {taught}")
    for line in resources.plan:
        record.say(line)
