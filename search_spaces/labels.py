"""Labelers on given proposals: points, potloc, gaufuse, pser-seed and hrpro, and the thresholds of apl."""

from search_spaces.space import Choice, Float, Parameter

SPACE = [
    Parameter(
        "labeler.sharpness",
        Float(0.5, 20.0, log=True),
        "6 on THUMOS14; low: all proposals vote alike, high: the best one decides",
        "labels",
        method="points",
    ),
    Parameter(
        "labeler.length_noise",
        Float(0.1, 1.0, log=True),
        ".3 on THUMOS14; spread of log lengths, so .1 to 1 is 10 % to a factor of 2.7",
        "labels",
        method="points",
    ),
    Parameter(
        "labeler.centre_noise",
        Float(0.03, 0.5, log=True),
        ".12 on THUMOS14; spread of centres in lengths; from .5 on proposals do not say where",
        "labels",
        method="points",
    ),
    Parameter(
        "labeler.compression",
        Float(0.5, 1.2),
        ".8 on THUMOS14; below 1: proposals are too long where actions are short",
        "labels",
        method="points",
    ),
    Parameter(
        "labeler.spread",
        Float(0.1, 1.5, log=True),
        ".6 on THUMOS14; small draws lengths to those of the class in the video",
        "labels",
        method="points",
    ),
    Parameter(
        "labeler.rule",
        Choice("midpoints", "released", "paper"),
        "the published code has released; all there is to choose in Algorithm 1",
        "labels",
        method="potloc",
    ),
    *(
        Parameter(f"labeler.seed_rule.{option}", range, why, "labels", method=method, when=when)
        for method in ("pser-seed", "hrpro")
        for option, range, why, when in (
            (
                "neighbours",
                Choice("same-class", "any-class"),
                "papers any-class, which finds no seed where instances of two classes coincide",
                None,
            ),
            (
                "crossing",
                Choice("clip", "discard", "keep"),
                "PseR discard, HR-Pro keep; what happens to a proposal over two points",
                None,
            ),
            ("min_score", Float(-0.2, 0.8), "papers 0; contrasts lie between -1 and 1, good ones above .3", None),
            ("fallback", Choice("window", "none"), "PseR window, HR-Pro none; a point without a proposal", None),
            (
                "half_width",
                Float(0.3, 5.0, log=True),
                "PseR 1 s; half an action's length where no proposal holds the point",
                ("labeler.seed_rule.fallback", "window"),
            ),
        )
    ),
    Parameter(
        "labeler.fusion.overlap_threshold",
        Float(0.15, 0.7),
        "code .25; higher fuses fewer candidates into more labels",
        "labels",
        method="gaufuse",
    ),
    Parameter(
        "labeler.fusion.overlap",
        Choice("inter/candidate", "iou", "inter/min"),
        "code inter/candidate; iou leaves short candidates inside long ones alone",
        "labels",
        method="gaufuse",
    ),
    Parameter(
        "labeler.fusion.aggregate",
        Choice("mean", "max", "noisy-or"),
        "code mean, which lowers the score where many agree",
        "labels",
        method="gaufuse",
    ),
    Parameter(
        "labeler.fusion.weight",
        Choice("confidence", "inner"),
        "paper confidence, code inner",
        "labels",
        method="gaufuse",
    ),
    Parameter(
        "labeler.gate.min_score",
        Float(0.0, 0.3),
        "code none; weak groups are mostly background",
        "labels",
        method="gaufuse",
    ),
    *(
        Parameter(f"labeler.{option}", range, why, "labels", method="apl", when=when)
        for option, range, why, when in (
            (
                "selection.d1",
                Float(0.05, 0.3),
                "paper .15; joint scores are low, and what is below is never looked at",
                None,
            ),
            (
                "selection.k",
                Float(0.0, 2.0),
                "paper 1; 0 takes what is above the mean",
                ("labeler.selection.rule", "adaptive"),
            ),
            (
                "selection.scope",
                Choice("video", "class", "epoch"),
                "video is ours, the paper is silent; class and epoch let whole videos go empty",
                ("labeler.selection.rule", "adaptive"),
            ),
            ("icd.alpha", Float(0.0, 0.5), "paper .3; higher eliminates more positives", ("labeler.icd.use", True)),
            ("icd.beta", Float(0.5, 1.0), "paper .7; lower mines more candidates, 1 none", ("labeler.icd.use", True)),
        )
    ),
]
