"""`tad label` and `tad detect`: one role at a time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.numbers import ROUNDS
from tad.commands.options import DATA, NO_CHECK, shared_options
from tad.commands.say import say

if TYPE_CHECKING:
    from tad.data.dataset import Dataset
    from tad.data.segments import Segments


def write_segments(segments: Any, out: Path) -> None:
    """To .parquet, or else to ActivityNet JSON; written whole."""
    from tad.files import whole

    with whole(out) as temporary:
        if out.suffix == ".parquet":
            segments.to_parquet(temporary)
        else:
            segments.to_json_file(temporary)
    say(f"{len(segments)} segments written to {out}")


def read_proposals(path: Path, data: Dataset) -> Segments:
    """Proposals from a file, checked against the dataset's training videos and classes; ids are those of its classes.

    Raises:
        DataError: none is of a training video, or there are unknown classes.
    """
    from tad.data.segments import Segments
    from tad.errors import DataError, few

    found: Segments = Segments.from_file(path, dict(enumerate(data.classes)))
    ids, videos = set(found.codes("video_id")[1]), set(data.videos("train"))
    if not ids & videos:
        raise DataError(
            f"{path}: none of its {len(ids)} videos is a training video of {data.root} "
            f"(for instance {sorted(ids)[:2]} against {sorted(videos)[:2]})"
        )
    unknown = sorted(set(found.codes("label")[1]) - set(data.classes))
    if unknown:
        raise DataError(f"{path}: unknown classes {few(unknown)}; known: {', '.join(data.classes)}")
    if ids - videos:
        text = f"warning: {len(ids - videos)} videos of {path} are no training videos and are left out"
        say(text, err=True)
    return found


@click.command()
@click.argument("method", type=click.Choice(["pser", "pser-seed", "hrpro", "potloc", "points", "gaufuse"]))
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
    seeds on the dataset's features; the others need none. gaufuse fuses all proposals of a video's classes, and needs
    no points.
    """
    from distributed.run.session import Options, one_off
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.errors import DataError
    from tad.prepare.check_features import require_features
    from tad.recipe.recipe import load_labeler
    from tad.recipe.supervision import labeler_problems

    out = file_to_write(out, keep=[data_folder, proposals])
    data = Dataset.open(data_folder)
    labeler = load_labeler(method, overrides)
    if problems := labeler_problems(labeler, data):
        raise DataError(f"{data.root}: {'; '.join(problems)}")
    if method == "pser" and not no_check:
        require_features(data, ["train"])
    found = read_proposals(proposals, data)
    options = Options(out=Path("runs/commands"), **more)
    with one_off(data, options) as engine:
        labels = labeler.label(engine, engine.adopt(found, "proposals"), None).segments()
    write_segments(labels, out)


@click.command()
@click.argument("run_folder", metavar="RUN", type=click.Path(path_type=Path))
@DATA
@click.option("--subset", type=click.Choice(["train", "dev", "test"]), default="test", show_default=True)
@click.option("--round", "number", type=ROUNDS, default=None, help="Round whose detector to use.  [default: the best]")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Detections: .json or .parquet.")
@NO_CHECK
@shared_options
def detect(
    run_folder: Path, data_folder: Path | str, subset: Any, number: int | None, out: Path, no_check: bool, **more: Any
) -> None:
    """Run the detector that RUN (a folder of `tad run`) trained over videos of any dataset with the same classes.

    Its models are looked for in --store, which must be the run's own store: RUN itself cannot say where to look.
    """
    from distributed.run.session import Options, one_off
    from distributed.run.trained import trained
    from tad.commands.output_file import file_to_write
    from tad.data.dataset import Dataset
    from tad.prepare.check_features import require_features

    out = file_to_write(out, keep=[data_folder, run_folder])
    data = Dataset.open(data_folder)
    if not no_check:
        require_features(data, [subset])
    recipe, proposer, detector = trained(run_folder, data, number, more["store"])
    options = Options(out=Path("runs/commands"), **more)
    with one_off(data, options) as engine:
        scores = recipe.proposer.score(engine, proposer, subset)
        candidates = None
        if recipe.detector.wants_candidates:
            candidates = recipe.proposer.propose(engine, scores, subset, suppressed=False)
        detections = recipe.detector.detect(engine, detector, subset, scores, candidates).segments()
    write_segments(detections, out)
