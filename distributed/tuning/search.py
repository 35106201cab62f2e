"""`tad tune`: whatever can be wrong is found first; then come trials, until the study has as many as were asked for."""

from __future__ import annotations

import math
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from tqdm import tqdm

from distributed.engine.locks import note
from distributed.engine.precision import Precision
from distributed.engine.store import Store
from distributed.run.selftrain import LOOKS
from distributed.run.signals import Interrupted, as_interrupts, heard_again
from distributed.tuning import on_ray
from distributed.tuning.drivers import living, registered
from distributed.tuning.folder import MARKER, claim, clear_scratch, identity, name_in, sign, study_data
from distributed.tuning.limits import NO_LIMITS, Limits
from distributed.tuning.mirror import Mirror
from distributed.tuning.progress import Progress
from distributed.tuning.study import (
    best_of,
    digest,
    in_one_sentence,
    join,
    keep_precision,
    open_storage,
    read_storage,
    told,
)
from distributed.tuning.summary import Summary, label_command, recipe_of, summarise, text_of, write_best
from distributed.tuning.trial import Stopped, Work, evaluate, folder_of
from distributed.tuning.trials import AS_IT_IS, VALUES, Trials
from search_spaces.ranges import ends
from search_spaces.space import Space
from tad.data.dataset import Dataset
from tad.errors import RunError, printable
from tad.methods.file.proposer import FileProposer
from tad.recipe.recipe import Recipe, changed
from tad.report.budget import label_budget
from tad.selection.best_round import check_selection

MOST_TRIALS = 1_000_000
"""Every one is a row that each start of a search reads."""
MOST_SEED = 2**32
"""Samplers take seeds below it."""


@dataclass(frozen=True)
class Options:
    """How a search is run; none of it changes what a trial's score is.

    Attributes:
        name: of the study.
        out: the study's folder.
        trials: how many trials the study shall have.
        storage: URL of a database; None: STUDY/study.db.
        concurrency, workers, gpus: of trials; None chooses.
        precision: of trials.
        minutes: no trial begins later than this; None: no limit.
        warm_start: another study (its folder, or its name), whose best parameters are tried first.
        tracking: MLflow URI; None is the default SQLite file, "none" no tracking.
        store: artifact store, a folder or a URI.
        local: one trial after the other in this process, without Ray, and without MLflow unless `tracking` names one.
        cost: a second objective: the seconds that a recipe's stages take.
        limits: what the best recipe may cost.
        resume_best: how many of the stopped trials go on to their end, the best ones, before new trials begin.
    """

    name: str
    out: Path
    trials: int
    sampler: str = "auto"
    scheduler: str = "none"
    storage: str | None = None
    concurrency: int | None = None
    workers: int | None = None
    gpus: float | None = None
    precision: Precision = "fp32"
    minutes: float | None = None
    warm_start: str | None = None
    tracking: str | None = None
    store: str = "runs/store"
    local: bool = False
    cost: bool = False
    limits: Limits = NO_LIMITS
    resume_best: int = 0


def tune(recipe: Recipe, space: Space, data: Dataset, objective: str, seed: int, options: Options) -> Summary:
    """Searches, or goes on with a search that was stopped.

    Args:
        recipe: where the search begins; trial 0 runs it as it is.
        space: of any recipe.
        data: its test videos are not looked at.
        objective: what becomes the recipe's `select`.
        seed: of every trial's training, and of the sampler.

    Raises:
        ConfigError, DataError, RunError: before any training, whatever makes the search impossible; or later, the
            recipe as it is fails, as then all trials would.
        Interrupted: by SIGINT, SIGTERM or SIGHUP, in order.
    """
    with in_one_sentence(options.storage or options.out / "study.db"), as_interrupts() as came:
        try:
            return _tune(recipe, space, data, objective, seed, options)
        except KeyboardInterrupt as error:
            raise Interrupted(came[0] if came else signal.SIGINT) from error


