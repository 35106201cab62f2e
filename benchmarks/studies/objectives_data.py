"""Configurations over which scores without boundaries are compared: proposals, detections and pseudo-labels.

Six proposers of different strength, each with twelve ways to make proposals of its curves; a small detector trained on
pseudo-labels of several labelers, two of which make all labels far too long or short; and outputs of both whose lengths
are falsified (`SCALES`), which no option does.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.studies.objectives_designs import Surroundings
from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from tad.data.dataset import Dataset, Role
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.subset import Subset
from tad.methods.actionformer.detector import ActionFormerDetector
from tad.methods.snippet.proposer import SnippetProposer
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.rounds import Rounds

SCALES = (0.25, 0.5, 0.7, 1.4, 2.0, 4.0)


def steps(first: float, last: float, count: int) -> list[float]:
    return [round(float(x), 3) for x in np.linspace(first, last, count)]


PROPOSERS: dict[str, tuple[int, dict[str, Any]]] = {
    "weak": (1, {"epochs": 4, "width": 64}),
    "2 epochs": (0, {"epochs": 2}),
    "5 epochs": (2, {"epochs": 5}),
    "12 epochs": (3, {"epochs": 12}),
    "20 epochs": (0, {"epochs": 20}),
    "mined": (4, {"epochs": 6, "action_rows": "mined"}),
}
"""Seed and training options."""
CANDIDATES: dict[str, dict[str, Any]] = {
    "default": {},
    "short": {"relative": False, "cas_thresholds": steps(0.2, 0.4, 5), "actionness_thresholds": steps(0.7, 0.9, 5)},
    "shorter": {"relative": False, "cas_thresholds": steps(0.4, 0.7, 4), "actionness_thresholds": []},
    "long": {"relative": False, "cas_thresholds": steps(0.01, 0.05, 5), "actionness_thresholds": steps(0.2, 0.4, 5)},
    "longer": {"relative": False, "cas_thresholds": [0.002, 0.005, 0.01], "actionness_thresholds": steps(0.05, 0.2, 4)},
    "actionness .5": {"cas_thresholds": [0.0], "actionness_thresholds": [0.5]},
    "predicted .2": {"train_classes": "predicted", "class_threshold": 0.2},
    "no nms": {"suppression": "none"},
    "hard .2": {"suppression": "nms", "iou_threshold": 0.2},
    "sigma .05": {"sigma": 0.05},
    "margin 1": {"margin": 1.0},
    "late, by video": {"centred": False, "scale": 1, "video_factor": True},
}
PSER = ["refine=bag", "heads.epochs=4"]
LABELERS: dict[str, list[tuple[str, list[str], list[int]]]] = {
    "5 epochs": [
        ("pser-seed", [], [2, 7]),
        ("pser", PSER, [2, 7]),
        ("pser", [*PSER, "bag.scales=[0.4]", "merge.contain_point=false"], [5]),
    ],
    "20 epochs": [
        ("pser-seed", [], [2, 7]),
        ("points", [], [2, 7]),
        ("potloc", ["rule=paper"], [2, 7]),
        ("pser", PSER, [2, 7]),
        ("pser", [*PSER, "bag.scales=[0.4]", "merge.contain_point=false"], [5]),
        ("pser", [*PSER, "bag.scales=[2.5]"], [5]),
        ("pser", [*PSER, "bag.scales=[1.6]"], [5]),
        ("pser", [*PSER, "bag.scales=[0.2]", "merge.contain_point=false"], [5]),
    ],
}
"""By proposer: labeler, options, and the detector's epochs. Bags of one scale falsify the length of all labels."""
DETECTOR: dict[str, Any] = {
    "width": 32,
    "max_length": 96,
    "upsample": 1,
    "levels": 5,
    "batch_size": 2,
    "drop_path": 0.0,
    "input_dropout": 0.1,
}
DECODINGS: dict[str, dict[str, Any]] = {
    "default": {},
    "no video, sigma .1": {"decode": {"video_power": 0.0}, "postprocess": {"sigma": 0.1}},
}


class Configuration(NamedTuple):
    """One way to get detections, and how good they are."""

    name: str
    kind: str
    """proposals, detector, or scaled."""
    base: str
    """Its proposer."""
    detections: Segments
    """In the training videos."""
    around: Surroundings
    train_map: float
    """True mAP of these detections."""
    unseen_map: float | None
    """True mAP of the same configuration on videos that took no part; None for scaled ones."""


def configurations(data: Dataset, work: Path) -> Iterator[Configuration]:
    """All of them, with their artifacts in WORK/store: what is there is not computed again.

    Args:
        data: with held-out points, and videos of the role dev or test.
        work: a folder.
    """
    unseen: Role = "dev" if data.videos("dev") else "test"
    for base, (seed, training) in PROPOSERS.items():
        engine = Engine(data, Store(work / "store"), Record(work / "run"), seed)
        proposer = SnippetProposer.model_validate({"training": training})
        plain = Rounds(Recipe(proposer=proposer), engine)
        model, around = plain.model(0), Surroundings.of(plain.round(0))

        def row(name: str, kind: str, **roles: Any) -> Iterator[Configuration]:
            rounds, number = Rounds(Recipe(**roles), engine, {0: model}), int(kind == "detector")  # noqa: B023
            segments = rounds.detections(number, "train").segments()
            other = rounds.detections(number, unseen).segments()
            values = true_map(segments, data, "train"), true_map(other, data, unseen)
            yield Configuration(f"{base}, {name}", kind, base, segments, around, *values)  # noqa: B023
            if name == "default" or name.endswith("7 epochs, default"):
                for factor in SCALES:
                    changed = scaled(segments, factor, data)
                    value = true_map(changed, data, "train")
                    yield Configuration(f"{base}, {name} x {factor:g}", "scaled", base, changed, around, value, None)  # noqa: B023

        for name, options in CANDIDATES.items():
            variant = SnippetProposer.model_validate({"training": training, "candidates": options})
            yield from row(name, "proposals", proposer=variant)
        for method, options, epochs in LABELERS.get(base, []):
            labeler = load_recipe("seeds", [f"labeler.method={method}", *(f"labeler.{o}" for o in options)]).labeler
            for number in epochs:
                for how, changes in DECODINGS.items():
                    if how != "default" and number < 7:
                        continue
                    training = {**DETECTOR, "epochs": number}
                    detector = ActionFormerDetector.model_validate({"training": training, **changes})
                    named = f"{' '.join([method, *options])}, {number} epochs, {how}"
                    yield from row(named, "detector", proposer=proposer, labeler=labeler, detector=detector)


def true_map(detections: Segments, data: Dataset, role: Role) -> float:
    """mAP .1 to .7 against the ground truth; 0 without detections."""
    try:
        return Subset.of_dataset(data, role).evaluate(detections, protocol="hrpro").average
    except DataError:
        return 0.0


def scaled(segments: Segments, factor: float, data: Dataset) -> Segments:
    """All lengths times a factor, around their centres, cut to the video."""
    middle, half = (segments.start + segments.end) / 2, (segments.end - segments.start) / 2 * factor
    end = np.array([data.duration(v) for v in segments.video_ids])
    return segments.replace(start=np.maximum(middle - half, 0), end=np.minimum(middle + half, end))
