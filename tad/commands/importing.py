"""tad import: published datasets, other code bases' layouts and tables of one's own become dataset folders."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tad.commands.numbers import FRAMES, OFFSET, RATE, ROWS, VIDEO_RATE, WIDTH
from tad.commands.options import FILE, FOLDER, FORCE, OUT_FOLDER
from tad.commands.say import say

if TYPE_CHECKING:
    from tad.prepare.importer import Imported

Command = Callable[..., None]


@click.group("import")
def import_() -> None:
    """Make a dataset folder of a published dataset, another code base's layout, or your own table."""


def importer(grid: tuple[str, float, float] | None = None, src: click.Path = FOLDER) -> Callable[[Command], Command]:
    """A command that calls `tad.prepare.import_NAME.import_NAME`, with the arguments and options of every importer.

    Args:
        grid: fps, stride and window of the layout's usual features; None if the user has no choice.
        src: what SRC is.
    """
    shared = [*(_grid(*grid) if grid is not None else ()), *_FEATURES, *_COMMON, click.argument("src", type=src)]

    def decorate(described: Command) -> Command:
        @functools.wraps(described)
        def run(out: Path, **options: Any) -> None:
            from tad.prepare.feature_files import Lookup

            keys = ("feature_dir", "feature_pattern", "key", "transpose")
            options["files"] = Lookup(*(options.pop(key) for key in keys))
            if "train_subset" in options:
                chosen = {role: options.pop(f"{role}_subset") for role in ("train", "dev", "test")}
                options["subsets"] = {name: role for role, names in chosen.items() for name in names} or None
            name = f"import_{described.__name__}"
            report(out, getattr(importlib.import_module(f"tad.prepare.{name}"), name)(out=out, **options))

        import_.command()(_decorated(run, shared))
        return described

    return decorate


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


def _decorated(command: Command, options: Any) -> Command:
    for decorate in options:
        command = decorate(command)
    return command


def _grid(fps: str, stride: float, window: float) -> Any:
    rate = "Rate of the frames that stride and window count; `native` takes each video's own."
    shown: dict[str, Any] = {"show_default": True}
    return (
        click.option("--length", type=ROWS, help="Rows of features that were resized in time."),
        click.option("--offset", type=OFFSET, default=0, help="Frame at which the first window begins.", **shown),
        click.option("--window", type=FRAMES, default=window, help="Frames that one row sees.", **shown),
        click.option("--stride", type=FRAMES, default=stride, help="Frames from one row to the next.", **shown),
        click.option("--fps", type=RATE, default=fps, help=rate, **shown),
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
_SUBSETS = (
    click.option("--test-subset", multiple=True, help="Subset for testing."),
    click.option("--dev-subset", multiple=True, help="Subset for development."),
    click.option("--train-subset", multiple=True, help="Subset for training  [default: by its name]"),
    click.option(
        "--block", help="List of videos to ignore, in SRC  [default: missing_files.txt or another usual name]"
    ),
)


def _subsets(command: Command) -> Command:
    """Options that say which subsets have which role, and which videos none."""
    return _decorated(command, _SUBSETS)


@importer()
@click.option("--points", help="File in SRC/point_labels, where there are several.")
def hrpro() -> None:
    """HR-Pro and LACP: gt_full.json, points, splits.

    SRC holds gt_full.json, point_labels/, split_*.txt and features/{train,test}/.
    """


@importer(("native", 4, 16))
@click.option("--annotations", multiple=True, help="Annotation file in SRC  [default: found]")
@click.option(
    "--classes", help="Class list in SRC  [default: category_idx.txt or classes.txt, there or in annotations/]"
)
@_subsets
def opentad() -> None:
    """OpenTAD, ActionFormer, MMAction2.

    SRC holds annotation files, a class list, features and a block list.
    """


@importer(("30", 16, 32))
@click.option("--task", type=click.Choice(["verb", "noun"]), required=True, help="What is detected.")
@click.option("--train", help="Annotation file in SRC  [default: EPIC_100_train.csv or training.csv]")
@click.option("--test", help="Annotation file in SRC  [default: EPIC_100_validation.csv or validation.csv]")
@click.option("--classes", help="Class list in SRC  [default: EPIC_100_verb_classes.csv or EPIC_100_noun_classes.csv]")
def epic() -> None:
    """EPIC-KITCHENS-100, verbs or nouns.

    SRC holds its CSV files; its validation set tests.
    """


def _names(_: click.Context, __: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


@importer(("native", 4, 16), src=FILE)
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
@click.option("--columns", callback=_names, help="Of a file without a header: video,time,label, say.")
@click.option(
    "--unit", type=click.Choice(["seconds", "frames", "ms"]), help="Unit of times  [default: by the columns, or found]"
)
@click.option("--video-fps", type=VIDEO_RATE, help="Frames a second of the videos, where no table has them.")
@click.option("--subset", default="train", show_default=True, help="Subset of videos, where no table has one.")
def csv() -> None:
    """A table of your own.

    A row for each action, with video, label, start, end; or video, label, time; or video, label.

    SRC is a CSV file with a header. Subset, duration and fps may be columns of it, or of the table of --videos. Feature
    files are looked for in features/ beside it, or in --feature-dir.
    """


@importer(("native", 16, 16))
@click.option("--annotations", help="Annotation file in SRC  [default: the only one there]")
@click.option("--classes", type=FILE, help="Class list, a name a line  [default: the taxonomy of the file]")
@_subsets
def activitynet() -> None:
    """ActivityNet 1.2, 1.3, HACS Segments.

    SRC holds the official file; the validation set tests.
    """


@importer(("native", 16, 16))
@click.option("--points", type=FILE, help="Clicks of SF-Net: lines video,second,label.")
def wtalc() -> None:
    """W-TALC, SF-Net and their successors.

    SRC holds classlist.npy, videoname.npy, segments.npy and more.
    """
