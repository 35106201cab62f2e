"""tad import: published datasets, other code bases' layouts and tables of one's own become dataset folders."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.numbers import FRAMES, OFFSET, RATE, ROWS, VIDEO_RATE, WIDTH
from tad.commands.options import FILE, FOLDER, FORCE, OUT_FOLDER
from tad.commands.say import say

if TYPE_CHECKING:
    from tad.prepare.imported import Imported


@click.group("import")
def import_() -> None:
    """Make a dataset folder of a published dataset, another code base's layout, or your own table."""


def common(command: Callable[..., Imported], src: click.Path = FOLDER) -> Callable[..., None]:
    """Arguments and options of every importer; prints what it returns.

    The importer gets `src`, `out`, `name`, `dim`, `force`, `features` (link, copy or none) and `files` (a Lookup).
    """

    @functools.wraps(command)
    def run(
        out: Path,
        feature_dir: str | None,
        feature_pattern: str | None,
        key: str | None,
        transpose: bool,
        **options: Any,
    ) -> None:
        from tad.prepare.feature_files import Lookup

        report(out, command(out=out, files=Lookup(feature_dir, feature_pattern, key, transpose), **options))

    return _decorated(run, (*_FEATURES, *_COMMON, click.argument("src", type=src)))


def grid(fps: str, stride: float, window: float) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Options of the feature grid, with the defaults of a layout."""

    options = (
        click.option("--length", type=ROWS, help="Rows of features that were resized in time."),
        click.option(
            "--offset", type=OFFSET, default=0, show_default=True, help="Frame at which the first window begins."
        ),
        click.option("--window", type=FRAMES, default=window, show_default=True, help="Frames that one row sees."),
        click.option(
            "--stride", type=FRAMES, default=stride, show_default=True, help="Frames from one row to the next."
        ),
        click.option(
            "--fps",
            type=RATE,
            default=fps,
            show_default=True,
            help="Rate of the frames that stride and window count; `native` takes each video's own.",
        ),
    )
    return lambda command: _decorated(command, options)


def _subset_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say which subsets have which role; the importer gets `subsets`, None for its own rule."""

    @functools.wraps(command)
    def run(
        train_subset: tuple[str, ...], dev_subset: tuple[str, ...], test_subset: tuple[str, ...], **options: Any
    ) -> Any:
        chosen = {"train": train_subset, "dev": dev_subset, "test": test_subset}
        subsets = {name: role for role, names in chosen.items() for name in names}
        return command(subsets=subsets or None, **options)

    return _decorated(run, _SUBSETS)


def _decorated(command: Callable[..., Any], options: Any) -> Callable[..., Any]:
    for decorate in options:
        command = decorate(command)
    return command


_SUBSETS = (
    click.option("--test-subset", multiple=True, help="Subset for testing."),
    click.option("--dev-subset", multiple=True, help="Subset for development."),
    click.option("--train-subset", multiple=True, help="Subset for training  [default: by its name]"),
)
_FEATURES = (
    click.option("--transpose", is_flag=True, help="The feature files hold [D, T]."),
    click.option("--key", help="Name of the features in .npz, .pt or .h5 files that hold several arrays."),
    click.option(
        "--feature-pattern",
        metavar="PATTERN",
        help="Names of the feature files, such as 'v_{id}.npy' or '{stream}/{id}.npz' (rgb and flow, joined)  "
        "[default: found, if one pattern explains the files]",
    ),
    click.option(
        "--feature-dir", metavar="PATH", help="Feature folder, in SRC or anywhere; or one file that holds all videos."
    ),
    click.option(
        "--features",
        type=click.Choice(["link", "copy", "none"]),
        default="link",
        show_default=True,
        help="What to do with plain .npy files. All others are converted once; none takes no features.",
    ),
)
_COMMON = (
    FORCE,
    click.option("--dim", type=WIDTH, help="Width of the features  [default: that of the files, or the usual one]"),
    click.option("--name", help="Name of the dataset  [default: that of SRC]"),
    click.argument("out", type=OUT_FOLDER),
)


def report(out: Path, imported: Imported) -> None:
    """Prints what an import did: warnings to stderr."""
    for text in imported.warnings:
        say(f"warning: {text}", err=True)
    for text in imported.notes:
        say(text)
    videos = ", ".join(f"{count} {role}" for role, count in imported.videos.items())
    say(f"{out}: {videos} videos, {imported.points} points, {imported.features} feature files")
    if not imported.features:
        say(f"no features: put them into {out / 'features'}, or run `tad synth {out}`")


