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


EVIDENCE = {
    "actionformer-full": "where all boundaries are known there is nothing to refine (docs/results/real.md)",
    "pser": "on real gestures it has 87.9 mAP where its control, seeds, has 75.2, on real activities 90.7 to 78.8 "
    "(docs/results/real.md)",
    "snippet-apl": "on generated features it has 37.4 mAP where apl has 28.0, with a tenth of the videos labelled "
    "(docs/results/apl.md)",
    "gaufuse-small": "on real gestures it has 21.8 mAP where gaufuse has 16.0, in a fifth of the time "
    "(docs/results/real.md)",
    "mixed": "it alone reads labels of every kind (docs/supervision.md)",
}
"""What speaks for each recipe that can be chosen."""


def choose(data: Dataset) -> Choice:
    """The recipe for the labels of the training videos.

    Raises:
        DataError: none of them has a label.
    """
    counts = data.kinds("train")
    kinds, videos = {kind for kind in counts if kind != "none"}, counts.total()
    if not kinds:
        raise DataError(
            f"{data.place}: none of the {videos} training videos has a label, so no recipe can be chosen; add "
            "points.csv, labels.csv or full_labels.csv"
        )
    if len(kinds) > 1:
        recipe = "mixed"
    elif kinds == {"full"}:
        recipe = "snippet-apl" if counts["none"] else "actionformer-full"
    else:
        recipe = "pser" if kinds == {"points"} else "gaufuse-small"
    found = ", ".join(f"{WORDS[kind]} of {counts[kind]}" for kind in WORDS if counts[kind])
    # Its score of the best round is that of points, unless there are none.
    overrides = ("select=classes",) if recipe == "mixed" and not data.point_count("train") else ()
    return Choice(recipe, f"the {videos} training videos have {found}; {EVIDENCE[recipe]}", overrides)
