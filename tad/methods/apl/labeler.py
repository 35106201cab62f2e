"""Labeler `apl`: the best detections in unlabelled videos, checked against the labelled instances of their class.

Source: APL (ECCV 2024), dynamic selection (Eq. 6) and the instance consistency discriminator (Eq. 7 to 10).

| the video has | its pseudo-labels | their source |
|---|---|---|
| full labels | those, as they are, with score 1 | given@ROUND |
| anything else | positives of the selection that the discriminator does not reject | apl/label@ROUND |
| | candidates that it finds like the labelled instances of their class | apl/mined@ROUND |

What was selected and is no label, eliminated positives and candidates that are not mined, are by option stretches of
which a detector may learn neither action nor background: `Labels.ignored` has them.

Stages: `apl/bank` (map) and `apl/icd` (fit), both of round 0, as full labels stay what they are; `apl/select`,
`apl/label` and `apl/ignore` (maps). The discriminator is checked in tad.methods.apl.check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.apl.check import check
from tad.methods.apl.icd import IcdFit, IcdTraining, PoolLabelled, bank_problems, likeness, pooled
from tad.methods.apl.selection import Select, Selection, expected_actions
from tad.methods.common.given_labels import given
from tad.methods.roles import Labels, MethodConfig, Round
from tad.options import group, option
from tad.ranges import Float
from tad.stages import Artifact, Context, StageConfig


class Discriminator(StageConfig):
    """What the likeness to labelled instances of the same class decides."""

    use: bool = option(True, "false: the selection alone")
    alpha: bounds.Fraction = option(
        0.3,
        "positives whose likeness is below are eliminated",
        tune=Float(0.0, 0.5),
        why="paper .3; higher eliminates more positives",
        when=("use", True),
    )
    beta: bounds.Fraction = option(
        0.7,
        "candidates whose likeness is above become labels",
        tune=Float(0.5, 1.0),
        why="paper .7; lower mines more candidates, 1 none",
        when=("use", True),
    )
    training: IcdTraining = group(IcdTraining(), stage="heads")


class LabelConfig(StageConfig):
    """Config of `apl/label`; see `AplLabeler`."""

    alpha: float
    beta: float


class AplLabeler(MethodConfig):
    """Selected detections of the current model as pseudo-labels; their score is the detection's."""

    method: Literal["apl"] = "apl"
    selection: Selection = Selection()
    icd: Discriminator = Discriminator()
    ignore: bool = option(
        False,
        "the detector takes candidates that are not mined and eliminated positives for neither action nor background",
    )

    def problems(self, data: Dataset) -> list[str]:
        if self.icd.use:
            return bank_problems(data)
        if self.selection.least_share == 0 or any(data.supervision(v) == "full" for v in data.videos("train")):
            return []
        return [
            "no training video has full labels, which say how many actions to expect; label some (full_labels.csv), or "
            "set labeler.selection.least_share: 0, which does not ask"
        ]

    def seeds(self, round: Round) -> Artifact:
        """Segments: positives and candidates of the selection, told apart by their source; none of labelled videos."""
        return round.map(Select(self.selection), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: given labels, and pseudo-labels of all other videos; of suppressed detections.

        Raises:
            DataError: the discriminator is used, and the training videos have no full labels of two classes.
        """
        selected = self.seeds(round)
        inputs, once = {"selected": selected}, round.first.training
        if self.icd.use:
            inputs["bank"] = once.map(PoolLabelled())
            inputs["model"] = once.fit(IcdFit(self.icd.training), {"bank": inputs["bank"]})
        labels = round.map(Label(LabelConfig(alpha=self.icd.alpha, beta=self.icd.beta)), inputs)
        ignored = round.map(Undecided(), {"selected": selected, "labels": labels}) if self.ignore else None
        return Labels(
            labels,
            ignored,
            statistics=lambda: self.statistics(round, selected.segments(), labels.segments()),
            note=(lambda: self.sentence(round, selected.segments())) if self.selection.least_share else None,
        )

    def sentence(self, round: Round, selected: Segments) -> str:
        """How the positives compare with the actions to expect, and whether the threshold fell."""
        expected = expected_actions(round.data, round.data.videos(round.role))
        d2 = self.selection.d2(selected.score, expected)
        many = _count(selected, d2)
        said = f"{many} detections reach {d2:.2f}; labelled videos lead to expect {expected:.0f} actions"
        fixed = self.selection.fixed
        return said if d2 == fixed else f"{said}; only {_count(selected, fixed)} reach {fixed:g}, so the threshold fell"

    def statistics(self, round: Round, selected: Segments, labels: Segments) -> dict[str, Any]:
        """What was selected in the training videos that are not fully labelled.

        Args:
            round: of the training videos; the check of the discriminator runs once, in round 0.
            selected: what `seeds` made; labels: what `label` made of it.

        Returns:
            `labels_per_video`; `videos_without` a label; shares of the positives that were `eliminated` and of the
            labels that were `mined`; how many of the selected are `left` as no labels; `mean_d2` (None without a
            detection); `per_class`; `icd`: its `Check`, None where there is none.
        """
        data = round.data
        videos = [v for v in data.videos("train") if data.supervision(v) != "full"]
        found = labels.filter(np.isin(_kind(labels), ["apl/label", "apl/mined"]))
        kept, positives = int((_kind(found) == "apl/label").sum()), int((_kind(selected) == "apl/positive").sum())
        group = self.selection.groups(selected.codes("video_id")[0], selected.label_index(data.classes))
        expected = expected_actions(data, data.videos("train"))
        d2 = [self.selection.d2(selected.score[group == g], expected) for g in np.unique(group)]
        counts = np.bincount(found.label_index(data.classes), minlength=len(data.classes))
        checked = None
        if self.icd.use:
            once = round.first.training
            checked = check(once, once.map(PoolLabelled()), self.icd.training)
        return {
            "labels_per_video": len(found) / max(1, len(videos)),
            "videos_without": len(set(videos) - set(found.codes("video_id")[1])),
            "eliminated": 1 - kept / max(1, positives),
            "mined": (len(found) - kept) / max(1, len(found)),
            "left": len(selected) - len(found),
            "mean_d2": float(np.mean(d2)) if d2 else None,
            "per_class": dict(zip(data.classes, counts.tolist(), strict=True)),
            "icd": checked,
        }


@dataclass(frozen=True)
class Label:
    """Map stage: a video's given labels, or its positives and candidates after the discriminator's verdict.

    Inputs "selected" and, with the discriminator, "model" and "bank".
    """

    config: LabelConfig
    name: str = "apl/label"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data = self.config, context.data
        by_video = context.inputs["selected"].by_video()
        alike, _ = likeness(context) if "model" in context.inputs else (None, None)

        def label(video: str) -> Segments:
            if data.supervision(video) == "full":
                return given(data, video, f"given@{context.round}")
            rows = by_video.get(video, Segments.empty())
            like = None
            if alike and len(rows):
                features = data.features(video)
                vectors = pooled(features, data.grid(video, len(features)), rows.spans)
                like = alike(vectors, rows.label_index(data.classes))
            kept, mined = verdict(_kind(rows) == "apl/positive", like, config)
            kind = np.where(kept, f"apl/label@{context.round}", f"apl/mined@{context.round}")
            return rows.replace(source=kind.tolist()).filter(kept | mined)

        return label


@dataclass(frozen=True)
class Undecided:
    """Map stage: what was selected in a video and is no pseudo-label. Inputs "selected" and "labels"."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "apl/ignore"
    version: int = 3  # also for what detectors make of it, which changed
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        selected, labels = (context.inputs[name].by_video() for name in ("selected", "labels"))

        def undecided(video: str) -> Segments:
            rows = selected.get(video, Segments.empty()).without(labels.get(video, Segments.empty()))
            return rows.replace(source=context.source)

        return undecided


def verdict(positive: np.ndarray, alike: np.ndarray | None, config: LabelConfig) -> tuple[np.ndarray, np.ndarray]:
    """Positives that are kept and candidates that are mined, [N] bool each.

    Args:
        positive: [N] bool; the others are candidates.
        alike: [N] mean probability of being like the labelled instances of the class; None without a discriminator.
    """
    if alike is None:
        return positive, np.zeros_like(positive)
    return positive & (alike >= config.alpha), ~positive & (alike > config.beta)


def _kind(rows: Segments) -> np.ndarray:
    """[N] the source of each row without its round."""
    codes, names = rows.codes("source")
    return np.array([name.rpartition("@")[0] for name in names], dtype=str)[codes] if len(rows) else np.zeros(0, str)


def _count(rows: Segments, score: float) -> int:
    return int((rows.score >= score).sum())
