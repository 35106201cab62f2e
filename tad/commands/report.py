"""`tad report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tad.commands.options import DatasetType, store_option
from tad.commands.say import say


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data_folder",
    type=DatasetType(),
    default=None,
    help="The run's dataset, for timelines and curves.  [default: without them]",
)
@store_option("The run's artifact store, for the activations.")
@click.option("--out", type=click.Path(path_type=Path), default=None, help="HTML file.  [default: RUN/report.html]")
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(run: Path, data_folder: Path | str | None, store: str, out: Path | None, show: bool) -> None:
    """Write the report of the run in folder RUN as one HTML file; unfinished and failed runs work too.

    What RUN names is not opened: say with --data and --store where its dataset and its store are.
    """
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.report.html import write_report
    from tad.report.run import Run, inside

    opened = Run.open(run)
    target = inside(opened.folder, "report.html")
    if out is not None and out.expanduser().resolve() != target.resolve():
        target = file_to_write(out, keep=[opened.folder, data_folder])
    data = Dataset.open(data_folder) if data_folder is not None else None
    scores = _scores(opened.info.keys_of_scores(), store) if data is not None else {}
    path = write_report(run, target, data, scores)
    say(f"report: {path}")
    if data is None:
        say("without --data DATASET: timelines, precision and recall, and lengths are left out", err=True)
    if show:
        click.launch(path.as_uri())


def _scores(keys: dict[str, str], store: str) -> dict[Any, Path]:
    """Role to the folder of the activations, as far as the store has them."""
    from distributed.engine.store import Store
    from tad.data.remote import is_uri

    if not keys or not (is_uri(store) or Path(store).expanduser().is_dir()):
        return {}
    place = Store(store)
    return {role: found.path for role, key in keys.items() if (found := place.find(key)) is not None}
