"""`tad`: the command line. Commands live in tad/commands and are imported when called, so --help is quick."""

from __future__ import annotations

import importlib
import importlib.util
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import click

from tad.errors import TadError

COMMANDS = {
    "demo": ("tad.commands.run", "demo", "Watch a small self-training from point labels, end to end."),
    "import": ("tad.commands.importing", "import_", "Import a dataset: another code base's layout, or a table."),
    "check": ("tad.commands.data", "check", "List every problem of a dataset."),
    "split": ("tad.commands.data", "split", "Hold out dev videos or points, make folds, or label a few."),
    "labels": ("tad.commands.labels", "labels", "Write a dataset again with other labels for training."),
    "resize": ("tad.commands.data", "resize", "Write a dataset again with as many feature rows for every video."),
    "synth": ("tad.commands.data", "synth", "Write synthetic features, or invent a whole dataset."),
    "run": ("tad.commands.run", "run", "Self-train a detector on a dataset by a recipe."),
    "tune": ("tad.commands.tune", "tune", "Search for a better recipe for your data."),
    "recipes": ("tad.commands.recipes", "recipes", "List the recipes, or show one with every default."),
    "spaces": ("tad.commands.spaces", "spaces", "List the search spaces, or show one for a recipe."),
    "label": ("tad.commands.stages", "label", "Apply a labeler to any method's proposals."),
    "detect": ("tad.commands.stages", "detect", "Run a trained detector over videos."),
    "evaluate": ("tad.commands.evaluate", "evaluate", "Compute mAP of detections."),
    "quality": ("tad.commands.evaluate", "quality", "Measure pseudo-labels against ground truth."),
    "export": ("tad.commands.data", "export", "Write pseudo-labels in another code base's layout."),
    "report": ("tad.commands.report", "report", "Write a run's report as one HTML file."),
    "ui": ("tad.commands.ui", "ui", "Open the MLflow page, or send MLflow what it missed."),
    "store": ("tad.commands.store", "store", "List, check and tidy the artifact store."),
    "doctor": ("tad.commands.doctor", "doctor", "Examine every node of a cluster."),
    "submit": ("tad.commands.submit", "submit", "Run a command on a cluster, from here."),
    "jobs": ("tad.commands.submit", "jobs", "List a cluster's jobs, follow one or end it."),
}
"""name: (module, attribute, one line for --help), from data to runs to what came of them; then what runs need."""


class LazyGroup(click.Group):
    """Imports a command when it is called, not when the list is shown."""

    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[name]
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def invoke(self, context: click.Context) -> Any:
        """Runs the command; click would say `Aborted!` of a signal, and of every file that ends too early."""
        try:
            return super().invoke(context)
        except KeyboardInterrupt as error:
            sys.exit(_interrupted(error))
        except EOFError as error:
            sys.exit(_told(error))

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tad-selftrain")
def tad() -> None:
    """Temporal action detection from cheap labels: pseudo-label self-training on a Ray cluster.

    Start with `tad demo`. With your own data: `tad check DATASET`, then `tad run --data DATASET`.
    """


def main(arguments: list[str] | None = None) -> NoReturn:
    """The entry point: every error is one sentence, without a traceback; then it exits.

    The exit status is 0, 1 after an error, 2 for a command line that cannot be understood, and 128 + N after signal N.
    TAD_TRACEBACK=1 raises instead.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a locale other than UTF-8 stops nothing
    try:
        check_distributed()
        tad.main(args=arguments, prog_name="tad")
    except SystemExit as end:
        status = end.code
    except TadError as error:
        status = _told(error, str(error))
    except KeyboardInterrupt as error:  # before the command began
        status = _interrupted(error)
    except BaseException as error:  # also the panics of libraries in Rust, which are no Exception
        status = _told(error)
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:  # what it was piped into has ended, or its disk is full
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or Python complains once more
        status = status or (1 if isinstance(error, BrokenPipeError) else _told(error))
    sys.exit(status)


def _interrupted(error: KeyboardInterrupt) -> int:
    """Says so; the exit status."""
    with suppress(OSError):
        click.echo("interrupted", err=True)
    return 128 + int(getattr(error, "number", signal.SIGINT))


def _told(error: BaseException, text: str | None = None) -> int:
    """Says what is wrong; the exit status."""
    if os.environ.get("TAD_TRACEBACK"):
        raise error
    from tad.commands import crash

    with suppress(OSError):  # nobody may be there any more
        click.echo(f"error: {crash.shown(text) if text is not None else crash.report(error)}", err=True)
    return 1


def check_distributed() -> None:
    """Makes sure that `distributed` is this project's package and not Dask's of the same name.

    Raises:
        TadError: it is another one, or it is missing.
    """
    spec = importlib.util.find_spec("distributed")
    beside = Path(__file__).resolve().parents[1] / "distributed" / "__init__.py"
    if spec is None or spec.origin is None or Path(spec.origin).resolve() != beside:
        found = spec.origin if spec is not None else "none"
        raise TadError(
            f"the package `distributed` is not tad-selftrain's (found {found}, need {beside}): Dask's has that name; "
            "install tad-selftrain into an environment without dask.distributed"
        )
