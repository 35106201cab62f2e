"""APL's ablations: the ladder (Table 3), branches (4), ICD's and ACP's parts (5), thresholds (Fig. 3), S1 and S4.

ALQA are the quality branches and the thresholds by video, ICD the discriminator, ACP the contrast. As recipe apl-small
has it: one round, all videos alike and fresh weights in it. Of Fig. 3 the shape alone is known: alpha rises to .3 and
falls a little, beta is best at .7; its rows are without ACP, which trains longer.
"""

from __future__ import annotations

from benchmarks.studies.papers.paper import Line, Paper, Step, Table
from benchmarks.studies.real.rows import Way


def both(change: str, part: str = "training") -> tuple[str, ...]:
    """A change of proposer and detector, which must be alike."""
    return (f"proposer.{part}.{change}", f"detector.{part}.{change}")


NO_ACP = (*both("enabled=false", "pretrain"), *both("contrast_weight=0"))
ALQA = (*NO_ACP, "labeler.icd.use=false")
FIXED = (*ALQA, "labeler.selection.rule=fixed", *both("quality.enabled=false"))
OPEN = ("labeler.ignore=true",)


def way(*changes: str, rounds: int = 1) -> Way:
    return Way("apl-small", changes, rounds)


WAYS = {
    "labelled": way(*FIXED, rounds=0),
    "longer": way(*FIXED, "detector.training.unlabelled_weight=0"),
    "fixed": way(*FIXED),
    "alqa": way(*ALQA),
    "icd": way(*NO_ACP),
    "elimination": way(*NO_ACP, "labeler.icd.beta=1.0"),
    "mining": way(*NO_ACP, "labeler.icd.alpha=0.0"),
    "whole": way(),
    "fixed-open": way(*FIXED, *OPEN),
    "alqa-open": way(*ALQA, *OPEN),
    "icd-open": way(*NO_ACP, *OPEN),
    "whole-open": way(*OPEN),
    "few-full": Way("few-full"),
    "pairs": way(*FIXED, "detector.training.unlabelled_weight=2"),
    "tiou": way(*ALQA, *both("quality.branches=tiou")),
    "diou": way(*ALQA, *both("quality.branches=diou")),
    "kl": way(*ALQA, *both("quality.loss=kl")),
    "coarse": way(*both("fine_weight=0", "pretrain"), *both("contrast_fine_weight=0")),
    "fine": way(*both("coarse_weight=0", "pretrain"), *both("contrast_coarse_weight=0")),
    "pre-training": way(*both("contrast_weight=0")),
    "on-labelled": way("detector.training.contrast_unlabelled=false"),
    "bmn-proposals": Way("apl-bmn", rounds=0),
    "bmn-labelled": Way("apl-bmn", ("detector.training.unlabelled_weight=0",)),
    "bmn": Way("apl-bmn"),
    **{f"alpha-{value}": way(*NO_ACP, f"labeler.icd.alpha={value}") for value in (0.1, 0.5)},
    **{f"beta-{value}": way(*NO_ACP, f"labeler.icd.beta={value}") for value in (0.5, 0.9)},
}

