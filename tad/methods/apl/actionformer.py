"""Proposer and detector `apl-actionformer`: ActionFormer with the parts that APL adds to it.

Source: APL (ECCV 2024). The proposer is its second phase, on the fully labelled videos; the detector is its third, on
all of them. Both may start from a contrastive pre-training. With their options at the defaults they are `actionformer`.
The stages are ActionFormer's, and `contrastive/train`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from pydantic import model_validator
from torch import Tensor

from tad import bounds
from tad.data.dataset import Dataset
from tad.methods.actionformer.detector import ActionFormerDetector, Decoding, Detector, Reading, TrainStage
from tad.methods.actionformer.model import ActionFormer, PointOutputs
from tad.methods.actionformer.proposer import ActionFormerProposer, GivenLabels, LabelledTrain, labelled
from tad.methods.apl.actionformer_model import AplActionFormer, AplOutputs
from tad.methods.apl.actionformer_training import AplTask
from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_pyramid import pretrain
from tad.methods.apl.options import AplLabelledTraining, AplTraining
from tad.methods.apl.quality import joint_quality
from tad.methods.apl.warm_start import differing
from tad.methods.roles import Labels, Roles, Round, one_grid
from tad.options import group, option
from tad.ranges import Float
from tad.stages import Artifact, StageConfig

DERIVED = ("width", "levels", "upsample", "window")
"""Options of the network that are those of the model to start from, where there is one."""


class QualityPower(StageConfig):
    """What the joint score is made of."""

    quality_power: bounds.Fraction = option(
        1.0,
        "exponent of the predicted quality in the score, where the network has it",
        tune=Float(0.0, 1.0),
        why="APL 1; exponent of the predicted quality beside the class score",
        when=("detector.training.quality.enabled", True),
    )


class AplReading(Reading, QualityPower):
    """From the network's answers to segments; changing it needs no training."""


class AplDecoding(Decoding, QualityPower):
    """From the network's answers and the proposer's video scores to detections."""


@dataclass(frozen=True)
class AplDetector(Detector):
    """A trained network, whose joint scores (equation 4) rank its segments."""

    network: ClassVar[type[ActionFormer]] = AplActionFormer
    limits: Any  # AplReading or AplDecoding

    def scores(self, outputs: PointOutputs | AplOutputs) -> Tensor:
        scores = super().scores(PointOutputs(*outputs[:3]))
        quality = outputs.quality if isinstance(outputs, AplOutputs) else None
        if quality is None:
            return scores
        return scores * joint_quality(quality)[:, None] ** self.limits.quality_power


class AplActionFormerProposer(ActionFormerProposer):
    """ActionFormer with APL's parts, trained on fully labelled videos; its detections everywhere are the proposals."""

    detector: ClassVar[type[Detector]] = AplDetector
    method: Literal["apl-actionformer"] = "apl-actionformer"  # type: ignore[assignment]
    training: AplLabelledTraining = AplLabelledTraining()
    pretrain: ContrastiveConfig = ContrastiveConfig()
    decode: AplReading = group(AplReading(), stage="proposals")

    def train(self, round: Round) -> Artifact:
        """Fits the detector on the boundaries of fully labelled training videos; the others are not seen."""
        training, inputs = start(round, self.pretrain, self.training.of(labelled(round.data)))
        inputs["labels"] = round.map(GivenLabels())
        return LabelledTrain(training, task=AplTask).fit(round, inputs)


class AplActionFormerDetector(ActionFormerDetector):
    """ActionFormer with APL's parts: learns what is a good segment, and from labels and pseudo-labels apart."""

    detector: ClassVar[type[Detector]] = AplDetector
    method: Literal["apl-actionformer"] = "apl-actionformer"  # type: ignore[assignment]
    training: AplTraining = group(AplTraining(), when=dict.fromkeys(DERIVED, ("init", "none")))
    pretrain: ContrastiveConfig = ContrastiveConfig()
    decode: AplDecoding = group(AplDecoding(), stage="detections")

    @model_validator(mode="after")
    def _one_start(self) -> AplActionFormerDetector:
        if self.pretrain.enabled and self.training.init == "before":
            raise ValueError(
                "pretrain.enabled and training.init: before are two models to start from; set init to none, or "
                "pre-train the proposer"
            )
        return self

    def problems(self, data: Dataset) -> list[str]:
        weight, videos = self.training.unlabelled_weight, data.videos("train")
        if weight is None or any(data.supervision(v) == "full" for v in videos):
            return []
        return [
            "detector.training.unlabelled_weight weighs videos beside fully labelled ones, and none of the "
            f"{len(videos)} training videos has full labels; add full_labels.csv, or set it to null"
        ]

    def conflicts(self, recipe: Roles) -> list[str]:
        if self.training.init != "before":
            return []
        proposer = recipe.proposer
        if not isinstance(proposer, ActionFormerProposer):
            return [
                "detector.training.init: before starts from the proposer's weights, but the proposer is "
                f"{proposer.method}; use proposer apl-actionformer, or detector.training.init: none"
            ]
        why = "starts from the proposer's weights, which learnt from its features"
        grids = one_grid(self.method, recipe, why, "set detector.training.init to none, ")
        unlike = differing(self.training, proposer.training)
        if not unlike:
            return grids
        return [
            *grids,
            "detector.training.init: before starts from the proposer's weights, but detector.training and "
            f"proposer.training differ in {', '.join(unlike)}; set them alike, or detector.training.init: none",
        ]

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        training, inputs = start(round, self.pretrain, self.training)
        if self.training.init == "before":
            inputs["before"] = round.previous.model
        return TrainStage(training, task=AplTask).fit(round, labels.inputs() | inputs)


def start(round: Round, config: ContrastiveConfig, training: AplTraining) -> tuple[AplTraining, dict[str, Artifact]]:
    """Options and inputs with which a training starts from the pre-trained encoder, if it is enabled."""
    if not config.enabled:
        return training, {}
    return training.model_copy(update={"init": "before"}), {"before": pretrain(round, config, training)}
