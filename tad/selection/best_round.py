"""What picks the best round: whether a dataset has it, and a round's value."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tad.data.dataset import ROLES, Dataset
from tad.errors import RunError
from tad.evaluation.ground_truth import ground_truth
from tad.recipe.recipe import Recipe
from tad.selection.label_free_scores import classes_role


def check_selection(recipe: Recipe, data: Dataset, test: bool = True) -> None:
    """Checks before any training that the selecting score can be had at its end.

    Args:
        recipe: its `select` and `rounds`.
        data: the training and dev videos' annotations are read, too.
        test: whether the test videos' are; a search never does.

    Raises:
        RunError: lists everything that is missing.
        DataError: annotations are malformed.
    """
    problems = recipe.problems(data)
    if recipe.select == "points" and not any(len(data.points(v).time) for v in data.videos("train")):
        problems.append(
            "select: points needs points, and no training video has a point; choose by the classes of videos with "
            "`--set select=classes`, or by dev videos with `--set select=dev-map`"
        )
    if recipe.select == "classes" and classes_role(data) is None:
        problems.append("select: classes needs classes of training or dev videos; labels.csv lists them")
    truth = {role: len(ground_truth(data, role)) for role in ROLES if test or role != "test"}
    if recipe.select == "test" and not test:
        problems.append("select: test reads the test videos, which a search never does; use dev-map, points or classes")
    instead = "points" if any(len(data.points(v).time) for v in data.videos("train")) else "classes"
    if recipe.select in ("dev-map", "dev-quality"):
        dev = data.videos("dev")
        if not dev:
            problems.append(
                f"select: {recipe.select} needs videos with the role dev in dataset.yaml; make some with "
                f"`tad split --dev`, or use select: {instead}"
            )
        elif not truth["dev"]:
            problems.append(
                f"select: {recipe.select} needs annotated segments of the {len(dev)} dev videos in annotations.json; "
                f"use select: {instead}"
            )
        if recipe.select == "dev-quality" and dev and not any(len(data.points(v).time) for v in dev):
            problems.append(
                "select: dev-quality needs points of the dev videos in points.csv, by which their pseudo-labels are "
                "measured; use select: dev-map"
            )
    if recipe.select == "dev-quality" and not recipe.rounds:
        problems.append("select: dev-quality measures pseudo-labels, and rounds: 0 makes none; set rounds to 1 or more")
    if problems:
        raise RunError(f"{data.root}: " + "; ".join(problems))


def best_round(rows: Sequence[dict[str, Any]], select: str) -> int:
    """The round with the best value, not the proposer; of equal ones the first, with `classes`, which saturates, the
    last."""
    earlier = -1 if select != "classes" else 1
    return max(range(1, len(rows)), key=lambda i: (selecting(rows[i], select), earlier * i))


def selecting(row: dict[str, Any], select: str) -> float:
    """The value by which a row of the rounds table is chosen; 0 where it has none."""
    if select == "test":
        return row["test_map"]["average"] if row["test_map"] else 0.0
    return float(row["scores"][select.replace("-", "_")] or 0.0)
