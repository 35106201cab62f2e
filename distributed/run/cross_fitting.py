"""A run's operating point: chosen on detections in videos that the detector had not learnt from.

Scores on videos that a model was trained on are too high, and so are thresholds chosen by them. Where the recipe
selects by boundaries of dev videos, detections there are at hand and cost nothing. Else, if the recipe asks for folds,
training videos are dealt into K of them, and detections in each are those of a detector that was trained on the others:
the same recipe, labels and seed. Its proposer, whose scores weigh detections, is trained anew on them, too, and so is
whatever else the detector pulls. The labels are the run's pseudo-labels; no boundary is read.
"""

from __future__ import annotations

import numpy as np

from distributed.engine.engine import Engine
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ambiguous
from tad.evaluation.operating_point import POINT_FILE, TIOU, OperatingPoint
from tad.evaluation.subset import Subset
from tad.methods.roles import Labels
from tad.prepare.stratify import stratified_folds
from tad.recipe.recipe import Recipe
from tad.recipe.rounds import Rounds
from tad.selection.against_labels import judged_by_labels
from tad.stages import Artifact
from tad.words import duration

DEV_SELECTS = ("dev-map", "dev-quality")
"""What selects by boundaries of dev videos: thresholds then cost no further label."""


def check_folds(recipe: Recipe, data: Dataset) -> str | None:
    """What cross-fitting will cost, before any training; None if there is none.

    Raises:
        RunError: there are fewer training videos than folds.
    """
    folds, videos = recipe.operating_point.folds, len(data.videos("train"))
    if not folds:
        return None
    if folds > videos:
        raise RunError(
            f"{data.root}: operating_point.folds: {folds} folds of {videos} training videos cannot be dealt; set "
            f"at most {videos}, or 0 for no operating point"
        )
    return (
        f"operating point: after the rounds, proposer and detector are trained {folds} more times, each time on "
        f"{folds - 1} of {folds} parts of the {videos} training videos"
    )


def operating_point(rounds: Rounds, number: int) -> OperatingPoint | None:
    """The thresholds of a round's detector; None if the recipe asks for none.

    A warning tells where none can be chosen: the run goes on without.
    """
    recipe, engine = rounds.recipe, rounds.engine
    assert isinstance(engine, Engine)
    folds = recipe.operating_point.folds
    if not number or not (folds or recipe.select in DEV_SELECTS):
        return None
    model = rounds.model(number).fingerprint
    try:
        if folds:
            labels = rounds.labels(number)
            ignored = labels.ignored.segments() if labels.ignored is not None else None
            held_out = _held_out(rounds, engine, number, folds)
            judged = judged_by_labels(held_out, labels.segments.segments(), engine.data, ignored, TIOU)
            return OperatingPoint.chosen(judged, number, model, "pseudo-labels", folds)
        protocol = "hrpro" if ambiguous(engine.data) else "anet"
        found = rounds.detections(number, "dev").segments()
        judged = Subset.of_dataset(engine.data, "dev").judge(found, TIOU, protocol)
        return OperatingPoint.chosen(judged, number, model, "dev", 0)
    except DataError as error:
        engine.record.warn(f"no operating point: {error}")
        return None


def keep(point: OperatingPoint, engine: Engine) -> None:
    """Writes it into the run's folder, and says it."""
    engine.record.save(POINT_FILE, point.model_dump(mode="json"))
    engine.record.artifact(engine.record.folder / POINT_FILE)
    common = point.common
    values = {"threshold": common.threshold, "precision": common.precision, "recall": common.recall, "f1": common.f1}
    engine.record.metrics({f"operating_point/{name}": value for name, value in values.items()}, point.round)
    limits = [row.threshold for row in point.classes.values()]
    engine.record.say(
        f"operating point: scores from {min(limits):.3f} to {max(limits):.3f} by class, {common.threshold:.3f} for all "
        f"together; F1 at tIoU {TIOU:g} {100 * common.f1:.1f}, precision {100 * common.precision:.1f}, recall "
        f"{100 * common.recall:.1f} on {point.origin}"
    )


def deal(labels: Segments, data: Dataset, folds: int, seed: int) -> list[list[str]]:
    """The training videos in `folds` parts; each class's pseudo-labels are spread over them as evenly as can be."""
    classes: dict[str, set[int]] = {video: set() for video in data.videos("train")}
    for video, label in zip(labels.video_ids, labels.label_index(data.classes).tolist(), strict=True):
        if video in classes:
            classes[video].add(label)
    return stratified_folds(classes, folds, seed)


def _held_out(rounds: Rounds, engine: Engine, number: int, folds: int) -> Segments:
    """Detections in every training video, by a detector that was trained on the other folds."""
    data = engine.data
    taught = {n: rounds.labels(n) for n in range(1, number + 1)}
    spent = sum(engine.store.meta(rounds.model(n).fingerprint).get("seconds", 0.0) for n in (0, number))
    engine.record.say(
        f"operating point: {folds} more trainings of proposer and detector, about {duration((folds - 1) * spent)} by "
        "the time that those of the run took"
    )
    found = []
    for i, videos in enumerate(deal(taught[number].segments.segments(), data, folds, engine.seed)):
        other = engine.over(data.holding(videos), {"fold": f"{i + 1} of {folds}"})
        given = {n: without(labels, set(videos), engine) for n, labels in taught.items()}
        found.append(Rounds(rounds.recipe, other, given=given).detections(number, "dev").segments())
    return Segments.concat(found)


def without(labels: Labels, videos: set[str], engine: Engine) -> Labels:
    """The labels of all other videos, in the engine's store."""

    def rest(artifact: Artifact, name: str) -> Artifact:
        segments = artifact.segments()
        return engine.adopt(
            segments.filter(np.array([v not in videos for v in segments.video_ids], dtype=bool)),
            f"{name} of other folds",
        )

    ignored = rest(labels.ignored, "ignored stretches") if labels.ignored is not None else None
    return Labels(rest(labels.segments, "labels"), ignored)
