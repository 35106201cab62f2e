"""tad labels: other labels for a dataset's training videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from tad.commands.numbers import SEED
from tad.commands.options import FILE, FOLDER, FORCE, OUT_FOLDER
from tad.commands.say import say

if TYPE_CHECKING:
    from tad.prepare.relabel import Kind, Origin

KINDS = ("full", "points", "classes", "none", "keep")


class Mix(click.ParamType):
    """`full=0.1,points=0.9` as shares by kind."""

    name = "mix"

    def convert(self, value: str, param: click.Parameter | None, context: click.Context | None) -> dict[str, float]:
        shares: dict[str, float] = {}
        for part in value.split(","):
            kind, _, share = part.partition("=")
            if kind not in KINDS or kind in shares:
                self.fail(f"{part!r}: give KIND=SHARE once for some of {', '.join(KINDS)}", param, context)
            try:
                shares[kind] = float(share)
            except ValueError:
                self.fail(f"{part!r}: {share!r} is not a share", param, context)
        return shares


@click.command()
@click.argument("src", type=FOLDER)
@click.argument("out", type=OUT_FOLDER)
@click.option(
    "--kind", type=click.Choice(KINDS[:4]), help="What all training videos are left with, or those of --videos."
)
@click.option("--videos", type=FILE, help="Training videos, one a line.")
@click.option("--mix", type=Mix(), metavar="KIND=SHARE,...", help="Shares of the training videos, stratified by class.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of --mix.")
@click.option(
    "--from",
    "classes_from",
    type=click.Choice(["given", "annotations"]),
    default="given",
    show_default=True,
    help="What classes of videos are taken from: points and other given labels, or annotated segments.",
)
@click.option("--name", help="Name of the new dataset  [default: that of SRC and the kinds]")
@FORCE
def labels(
    src: Path,
    out: Path,
    kind: Kind | None,
    videos: Path | None,
    mix: dict[Kind, float] | None,
    seed: int,
    classes_from: Origin,
    name: str | None,
    force: bool,
) -> None:
    """Write SRC with other labels of its training videos to OUT: an experiment in what labels cost.

    Kinds: `full`, the annotated boundaries of a video (the only way by which training gets to read them); `points`, its
    points alone; `classes`, the classes it holds alone; `none`; and with --mix `keep`, what it has. Labels of test
    videos are never written. dataset.yaml records what was done, and every run states its label budget.

    \b
    tad labels thumos14 thumos14-classes --kind classes
    tad labels thumos14 thumos14-mixed --mix full=0.1,points=0.3,classes=0.4,none=0.2
    """
    from tad.data.dataset import Dataset
    from tad.errors import DataError
    from tad.files import read_text
    from tad.prepare.published import known
    from tad.prepare.relabel import derive_labels, draw_kinds, one_kind

    if (kind is None) == (mix is None):
        raise click.UsageError("give either --kind or --mix")
    if videos is not None and kind is None:
        raise click.UsageError("--videos goes with --kind")
    data = Dataset.open(src)
    if kind is not None:
        listed = read_text(videos).split() if videos is not None else None
        if listed == []:
            raise DataError(f"{videos}: names no video; one a line")
        train = set(data.videos("train"))
        kinds = one_kind(data, kind, None if listed is None else [known(name, train) or name for name in listed])
    else:
        kinds = draw_kinds(data, mix or {}, seed)
    drawn_by = seed if mix is not None else None
    say(str(derive_labels(data, kinds, out, classes_from=classes_from, seed=drawn_by, name=name, force=force)))
