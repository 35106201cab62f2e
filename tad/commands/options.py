"""Options, and types of them, that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from tad.commands.numbers import GPUS, SEED, Workers

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""A file that is there."""
FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
"""A folder that is there."""
OUT_FOLDER = click.Path(file_okay=False, path_type=Path)


class DatasetType(click.ParamType):
    """A folder, or a URI that stays as it is."""

    name = "DIR|URI"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Path | str:
        return value if "://" in str(value) else Path(value)


def store_option(text: str, *names: str) -> Callable[[Any], Any]:
    """--store, which TAD_STORE gives, too.

    Args:
        text: for --help.
        names: of the parameter, if it is not to be `store`.
    """
    return click.option(
        "--store",
        *names,
        metavar="DIR|URI",
        envvar="TAD_STORE",
        default="runs/store",
        show_default="TAD_STORE, or runs/store",
        help=text,
    )


DATA = click.option(
    "--data", "data_folder", type=DatasetType(), required=True, help="Dataset: a folder, s3:// or gs://."
)
FORCE = click.option(
    "--force", is_flag=True, help="Replace an earlier output of this command; anything else that is there is refused."
)
NO_DOCTOR = click.option(
    "--no-doctor", is_flag=True, help="Begin on a cluster (RAY_ADDRESS) without examining its nodes."
)
NO_CHECK = click.option(
    "--no-check",
    is_flag=True,
    help="Take feature files as they are; by default those that `tad check` refuses stop it.",
)
PRECISION = click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16"]),
    default="fp32",
    show_default=True,
    help="Of the matrix products in training.",
)
SHARED = (
    click.option("--seed", type=SEED, default=0, show_default=True, help="Same seed, same result."),
    click.option("--local", is_flag=True, help="One process, without Ray and MLflow."),
    click.option(
        "--workers",
        type=Workers(),
        default="auto",
        show_default=True,
        help="Training workers; auto: one for each GPU, or one.",
    ),
    click.option(
        "--gpus-per-worker", type=GPUS, default=None, help="A fraction is allowed.  [default: 1 if there are any]"
    ),
    click.option(
        "--placement",
        type=click.Choice(["pack", "spread"]),
        default=None,
        help="Training workers: all on one node, or over all of them.  [default: on few nodes]",
    ),
    PRECISION,
    store_option("Artifact store: a folder, s3:// or gs://. Finished stages found there are not run again."),
)


def shared_options(command: Any) -> Any:
    """The options of every command that runs stages."""
    for option in reversed(SHARED):
        command = option(command)
    return command
