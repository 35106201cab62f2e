"""Labeler `gaufuse`: the current model's candidates, fused by Gaussian weighting, are the pseudo-labels.

Source: GauFuse (CVPR 2023), "Gaussian weighted instance fusion" in training, and its released code. It needs no label
but the classes of videos, and works on the candidates of any proposer. Temperatures fall over the rounds: from means of
a group towards its most confident member. By default only the given classes of a video are labelled (the released code
does not look at them), and groups without contrast are dropped. Stages: `gaufuse/fuse`, `gaufuse/seed` (maps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import RunError
from tad.methods.common.candidates import CandidateFusion
from tad.methods.common.seeds import Proposals, inside
from tad.methods.gaufuse.candidates import RELEASED
from tad.methods.roles import Labels, MethodConfig, Round
from tad.ops.fusion import Fused, gaussian_fusion
from tad.ops.grouping import inner_mean
from tad.ops.iou import tiou
from tad.options import group, option
from tad.ranges import Choice, Float
from tad.stages import Artifact, Context, StageConfig

NEAREST = 1e-9
"""A temperature so low that a group becomes its best member."""


class Gate(StageConfig):
    """Which candidates are fused, and which groups become pseudo-labels."""

    classes: Literal["given", "all"] = option(
        "given",
        "given: only the classes that a video's labels name, if it has labels; all: as released, whatever "
        "the proposer found",
        paper="all",
    )
    class_threshold: bounds.Fraction = option(0.0, "classes whose video score is below get no pseudo-label", paper=0.16)
    min_score: bounds.Score | None = option(
        0.0,
        "pseudo-labels have a score above this; null: released, all, also negative ones",
        paper=None,
        tune=Float(0.0, 0.3),
        why="code none; weak groups are mostly background",
    )
    share: bounds.Fraction = option(
        0.0,
        "pseudo-labels have at least this share of the best score of their class in the video; 0: any",
        paper=0.0,
        neutral=0.0,
        tune=Float(0.0, 0.9),
        why="code 0; a video has each of its classes at least once, so the best of each counts",
    )
    rivals: bounds.PositiveFraction | None = option(
        None,
        "a pseudo-label that overlaps a better one of another class by this tIoU is dropped, for where classes "
        "exclude each other; null: none is",
        paper=None,
        neutral=None,
        tune=Choice(None, 0.3, 0.5),
        why="code none; of two classes at one place the better one is right more often",
    )


class FuseConfig(StageConfig):
    """Config of the stages; see `GaufuseLabeler`."""

    fusion: CandidateFusion
    gate: Gate
    released_edges: bool


class GaufuseLabeler(MethodConfig):
    """Fused candidates as pseudo-labels; their score is the fused one."""

    method: Literal["gaufuse"] = "gaufuse"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    temperatures: list[bounds.Temperature] = option(
        [0.02, 0.02, 0.02, 0.002, 0.002, 0.0016],
        "of every round's fusion, the last one for later rounds, too; replaces fusion.temperature",
        min_length=1,
        max_length=bounds.ITEMS,
        paper=[0.02, 0.02, 0.02, 0.002, 0.002, 0.0016],
        free=True,
    )
    fusion: CandidateFusion = group(CandidateFusion(), paper=RELEASED, free=("temperature",))
    released_edges: bool = option(False, "overlaps as if candidates lasted a snippet longer", paper=True, free=True)
    gate: Gate = Gate()

    def reads_features(self, data: Dataset) -> bool:
        return False

    def seeds(self, round: Round) -> Artifact:
        """Segments: the best candidate of each group, from which its fusion starts."""
        fusion = self.fusion.model_copy(update={"temperature": NEAREST, "weight": "confidence"})
        gate = self.gate.model_copy(update={"class_threshold": 0.0})
        config = FuseConfig(fusion=fusion, gate=gate, released_edges=False)
        return round.map(Fuse(config, name="gaufuse/seed"), {"proposals": round.proposals(suppressed=False)})

    def label(self, round: Round) -> Labels:
        """Segments: the fused candidates of the current model, by the temperature of the round.

        Raises:
            RunError: snippet and video scores are needed (fusion.weight: inner, released_edges, gate.class_threshold)
                and missing.
        """
        wanting = {
            "fusion.weight: inner": self.fusion.weight == "inner",
            "released_edges: true": self.released_edges,
            "gate.class_threshold": self.gate.class_threshold > 0,
        }
        inputs = {"proposals": round.proposals(suppressed=False)}
        if any(wanting.values()):
            scores = round.scores()
            if scores is None:
                raise RunError(
                    f"labeler gaufuse: {', '.join(k for k, v in wanting.items() if v)} needs the snippet scores that "
                    "the proposals were made of; use a proposer that is trained, or set fusion.weight: confidence and "
                    "leave the others out"
                )
            inputs["scores"] = scores
        temperature = self.temperatures[min(max(round.number, 1), len(self.temperatures)) - 1]
        config = FuseConfig(
            fusion=self.fusion.model_copy(update={"temperature": temperature}),
            gate=self.gate,
            released_edges=self.released_edges,
        )
        return Labels(round.map(Fuse(config), inputs))


@dataclass(frozen=True)
class Fuse:
    """Map stage: a pseudo-label for every group of a video's candidates; inputs "proposals" and, if used, "scores"."""

    config: FuseConfig
    name: str = "gaufuse/fuse"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data, scores = self.config, context.data, context.inputs.get("scores")
        proposals = Proposals(context).by_video
        names = np.array(data.classes, dtype=object)

        def fuse(video: str) -> Segments:
            rows = proposals.get(video)
            if rows is None:
                return Segments.empty()
            labels = rows.label_index(data.classes)
            wanted = np.ones(len(data.classes), dtype=bool)
            if config.gate.classes == "given" and data.supervision(video) != "none":
                wanted = np.isin(np.arange(len(wanted)), data.video_classes(video))
            if scores is not None:
                wanted &= scores.array("video", video) >= config.gate.class_threshold
            kept = wanted[labels]
            spans, score, labels = rows.spans[kept], rows.score[kept], labels[kept]
            weights, second = score, 0.0
            if scores is not None:
                cas = scores.array("cas", video)
                grid = data.grid(video, len(cas))
                if config.fusion.weight == "inner":
                    weights = inner_mean(cas, grid.to_edge(spans), labels)
                second = float(grid.from_edge(1.0) - grid.from_edge(0.0))
            options = config.fusion
            fused = gaussian_fusion(
                spans,
                score,
                weights,
                labels,
                temperature=options.temperature,
                overlap_threshold=options.overlap_threshold,
                overlap=options.overlap,
                aggregate=options.aggregate,
                stretch=second if config.released_edges else 0.0,
            )
            floor = -np.inf if config.gate.min_score is None else config.gate.min_score
            best = fused.scores > floor
            if config.gate.share:
                highest = np.full(len(data.classes), -np.inf)
                np.maximum.at(highest, fused.labels, fused.scores)
                best &= fused.scores >= config.gate.share * highest[fused.labels]
            if config.gate.rivals is not None:
                best[np.flatnonzero(best)[_rivals(fused, best, config.gate.rivals)]] = False
            spans = inside(fused.spans[best], 0.0, data.duration(video))
            return Segments.of(
                video,
                spans[:, 0],
                spans[:, 1],
                names[fused.labels[best]].tolist(),
                fused.scores[best],
                source=context.source,
            )

        return fuse


def _rivals(fused: Fused, best: np.ndarray, least: float) -> np.ndarray:
    """Which of the groups `best` [K] overlap a better one of another class by a tIoU of at least `least`."""
    spans, label = fused.spans[best], fused.labels[best]  # best first
    dropped = np.zeros(len(spans), dtype=bool)
    shared = np.triu((tiou(spans, spans) >= least) & (label[:, None] != label[None]), 1)
    for better in range(len(spans)):
        if not dropped[better]:
            dropped |= shared[better]
    return dropped
