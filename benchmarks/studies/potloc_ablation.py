"""POTLoc's ablations (Tables 2 and 3 of the paper): `python -m benchmarks.studies.potloc_ablation --data DIR`.

Table 2: what supervises the detector (ground truth, pseudo-labels, the proposals as they are, points alone), each with
and without sampling, for the pyramid of attention and for convolutions with the base model's losses. Table 3: levels of
the pyramid. Both show the detector alone, as the paper does; the rows "recipe" blend its curves with the proposer's, as
the recipe `potloc-small` does. Schedules are those of that recipe. The test videos are read once, after the last epoch
of each row. Ground truth teaches the detector in its rows only, never the base.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.studies import ablation
from benchmarks.studies.ablation import Row
from distributed.engine.engine import Engine
from tad.data.dataset import Dataset
from tad.methods.common.candidates import steps
from tad.prepare.relabel import derive_labels, one_kind
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

LABELERS = {"ground truth": "full", "pseudo-labels": "potloc", "proposals": "proposals", "points": "point-snippets"}

# How the detector's own curves are best decoded on held-out videos; blended ones have smaller peaks.
ALONE = (
    "detector.decode.curve_share=0.0",
    f"detector.decode.cas_thresholds={steps(0.05, 0.8, 0.05)}",
    f"detector.decode.actionness_thresholds={steps(0.1, 0.9, 0.05)}",
    "detector.decode.margin=0.15",
    "detector.decode.relative=false",
    "detector.decode.contrast=plain",
    "detector.decode.video_factor=true",
)

# The base model's layers and background rule, on the labels of the row.
CONVOLUTIONS = ("detector.training.levels=1", "detector.training.stem=0", "detector.training.background_rows=published")

EVERYTHING = ("detector.training.radius=null",)

RELEASED = tuple(
    f"proposer.candidates.{name}={json.dumps(value)}"
    for name, value in load_recipe("potloc-released").proposer.model_dump()["candidates"].items()
)


def row(name: str, *changes: str, paper: float | None = None) -> Row:
    return Row(name, "potloc-small", changes, paper)


def supervised(labels: str, attention: tuple[float | None, ...], plain: tuple[float | None, ...]) -> list[Row]:
    """The four rows of Table 2 with one kind of labels; the paper's numbers with and without sampling."""
    taught = (f"labeler.method={LABELERS[labels]}", *ALONE)
    return [
        row(f"attention, {labels}, sampled", *taught, paper=attention[0]),
        row(f"attention, {labels}", *taught, *EVERYTHING, paper=attention[1]),
        row(f"convolutions, {labels}, sampled", *taught, *CONVOLUTIONS, paper=plain[0]),
        row(f"convolutions, {labels}", *taught, *CONVOLUTIONS, *EVERYTHING, paper=plain[1]),
    ]


ROWS = [
    row("base", "rounds=0"),
    row("base, inference as released", "rounds=0", *RELEASED, paper=47.4),
    row("recipe"),
    row("recipe, labeler points", "labeler.method=points"),
    row("recipe, points", "labeler.method=point-snippets", *EVERYTHING),
    *supervised("ground truth", (57.9, 55.4), (50.1, 44.8)),
    *supervised("pseudo-labels", (57.6, 54.1), (49.8, 46.9)),
    row("attention, labeler points, sampled", "labeler.method=points", *ALONE),
    *supervised("proposals", (26.8, 38.3), (28.7, 38.2)),
    # Without an extent there is nothing to sample.
    *(one for one in supervised("points", (None, 52.7), (None, 47.4)) if one.paper),
    *(
        row(f"levels {n}", *ALONE, f"detector.training.levels={n + 1}", paper=paper)
        for n, paper in enumerate((51.9, 54.0, 57.9, 57.8, 57.6, 55.9))
    ),
]


def rounds_of(row: Row, engine: Engine, epochs: int | None, full: Callable[[Dataset], Dataset]) -> Rounds:
    """A row's rounds.

    Args:
        epochs: of the detector; None: those of the recipe.
        full: the dataset with full labels.
    """
    recipe = load_recipe(row.recipe, [*row.changes, *([f"detector.training.epochs={epochs}"] if epochs else [])])
    rounds = Rounds(recipe, engine)
    if recipe.labeler.method != "full":
        return rounds
    knowing = Engine(full(engine.data), engine.store, engine.record, engine.seed)
    return Rounds(recipe, knowing, {0: rounds.model(0)})  # full labels would teach the base, too


def with_full_labels(data: Dataset, folder: Path) -> Dataset:
    """As `tad labels --kind full` gives it."""
    if not folder.exists():
        derive_labels(data, one_kind(data, "full"), folder)
    return Dataset.open(folder)


def main() -> None:
    parser = ablation.arguments(__doc__.splitlines()[0], "runs/potloc-ablation")  # type: ignore[union-attr]
    parser.add_argument("--epochs", type=int, help="of the detector; those of the recipe by default")
    options = parser.parse_args()
    full = partial(with_full_labels, folder=options.work / "full")
    ablation.run(ROWS, partial(rounds_of, epochs=options.epochs, full=full), options)


if __name__ == "__main__":
    main()
