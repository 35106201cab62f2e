"""Detector `apl-potloc`: POTLoc, whose pyramid may start from APL's contrastive pre-training.

APL (ECCV 2024) does not speak of POTLoc; the two pyramids are alike. The stages are POTLoc's, and `contrastive/train`.
"""

from __future__ import annotations

from typing import Literal

from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_pyramid import pretrain
from tad.methods.potloc.detector import PotlocDetector
from tad.methods.potloc.options import PotlocTraining
from tad.methods.potloc.training import PotlocTask, PotlocTrain
from tad.methods.roles import Labels, Round
from tad.stages import Artifact, Context


class AplPotlocDetector(PotlocDetector):
    """POTLoc's second stage on a pre-trained pyramid."""

    method: Literal["apl-potloc"] = "apl-potloc"  # type: ignore[assignment]
    pretrain: ContrastiveConfig = ContrastiveConfig()

    def train(self, round: Round, labels: Labels) -> Artifact:
        """The model, trained on the pseudo-labels of the training videos."""
        if not self.pretrain.enabled:
            return super().train(round, labels)
        inputs = {"labels": labels.segments, "encoder": pretrain(round, self.pretrain, self.training)}
        return round.fit(PotlocTrain(self.training, task=EncodedTask), inputs)


class EncodedTask(PotlocTask):
    """POTLoc's task, whose backbone and, where the option is null, upsampling are those of the input "encoder"."""

    def __init__(self, config: PotlocTraining, context: Context) -> None:
        encoder = context.inputs["encoder"].model()
        upsample = config.upsample or encoder["settings"]["upsample"]
        super().__init__(config.model_copy(update={"upsample": upsample}), context)
        self.module.load_state_dict(encoder["state"], strict=False)  # it has no decoder
