"""POTLoc's ablations (Tables 2 and 3 of the paper) on a dataset: `python -m benchmarks.studies.potloc_ablation --data
DIR`.

Table 2: what supervises the detector (ground truth, pseudo-labels, the proposals as they are, points alone), each with
and without sampling, for the pyramid of attention and for convolutions with the base model's losses. Table 3: levels of
the pyramid. Both show the detector alone, as the paper does; the rows "recipe" blend its curves with the proposer's, as
the recipe `potloc-small` does. Schedules are those of that recipe. The test videos are read once, after the last epoch
of each row. Ground truth is read for its rows only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from benchmarks.studies import ablation
from distributed.engine.engine import Engine
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.ground_truth import ground_truth
from tad.methods.common.candidates import steps
from tad.methods.points.labeler import PointsLabeler
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.potloc.labeler import PotlocLabeler
from tad.methods.roles import Labeler, Labels
from tad.methods.snippet.proposer import SnippetProposer
from tad.recipe.recipe import load_recipe
from tad.recipe.rounds import Rounds

Supervision = Literal["ground truth", "pseudo-labels", "labeler points", "proposals", "points"]

ALONE: Mapping[str, Any] = {
    "curve_share": 0.0,
    "cas_thresholds": steps(0.05, 0.8, 0.05),
    "actionness_thresholds": steps(0.1, 0.9, 0.05),
    "margin": 0.15,
}
"""How the detector's own curves are best decoded on held-out videos; blended ones have smaller peaks."""

LABELERS: Mapping[str, Labeler] = {"pseudo-labels": PotlocLabeler(), "labeler points": PointsLabeler()}

CONVOLUTIONS: Mapping[str, Any] = {"levels": 1, "stem": 0, "background_rows": "published"}
"""The base model's layers and background rule, on the labels of the row."""


@dataclass(frozen=True)
class Row:
    """One combination. `labels` None: the proposals of the base are the detections, found with `options`.

    `alone`: without the proposer's curves.
    """

    name: str
    labels: Supervision | None
    options: Mapping[str, Any]
    paper: float | None = None
    alone: bool = True


def supervised(labels: Supervision, attention: tuple[float | None, ...], plain: tuple[float | None, ...]) -> list[Row]:
    """The four rows of Table 2 with one kind of labels; the paper's numbers with and without sampling."""
    everything = {"radius": None}
    return [
        Row(f"attention, {labels}, sampled", labels, {}, attention[0]),
        Row(f"attention, {labels}", labels, everything, attention[1]),
        Row(f"convolutions, {labels}, sampled", labels, CONVOLUTIONS, plain[0]),
        Row(f"convolutions, {labels}", labels, CONVOLUTIONS | everything, plain[1]),
    ]


RELEASED = load_recipe("potloc-released").proposer.candidates.model_dump()

ROWS = [
    Row("base", None, {}),
    Row("base, inference as released", None, RELEASED, 47.4),
    Row("recipe", "pseudo-labels", {}, alone=False),
    Row("recipe, labeler points", "labeler points", {}, alone=False),
    Row("recipe, points", "points", {"radius": None}, alone=False),
    *supervised("ground truth", (57.9, 55.4), (50.1, 44.8)),
    *supervised("pseudo-labels", (57.6, 54.1), (49.8, 46.9)),
    Row("attention, labeler points, sampled", "labeler points", {}),
    *supervised("proposals", (26.8, 38.3), (28.7, 38.2)),
    # Without an extent there is nothing to sample.
    *(row for row in supervised("points", (None, 52.7), (None, 47.4)) if row.paper),
    *(
        Row(f"levels {n}", "pseudo-labels", {"levels": n + 1}, paper)
        for n, paper in enumerate((51.9, 54.0, 57.9, 57.8, 57.6, 55.9))
    ),
]


def true_segments(data: Dataset) -> Segments:
    """The ground truth of the training videos, each with its point if it has one."""
    truth = ground_truth(data, "train")
    point = np.full(len(truth), np.nan)
    label, videos = truth.label_index(data.classes), np.array(truth.video_ids)
    for video in data.videos("train"):
        points = data.points(video)
        for time, of_class in zip(points.time, points.label, strict=True):
            hits = (videos == video) & (label == of_class) & (truth.start <= time) & (time <= truth.end)
            point[np.flatnonzero(hits)[:1]] = time
    return truth.replace(point=point)


def annotated_snippets(data: Dataset) -> Segments:
    """The snippet of every point of the training videos as a segment."""
    found = []
    for video in data.videos("train"):
        points = data.points(video)
        grid = data.grid(video, len(data.features(video)))
        rows = grid.row(points.time)
        edges = np.clip(grid.from_edge(np.stack([rows, rows + 1], axis=1)), 0, data.duration(video))
        names = [data.classes[c] for c in points.label]
        found.append(Segments.of(video, edges[:, 0], edges[:, 1], names, 1.0, points.time, "points@0"))
    return Segments.concat(found)


def labels_of(kind: Supervision, rounds: Rounds) -> Labels:
    """What supervises the detector."""
    if kind in LABELERS:
        return rounds.labels(1)
    if kind == "proposals":
        return Labels(rounds.round(1).proposals())
    data = rounds.engine.data
    made = true_segments(data) if kind == "ground truth" else annotated_snippets(data)
    return Labels(rounds.engine.adopt(made, kind))


def evaluate(row: Row, engine: Engine, epochs: int | None) -> list[float]:
    """Test mAP at the protocol's thresholds."""
    recipe = load_recipe("potloc-small")
    base, small = recipe.proposer, recipe.detector
    assert isinstance(small, PotlocDetector) and isinstance(base, SnippetProposer)
    if row.labels is None:
        base = base.model_copy(update={"candidates": base.candidates.model_copy(update=dict(row.options))})
        rounds = Rounds(recipe.model_copy(update={"proposer": base}), engine)
        return ablation.map_on_test(engine, rounds.detections(0, "test").segments())
    options = small.model_dump(exclude={"faithful"})
    options["training"] |= {**row.options} | ({"epochs": epochs} if epochs else {})
    options["decode"] |= ALONE if row.alone else {}
    detector, labeler = PotlocDetector.model_validate(options), LABELERS.get(row.labels, recipe.labeler)
    rounds = Rounds(recipe.model_copy(update={"labeler": labeler, "detector": detector}), engine)
    rounds.models[1] = detector.train(rounds.round(1), labels_of(row.labels, rounds))
    return ablation.map_on_test(engine, rounds.detections(1, "test").segments())


def main() -> None:
    parser = ablation.arguments(__doc__.splitlines()[0], "runs/potloc-ablation")  # type: ignore[union-attr]
    parser.add_argument("--epochs", type=int, help="of the detector; those of the recipe by default")
    options = parser.parse_args()
    ablation.run(ROWS, partial(evaluate, epochs=options.epochs), options)


if __name__ == "__main__":
    main()
