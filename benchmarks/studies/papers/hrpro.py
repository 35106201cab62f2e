"""HR-Pro's ablation: the parts of both stages (Table 3).

The paper does not say what supervises its rows without reliable proposals (RP): here the best suppressed proposals of
each class, as many as the class has points in the video, wherever the points are. NP: negative proposals.
"""

from __future__ import annotations

from benchmarks.studies.papers.paper import Line, Paper, Step, Table
from benchmarks.studies.real.rows import Way

CONTRAST = ("proposer.training.attention_layers=0",)
BASE = (*CONTRAST, "proposer.training.contrast_weight=0.0")
SCORE = ("detector.training.regression_weight=0.0", "detector.decode.keep=original")
# Without the score a refined candidate ties with itself as it was, and suppression keeps the first: refined ones alone.
REGRESSION = (
    "detector.training.completeness_weight=0.0",
    "detector.decode.completeness_weight=0.0",
    "detector.decode.keep=refined",
)
NO_NP = ("detector.negatives.share=0.0",)
NO_RP = ("labeler.method=proposals", "labeler.count=points")
# The published rates are for a width of 2048; narrow features need larger steps. The schedule is hrpro-small's.
NARROW = (
    "proposer.training.epochs=20",
    "proposer.training.lr=1e-3",
    "detector.training.epochs=30",
    "detector.training.lr=5e-4",
)

WAYS = {
    "base": Way("hrpro-small", BASE, rounds=0),
    "contrast": Way("hrpro-small", CONTRAST, rounds=0),
    "attention": Way("hrpro-small", rounds=0),
    "two-blocks": Way("hrpro-small", ("proposer.training.attention_layers=2",), rounds=0),
    "regression": Way("hrpro-small", REGRESSION + NO_NP + NO_RP),
    "score": Way("hrpro-small", SCORE + NO_NP + NO_RP),
    "both": Way("hrpro-small", NO_NP + NO_RP),
    "regression-rp": Way("hrpro-small", REGRESSION + NO_NP),
    "score-rp": Way("hrpro-small", SCORE + NO_NP),
    "both-rp": Way("hrpro-small", NO_NP),
    "whole": Way("hrpro-small"),
    "whole-on-base": Way("hrpro-small", BASE),
    "whole-on-contrast": Way("hrpro-small", CONTRAST),
    "faithful-stage-1": Way("hrpro-released", NARROW, rounds=0),
    "faithful": Way("hrpro-released", NARROW),
}

TABLE_3 = Table(
    "Table 3, the parts of both stages",
    (
        Line("base", "base", (49.4,)),
        Line("+ contrast", "contrast", (51.5,)),
        Line("+ attention, one block", "attention", (54.7,)),
        Line("+ attention, two blocks", "two-blocks"),
        Line("regression", "regression", (56.1,)),
        Line("score", "score", (57.1,)),
        Line("score, regression", "both", (57.8,)),
        Line("regression, RP", "regression-rp", (56.8,)),
        Line("score, RP", "score-rp", (58.1,)),
        Line("score, regression, RP", "both-rp", (59.1,)),
        Line("score, regression, RP, NP", "whole", (60.3,)),
        Line("the same on base", "whole-on-base", (53.9,)),
        Line("the same on base + contrast", "whole-on-contrast", (56.2,)),
        Line("`faithful: true`, stage 1", "faithful-stage-1"),
        Line("`faithful: true`, stage 2", "faithful"),
    ),
    (
        Step("contrast", "contrast", "base"),
        Step("attention", "attention", "contrast"),
        Step("regression on stage 1", "regression", "attention"),
        Step("score on stage 1", "score", "attention"),
        Step("regression beside the score", "both", "score"),
        Step("RP, regression alone", "regression-rp", "regression"),
        Step("RP, score alone", "score-rp", "score"),
        Step("RP, both heads", "both-rp", "both"),
        Step("NP", "whole", "both-rp"),
        Step("stage 2 in full, on attention", "whole", "attention"),
        Step("stage 2 in full, on base", "whole-on-base", "base"),
        Step("stage 2 in full, on base + contrast", "whole-on-contrast", "contrast"),
        Step("stage 2, faithful", "faithful", "faithful-stage-1"),
    ),
)

PAPER = Paper("hrpro", ("points",), "THUMOS14, I3D features, mean mAP at tIoU .1 to .7", 0.1, WAYS, (TABLE_3,))
