"""Detector `rskp`: the proposer's snippet model, taught by pseudo-labels as targets of snippets; GauFuse's second half.

Source: GauFuse (CVPR 2023) and its released code. Each round starts from the last one's model (the first from the
proposer's). Any labeler's pseudo-labels become snippet targets by constrained optimisation
(tad.methods.gaufuse.snippet_targets); later rounds learn how the targets changed, so that a wrong pseudo-label does not
reinforce itself. Detections are the model's own fused candidates, as the proposer's are. Stages: `rskp/targets` (map),
`rskp/retrain` (fit), and the proposer's `rskp/score` and `rskp/propose` (maps).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from tad.errors import RunError
from tad.methods.common.published import fill_published
from tad.methods.gaufuse.candidates import RskpCandidates
from tad.methods.gaufuse.proposer import PUBLISHED as PROPOSER
from tad.methods.gaufuse.proposer import RskpScoring, propose, score
from tad.methods.gaufuse.retraining import (
    Retrain,
    RetrainConfig,
    Retraining,
    Schedule,
    TargetConfig,
    Targets,
    learns_change,
)
from tad.methods.roles import Labels, MethodConfig, Roles, Round, cannot_ignore
from tad.stages import Artifact


class RskpDetector(MethodConfig):
    """The retrained snippet model; needs proposer rskp."""

    method: Literal["rskp"] = "rskp"
    faithful: bool = Field(default=False, description="the published behaviour; sets the options of every group below")
    targets: TargetConfig = TargetConfig()
    schedule: Schedule = Schedule()
    training: Retraining = Retraining()
    scoring: RskpScoring = RskpScoring()
    candidates: RskpCandidates = RskpCandidates()

    @model_validator(mode="before")
    @classmethod
    def _published(cls, data: Any) -> Any:
        return fill_published(data, PUBLISHED, BUDGET)

    def conflicts(self, recipe: Roles) -> list[str]:
        unlike = []
        if recipe.proposer.method != "rskp":
            unlike.append(
                "detector rskp trains the proposer's own model further, but the proposer is "
                f"{recipe.proposer.method}; use proposer rskp, or another detector"
            )
        return unlike + cannot_ignore(self.method, recipe)

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The last round's model, trained further on the pseudo-labels of the training videos."""
        before, targets = round.previous, Targets(self.targets)
        inputs = {"model": before.model, "targets": round.map(targets, {"labels": labels.segments})}
        if learns_change(self.schedule, round.number):
            if before.labels is None:
                raise RunError(
                    f"detector rskp learns how labels changed in round {round.number}, which has none before"
                )
            inputs["previous"] = round.map(targets, {"labels": before.labels})
        config = RetrainConfig(training=self.training, schedule=self.schedule, round=round.number)
        return round.fit(Retrain(config), inputs)

    def score(self, round: Round, model: Artifact) -> Artifact:
        """Arrays `cas` [T, C], `background` [T] and `video` [C], float32."""
        return score(round, model, self.scoring)

    def propose(self, round: Round, model: Artifact, suppressed: bool = True) -> Artifact:
        """Segments: the model's own candidates."""
        return propose(round, self.score(round, model), self.candidates, suppressed)

    def detect(self, round: Round, model: Artifact) -> Artifact:
        """Detections in a round's videos: the model's own fused candidates."""
        return self.propose(round, model)


PUBLISHED: Mapping[str, Mapping[str, Any]] = {
    "targets": {"rows": "sum", "solver": "centre", "released_edges": True, "trim": 0.0},
    "schedule": {
        "epochs": [30, 15, 15, 15, 25, 50],
        "lr": [2.048e-5, 2.048e-5, 5.12e-7, 2.56e-7],
        "label_epochs": [30, 15, 6, 0],
        "gains": [2.0, 2.0, 2.0, 2.0, 2.0, 2.15],
        "weight": 10.0,
        "growth": 1.035,
        "weight_limit": 50.0,
        "late": True,
    },
    "training": {
        **{k: v for k, v in PROPOSER["training"].items() if k in Retraining.model_fields},
        "snippet_weight": 0.5,
        "snippet_weight_memory": 1.0,
        "first_memory": False,
        "own_share": 0.8,
        "bounded": False,
        "dead_zone": 0.0,
    },
    "scoring": PROPOSER["scoring"],
    "candidates": PROPOSER["candidates"],
}
"""The published code on THUMOS14, but for labels made in training mode: here the model that labels is in eval mode."""

BUDGET = (
    "schedule.epochs",
    "schedule.label_epochs",
    "schedule.lr",
    "training.batch_size",
    "candidates.class_threshold",
)
"""Options that faithful: true sets but lets the user change: they depend on the data and on how long one trains."""
