"""Whether a method can run on the kinds of labels that the training videos have; docs/supervision.md has the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from tad.data.dataset import Dataset
from tad.data.labels import Supervision
from tad.methods.roles import MethodConfig


def untaught(data: Dataset, usable: Collection[Supervision]) -> list[str]:
    """For `problems` of a proposer: that none of the training videos teaches it."""
    kinds = Counter(data.supervision(v) for v in data.videos("train"))
    return [] if any(kinds[kind] for kind in usable) else [not_taught(kinds, usable)]


def unread_labels(data: Dataset, method: str, usable: Collection[Supervision]) -> list[str]:
    """For `warnings` of a proposer: which labels teach it nothing."""
    kinds = Counter(data.supervision(v) for v in data.videos("train"))
    weaker = kinds["points"] + kinds["classes"]
    if tuple(usable) == ("full",) and weaker:
        return [
            f"{weaker} of {kinds.total()} training videos have points or classes, which teach proposer {method} "
            "nothing: it learns from boundaries alone"
        ]
    if kinds["classes"] and "classes" not in usable:
        return [
            f"{kinds['classes']} of {kinds.total()} training videos have classes alone, which teach the proposer "
            "nothing while proposer.training.video_weight is 0"
        ]
    return []


def not_taught(counts: Mapping[Supervision, int], usable: Collection[Supervision]) -> str:
    """Why none of the videos, `counts` by kind of label, teaches a proposer that learns from the usable kinds."""
    videos = sum(counts.values())
    if "points" not in usable and counts.get("none", 0) < videos:
        return (
            f"none of the {videos} training videos has full labels, and the proposer learns from boundaries alone; "
            "add full_labels.csv, make it with `tad split --labelled` or `tad labels --kind full`, or use another "
            "proposer"
        )
    if not counts.get("classes"):
        return f"none of the {videos} training videos has a label; add points.csv, labels.csv or full_labels.csv"
    return (
        f"{counts['classes']} of the {videos} training videos have classes alone and the others no label, but with "
        f"proposer.training.video_weight 0 the proposer learns from {' and '.join(usable)} only; raise it, or use "
        "proposer rskp"
    )


class PointLabeler(MethodConfig):
    """Base of the labelers that make one pseudo-label for every point."""

    method: str

    def reads_features(self, data: Dataset) -> bool:
        return False

    def problems(self, data: Dataset) -> list[str]:
        if pointed_videos(data):
            return []
        return [
            f"no training video has a point, and labeler {self.method} makes one pseudo-label for every point; use "
            "labeler gaufuse or pser-weak, which need classes alone, or mixed, which takes labels of all kinds; or add "
            "points.csv"
        ]

    def warnings(self, data: Dataset) -> list[str]:
        train = len(data.videos("train"))
        if not (bare := train - pointed_videos(data)):
            return []
        return [
            f"{bare} of {train} training videos have no point and get no pseudo-label of labeler {self.method}; "
            "labeler mixed labels them by what they have"
        ]


def pointed_videos(data: Dataset) -> int:
    """Training videos that have a point."""
    return sum(len(data.points(video).time) > 0 for video in data.videos("train"))
