"""`tad doctor`, and what `tad run` and `tad tune` ask it before they begin."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from tad.commands.say import say
from tad.commands.table import table

if TYPE_CHECKING:
    from distributed.cluster.doctor import Finding


@click.command()
@click.option(
    "--address",
    metavar="ADDRESS",
    envvar="RAY_ADDRESS",
    default="local",
    show_default=True,
    help="auto (the cluster of this machine), HOST:PORT, or local for a Ray of its own. Default also: RAY_ADDRESS.",
)
@click.option("--store", metavar="DIR|URI", envvar="TAD_STORE", default=None, help="Try reading and writing there.")
@click.option(
    "--tracking", metavar="URI", envvar="MLFLOW_TRACKING_URI", default=None, help="Try to reach this MLflow server."
)
def doctor(address: str, store: str | None, tracking: str | None) -> None:
    """Examine every node of a cluster: versions, GPUs, store, MLflow, disk, shared memory, clock, token.

    The exit status is 1 if any node is red.
    """
    from distributed.cluster.connect import connected
    from distributed.cluster.doctor import absolute, examine
    from distributed.cluster.token import check_token

    if address in ("", "local"):  # a run would close the file and go on; who asks is told
        check_token()
    with connected(address):
        findings = examine(absolute(store) if store else None, tracking)
    click.echo(_nodes(findings))
    for finding in findings:
        for problem in finding.problems:
            say(f"{finding.name}: {problem}", err=True)
    if any(finding.problems for finding in findings):
        raise SystemExit(1)


def before_job(skip: bool, local: bool, store: str, tracking: str | None) -> None:
    """Examines the cluster of RAY_ADDRESS before a run begins; nothing on a machine of its own.

    Raises:
        RunError: a node is red.
    """
    if skip or local:
        return
    from distributed.cluster.doctor import check_job

    line = check_job(store, tracking or os.environ.get("MLFLOW_TRACKING_URI"))
    if line is not None:
        say(line, err=True)


def _nodes(findings: list[Finding]) -> str:
    """A row for each node, green or red."""
    from tad.words import size

    heads = ["", "node", "address", "Python", "Ray", "torch", "tad", "GPUs", "disk", "shm", "clock"]
    rows = [[*heads, "token", "store", "MLflow"]]
    for found in findings:
        mark = "red" if found.problems else "green"
        name = found.name + (" (head)" if found.head else "")
        facts = found.facts
        if facts is None:
            rows.append([mark, name, found.address])
            continue
        seen = "" if facts.gpus is None else f"{facts.gpus} of "
        rows.append(
            [
                mark,
                name,
                found.address,
                facts.python,
                facts.ray,
                facts.torch,
                f"{facts.tad} {facts.source[:8]}",
                f"{seen}{found.gpus:g}",
                size(facts.disk) if facts.disk is not None else "-",
                size(facts.shm) if facts.shm is not None else "-",
                f"{found.skew:+.2f} s" if found.skew is not None else "-",
                "-" if facts.token is None else "open" if facts.token else "closed",
                *("-" if text is None else "no" if text else "yes" for text in (facts.store, facts.tracking)),
            ]
        )
    lines = table(rows)
    colours = [None, *("red" if finding.problems else "green" for finding in findings)]
    return "\n".join(click.style(line, fg=colour) for line, colour in zip(lines, colours, strict=True))
