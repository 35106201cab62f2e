"""`tad run` and `tad demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from tad.commands.numbers import ROUNDS
from tad.commands.options import DATA, NO_CHECK, NO_DOCTOR, shared_options
from tad.commands.say import say


@click.command()
@click.argument("recipe", default="auto")
@DATA
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override an option; may be repeated.")
@click.option("--rounds", type=ROUNDS, default=None, help="Self-training rounds; 0: the proposer alone.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="The run's folder.  [default: runs/NAME]")
@click.option(
    "--tracking", default=None, metavar="URI", help="MLflow; none for none.  [default: sqlite mlflow.db here]"
)
@NO_DOCTOR
@NO_CHECK
@shared_options
def run(
    recipe: str,
    data_folder: Path | str,
    overrides: tuple[str, ...],
    rounds: int | None,
    out: Path | None,
    no_doctor: bool,
    no_check: bool,
    **more: Any,
) -> None:
    """Self-train a detector on a dataset by RECIPE (a name, see `tad recipes`, or a .yaml file).

    Without RECIPE, or with `auto`, the labels of the dataset decide which one; the command says which, and why.

    Run the same command again to resume a run that was stopped: finished stages are skipped.
    """
    from distributed.run.session import Options, self_train
    from tad.commands.doctor import before_job
    from tad.data.dataset import Dataset
    from tad.files import folder_name
    from tad.prepare.check_features import require_features
    from tad.recipe.auto import AUTO, choose
    from tad.recipe.recipe import load_recipe

    if rounds is not None:
        overrides = (*overrides, f"rounds={rounds}")
    data = Dataset.open(data_folder)
    if recipe == AUTO:
        choice = choose(data)
        recipe, overrides = choice.recipe, (*choice.overrides, *overrides)
        say(f"recipe {recipe}: {choice.why}", err=True)
    config = load_recipe(recipe, overrides)
    for view in () if no_check else config.views(data):
        require_features(view)
    before_job(no_doctor, more["local"], more["store"], more["tracking"])
    name = Path(recipe).stem
    out = out or Path("runs") / folder_name(f"{name}-{data.name}-seed{more['seed']}", "run")
    report = self_train(name, config, data, Options(out=out.resolve(), **more))
    say(f"report: {report}")


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("runs/demo"), show_default=True, help="Where all goes."
)
@click.option("--local", is_flag=True, help="One process, without Ray and MLflow.")
def demo(out: Path, local: bool) -> None:
    """Invent a small dataset, self-train two rounds, tracked by MLflow, and write the report."""
    from distributed.run.session import Options, self_train
    from tad.data.dataset import Dataset
    from tad.prepare.synth import make_dataset
    from tad.recipe.recipe import load_recipe

    folder = out / "data"
    if not folder.exists():
        make_dataset(folder, videos=36, classes=5, dim=64, seed=0, difficulty=0.4)
    data = Dataset.open(folder)
    options = Options(
        out=(out / "run").resolve(),
        store=str(out / "store"),
        local=local,
        tracking=None if local else f"sqlite:///{(out / 'mlflow.db').resolve()}",
    )
    report = self_train("demo", load_recipe("demo"), data, options)
    say(f"\nreport:       {report}")
    if not local:
        say(f"MLflow page:  tad ui --tracking {shlex.quote(str(options.tracking))}")