def _tune(recipe: Recipe, space: Space, data: Dataset, objective: str, seed: int, options: Options) -> Summary:
    start = time.time()
    recipe = changed(recipe, {"select": objective})
    if isinstance(recipe.proposer, FileProposer):  # trials run in other folders
        recipe = changed(recipe, {"proposer.path": str(Path(recipe.proposer.path).expanduser().resolve())})
    space = space.for_recipe(recipe)
    most = _most_rounds(recipe, space)
    if options.scheduler != "none" and most < (2 if objective == "dev-quality" else 1):
        raise RunError(
            f"--scheduler {options.scheduler}: stops trials by the scores of detectors in training, and after rounds; "
            f"with objective {objective} and {most} rounds there is nothing before the end; leave it out"
        )
    _check(options)
    claim(options.out, options.name)
    storage = open_storage(options.storage or options.out / "study.db")
    sign(options.out, options.name, options.storage)
    own = study_data(data, options.out)
    check_selection(recipe, own, test=False)
    store = Store(options.store)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    directions = ["maximize", "minimize"] if options.cost else ["maximize"]
    study = join(storage, options.name, identity(recipe, space, own, seed, options.cost, options.limits), directions)
    first = _warm(storage, space, options)
    study.pruner = pruner(options.scheduler, LOOKS * most)
    with registered(study) as driver, _slots(options) as slots:
        heard_again()
        keep_precision(study, options.precision)
        until = start + 60 * options.minutes if options.minutes is not None else float("inf")
        looks = options.scheduler != "none" and not slots.resources.ray
        work = Work(recipe, own.root, store.uri, options.out / "trials", seed, slots.resources, slots.gpus, looks)
        progress = Progress(study, options.trials, objective)
        mirror = _mirror(study, driver, work, data, options)
        trials = Trials(study, space, options.trials, driver, until)
        kind = chosen_sampler(options)
        trials.sampler = lambda before: sampler(kind, (seed + before) % MOST_SEED, options.limits)

        def began(trial: FrozenTrial) -> None:
            if mirror is not None:
                mirror.began(trial)

        def ended(trial: FrozenTrial) -> None:
            progress.ended(trial)
            if mirror is not None:
                mirror.ended(trial)

        trials.began, trials.ended = began, ended
        trials.prepare(space.defaults(recipe), first)
        if options.resume_best:
            note(f"{trials.resume(options.resume_best)} of the stopped trials go on to their end")
        where = "in this process" if options.local else f"{slots.concurrency} at a time"
        progress.greet(options.name, f"{kind}, {where}")
        run_id = mirror.run_id if mirror is not None else lambda number: None
        whole = False
        try:
            if options.local:
                whole = _search_here(work, trials, run_id)
            else:
                scratch = clear_scratch(options.out, living(study), driver)
                trial = on_ray.trainable(work)
                whole = on_ray.search(trial, trials, slots, run_id, scratch)
        finally:
            trials.give_back("interrupted")
            progress.close()
            summary = _report(study, work, own, data, options, time.time() - start, mirror, whole)
    if trials.broken is not None:
        raise RunError(f"the recipe as it is fails, so no trial can be compared with it: {trials.broken}")
    if not whole:
        print("interrupted in order; the same command goes on", file=sys.stderr)
        raise KeyboardInterrupt
    return summary


MOST_GP = 100
"""Trials up to which `auto` takes a Gaussian process, whose work grows with their cube."""


def chosen_sampler(options: Options) -> str:
    """What `auto` stands for, by how many trials there are and whether some of them are stopped.

    Within 50 trials a Gaussian process found more in all studies of real gestures (docs/tuning.md). It learns from
    finished trials alone; TPE also from stopped ones, and is quick however many there are.
    """
    if options.sampler != "auto":
        return options.sampler
    return "gp" if options.trials <= MOST_GP and options.scheduler == "none" else "tpe"


def sampler(name: str, seed: int, limits: Limits = NO_LIMITS) -> optuna.samplers.BaseSampler:
    """An Optuna sampler. The same seed would repeat its first suggestion, so each suggestion of a study has its own."""
    constraints = limits.excess if limits else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constraints are "experimental" in Optuna
        if name == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, multivariate=True, constant_liar=True, constraints_func=constraints
            )
        if name == "gp":
            return optuna.samplers.GPSampler(seed=seed, constraints_func=constraints)
        if name == "nsga2":
            return optuna.samplers.NSGAIISampler(seed=seed, constraints_func=constraints)
        return optuna.samplers.RandomSampler(seed=seed)


KEPT = 4
"""ASHA and Hyperband go on with one of so many trials. On real gestures a random search then takes 2.0 and 1.6 times
less compute, with one of two 1.7 and 1.3; the median rule 2.9, with a wait for three finished trials 2.2. The best
trial was lost in one study of 300 (benchmarks/studies/real/pruning.py)."""


def pruner(name: str, steps: int) -> optuna.pruners.BasePruner:
    """When a trial is stopped: ASHA keeps the best quarter of those that came as far, at the steps 1 and 4 (then 16);
    Hyperband does so for a part of the trials, and leaves the others longer; the median rule keeps those that are not
    below the median of the finished ones, of which the recipe as it is is the first."""
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=KEPT)
    if name == "hyperband":
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=steps, reduction_factor=KEPT)
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=1, n_warmup_steps=1)
    return optuna.pruners.NopPruner()


def _most_rounds(recipe: Recipe, space: Space) -> int:
    """Rounds of the trial that has the most."""
    searched = [int(value) for p in space.parameters if p.key == "rounds" for value in ends(p.range)]
    return max(recipe.rounds, *searched) if searched else recipe.rounds


def _search_here(work: Work, trials: Trials, run_id: Callable[[int], str | None]) -> bool:
    """One trial after the other in this process; whether none is left. An interrupt may come at any moment."""
    try:
        while (trial := trials.ask()) is not None:
            last: dict[str, Any] = {}

            def tell(report: dict[str, Any], number: int = trial.number, last: dict[str, Any] = last) -> None:
                last |= report
                if trials.report(number, report):
                    raise Stopped

            values = None if trial.user_attrs.get(AS_IT_IS) else trial.user_attrs[VALUES]
            with suppress(Stopped):
                last |= evaluate(work, trial.number, values, tell, run_id(trial.number))
            trials.end(trial.number, last)
    except KeyboardInterrupt:
        return False
    return True


