"""Proposer `rskp`: the snippet model of GauFuse, trained from nothing but the classes of videos.

RSKP (CVPR 2022) in the form that GauFuse's released code (CVPR 2023) runs it: prototypes sum up a video, a random walk
spreads them over its snippets, and a memory of class prototypes links videos. Its curves' runs over many thresholds
are the candidates, which are fused. Where paper and code differ, the code is followed; its known faults are mended
unless `faithful: true`. Stages: `rskp/train` (fit), `rskp/score`, `rskp/embed`, `rskp/propose` (maps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from tad import bounds
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common import trained
from tad.methods.common.candidates import reading
from tad.methods.common.label_kinds import untaught
from tad.methods.gaufuse.candidates import RskpCandidates, rskp_candidates
from tad.methods.gaufuse.drawn import middles, whole
from tad.methods.gaufuse.model import RskpModel, RskpScores
from tad.methods.gaufuse.training import RskpTrain, RskpTraining
from tad.methods.roles import MethodConfig, Round
from tad.methods.snippet.training import read_features
from tad.options import group, option
from tad.stages import Arrays, Artifact, Context, StageConfig


class RskpScoring(StageConfig):
    """How the branches of the model are mixed."""

    snippet_share: bounds.Fraction = option(
        0.85, "of the embedding in snippet scores; the rest is the random walk's", paper=0.85
    )
    label_share: bounds.Fraction = option(0.8, "the same on training videos", paper=0.8)
    video_share: bounds.Fraction = option(0.6, "of the embedding in video scores", paper=0.6)


class MixConfig(StageConfig):
    """Config of the stage `rskp/score`; see `RskpScoring`."""

    snippet_share: float
    video_share: float


class RskpProposer(MethodConfig):
    """Snippet model with prototypes and memory, from the classes of videos; its curves' runs are the proposals."""

    method: Literal["rskp"] = "rskp"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    training: RskpTraining = RskpTraining()
    scoring: RskpScoring = group(RskpScoring(), stage="proposals")
    candidates: RskpCandidates = group(RskpCandidates(), stage="proposals")

    def problems(self, data: Dataset) -> list[str]:
        return untaught(data, self.training.usable)

    def train(self, round: Round) -> Artifact:
        """Fits the model on the training videos whose classes are known."""
        return round.fit(RskpTrain(self.training))

    def score(self, round: Round, model: Artifact) -> Artifact:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32."""
        return score(round, model, self.scoring)

    def embed(self, round: Round, model: Artifact) -> Artifact:
        """Array `embedding` [T, W], float16."""
        return round.map(RskpEmbed(), {"model": model})

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: proposals with their inner-outer contrast as score."""
        return propose(round, self.score(round, model), self.candidates, suppressed)


def score(round: Round, model: Artifact, config: RskpScoring) -> Artifact:
    """Maps `RskpScore` over the videos of a round."""
    share = config.label_share if round.role == "train" else config.snippet_share
    mix = MixConfig(snippet_share=share, video_share=config.video_share)
    return round.map(RskpScore(mix), {"model": model})


def propose(round: Round, scores: Artifact, config: RskpCandidates, suppressed: bool) -> Artifact:
    """Maps `RskpPropose` over the videos of a round."""
    return round.map(RskpPropose(config.model_copy(update=reading(round, suppressed))), {"scores": scores})


@dataclass(frozen=True)
class RskpScore:
    """Map stage: the curves of every video."""

    config: MixConfig
    name: str = "rskp/score"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, config = load(context), self.config

        def score(video: str) -> Arrays:
            out, length = run(video), len(context.data.features(video))
            return {
                "cas": whole(out.snippets(config.snippet_share)[0, :, :-1].cpu().numpy(), length),
                "background": whole(1 - out.own.attention[0].cpu().numpy(), length),
                "video": out.video(config.video_share)[0, :-1].cpu().numpy(),
            }

        return score


@dataclass(frozen=True)
class RskpEmbed:
    """Map stage: the embedding of every snippet, as features for labelers."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "rskp/embed"
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, data = load(context), context.data

        def embed(video: str) -> Arrays:
            embedding = whole(run(video).embedding.cpu().numpy(), len(data.features(video)))
            return {"embedding": embedding.astype(np.float16)}

        return embed


@dataclass(frozen=True)
class RskpPropose:
    """Map stage: proposals from the curves."""

    config: RskpCandidates
    name: str = "rskp/propose"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, scores = context.data, context.inputs["scores"]

        def propose(video: str) -> Segments:
            cas = scores.array("cas", video)
            known = data.video_classes(video) if self.config.train_classes == "given" else np.zeros(0, dtype=np.int64)
            found = rskp_candidates(cas, scores.array("video", video), known, self.config)
            spans = data.grid(video, len(cas)).from_edge(found.spans)
            return Segments.clipped(
                video, spans, found.labels, data.classes, found.scores, data.duration(video), context.source
            )

        return propose


def load(context: Context) -> Callable[[str], RskpScores]:
    """The trained model as a function of a video id (scores have B = 1, and T rows or those that the model sees)."""
    model, settings, device = trained.load(context, trained.of_architecture(RskpModel))
    count = settings.get("snippets")

    def run(video: str) -> RskpScores:
        features = read_features(context.data, video)
        if count is not None:
            features = features[torch.from_numpy(middles(len(features), count))]
        features = features[None].to(device)
        with torch.inference_mode():
            scores: RskpScores = model(features, torch.ones(features.shape[:2], dtype=torch.bool, device=device))
        return scores

    return run
