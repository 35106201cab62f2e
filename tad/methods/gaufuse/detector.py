"""Detector `rskp`: the proposer's snippet model, taught by pseudo-labels as targets of snippets; GauFuse's second half.

Source: GauFuse (CVPR 2023) and its released code. Each round starts from the last one's model (the first from the
proposer's). Any labeler's pseudo-labels become snippet targets by constrained optimisation
(tad.methods.gaufuse.snippet_targets); later rounds learn how the targets changed, so that a wrong pseudo-label does not
reinforce itself. Detections are the model's own fused candidates, as the proposer's are. Stages: `rskp/targets` (map),
`rskp/retrain` (fit), and the proposer's `rskp/score` and `rskp/propose` (maps).
"""

from __future__ import annotations

from typing import Literal

from tad.errors import RunError
from tad.methods.gaufuse.candidates import RskpCandidates
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
from tad.options import group, option
from tad.ranges import Float
from tad.stages import Artifact


class RskpDetector(MethodConfig):
    """The retrained snippet model; needs proposer rskp."""

    method: Literal["rskp"] = "rskp"
    faithful: bool = option(False, "the published behaviour; sets the options of every group below")
    """On THUMOS14; but the model that labels is in eval mode, where the published code leaves it in training mode."""
    targets: TargetConfig = TargetConfig()
    schedule: Schedule = Schedule()
    training: Retraining = Retraining()
    scoring: RskpScoring = group(RskpScoring(), stage="detections")
    candidates: RskpCandidates = group(RskpCandidates(), stage="detections", tune={"class_threshold": Float(0.0, 0.3)})

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
