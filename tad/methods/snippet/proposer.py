"""Proposer `snippet`: the point-supervised snippet model, HR-Pro's baseline.

Trained on the labelled rows and on background mined between them; proposals are the runs of its curves over several
thresholds, scored by outer-inner contrast. Source: HR-Pro (AAAI 2024) sections 3.2 and 3.3 in the form its code runs,
without attention, memory and prototype contrast; LACP (ICCV 2021) has the video term and the completeness terms.
The map stages here serve every proposer whose model answers with `SnippetScores`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import nn

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.common import trained
from tad.methods.common.candidates import CandidateConfig, candidates, reading
from tad.methods.common.label_kinds import unread_labels, untaught
from tad.methods.roles import MethodConfig, Round
from tad.methods.snippet.model import SnippetModel, SnippetScores, video_scores
from tad.methods.snippet.training import SnippetTrain, TrainingConfig, read_features
from tad.options import group
from tad.stages import Arrays, Artifact, Context, StageConfig

Model = TypeVar("Model", bound=nn.Module)


class SnippetProposer(MethodConfig):
    """Snippet model trained from points, full labels or classes; its curves' runs are the proposals."""

    method: Literal["snippet"] = "snippet"
    training: TrainingConfig = TrainingConfig()
    candidates: CandidateConfig = group(CandidateConfig(), stage="proposals")

    def problems(self, data: Dataset) -> list[str]:
        return untaught(data, self.training.usable)

    def warnings(self, data: Dataset) -> list[str]:
        return unread_labels(data, self.method, self.training.usable)

    def train(self, round: Round) -> Artifact:
        """Fits the snippet model on the training videos that have labels of any kind (see `SnippetTask`)."""
        return round.fit(SnippetTrain(self.training))

    def score(self, round: Round, model: Artifact) -> Artifact:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32."""
        return round.map(SnippetScore(), {"model": model})

    def embed(self, round: Round, model: Artifact) -> Artifact:
        """Array `embedding` [T, W], float16."""
        return round.map(SnippetEmbed(), {"model": model})

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: proposals with their outer-inner contrast as score."""
        return propose(round, self.score(round, model), self.candidates, suppressed)


def propose(round: Round, scores: Artifact, config: CandidateConfig, suppressed: bool) -> Artifact:
    """Maps `SnippetPropose` over the videos of a round."""
    return round.map(SnippetPropose(config.model_copy(update=reading(round, suppressed))), {"scores": scores})


@dataclass(frozen=True)
class SnippetScore:
    """Map stage: the curves of every video; `model` is built from the settings of the input "model"."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "snippet/score"
    model: Callable[..., nn.Module] = SnippetModel
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, settings = load(context, self.model)

        def score(video: str) -> Arrays:
            out = run(video)
            mask = torch.ones(out.background.shape, dtype=torch.bool)
            pooled = video_scores(out.classes, mask, settings["top_ratio"])
            return {"cas": out.cas()[0].numpy(), "background": out.background[0].numpy(), "video": pooled[0].numpy()}

        return score


@dataclass(frozen=True)
class SnippetEmbed:
    """Map stage: the embedding of every snippet, as features for labelers."""

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "snippet/embed"
    model: Callable[..., nn.Module] = SnippetModel
    version: int = 1
    output: Literal["arrays"] = "arrays"

    def open(self, context: Context) -> Callable[[str], Arrays]:
        run, _ = load(context, self.model)
        return lambda video: {"embedding": run(video).embedding[0].numpy().astype(np.float16)}


@dataclass(frozen=True)
class SnippetPropose:
    """Map stage: proposals from the curves."""

    config: CandidateConfig
    name: str = "snippet/propose"
    version: int = 1
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, scores = context.data, context.inputs["scores"]

        def propose(video: str) -> Segments:
            cas, background = scores.array("cas", video), scores.array("background", video)
            known = data.video_classes(video) if self.config.train_classes == "given" else np.zeros(0, dtype=np.int64)
            grid = data.grid(video, len(cas))
            second = float(grid.to_edge(1.0) - grid.to_edge(0.0))
            found = candidates(cas, 1 - background, scores.array("video", video), known, self.config, second)
            spans = grid.from_edge(found.spans)
            return Segments.clipped(
                video, spans, found.labels, data.classes, found.scores, data.duration(video), context.source
            )

        return propose


def load(context: Context, build: Callable[..., nn.Module]) -> tuple[Callable[[str], SnippetScores], dict[str, Any]]:
    """The trained model as a function of a video id (scores have B = 1), and its settings."""
    model, settings, device = trained.load(context, trained.of_architecture(build))

    def run(video: str) -> SnippetScores:
        features = read_features(context.data, video)[None].to(device)
        with torch.inference_mode():
            scores = model(features, torch.ones(features.shape[:2], dtype=torch.bool, device=device))
        return SnippetScores(*(part.cpu() for part in scores))

    return run, settings
