"""Recipe `auto`: the recipe that did best on labels like those of a dataset, and why, in words.

The evidence is what this project has measured; the page that a reason names holds its numbers, and says on which data.
"""

from __future__ import annotations

from typing import NamedTuple

from tad.data.dataset import Dataset
from tad.data.labels import Supervision
from tad.errors import DataError

AUTO = "auto"
DESCRIPTION = (
    "The recipe for the labels that a dataset has; what `tad run` takes without a name, and says which and why"
)
WORDS: dict[Supervision, str] = {
    "full": "all boundaries",
    "points": "points",
    "classes": "classes alone",
    "none": "no label",
}


class Choice(NamedTuple):
    """A recipe that comes with the package.

    Attributes:
        why: one sentence: the labels that were found, and the evidence.
        overrides: what has to be changed in it for these labels.
    """

    recipe: str
    why: str
    overrides: tuple[str, ...] = ()


CHOICES = {
    "full": ("actionformer-full", "where all boundaries are known there is nothing to refine (docs/results/real.md)"),
    "few": (
        "few-full",
        "it labels the others, and with boundaries of a tenth of the videos it has 88.0 and 89.8 mAP on dev videos of "
        "real gestures and activities, the labelled videos alone 82.1 and 85.9 (docs/results/real.md)",
    ),
    "points": (
        "pser",
        "over three kinds of points it has 96.1 and 95.6 mAP on dev videos of real gestures and activities, its "
        "control, seeds, 95.4 and 94.1; with points about the middle seeds is as good (docs/results/real.md)",
    ),
    "classes": (
        "gaufuse-student",
        "on dev videos of real gestures it has 90.0 mAP, its teacher alone 87.5 (docs/results/gaufuse.md)",
    ),
    "several": (
        "mixed",
        "it reads all of them, each video by its strongest; with four kinds it has 95.7 and 94.8 mAP on dev videos of "
        "real gestures and activities, from boundaries and points alone 95.8 and 95.2 (docs/results/real.md)",
    ),
}
"""The recipe for each case, and what speaks for it."""


def choose(data: Dataset) -> Choice:
    """The recipe for the labels of the training videos.

    Raises:
        DataError: none of them has a label.
    """
    counts = data.kinds("train")
    kinds, videos = [kind for kind in WORDS if kind != "none" and counts[kind]], counts.total()
    if not kinds:
        raise DataError(
            f"{data.place}: none of the {videos} training videos has a label, so no recipe can be chosen; add "
            "points.csv, labels.csv or full_labels.csv"
        )
    case = "several" if len(kinds) > 1 else "few" if kinds == ["full"] and counts["none"] else kinds[0]
    recipe, evidence = CHOICES[case]
    found = ", ".join(f"{WORDS[kind]} of {counts[kind]}" for kind in WORDS if counts[kind])
    # Its score of the best round is that of points, unless there are none.
    overrides = ("select=classes",) if case == "several" and not data.point_count("train") else ()
    return Choice(recipe, f"the {videos} training videos have {found}; {evidence}", overrides)
