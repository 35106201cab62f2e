"""Detections from a trained detector: suppression, score floors, fusion with video scores."""

from search_spaces.space import Choice, Float, Integer, Parameter

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
        "detector.decode.sigma",
        Float(0.1, 1.0, log=True),
        "ActionFormer .5; above 1 overlapping detections hardly lose score",
        "detections",
        method="actionformer",
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
        "detector.decode.max_detections",
        Integer(50, 1000, log=True),
        "ActionFormer 200, 100 on ActivityNet",
        "detections",
        method="actionformer",
    ),
    Parameter(
        "detector.decode.nms",
        Choice("soft", "hard"),
        "paper hard; soft keeps what overlaps, at a lower score",
        "detections",
        method="potloc",
    ),
    Parameter(
        "detector.decode.sigma",
        Float(0.1, 1.0, log=True),
        "the proposers' .3; above 1 overlapping detections hardly lose score",
        "detections",
        method="potloc",
        when=("detector.decode.nms", "soft"),
    ),
    Parameter(
        "detector.decode.iou_threshold",
        Float(0.3, 0.7),
        "paper .45; the tIoU from which a detection is dropped",
        "detections",
        method="potloc",
        when=("detector.decode.nms", "hard"),
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
        "detector.decode.sigma",
        Float(0.1, 1.0, log=True),
        "paper .3; above 1 overlapping detections hardly lose score",
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
]
