"""`tad label` and `tad detect`: one role at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.numbers import ROUNDS
from tad.commands.options import DATA, NO_CHECK, shared_options
from tad.commands.say import say

if TYPE_CHECKING:
    pass


def write_segments(segments: Any, out: Path) -> None:
    """To .parquet, or else to ActivityNet JSON; written whole."""
    from tad.files import whole

    with whole(out) as temporary:
        if out.suffix == ".parquet":
            segments.to_parquet(temporary)
        else:
            segments.to_json_file(temporary)
    say(f"{len(segments)} segments written to {out}")


class Labeler(click.ParamType):
    """The name of a labeler, also of an installed package."""

    name = "labeler"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from tad.recipe.methods import registered

        known = registered("labeler")
        return value if value in known else self.fail(f"no labeler {value}; known: {', '.join(known)}", param, ctx)


@click.command()
@click.argument("method", type=Labeler())
@DATA
@click.option("--proposals", type=click.Path(path_type=Path), required=True, help="ActivityNet JSON or Parquet.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Pseudo-labels: .json or .parquet.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="For instance bag.scales=[0.5,1,1.5].")
@NO_CHECK
@shared_options
def label(
    method: str,
    data_folder: Path | str,
    proposals: Path,
    out: Path,
    overrides: tuple[str, ...],
    no_check: bool,
    **more: Any,
) -> None:
    """Turn any method's proposals on the training videos into pseudo-labels, with points one for each.

    pser-seed and hrpro take the best proposal around each point. potloc is POTLoc's Algorithm 1; rule=released and
    rule=paper are its published forms. points learns from all videos where points lie in actions. pser refines the
    seeds on the dataset's features, and as points does where it has none; these others need no features. gaufuse fuses
    all proposals of a video's classes, and needs no points; nor does mixed, which takes each video's best labels. It is
    a run of one round with proposer file.
    """
    from distributed.run.session import Options, one_off
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.errors import DataError
    from tad.prepare.check_features import require_features
    from tad.recipe.recipe import changed, load_recipe
    from tad.recipe.rounds import Rounds

    out = file_to_write(out, keep=[data_folder, proposals])
    data = Dataset.open(data_folder)
    recipe = load_recipe("seeds", [f"labeler.method={method}", *(f"labeler.{o}" for o in overrides)])
    recipe = changed(recipe, {"proposer": {"method": "file", "path": str(proposals)}})
    for view in () if no_check else recipe.views(data, detector=False):
        require_features(view, ["train"])
    if problems := recipe.problems(data):
        raise DataError(f"{data.root}: {'; '.join(problems)}")
    for text in recipe.warnings(data):
        say(f"warning: {text}", err=True)
    options = Options(out=Path("runs/commands"), **more)
    with one_off(data, options) as engine:
        labels = Rounds(recipe, engine).labels(1)
        if labels.note is not None:
            say(labels.note(), err=True)
        segments = labels.segments.segments()
    write_segments(segments, out)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@DATA
@click.option("--subset", type=click.Choice(["train", "dev", "test"]), default="test", show_default=True)
@click.option("--round", "number", type=ROUNDS, default=None, help="Round whose detector to use.  [default: the best]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Detections: .json or .parquet.")
@click.option(
    "--confident",
    is_flag=True,
    help="Only those that count: of at least their class's threshold in the operating point of RUN.",
)
@NO_CHECK
@shared_options
def detect(
    run_folder: Path,
    data_folder: Path | str,
    subset: Any,
    number: int | None,
    out: Path,
    confident: bool,
    no_check: bool,
    **more: Any,
) -> None:
    """Run the detector that RUN (a folder of `tad run`) trained over videos of any dataset with the same classes.

    Its models are looked for in --store, which must be the run's own store: RUN itself cannot say where to look. RUN
    has an operating point if it was asked for: `tad run ... --set operating_point.folds=3`.
    """
    from distributed.run.session import Options, one_off
    from distributed.run.trained import trained
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.evaluation.operating_point import read_operating_point
    from tad.prepare.check_features import require_features
    from tad.recipe.rounds import Rounds

    out = file_to_write(out, keep=[data_folder, run_folder])
    data = Dataset.open(data_folder)
    found = trained(run_folder, data, number, more["store"])
    for view in () if no_check else found.recipe.views(data):
        require_features(view, [subset])
    models = {found.round: found.detector.fingerprint}
    point = read_operating_point(run_folder.expanduser(), models, found.round) if confident else None
    options = Options(out=Path("runs/commands"), **more)
    with one_off(data, options) as engine:
        rounds = Rounds(found.recipe, engine, {0: found.proposer, found.round: found.detector})
        detections = rounds.detections(found.round, subset).segments()
    if point is not None:
        every, detections = len(detections), point.confident(detections)
        say(f"{len(detections)} of {every} detections count; thresholds chosen on {point.origin}")
    write_segments(detections, out)
