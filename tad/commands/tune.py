"""`tad tune`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tad.commands.numbers import GPUS, MINUTES, MOST_GIB, MOST_SECONDS, SEED, TRIALS_OR_NONE, Workers
from tad.commands.options import DATA, NO_CHECK, NO_DOCTOR, PRECISION, store_option


@click.command()
@click.argument("recipe")
@click.option(
    "--space",
    "names",
    required=True,
    metavar="NAMES",
    help="Families (see `tad spaces`) or .py files, with commas. A .py file is run: give only those that you trust.",
)
@DATA
@click.option("--trials", type=int, required=True, metavar="N", help="Trials that the study shall have in all.")
@click.option(
    "--objective",
    type=click.Choice(["dev-map", "dev-quality", "points", "classes"]),
    default=None,
    help="What is maximised.  [default: dev-map if there are dev videos, else points, or classes without points]",
)
@click.option(
    "--sampler",
    type=click.Choice(["auto", "tpe", "random", "gp", "nsga2"]),
    default="auto",
    show_default=True,
    help="auto: gp up to 100 trials without a scheduler, else tpe.",
)
@click.option("--cost", is_flag=True, help="A second objective: seconds that the stages take. nsga2 implies it.")
@click.option(
    "--scheduler",
    type=click.Choice(["asha", "hyperband", "median", "none"]),
    default="none",
    show_default=True,
    help="Stops trials that are behind, after a fifth of a detector's training at the earliest.",
)
@click.option(
    "--max-seconds", type=MOST_SECONDS, metavar="S", help="What the stages of the best recipe may take in all."
)
@click.option(
    "--max-memory",
    type=MOST_GIB,
    metavar="GIB",
    help="What a trial of the best recipe may hold, on its GPU if it has one.",
)
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override an option of the recipe first.")
@click.option("--study", "name", metavar="NAME", help="[default: RECIPE-DATASET-OBJECTIVE-seedS]")
@click.option("--out", type=click.Path(path_type=Path), help="The study's folder.  [default: runs/tune/NAME]")
@click.option(
    "--storage",
    default=None,
    metavar="URL",
    help="A database, for several machines one on a server; a password is better kept in PGPASSWORD or ~/.pgpass.  "
    "[default: in --out]",
)
@click.option(
    "--resume-best",
    type=TRIALS_OR_NONE,
    default=0,
    metavar="N",
    help="First go on with the N best of the trials that the scheduler stopped, to their end.",
)
@click.option("--warm-start", metavar="STUDY", help="Try first what another study (its folder or name) found best.")
@click.option(
    "--concurrency", type=Workers(), default="auto", show_default=True, help="Trials at a time; auto: all that fit."
)
@click.option("--workers", type=Workers(), default="auto", show_default=True, help="Training workers of a trial.")
@click.option("--gpus-per-trial", type=GPUS, default=None, help="A fraction is allowed.  [default: 1 if there are any]")
@PRECISION
@click.option("--time-budget", type=MINUTES, metavar="MIN", help="No trial begins after this many minutes.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of trials and sampler.")
@click.option("--tracking", metavar="URI", help="MLflow; none for none.  [default: sqlite mlflow.db here]")
@store_option("Artifact store.")
@NO_DOCTOR
@NO_CHECK
@click.option("--local", is_flag=True, help="One trial after the other in this process, without Ray and MLflow.")
def tune(
    recipe: str,
    names: str,
    data_folder: Path | str,
    trials: int,
    objective: str | None,
    overrides: tuple[str, ...],
    name: str | None,
    out: Path | None,
    gpus_per_trial: float | None,
    time_budget: float | None,
    cost: bool,
    max_seconds: float | None,
    max_memory: float | None,
    seed: int,
    no_doctor: bool,
    no_check: bool,
    **more: Any,
) -> None:
    """Search for a better RECIPE for your data; its test videos are never read.

    Trial 0 runs the recipe as it is. Trials share every stage that they do not change. Run the same command again to go
    on with a search that was stopped, or with more --trials to make it longer.
    """
    from distributed.tuning.limits import Limits
    from distributed.tuning.search import Options
    from distributed.tuning.search import tune as search
    from search_spaces.load import load
    from tad.commands.doctor import before_job
    from tad.data.dataset import Dataset
    from tad.files import folder_name
    from tad.prepare.check_features import require_features
    from tad.recipe.recipe import load_recipe

    config, space = load_recipe(recipe, overrides), load(names)
    data = Dataset.open(data_folder)
    pointed = any(len(data.points(v).time) for v in data.videos("train"))
    objective = objective or ("dev-map" if data.videos("dev") else "points" if pointed else "classes")
    one_round = config.rounds == 1 and not any(p.key == "rounds" for p in space.parameters)
    labels_alone = one_round and objective == "dev-quality"
    for view in () if no_check else config.views(data, detector=not labels_alone):
        require_features(view, ["train", "dev"])
    name = folder_name(name or f"{Path(recipe).stem}-{data.name}-{objective}-seed{seed}", "study")
    before_job(no_doctor, more["local"], more["store"], more["tracking"])
    options = Options(
        name=name,
        out=(out or Path("runs/tune") / name).resolve(),
        trials=trials,
        gpus=gpus_per_trial,
        minutes=time_budget,
        cost=cost or more["sampler"] == "nsga2",
        limits=Limits(max_seconds, max_memory),
        **more,
    )
    search(config, space, data, objective, seed, options)
