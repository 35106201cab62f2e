"""`tad submit` and `tad jobs`."""

from __future__ import annotations

import datetime
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tad.commands.say import say

if TYPE_CHECKING:
    from distributed.cluster.jobs import Jobs

ADDRESS = click.option(
    "--address",
    metavar="URL",
    envvar="RAY_API_SERVER_ADDRESS",
    default="http://127.0.0.1:8265",
    show_default=True,
    help="Of the head's job API; `ray dashboard cluster.yaml` brings it here. Also: RAY_API_SERVER_ADDRESS.",
)
FILES = {"recipe": r".+\.ya?ml$", "names": r"[^,\s][^,]*\.py(?=\s*(:[^,]*)?(,|$))"}
"""Parameters of commands that may name files of the user's machine, recipes and search spaces, and what is a file's."""
LIMIT = 2**20
"""Bytes of such a file."""


@click.command(context_settings={"allow_interspersed_args": False})
@ADDRESS
@click.option("--env", "variables", multiple=True, metavar="NAME=VALUE", help="For the job; may be repeated.")
@click.option("--detach", is_flag=True, help="Do not wait for the job.")
@click.argument("arguments", nargs=-1, required=True, metavar="-- COMMAND ...", type=click.UNPROCESSED)
def submit(address: str, variables: tuple[str, ...], detach: bool, arguments: tuple[str, ...]) -> None:
    """Run a tad command on a cluster: tad submit -- run pser --data s3://bucket/thumos14

    The source of this installation goes with it, and so do recipes (.yaml) and search spaces (.py) by path. Its output
    is shown until it ends, and its exit status is this command's. Ctrl-C detaches; the job goes on. All other paths are
    the cluster's; relative ones are below the home folder there.
    """
    from distributed.cluster.jobs import Jobs
    from tad.errors import RunError

    tad = click.get_current_context().find_root()
    assert isinstance(tad.command, click.Group)
    command = tad.command.get_command(tad, arguments[0])
    if command is None:
        known = ", ".join(tad.command.list_commands(tad))
        raise RunError(f"tad has no command {arguments[0]!r}; it has {known}")
    names: dict[str, object] = {}
    try:
        names = command.make_context(arguments[0], list(arguments[1:])).params  # finds mistakes before anything is sent
    except click.BadParameter as error:
        ours = not isinstance(error, click.MissingParameter)
        if not (
            ours and error.param is not None and isinstance(error.param.type, click.Path)
        ):  # files are the cluster's
            raise
    pairs = [variable.partition("=") for variable in variables]
    if bad := [name for name, sign, _ in pairs if not (name and sign)]:
        raise RunError(f"--env {bad[0]}: not of the form NAME=VALUE")
    rewritten, files = _with_files(list(arguments), names)
    cluster = Jobs(address)
    job = cluster.submit(rewritten, {name: value for name, _, value in pairs}, files)
    say(f"job {job}", err=True)
    if not detach:
        _follow(cluster, job)


@click.command()
@ADDRESS
@click.argument("job", required=False)
@click.option("--stop", is_flag=True, help="End the job; what its finished stages made stays.")
def jobs(address: str, job: str | None, stop: bool) -> None:
    """List the jobs of a cluster, or follow JOB: its output from the beginning, then its exit status."""
    from distributed.cluster.jobs import Jobs
    from tad.errors import RunError

    if stop and job is None:
        raise RunError("--stop: which job? `tad jobs` lists them")
    cluster = Jobs(address)
    if job is None:
        for row in cluster.list():
            began = datetime.datetime.fromtimestamp(row.started).strftime("%Y-%m-%d %H:%M") if row.started else "-"
            say(f"{row.id}  {row.status:9}  {began:16}  {row.command}")
    elif stop:
        cluster.stop(job)
    else:
        _follow(cluster, job)


def _with_files(arguments: list[str], params: dict[str, object]) -> tuple[list[str], list[Path]]:
    """The arguments with this machine's recipe and space files by their place on the cluster, and those files.

    Raises:
        RunError: a file is missing or too large; names all of them.
    """
    from distributed.cluster.jobs import SENT
    from tad.errors import RunError

    files: list[Path] = []

    def sent(found: re.Match[str]) -> str:
        files.append(Path(found[0]))
        return f"{SENT}{len(files) - 1}/{files[-1].name}"

    for name, pattern in FILES.items():
        value = params.get(name)
        if isinstance(value, str) and (new := re.sub(pattern, sent, value)) != value:
            for i, argument in enumerate(arguments):
                if argument == value or (argument.startswith("--") and argument.partition("=")[2] == value):
                    arguments[i] = argument.removesuffix(value) + new
    problems = [f"{path}: no such file on this machine, from which it is sent" for path in files if not path.is_file()]
    problems += [
        f"{path}: {path.stat().st_size} bytes; {LIMIT} are the most for a recipe or a search space"
        for path in files
        if path.is_file() and path.stat().st_size > LIMIT
    ]
    if problems:
        raise RunError("; ".join(problems))
    return arguments, files


def _follow(cluster: Jobs, job: str) -> None:
    try:
        ended = cluster.follow(job, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        where = "" if cluster.address == "http://127.0.0.1:8265" else f" --address {shlex.quote(cluster.address)}"
        say(f"\ndetached; the job goes on. Follow it again: tad jobs{where} {job}   (end it: --stop)", err=True)
        raise SystemExit(130) from None
    if ended.status != "SUCCEEDED":
        say(f"job {job} {ended.status.lower()}: {ended.message.splitlines()[0] if ended.message else ''}", err=True)
    code = ended.exit_code if ended.exit_code is not None else int(ended.status != "SUCCEEDED")
    raise SystemExit(code)
