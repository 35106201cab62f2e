"""GauFuse's ablation, as far as it is known: fusion in training and at test, targets of snippets, their change.

The paper's table has rows for fusion in training and at test and for the parts of the pseudo-labels; its numbers could
not be read. The figures beside the first and the last row are the published totals of its base and of the method.

Rounds are three, as in `gaufuse-small`: two learn targets, the third how they changed. A temperature near 0 turns a
group into its best member, which is hard suppression: so are pseudo-labels made "by NMS".
"""

from __future__ import annotations

from benchmarks.studies.papers.paper import Line, Paper, Step, Table
from benchmarks.studies.real.rows import Way

TEST = "detector.candidates."
NMS_AT_TEST = (TEST + "suppression=nms", TEST + "iou_threshold=0.5")
NMS_IN_TRAINING = ("labeler.temperatures=[1e-6]",)
TARGETS_ALONE = ("detector.schedule.label_epochs=[4]",)
"""Targets in all rounds."""
NOTHING = ("detector.schedule.weight=0",)


def way(*changes: str, rounds: int = 3) -> Way:
    return Way("gaufuse-small", changes, rounds)


WAYS = {
    "base-nms": way("proposer.candidates.suppression=nms", "proposer.candidates.iou_threshold=0.5", rounds=0),
    "base-soft-nms": way("proposer.candidates.suppression=soft-nms", rounds=0),
    "base-fusion": way(rounds=0),
    "longer": way(*NOTHING),
    "longer-nms": way(*NOTHING, *NMS_AT_TEST),
    "nms": way(*NMS_IN_TRAINING, *NMS_AT_TEST),
    "fusion-in-training": way(*NMS_AT_TEST),
    "fusion-at-test": way(*NMS_IN_TRAINING),
    "whole": way(),
    "one-round": way(rounds=1),
    "two-rounds": way(rounds=2),
    "targets-alone": way(*TARGETS_ALONE),
    "change-from-round-2": way("detector.schedule.label_epochs=[4, 0]"),
    "least-norm": way("detector.targets.solver=least-norm"),
    # Sums give targets three to four times as small, so their weight is larger by as much.
    "sums": way("detector.targets.rows=sum", "detector.schedule.weight=70", "detector.schedule.weight_limit=70"),
}

FUSION = Table(
    "fusion in training and at test",
    (
        Line("base, hard NMS", "base-nms", (45.1,)),
        Line("base, soft-NMS", "base-soft-nms"),
        Line("base, fusion at test", "base-fusion"),
        Line("three rounds without pseudo-labels, NMS at test", "longer-nms"),
        Line("three rounds without pseudo-labels, fusion at test", "longer"),
        Line("pseudo-labels by NMS, NMS at test", "nms"),
        Line("pseudo-labels by fusion, NMS at test", "fusion-in-training"),
        Line("pseudo-labels by NMS, fusion at test", "fusion-at-test"),
        Line("GauFuse: fusion in both", "whole", (48.3,)),
    ),
    (
        Step("soft-NMS, base", "base-soft-nms", "base-nms"),
        Step("fusion at test, base", "base-fusion", "base-nms"),
        Step("pseudo-labels by NMS, over as much training", "nms", "longer-nms"),
        Step("fusion in training, NMS at test", "fusion-in-training", "nms"),
        Step("fusion in training, fusion at test", "whole", "fusion-at-test"),
        Step("fusion at test, labels by NMS", "fusion-at-test", "nms"),
        Step("fusion at test, labels by fusion", "whole", "fusion-in-training"),
        Step("pseudo-labels, over as much training", "whole", "longer"),
        Step("the whole, over the base with NMS", "whole", "base-nms"),
    ),
)
TARGETS = Table(
    "targets of snippets, and their change",
    (
        Line("base, fusion at test", "base-fusion"),
        Line("three rounds without pseudo-labels", "longer"),
        Line("targets, one round", "one-round"),
        Line("targets, two rounds", "two-rounds"),
        Line("targets, three rounds", "targets-alone"),
        Line("targets, one round; their change, two", "change-from-round-2"),
        Line("GauFuse: targets, two rounds; their change, one", "whole"),
        Line("the same, the curve of least squares", "least-norm"),
        Line("the same, sums in the constraints", "sums"),
    ),
    (
        Step("targets, one round, over the base", "one-round", "base-fusion"),
        Step("a second round", "two-rounds", "one-round"),
        Step("a third round of targets", "targets-alone", "two-rounds"),
        Step("a third round, of the change", "whole", "two-rounds"),
        Step("the change in place of targets, third round", "whole", "targets-alone"),
        Step("the same, second and third round", "change-from-round-2", "targets-alone"),
        Step("least squares in place of the centre", "least-norm", "whole"),
        Step("sums in place of means", "sums", "whole"),
    ),
)

PAPER = Paper(
    "gaufuse", ("classes",), "THUMOS14, I3D features, mean mAP at tIoU .1 to .7", 0.1, WAYS, (FUSION, TARGETS)
)