LADDER = Table(
    "Table 3, the ladder",
    (
        Line("labelled videos alone", "labelled", (15.6, 45.9)),
        Line("as long, weight of the others 0", "longer"),
        Line("threshold .3", "fixed", (17.0, 48.8)),
        Line("+ ALQA", "alqa", (21.3, 52.6)),
        Line("+ ICD", "icd", (23.3, 53.9)),
        Line("+ ACP, the whole of APL", "whole", (24.5, 54.8)),
    ),
    (
        Step("threshold .3 over labelled videos alone", "fixed", "labelled"),
        Step("the same, over as much training", "fixed", "longer"),
        Step("ALQA", "alqa", "fixed"),
        Step("ICD", "icd", "alqa"),
        Step("ACP", "whole", "icd"),
        Step("the whole over threshold .3", "whole", "fixed"),
    ),
)
BEYOND = Table(
    "Beyond the paper: undecided candidates left open, and a labelled video in every step",
    (
        Line("labelled videos alone", "labelled"),
        Line("threshold .3", "fixed"),
        Line("the same, in pairs, the others weighing 2", "pairs"),
        Line("threshold .3, left open", "fixed-open"),
        Line("threshold .5, left open from .05: `few-full`", "few-full"),
        Line("ALQA", "alqa"),
        Line("ALQA, left open", "alqa-open"),
        Line("ALQA, ICD", "icd"),
        Line("ALQA, ICD, left open", "icd-open"),
        Line("the whole", "whole"),
        Line("the whole, left open", "whole-open"),
    ),
    (
        Step("pairs over all videos alike", "pairs", "fixed"),
        Step("left open, threshold .3", "fixed-open", "fixed"),
        Step("threshold .5, left open from .05", "few-full", "fixed-open"),
        Step("`few-full` over labelled videos alone", "few-full", "labelled"),
        Step("left open, ALQA", "alqa-open", "alqa"),
        Step("left open, ICD", "icd-open", "icd"),
        Step("left open, the whole", "whole-open", "whole"),
    ),
)
BRANCHES = Table(
    "Table 4, quality branches",
    (
        Line("one, tIoU", "tiou", (19.4, 50.7)),
        Line("one, DIoU", "diou", (20.0, 51.8)),
        Line("two", "alqa", (21.3, 52.6)),
    ),
    (Step("DIoU over tIoU", "diou", "tiou"), Step("two over DIoU", "alqa", "diou")),
)
PARTS = Table(
    "Table 5, parts of ICD and ACP",
    (
        Line("ALQA", "alqa", (21.3, 52.6)),
        Line("ICD, elimination alone", "elimination", (22.1, 53.2)),
        Line("ICD, mining alone", "mining", (22.5, 53.3)),
        Line("ICD, both", "icd", (23.3, 53.9)),
        Line("ACP, coarse alone", "coarse", (24.1, 54.4)),
        Line("ACP, fine alone", "fine", (23.8, 54.4)),
        Line("ACP, both", "whole", (24.5, 54.8)),
    ),
    (
        Step("elimination", "elimination", "alqa"),
        Step("mining", "mining", "alqa"),
        Step("both over elimination", "icd", "elimination"),
        Step("both over mining", "icd", "mining"),
        Step("coarse contrast", "coarse", "icd"),
        Step("fine contrast", "fine", "icd"),
        Step("both over coarse", "whole", "coarse"),
        Step("both over fine", "whole", "fine"),
    ),
)
THRESHOLDS = Table(
    "Figure 3, alpha and beta",
    (
        Line("alpha 0 (mining alone)", "mining"),
        Line("alpha .1", "alpha-0.1"),
        Line("alpha .3, beta .7", "icd"),
        Line("alpha .5", "alpha-0.5"),
        Line("beta .5", "beta-0.5"),
        Line("beta .9", "beta-0.9"),
        Line("beta 1 (elimination alone)", "elimination"),
    ),
    (
        Step("alpha .3 over 0", "icd", "mining"),
        Step("alpha .3 over .1", "icd", "alpha-0.1"),
        Step("alpha .3 over .5", "icd", "alpha-0.5"),
        Step("beta .7 over .5", "icd", "beta-0.5"),
        Step("beta .7 over .9", "icd", "beta-0.9"),
        Step("beta .7 over 1", "icd", "elimination"),
    ),
)
BMN = Table(
    "BMN, on which the paper has no figures: recipe `apl-bmn`",
    (
        Line("the snippet model, which proposes and names the classes", "bmn-proposals"),
        Line("BMN, labelled videos alone", "bmn-labelled"),
        Line("BMN, pseudo-labels", "bmn"),
    ),
    (
        Step("BMN over the snippet model, labelled videos alone", "bmn-labelled", "bmn-proposals"),
        Step("pseudo-labels", "bmn", "bmn-labelled"),
    ),
)
LOSS = Table(
    "Table S1, loss of the branches",
    (Line("Kullback-Leibler divergence", "kl", (20.8, 52.3)), Line("cross entropy", "alqa", (21.3, 52.6))),
    (Step("cross entropy over divergence", "alqa", "kl"),),
)
CONTRAST = Table(
    "Table S4, contrast after pre-training",
    (
        Line("none", "pre-training", (23.6,)),
        Line("on labelled videos", "on-labelled", (24.1,)),
        Line("on both", "whole", (24.5,)),
    ),
    (
        Step("on labelled videos over none", "on-labelled", "pre-training"),
        Step("on both over labelled", "whole", "on-labelled"),
    ),
)

PAPER = Paper(
    "apl",
    ("full10", "full40"),
    "THUMOS14, I3D features, 10 % and 40 % labelled, mean mAP at tIoU .3 to .7",
    0.3,
    WAYS,
    (LADDER, BEYOND, BRANCHES, PARTS, THRESHOLDS, LOSS, CONTRAST, BMN),
)