@import_.command("hrpro")
@common
@click.option("--points", help="File in SRC/point_labels, where there are several.")
def hrpro(**options: Any) -> Imported:
    """HR-Pro and LACP: gt_full.json, points, splits.

    SRC holds gt_full.json, point_labels/, split_*.txt and features/{train,test}/.
    """
    from tad.prepare.import_hrpro import import_hrpro

    return import_hrpro(**options)


@import_.command("opentad")
@common
@grid("native", 4, 16)
@click.option("--annotations", multiple=True, help="Annotation file in SRC  [default: found]")
@click.option(
    "--classes", help="Class list in SRC  [default: category_idx.txt or classes.txt, there or in annotations/]"
)
@click.option("--block", help="List of videos to ignore, in SRC  [default: missing_files.txt or another usual name]")
@_subset_options
def opentad(**options: Any) -> Imported:
    """OpenTAD, ActionFormer, MMAction2.

    SRC holds annotation files, a class list, features and a block list.
    """
    from tad.prepare.import_opentad import import_opentad

    return import_opentad(**options)


@import_.command("epic")
@common
@grid("30", 16, 32)
@click.option("--task", type=click.Choice(["verb", "noun"]), required=True, help="What is detected.")
@click.option("--train", help="Annotation file in SRC  [default: EPIC_100_train.csv or training.csv]")
@click.option("--test", help="Annotation file in SRC  [default: EPIC_100_validation.csv or validation.csv]")
@click.option("--classes", help="Class list in SRC  [default: EPIC_100_verb_classes.csv or EPIC_100_noun_classes.csv]")
def epic(**options: Any) -> Imported:
    """EPIC-KITCHENS-100, verbs or nouns.

    SRC holds its CSV files; its validation set tests.
    """
    from tad.prepare.import_epic import import_epic

    return import_epic(**options)


@import_.command("csv")
@functools.partial(common, src=FILE)
@grid("native", 4, 16)
@click.option(
    "--as",
    "kind",
    type=click.Choice(["annotations", "full", "points", "classes"]),
    help="What the table is: ground truth; the same, and full labels for training; points; classes of videos  "
    "[default: by its columns]",
)
@click.option("--points", type=FILE, help="Another table, with points: video, label, time.")
@click.option("--videos", type=FILE, help="Table of videos: video, duration in seconds, and fps, subset if known.")
@click.option("--classes", type=FILE, help="Class list, a name a line  [default: the labels by the alphabet]")
@click.option("--columns", callback=lambda *a: _names(a[2]), help="Of a file without a header: video,time,label, say.")
@click.option(
    "--unit", type=click.Choice(["seconds", "frames", "ms"]), help="Unit of times  [default: by the columns, or found]"
)
@click.option("--video-fps", type=VIDEO_RATE, help="Frames a second of the videos, where no table has them.")
@click.option("--subset", default="train", show_default=True, help="Subset of videos, where no table has one.")
def csv(**options: Any) -> Imported:
    """A table of your own.

    A row for each action, with video, label, start, end; or video, label, time; or video, label.

    SRC is a CSV file with a header. Subset, duration and fps may be columns of it, or of the table of --videos. Feature
    files are looked for in features/ beside it, or in --feature-dir.
    """
    from tad.prepare.import_csv import import_csv

    return import_csv(**options)


def _names(value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


@import_.command("activitynet")
@common
@grid("native", 16, 16)
@click.option("--annotations", help="Annotation file in SRC  [default: the only one there]")
@click.option("--classes", type=FILE, help="Class list, a name a line  [default: the taxonomy of the file]")
@click.option("--block", help="List of videos to ignore, in SRC  [default: missing_files.txt or another usual name]")
@_subset_options
def activitynet(**options: Any) -> Imported:
    """ActivityNet 1.2, 1.3, HACS Segments.

    SRC holds the official file; the validation set tests.
    """
    from tad.prepare.import_activitynet import import_activitynet

    return import_activitynet(**options)


@import_.command("wtalc")
@common
@grid("native", 16, 16)
@click.option("--points", type=FILE, help="Clicks of SF-Net: lines video,second,label.")
def wtalc(**options: Any) -> Imported:
    """W-TALC, SF-Net and their successors.

    SRC holds classlist.npy, videoname.npy, segments.npy and more.
    """
    from tad.prepare.import_wtalc import import_wtalc

    return import_wtalc(**options)
