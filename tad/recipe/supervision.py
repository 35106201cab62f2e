"""Whether the methods of a recipe can use the labels of a dataset; docs/supervision.md has the whole table."""

from __future__ import annotations

from collections import Counter

from tad.data.dataset import Dataset
from tad.methods.apl.icd import bank_problems
from tad.methods.snippet.training import not_taught
from tad.recipe.recipe import Labeler, Recipe


def label_problems(recipe: Recipe, data: Dataset) -> list[str]:
    """Why the recipe cannot be trained on the labels that the training videos have; nothing if it can."""
    kinds = Counter(data.supervision(v) for v in data.videos("train"))
    usable = recipe.proposer.training.usable
    problems = [] if any(kinds[kind] for kind in usable) else [not_taught(kinds, usable)]
    if recipe.rounds:
        problems += labeler_problems(recipe.labeler, data)
        weighed = recipe.detector.method == "actionformer" and recipe.detector.unlabelled_weight is not None
        if weighed and not kinds["full"]:
            problems.append(
                "detector.unlabelled_weight weighs videos beside fully labelled ones, and none of the "
                f"{kinds.total()} training videos has full labels; add full_labels.csv, or set it to null"
            )
    return problems


def labeler_problems(labeler: Labeler, data: Dataset) -> list[str]:
    """Why the labeler cannot label the training videos."""
    if labeler.method == "apl":
        return bank_problems(data) if labeler.icd.use else []
    if not labeler.wants_points or _pointed(data):
        return []
    return [
        f"no training video has a point, and labeler {labeler.method} makes one pseudo-label for every point; use "
        "labeler gaufuse or pser-weak, which need classes alone, or mixed, which takes labels of all kinds; or add "
        "points.csv"
    ]


def label_warnings(recipe: Recipe, data: Dataset) -> list[str]:
    """Which labels the recipe makes no use of, in words."""
    train = data.videos("train")
    warnings = []
    kinds, usable = Counter(data.supervision(v) for v in train), recipe.proposer.training.usable
    weaker = kinds["points"] + kinds["classes"]
    if usable == ("full",) and weaker:
        warnings.append(
            f"{weaker} of {len(train)} training videos have points or classes, which teach proposer "
            f"{recipe.proposer.method} nothing: it learns from boundaries alone"
        )
    elif kinds["classes"] and "classes" not in usable:
        warnings.append(
            f"{kinds['classes']} of {len(train)} training videos have classes alone, which teach the proposer nothing "
            "while proposer.training.video_weight is 0"
        )
    bare = len(train) - _pointed(data)
    if recipe.rounds and recipe.labeler.wants_points and bare:
        warnings.append(
            f"{bare} of {len(train)} training videos have no point and get no pseudo-label of labeler "
            f"{recipe.labeler.method}; labeler mixed labels them by what they have"
        )
    return warnings


def _pointed(data: Dataset) -> int:
    """Training videos that have a point."""
    return sum(len(data.points(video).time) > 0 for video in data.videos("train"))
