"""How well APL's discriminator tells actions apart, on labelled videos that it did not learn from.

The discriminator that labels learns from all labelled videos, so they cannot say how good it is. Here the same training
is done without one in five of them; on these the likeness (Eq. 10) to the labelled instances of a class is measured:

* of their actions, to their own class and to each other one: which elimination relies on;
* of their actions and of the stretches of background around these, to the class of the action: mining adds what looks
  like its class, so where background does too, it adds what is badly cut.

No label is read that training may not read. Ours; the paper (ECCV 2024) does not check.

Stages: `apl/icd-check` (fit) and `apl/icd-likeness` (map), both of round 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

from tad.data.dataset import Dataset
from tad.methods.apl.icd import IcdFit, IcdTask, IcdTraining, bank_problems, labelled, likeness, pooled
from tad.methods.roles import Round
from tad.stages import Arrays, Artifact, Context, StageConfig

SHARE = 5
"""One labelled video in so many is left out of the training."""


class Check(TypedDict):
    """Areas under the curve: the chance that of a random two the former has the higher likeness; None without any."""

    videos: int
    """Labelled videos that were left out."""
    actions: int
    """In them, of classes that the other labelled videos have."""
    class_auc: float | None
    """Own class against others."""
    background_auc: float | None
    """Action against background."""


def check(round: Round, bank: Artifact, config: IcdTraining) -> Check | None:
    """Trains without some labelled videos and measures on these; None if too few are left to train on.

    Args:
        round: 0, of the training videos.
        bank: of `PoolLabelled`.
        config: of the discriminator.
    """
    left_out = held_out(round.data)
    if not left_out or bank_problems(round.data, left_out):
        return None
    model = round.fit(CheckFit(config), {"bank": bank})
    found = round.map(Likeness(), {"bank": bank, "model": model})
    own, other, around = (
        np.concatenate([found.array(name, video) for video in left_out]) for name in ("own", "other", "around")
    )
    return Check(videos=len(left_out), actions=len(own), class_auc=_auc(own, other), background_auc=_auc(own, around))


def held_out(data: Dataset) -> list[str]:
    """Every fifth of the fully labelled training videos; none of fewer than five."""
    return labelled(data)[SHARE - 1 :: SHARE]


@dataclass(frozen=True)
class CheckFit(IcdFit):
    """The discriminator's training without the videos `held_out`."""

    name: str = "apl/icd-check"

    def open(self, context: Context) -> IcdTask:
        return IcdTask(self.config, context, held_out(context.data))


@dataclass(frozen=True)
class Likeness:
    """Map stage: of a video that was left out the likeness of its G actions to their `own` [G] and each `other` class,
    and of the stretches `around` them; nothing of the others. Classes without a labelled instance do not count.

    Inputs "bank" and "model".
    """

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "apl/icd-likeness"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        data, left_out = context.data, set(held_out(context.data))
        alike, classes = likeness(context, left_out)
        bank = context.inputs["bank"]

        def measure(video: str) -> Arrays:
            full = data.full_labels(video)
            if full is None or video not in left_out:
                return {name: np.zeros(0) for name in ("own", "other", "around")}
            known = np.isin(full.label, classes)
            spans, label, vectors = full.spans[known], full.label[known], bank.array("vectors", video)[known]
            table = np.stack([alike(vectors, np.full(len(label), c)) for c in classes], axis=1)
            own = label[:, None] == classes
            near, of = surroundings(spans, full.spans, data.duration(video))
            features = data.features(video)
            around = alike(pooled(features, data.grid(video, len(features)), near), label[of])
            return {"own": table[own], "other": table[~own], "around": around}

        return measure


def surroundings(spans: np.ndarray, actions: np.ndarray, duration: float) -> tuple[np.ndarray, np.ndarray]:
    """The stretches right before and right after segments, as long as these, that are in the video and touch no action.

    Args:
        spans: [N, 2] seconds; actions: [M, 2]; duration: of the video.

    Returns:
        [K, 2] seconds, and the rows [K] of the segments that they are next to.
    """
    length = (spans[:, 1] - spans[:, 0])[:, None]
    near = np.concatenate([spans - length, spans + length])
    free = (near[:, 0] >= 0) & (near[:, 1] <= duration)
    free &= ~((near[:, None, 0] < actions[:, 1]) & (near[:, None, 1] > actions[:, 0])).any(1)
    return near[free], np.tile(np.arange(len(spans)), 2)[free]


def _auc(higher: np.ndarray, lower: np.ndarray) -> float | None:
    if not len(higher) or not len(lower):
        return None
    ordered = np.sort(lower)
    twice = np.searchsorted(ordered, higher, "left") + np.searchsorted(ordered, higher, "right")  # a tie is half a win
    return float(twice.sum() / (2 * len(higher) * len(lower)))
