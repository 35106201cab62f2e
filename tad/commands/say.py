"""What commands print. Names of files, videos, classes, runs and jobs may hold what a terminal would obey."""

from __future__ import annotations

import click

from tad.errors import printable


def say(text: str, *, err: bool = False) -> None:
    """Prints text, control characters as escapes: on stdout, or on stderr what is not the command's result."""
    click.echo(printable(text), err=err)
