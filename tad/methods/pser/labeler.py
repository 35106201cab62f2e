"""Labeler `pser`: a seed for every point, refined by models of other videos (the default) or in a bag of its copies.

The bag is PseR (Fang & Hong, IEEE TMM 2026): scaled and shifted copies of the seed, a selection module (multiple-
instance learning over the bag) and a ranking module (temporal confidence) that score the copies, and their weighted
mean as pseudo-label. Features are frozen: they are read, never trained.
Stages: `pser/seed` (map); of the default `pser/rows`, `pser/boundaries`, `pser/believed` (map, see `cross_fitting.py`);
of the bag `pser/heads` (fit), `pser/refine` (map).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common.label_kinds import PointLabeler
from tad.methods.common.seeds import Proposals, SeedRule, SeedSelection, distinct
from tad.methods.common.trained import of_architecture, restore
from tad.methods.points.labeler import PointsLabeler, PointsLabels
from tad.methods.pser.cross_fitting import CrossFittingConfig, cross_fitted
from tad.methods.pser.heads import BagConfig, BagReader, FitConfig, HeadsConfig, HeadsTask, NegativesConfig
from tad.methods.pser.merge import MergeConfig, member_weights, merge, repair
from tad.methods.pser.model import PserHeads
from tad.methods.roles import Labels, Round
from tad.options import group, option
from tad.stages import Artifact, Context, StageConfig

BAG = ("refine", "bag")


class RefineConfig(StageConfig):
    """What refining reads besides the trained heads."""

    seed_rule: SeedRule
    bag: BagConfig
    merge: MergeConfig
    centred: bool


@dataclass(frozen=True)
class HeadsFit:
    """Fit stage: the selection and the ranking module."""

    config: FitConfig
    name: str = "pser/heads"
    version: int = 1

    def open(self, context: Context) -> HeadsTask:
        return HeadsTask(self.config, context)


@dataclass(frozen=True)
class Refine:
    """Map stage: one pseudo-label for every distinct point of a video.

    The score is the temporal confidence of the bag's best member, which says how clearly the bag shows a segment.
    """

    config: RefineConfig
    name: str = "pser/refine"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        config, data = self.config, context.data
        proposals, reader = Proposals(context), BagReader(context, config.bag, config.centred)
        heads = restore(context, of_architecture(PserHeads), reader.width)[0].eval()

        def refine(video: str) -> Segments:
            points, seeds = proposals.seeds(video, config.seed_rule)
            if not len(points.time):
                return Segments.empty()
            features, grid = reader.features(video)
            bags = reader.bags(seeds.spans)
            cls, ins, rank = run_heads(heads, features, reader.coordinates(grid, bags), points.label)
            spans, _ = merge(bags, member_weights(cls, ins, rank, config.merge), config.merge.top_k, config.merge.ties)
            limits = (0.0, data.duration(video))
            if config.merge.clamp == "snippets":
                limits = (float(grid.from_edge(0.0)), float(grid.from_edge(grid.length - 1.0)))
            spans = repair(spans, points.time, points.label, limits, config.merge)
            names = [data.classes[i] for i in points.label]
            if proposals.fused:
                return Segments.of(video, spans[:, 0], spans[:, 1], names, seeds.scores, source=context.source)
            return Segments.of(video, spans[:, 0], spans[:, 1], names, rank.max(axis=1), points.time, context.source)

        return refine


def run_heads(
    heads: PserHeads, features: np.ndarray, bags: np.ndarray, label: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class logits, instance logits (both at the class of the bag's point) and temporal confidence, [G, N] each.

    Args:
        heads: in eval mode.
        features: [T, D] of one video.
        bags: [G, N, 2] snippet coordinates.
        label: [G] class indices.
    """
    rows = torch.from_numpy(features)[None]
    none = torch.zeros(0, dtype=torch.long)
    with torch.inference_mode():
        scores = heads(
            rows,
            torch.tensor([len(features)]),
            torch.from_numpy(bags),
            torch.zeros(len(bags), dtype=torch.long),
            torch.zeros(0, 2, dtype=torch.float64),
            none,
        )
    index = label[:, None, None]
    cls, ins = (np.take_along_axis(x.numpy(), index, axis=2)[..., 0] for x in (scores.cls, scores.ins))
    return cls, ins, scores.rank.numpy()


