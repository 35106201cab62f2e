"""Detections from a trained detector: what is done with overlaps, score floors, fusion with video scores."""

from search_spaces.space import Choice, Float, Integer, Parameter

METHODS = ("actionformer", "hrpro-instance", "potloc", "bmn")

SPACE = [
    *(
        Parameter(
            "detector.decode.video_power",
            Float(0.0, 1.0),
            "papers 0; share of the proposer's video score, .5 is the geometric mean",
            "detections",
            method=method,
        )
        for method in ("actionformer", "potloc")
    ),
    Parameter(
        "detector.decode.min_score",
        Float(1e-4, 1e-2, log=True),
        "ActionFormer .001; detections below it are false nearly always",
        "detections",
        method="actionformer",
    ),
    Parameter(
        "detector.decode.top_k",
        Integer(200, 5000, log=True),
        "ActionFormer 2000 of each level before suppression; sets its cost",
        "detections",
        method="actionformer",
    ),
    Parameter(
        "detector.decode.quality_power",
        Float(0.0, 1.0),
        "APL 1; exponent of the predicted quality beside the class score",
        "detections",
        method="actionformer",
        when=("detector.quality.enabled", True),
    ),
    Parameter(
        "detector.decode.max_detections",
        Integer(50, 1000, log=True),
        "ActionFormer 200, 100 on ActivityNet",
        "detections",
        method="actionformer",
    ),
    Parameter(
        "detector.decode.max_detections",
        Integer(50, 1000, log=True),
        "paper null: all",
        "detections",
        method="potloc",
        stand_in=1000,
    ),
    Parameter(
        "detector.decode.keep",
        Choice("both", "original", "refined"),
        "paper both; refined alone is half as many to suppress",
        "detections",
        method="hrpro-instance",
    ),
    Parameter(
        "detector.decode.score_weight",
        Float(0.05, 4.0, log=True),
        "paper 1, beside 1 for the candidate's contrast",
        "detections",
        method="hrpro-instance",
    ),
    Parameter(
        "detector.decode.video_factor",
        Choice(True, False),
        "paper false; completeness knows no classes",
        "detections",
        method="hrpro-instance",
    ),
    Parameter(
        "detector.decode.max_detections",
        Integer(50, 2000, log=True),
        "paper null: all",
        "detections",
        method="hrpro-instance",
        stand_in=2000,
    ),
    Parameter(
        "detector.decode.boundaries",
        Choice(True, False),
        "paper true, OpenTAD false; boundary probabilities in the score",
        "detections",
        method="bmn",
    ),
    Parameter(
        "detector.decode.snippets",
        Choice(True, False),
        "papers false; the mean class score inside a proposal says more than its video's alone",
        "detections",
        method="bmn",
    ),
    Parameter(
        "detector.decode.classes",
        Choice(1, 2, 3),
        "papers 2; a proposal is given that many classes of its video",
        "detections",
        method="bmn",
    ),
    Parameter(
        "detector.decode.max_detections",
        Integer(50, 1000, log=True),
        "OpenTAD 200 on THUMOS14, 100 on ActivityNet",
        "detections",
        method="bmn",
    ),
    *(
        Parameter(f"detector.postprocess.{name}", values, why, "detections", method=method, when=when)
        for method in METHODS
        for name, values, why, when in (
            (
                "method",
                Choice("soft-nms", "nms", "gaufuse"),
                "ActionFormer, HR-Pro soft-nms, POTLoc nms, GauFuse fuses: boundaries are means of many",
                None,
            ),
            (
                "sigma",
                Float(0.1, 1.0, log=True),
                "ActionFormer .5, HR-Pro .3; above 1 overlapping detections hardly lose score",
                ("detector.postprocess.method", "soft-nms"),
            ),
            (
                "iou_threshold",
                Float(0.3, 0.7),
                "POTLoc .45; the tIoU from which a detection is dropped",
                ("detector.postprocess.method", "nms"),
            ),
            (
                "temperature",
                Float(0.001, 1.0, log=True),
                "GauFuse .2; from nearly a copy of the best of a group to the plain mean",
                ("detector.postprocess.method", "gaufuse"),
            ),
            (
                "overlap_threshold",
                Float(0.15, 0.9),
                "GauFuse .25; higher fuses fewer, and leaves more",
                ("detector.postprocess.method", "gaufuse"),
            ),
            (
                "overlap",
                Choice("inter/candidate", "iou", "inter/min"),
                "GauFuse inter/candidate: what lies inside a better one always joins it",
                ("detector.postprocess.method", "gaufuse"),
            ),
            (
                "aggregate",
                Choice("mean", "max", "noisy-or"),
                "GauFuse mean, which lowers the score of a good one that others join",
                ("detector.postprocess.method", "gaufuse"),
            ),
        )
    ),
    Parameter(
        "detector.candidates.fusion.temperature",
        Float(0.005, 2.0, log=True),
        "code .2; high is the plain mean of a group",
        "detections",
        method="rskp",
    ),
    Parameter(
        "detector.candidates.fusion.overlap_threshold",
        Float(0.15, 0.7),
        "code .25; higher fuses fewer candidates into more detections",
        "detections",
        method="rskp",
    ),
    Parameter(
        "detector.candidates.fusion.overlap",
        Choice("inter/candidate", "iou", "inter/min"),
        "code inter/candidate; iou leaves short candidates inside long ones alone",
        "detections",
        method="rskp",
    ),
    Parameter(
        "detector.candidates.fusion.aggregate",
        Choice("mean", "max", "noisy-or"),
        "code mean, which lowers the score where many agree",
        "detections",
        method="rskp",
    ),
    Parameter(
        "detector.candidates.fusion.weight",
        Choice("confidence", "inner"),
        "paper confidence, code inner",
        "detections",
        method="rskp",
    ),
]
