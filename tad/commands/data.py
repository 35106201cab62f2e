"""tad check, split, resize, synth, export: dataset folders."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.numbers import NO_VIDEOS_OR_MORE, ROWS, SEED, SHARE, VIDEOS, Number
from tad.commands.options import FOLDER, FORCE, NO_CHECK, OUT_FOLDER, DatasetType
from tad.commands.say import say

if TYPE_CHECKING:
    from tad.prepare.relabel import Kind, Mode


@click.command()
@click.argument("dataset", type=DatasetType())
def check(dataset: Path | str) -> None:
    """List every problem of a dataset. Exits 1 if there are errors, 0 if there are only warnings.

    DATASET is a folder, s3:// or gs://; from there all files are fetched into the cache, as training does.
    """
    from tqdm import tqdm

    from tad.data.findings import summary
    from tad.prepare.check import check as findings_of

    findings = findings_of(dataset, lambda p: tqdm(p, desc="features", unit="file", disable=not sys.stderr.isatty()))
    say(summary(findings))
    if any(f.severity == "error" for f in findings):
        sys.exit(1)


@click.command()
@click.argument("dataset", type=FOLDER)
@click.option("--dev", type=SHARE, metavar="SHARE", help="Share of the training videos that get the role dev.")
@click.option("--hide-points", type=SHARE, metavar="SHARE", help="Share of the training points that is held out.")
@click.option("--labelled", type=SHARE, metavar="SHARE", help="Share of the training videos that get full labels.")
@click.option(
    "--mode",
    type=click.Choice(["stratified", "uniform"]),
    help="Of --labelled: every class gets a labelled video, or videos are drawn regardless  [default: stratified]",
)
@click.option(
    "--others",
    type=click.Choice(["none", "points", "classes", "keep"]),
    help="Of --labelled: what the other training videos are left with  [default: none]",
)
@click.option("--kfold", type=int, metavar="K", help="Number of folds, at least 2.")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--out", type=OUT_FOLDER, required=True, help="The folder to write; of folds, the one around fold-0, ...")
@click.option("--pool", is_flag=True, help="Fold the test videos, too: cross-validation over all videos.")
@FORCE
def split(
    dataset: Path,
    dev: float | None,
    hide_points: float | None,
    labelled: float | None,
    mode: Mode | None,
    others: Kind | None,
    kfold: int | None,
    seed: int,
    out: Path,
    pool: bool,
    force: bool,
) -> None:
    """Hold something out of the training videos to choose by, or label a few; test videos stay untouched.

    --dev and --hide-points write one dataset folder. With --dev a share of the training videos, stratified by class,
    gets the role dev; with --hide-points a share of the training points goes to a file that training does not read.
    Both are recorded in dataset.yaml.

    --labelled writes one dataset folder, too: a share of the training videos gets its annotated boundaries as labels
    (full_labels.csv), the others lose theirs. labelled.json lists both. To choose by some of the labelled videos, split
    that folder again with --dev.

    --kfold writes K folders, for datasets on which one split is too noisy. The training videos are dealt into K folds,
    stratified by class. In fold-i those of fold i have the role dev, the others train. With --pool the test videos are
    dealt, too, and fold i is tested on: such numbers cannot be compared with those on the official split. Features are
    linked.
    """
    from tad.data.dataset import Dataset
    from tad.prepare.relabel import split_labelled
    from tad.prepare.split import holdout_summary, kfold_summary, split_holdout, split_kfold

    single = dev is not None or hide_points is not None
    if single + (kfold is not None) + (labelled is not None) != 1:
        raise click.UsageError("give one of --kfold, --labelled, and --dev or --hide-points or both")
    if (mode or others) and labelled is None:
        raise click.UsageError("--mode and --others go with --labelled")
    if pool and kfold is None:
        raise click.UsageError("--pool goes with --kfold")
    data = Dataset.open(dataset)
    if labelled is not None:
        say(str(split_labelled(data, labelled, mode or "stratified", seed, out, others=others or "none", force=force)))
    elif kfold is not None:
        say(kfold_summary(split_kfold(data, kfold, seed, out, pool=pool, force=force)))
    else:
        say(holdout_summary(split_holdout(data, dev, hide_points, seed, out, force=force)))


@click.command()
@click.argument("src", type=FOLDER)
@click.argument("out", type=OUT_FOLDER)
@click.option("--rows", type=ROWS, required=True, help="Rows of every feature file; published: 100, 160, 192.")
@NO_CHECK
@FORCE
def resize(src: Path, out: Path, rows: int, no_check: bool, force: bool) -> None:
    """Write SRC with its features resized in time to OUT: as many rows for every video, short or long.

    Rows are interpolated linearly at evenly spaced times of the video, as published on ActivityNet. SRC is only read.
    Labels stay what they are, and further features are linked.
    """
    from tqdm import tqdm

    from tad.data.dataset import Dataset
    from tad.prepare.resize import resize as write

    def progress(videos: Iterable[str]) -> Iterable[str]:
        return tqdm(videos, desc="resizing", unit="file", disable=not sys.stderr.isatty())

    say(str(write(Dataset.open(src), rows, out, check=not no_check, force=force, progress=progress)))


@click.command()
@click.argument("dataset", type=OUT_FOLDER)
@click.option("--dim", type=click.IntRange(2, 65_536), help="Width  [default: that of dataset.yaml; 128 if invented]")
@click.option("--seed", type=SEED, default=0, show_default=True)
@click.option("--difficulty", type=Number(0, 1), default=0.5, show_default=True, help="0 easy, 1 hard.")
@click.option(
    "--jitter",
    type=Number(0, 1),
    metavar="SHARE",
    help="How far from its annotated boundaries an action begins and ends in the features: standard deviation, share "
    "of its length  [default: by --difficulty, 0.04 to 0.28]",
)
@click.option(
    "--edge-drop",
    type=Number(0, 1),
    metavar="SHARE",
    help="How much weaker an action is at its two ends than in the middle  [default: by --difficulty, 0.3 to 0.9]",
)
@click.option(
    "--context",
    type=Number(0, 1),
    metavar="SHARE",
    help="How far the background is pulled towards the video's actions  [default: by --difficulty, 0.1 to 0.7]",
)
@click.option("--videos", type=VIDEOS, help="Invented: training videos  [default: 24]")
@click.option("--test", type=NO_VIDEOS_OR_MORE, help="Invented: test videos  [default: half of --videos]")
@click.option("--dev", type=NO_VIDEOS_OR_MORE, help="Invented: development videos  [default: 0]")
@click.option("--classes", type=click.IntRange(1, 10_000), help="Invented: number of classes  [default: 5]")
@click.option(
    "--finer",
    type=click.IntRange(2, 16),
    metavar="N",
    help='Invented: further features "finer", with N rows for one of the usual ones  [default: none]',
)
@click.option("--force", is_flag=True, help="Replace synthetic features, or a dataset that was invented; no other.")
def synth(
    dataset: Path,
    dim: int | None,
    seed: int,
    difficulty: float,
    jitter: float | None,
    edge_drop: float | None,
    context: float | None,
    force: bool,
    **counts: int | None,
) -> None:
    """Write synthetic features for a dataset folder; without a dataset, invent its annotations, too."""
    from tad.prepare.synth import make_dataset, write_features
    from tad.prepare.synth_world import Cues

    cues = Cues(jitter, edge_drop, context)
    given: dict[str, Any] = {k: v for k, v in counts.items() if v is not None}
    if given or not (dataset / "dataset.yaml").is_file():
        if dim is not None:
            given["dim"] = dim
        data = make_dataset(dataset, seed=seed, difficulty=difficulty, cues=cues, force=force, **given)
        say(f"{dataset}: invented {len(data.videos_by_id)} videos of {len(data.classes)} classes")
    else:
        count = write_features(dataset, dim=dim, seed=seed, difficulty=difficulty, cues=cues, force=force)
        say(f"{dataset}: wrote the features of {count} videos")


@click.group()
def export() -> None:
    """Write pseudo-labels in the format of another toolbox."""


@export.command("opentad")
@click.option("--labels", type=click.Path(path_type=Path), required=True, help="Pseudo-labels, .parquet or .json.")
@click.option("--data", type=FOLDER, required=True, help="Dataset folder.")
@click.option("--out", type=OUT_FOLDER, required=True, help="Where to write.")
@FORCE
def export_to_opentad(labels: Path, data: Path, out: Path, force: bool) -> None:
    """An OpenTAD annotation file whose training videos hold the pseudo-labels and no ground truth."""
    from tad.data.dataset import Dataset
    from tad.data.segments import Segments
    from tad.prepare.export import export_opentad

    dataset = Dataset.open(data)
    found = Segments.from_file(labels, dict(enumerate(dataset.classes)))
    written = export_opentad(found, dataset, out, force=force)
    videos = ", ".join(f"{count} {subset}" for subset, count in written.videos.items())
    say(f"{written.annotations}: {videos} videos, {written.labels} pseudo-labels, {written.dropped} dropped")