def _warm(storage: Any, space: Space, options: Options) -> list[dict[str, Any]]:
    """What the study of --warm-start found best: by its folder, or by its name beside this one or in its storage."""
    if options.warm_start is None:
        return []
    for folder in (Path(options.warm_start), options.out.parent / options.warm_start):
        if os.path.isfile(folder / MARKER):
            name, own = name_in(folder), folder / "study.db"
            if not os.path.lexists(own):
                return best_of(storage, name, space)
            if not own.resolve().is_relative_to(folder.resolve()):
                raise RunError(f"--warm-start {folder}: its study.db is a link to another folder; name that one")
            with told(f"--warm-start {folder}: its study", "leave out --warm-start"):
                return best_of(read_storage(own), name, space)
    return best_of(storage, options.warm_start, space)


@contextmanager
def _slots(options: Options) -> Iterator[on_ray.Slots]:
    if options.local:
        from distributed.engine.engine import Resources

        yield on_ray.Slots(Resources(precision=options.precision), 1.0, 1)  # whatever GPU this process sees
    else:
        with on_ray.slots(options.workers, options.gpus, options.concurrency) as found:
            yield found._replace(resources=replace(found.resources, precision=options.precision))


def _check(options: Options) -> None:
    if options.trials < 1:
        raise RunError(f"--trials {options.trials}: a search needs 1 trial at least")
    if options.trials > MOST_TRIALS:
        raise RunError(f"--trials {options.trials}: a search has {MOST_TRIALS:,} trials at most")
    if options.minutes is not None and not 0 < options.minutes < math.inf:
        raise RunError(f"--time-budget {options.minutes:g}: give a number of minutes above 0")
    if options.cost and options.scheduler != "none":
        raise RunError(f"--scheduler {options.scheduler}: stops by one number; with two objectives leave it out")


def _mirror(study: optuna.Study, driver: str, work: Work, data: Dataset, options: Options) -> Mirror | None:
    if options.tracking == "none" or (options.local and options.tracking is None):
        return None
    alone = len(living(study)) <= 1
    mirror = Mirror(
        work,
        "events.jsonl" if alone else f"events-{digest(driver)}.jsonl",
        options.tracking,
        experiment=data.name,
        name=f"study {options.name}",
        config={"recipe": work.recipe.model_dump(), "seed": work.seed, "sampler": chosen_sampler(options)},
        tags={"tad.kind": "study", "study": options.name, "objective": work.recipe.select},
    )
    if alone:
        study.set_user_attr("mlflow", mirror.run_id())
    return mirror


def _report(
    study: optuna.Study,
    work: Work,
    own: Dataset,
    data: Dataset,
    options: Options,
    seconds: float,
    mirror: Mirror | None,
    whole: bool,
) -> Summary:
    """STUDY/best.yaml and figures, the text at the end, and the same in MLflow."""
    from distributed.tuning.figures import write_figures

    recipe, seed, out = work.recipe, work.seed, options.out
    summary = summarise(study, work, own, options.limits)
    files, commands = [], {}
    chosen = summary.chosen
    if summary.best is not None and chosen is not None:
        write_best(summary, recipe, options.name, out / "best.yaml")
        files = [*write_figures(study, summary, recipe.select, out / "figures"), out / "best.yaml"]
        best, store = out / "best.yaml", ["--store", options.store]
        final = best if chosen.number == summary.best.number else folder_of(work, chosen.number) / "recipe.yaml"
        seeds = " ".join(str((seed + i) % MOST_SEED) for i in range(1, 4))
        once = shlex.join(["tad", "run", str(best), "--data", str(own.root), "--seed", str(seed), *store])
        again = f"{shlex.join(['tad', 'run', str(final), '--data', str(data.root)])} --seed $s {shlex.join(store)}"
        if recipe.detector_data(own).feature_path(own.videos("train")[0]).is_file():  # a run trains a detector
            commands["the best trial once more:"] = once
            commands["final training with more seeds:"] = f"for s in {seeds}; do {again}; done"
        if label := label_command(recipe_of(chosen, recipe), data.root):
            commands["pseudo-labels:"] = label
    text = text_of(summary, recipe.select, options.trials, seconds, label_budget(own, recipe.select), commands)
    tqdm.write(printable(text), file=sys.stdout)
    if mirror is not None:
        numbers = {f"trials {name.lower()}": float(n) for name, n in summary.states.items()} | summary.totals
        if summary.best is not None:
            numbers["best"] = summary.best.values[0]
        if summary.recipe is not None and summary.gain is not None:
            numbers |= {"default": summary.recipe.values[0], "gain": summary.gain}
        if summary.error is not None:
            numbers["gain_error"] = summary.error
        mirror.finish("FINISHED" if whole else "KILLED", numbers, files)
    return summary
