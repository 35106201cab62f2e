"""`tad tune label-only`."""

from __future__ import annotations

from pathlib import Path

import click

from tad.commands.numbers import SEED, VIDEOS
from tad.commands.options import store_option
from tad.commands.say import say


@click.command("label-only")
@click.option("--proposals", type=click.Path(path_type=Path), required=True, help="ActivityNet JSON or Parquet.")
@click.option("--data", "data_folder", type=click.Path(path_type=Path), required=True, help="Dataset folder.")
@click.option("--method", type=click.Choice(["points", "potloc", "pser-seed"]), default="points", show_default=True)
@click.option("--trials", type=int, default=50, show_default=True, metavar="N", help="Trials of the study in all.")
@click.option("--seed", type=SEED, default=0, show_default=True, help="Of dev videos and sampler.")
@click.option(
    "--dev-videos", type=VIDEOS, default=40, show_default=True, metavar="N", help="Training videos to choose by."
)
@click.option(
    "--out", type=click.Path(path_type=Path), default=None, help="[default: runs/tune/label-METHOD-DATASET-seedS]"
)
@store_option("Artifact store.")
def label_only(
    proposals: Path,
    data_folder: Path,
    method: str,
    trials: int,
    seed: int,
    dev_videos: int,
    out: Path | None,
    store: str,
) -> None:
    """Search the options of a labeler over fixed proposals: no training, no features.

    Some training videos are drawn to choose by: the labels' mean tIoU with their ground truth is maximised. At the end
    the labeler as it is and the best are measured on the other training videos, too. Run the same command again to go
    on, or with more --trials to make the search longer.
    """
    from distributed.tuning.label_only import search_labels, text_of
    from tad.commands.stages import read_proposals
    from tad.data.dataset import Dataset
    from tad.files import folder_name

    data = Dataset.open(data_folder)
    found = read_proposals(proposals, data)
    out = out or Path("runs/tune") / folder_name(f"label-{method}-{data.name}-seed{seed}", "study")
    result = search_labels(method, found, data, trials, seed, dev_videos, out.resolve(), store)
    say(text_of(result, method, data_folder, proposals))


class WithLabelOnly(click.Command):
    """`tad tune`, whose recipe may be the word label-only: then it is this command."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        if args[:1] == [label_only.name]:
            return label_only.make_context(f"{info_name} {label_only.name}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)

    def invoke(self, context: click.Context) -> object:
        return super().invoke(context) if context.command is self else context.command.invoke(context)
