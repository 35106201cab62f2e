"""One `tad run`: the run's folder, the tracker, the cluster, self-training, and the report at its end."""

from __future__ import annotations

import datetime
import importlib.metadata
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distributed.cluster.connect import cluster
from distributed.engine.engine import Engine, Placement, Resources
from distributed.engine.precision import Precision
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.run.identity import Identity
from distributed.run.run_folder import claimed, died
from distributed.run.selftrain import SelfTraining
from distributed.run.signals import heard_again, in_order
from tad.data.dataset import ROLES, Dataset
from tad.errors import RunError
from tad.recipe.recipe import Recipe
from tad.report.budget import LabelBudget, label_budget

PACKAGES = ("tad-selftrain", "torch", "numpy", "pyarrow", "ray", "mlflow")
STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""MLflow's word for each state that a run ends with."""


@dataclass(frozen=True)
class Options:
    """Where a run runs, and where it keeps what.

    Attributes:
        local: one process, no Ray and no MLflow unless `tracking` names one.
        workers: training workers; None chooses.
        gpus_per_worker: None chooses.
        placement: of the training workers.
        precision: of the training.
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
    precision: Precision = "fp32"
    tracking: str | None = None


def self_train(name: str, recipe: Recipe, data: Dataset, options: Options) -> Path:
    """Runs a recipe to its end, or resumes it where it stopped.

    The first SIGINT, SIGTERM or SIGHUP ends it in order, a second one at once.

    Returns:
        The path of the report.

    Raises:
        RunError: a stage failed, or the run's folder holds another run, or another driver works in it. What was
            finished stays.
        Interrupted: by a signal.
    """
    document = _document(name, recipe, data, options)
    with claimed(options.out, document) as earlier:
        record = Record(options.out)
        if earlier is not None and earlier.tracking is not None:  # kept where this attempt is not tracked
            document["tracking"] = earlier.tracking.model_dump()
        if earlier is not None and (what := died(earlier)) is not None:
            record.say(what)
        record.save("run.json", document)  # before anything can fail, so that the folder is known as this run's

        def told(signal: str) -> None:
            document.update(state="interrupted", signal=signal)
            record.save("run.json", document)
            record.say(f"{signal}: stopping in order; once more stops at once")

        with in_order(told):
            follower = _started(name, recipe, data, options, record)
            if follower is not None:
                document["tracking"] = {"uri": follower.uri, "run_id": follower.run_id()}
            document["state"] = "running"
            record.save("run.json", document)
            _whole(recipe, data, options, record, follower, document)
    chosen = f"best round: {document['best_round']} (by {recipe.select})" if recipe.rounds else "the proposer alone"
    record.say(f"{chosen}; {document['seconds']:.0f} s in all")
    record.say(f"labels used: {LabelBudget.model_validate(document['labels'])}")
    return options.out / "report.html"


def _whole(
    recipe: Recipe, data: Dataset, options: Options, record: Record, follower: Any, document: dict[str, Any]
) -> None:
    """The self-training, and what is told of it however it ends."""
    start, training = time.perf_counter(), None
    try:
        with _resources(options, record) as resources:
            _greet(record, document, resources)
            engine = Engine(data, Store(options.store), record, options.seed, resources)
            training = SelfTraining(recipe, engine, document)
            training.run()
        document.update(state="finished", signal=None)
    except KeyboardInterrupt:
        document["state"] = "interrupted"
        raise
    except BaseException:
        document["state"] = "failed"
        raise
    finally:
        document["seconds"] = round(time.perf_counter() - start, 1)
        status = STATUS[document["state"]]
        # A full disk, or a folder that was moved, may be why it failed.
        with suppress(*([OSError, RunError] if status != "FINISHED" else [])):
            record.save("run.json", document)
        if status != "FINISHED":  # before what takes long: a second signal cuts it off
            with suppress(OSError):
                record.event("end", status=status)
            if follower is not None:
                follower.catch_up()
        _report(record, document["state"], data, training)
        if status == "FINISHED":
            record.event("end", status=status)
        if follower is not None:
            follower.finish()
        if document["state"] == "interrupted":
            record.say("interrupted; the same command continues here")


@contextmanager
def one_off(data: Dataset, options: Options) -> Iterator[Engine]:
    """An engine for a single command (`tad label`, `tad detect`): cached and resumable, but not tracked."""
    with ExitStack() as stack:
        try:
            record = Record(options.out)
        except OSError:  # a read-only folder; nothing of this record is needed later
            record = Record(Path(stack.enter_context(tempfile.TemporaryDirectory())))
        resources = stack.enter_context(_resources(options, record))
        yield Engine(data, Store(options.store), record, options.seed, resources)


@contextmanager
def _resources(options: Options, record: Record) -> Iterator[Resources]:
    if options.local:
        yield Resources(precision=options.precision)
    else:
        with cluster(options.workers, options.gpus_per_worker, options.placement, record.say) as resources:
            heard_again()

            def start() -> None:
                resources.start()
                heard_again()

            yield replace(resources, start=start, precision=options.precision)


def _report(record: Record, state: str, data: Dataset, training: SelfTraining | None) -> None:
    """The report, also of a run that failed; then its own failure must not hide the run's."""
    from tad.report.html import write_report

    scores = {role: found.path for role, found in training.scores.items()} if training is not None else {}
    try:
        record.artifact(write_report(record.folder, data=data, scores=scores))
    except Exception as error:
        if state == "finished":
            raise
        record.warn(f"no report: {error}")


def _started(name: str, recipe: Recipe, data: Dataset, options: Options, record: Record) -> Any:
    """Tells the record that an attempt begins; who sends it to MLflow, None if it is not tracked."""
    beginning: dict[str, Any] = {
        "experiment": data.name,
        "name": f"{name} seed {options.seed}",
        "config": {"recipe": recipe.model_dump(), "seed": options.seed, "dataset": data.name},
        "tags": {
            "recipe": name,
            "dataset": data.name,
            "select": recipe.select,
            "labels": str(label_budget(data, recipe.select)),
        },
    }
    if options.tracking == "none" or (options.local and options.tracking is None):
        record.start(**beginning)
        return None
    from distributed.tracking.follow import Follower

    return Follower(record, options.tracking, **beginning)


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
        "tracking": None,
        "driver": Identity.me()._asdict(),
        "state": "failed",
        "signal": None,
        "command": shlex.join(sys.argv),
        "scores": {},
    }


def _greet(record: Record, document: dict[str, Any], resources: Resources) -> None:
    dataset = document["dataset"]
    counts = ", ".join(f"{n} {role}" for role, n in dataset["videos"].items())
    taught = LabelBudget.model_validate(document["labels"]).training
    record.say(f"{document['recipe_name']} on {dataset['name']}: {counts} videos; {taught}")
    for line in resources.plan:
        record.say(line)
    if resources.precision != "fp32":
        record.say("training with bfloat16 matrix products")
