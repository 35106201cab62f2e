"""What APL adds to the options of ActionFormer's and BMN's training; at their defaults they change nothing."""

from __future__ import annotations

from typing import Literal

from tad import bounds
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.proposer import LabelledTraining
from tad.methods.apl.frame_contrast import ContrastOptions
from tad.methods.apl.quality import Quality
from tad.methods.bmn.options import BmnTraining
from tad.options import option
from tad.ranges import Choice, Float


class AplTraining(Training, ContrastOptions):
    """ActionFormer's network and training, with quality branches, contrast and two kinds of videos in a step."""

    quality: Quality = Quality()
    init: Literal["none", "before"] = option(
        "none", "start from fresh weights, or from the last round's (in round 1 the proposer's)"
    )
    unlabelled_weight: bounds.Weight | None = option(
        None,
        "of the loss on videos without full labels, which then come beside fully labelled ones in every "
        "step, an epoch being a pass over them; null: all videos alike",
        tune=Float(0.5, 4.0, log=True),
        why="APL 2, as others do; videos without full labels are many and uncertain",
        stand_in=1.0,
        when=("labeler.method", "apl"),
    )


class AplLabelledTraining(LabelledTraining, ContrastOptions):
    """ActionFormer's network and training on the fully labelled videos, with quality branches and contrast."""

    quality: Quality = Quality()

    def of(self, videos: int) -> AplTraining:
        """The detector's training on so many videos."""
        return AplTraining(**self.options(videos))


class AplBmnTraining(BmnTraining, ContrastOptions):
    """BMN's network and training, with a third map, contrast and two kinds of videos in a step."""

    quality: bool = option(
        False,
        "a third map, the distance of centres, and a joint score (APL's quality branches)",
        tune=Choice(True, False),
        why="APL true, BMN false: a third map and a joint score",
    )
    quality_weight: bounds.Weight = option(0.1, "of the third map's loss")
    unlabelled_weight: bounds.Weight | None = option(
        None, "of the loss on videos that are not fully labelled, balanced on its own; null: all in one loss"
    )


class AplBmnRoundTraining(AplBmnTraining):
    """Training in a round, and where it starts."""

    init: Literal["none", "before"] = option(
        "none",
        "start from fresh weights, or from the last round's; there are none in round 1, where it starts as with none",
    )