class PserLabeler(PointLabeler):
    """Seeds refined by PseR."""

    method: Literal["pser"] = "pser"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    refine: Literal["cross-fitted", "bag", "posterior"] = option(
        "cross-fitted",
        "how a seed becomes a label: all segments around its point, judged by models of other videos; PseR's bag of "
        "copies of the seed; or, without features, as by labeler points, which cross-fitted does where there are none",
        paper="bag",
    )
    cross_fitting: CrossFittingConfig = group(CrossFittingConfig(), stage="heads", only=("refine", "cross-fitted"))
    seed_rule: SeedRule = group(SeedRule(), stage="heads", free=("half_width", "min_score"))
    bag: BagConfig = group(BagConfig(), stage="heads", only=BAG)
    negatives: NegativesConfig = group(NegativesConfig(), stage="heads", only=BAG)
    heads: HeadsConfig = group(HeadsConfig(), stage="heads", only=BAG)
    merge: MergeConfig = group(MergeConfig(), only=BAG)

    def way(self, data: Dataset) -> Literal["cross-fitted", "bag", "posterior"]:
        """How seeds are refined: `refine`, unless that takes features and the dataset has none."""
        return "posterior" if self.refine == "cross-fitted" and not data.has_features("train") else self.refine

    def reads_features(self, data: Dataset) -> bool:
        return self.way(data) != "posterior"

    def warnings(self, data: Dataset) -> list[str]:
        found = super().warnings(data)
        if self.way(data) == self.refine:
            return found
        return [*found, f"{data.place} has no features; seeds are refined as by labeler points (refine: posterior)"]

    def seeds(self, round: Round) -> Artifact:
        """Segments: one seed for every point."""
        return round.map(SeedSelection(self.seed_rule), {"proposals": round.proposals()})

    def label(self, round: Round) -> Labels:
        """Segments: one pseudo-label for every point; without an embedding the dataset's features are read."""
        way = self.way(round.data)
        if way == "posterior":
            return Labels(round.map(PointsLabels(PointsLabeler()), {"proposals": round.proposals()}))
        if way == "cross-fitted":
            return cross_fitted(round, self.cross_fitting, self.seeds(round), self.seeds(round.training))
        return Labels(self.refined(round, lambda of: seeding("proposals", of.proposals(), of.embedding())))

    def refined(self, round: Round, read: Callable[[Round], dict[str, Artifact]]) -> Artifact:
        """Segments: bags around the seeds of a round's videos, refined by heads that are trained on training videos.

        Args:
            round: whose videos.
            read: gives the inputs of seeding for a round (see `seeding`).
        """
        model = self._heads(round.training, read(round.training))
        refine = RefineConfig(
            seed_rule=self.seed_rule, bag=self.bag, merge=self.merge, centred=self.heads.alignment == "centred"
        )
        return round.map(Refine(refine), {**read(round), "model": model})

    def _heads(self, round: Round, inputs: Mapping[str, Artifact]) -> Artifact:
        if "fused" in inputs:
            counts = [len(rows) for rows in inputs["fused"].by_video().values()]
        else:
            counts = [len(distinct(round.data.points(video)).time) for video in round.data.videos("train")]
        epochs, batch = self.heads.budget(counts)
        # The resolved budget goes into the config, and so into the fingerprint and the log.
        heads = self.heads.model_copy(update={"epochs": epochs, "batch_size": batch})
        fit = FitConfig(seed_rule=self.seed_rule, bag=self.bag, negatives=self.negatives, heads=heads)
        return round.fit(HeadsFit(fit), inputs)


def seeding(kind: Literal["proposals", "fused"], segments: Artifact, embedding: Artifact | None) -> dict[str, Artifact]:
    """The inputs of seeding and of all that reads seeds (see `Proposals`)."""
    return {kind: segments} | ({"embedding": embedding} if embedding is not None else {})
