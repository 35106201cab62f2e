"""`tad report`."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=None,
    help="HTML file.  [default: RUN/report.html]",
)
@click.option("--open", "show", is_flag=True, help="Open it in the browser.")
def report(run: Path, out: Path | None, show: bool) -> None:
    """Write the report of the run in folder RUN as one HTML file; unfinished and failed runs work too."""
    from tad.report.html import write_report

    path = write_report(run, out)
    click.echo(f"report: {path}")
    if show:
        click.launch(path.as_uri())
