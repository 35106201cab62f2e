"""Sampling: which rows and proposals teach: radius around points, pyramid levels, matches and negatives."""

from search_spaces.space import Choice, Float, Integer, Parameter

SPACE = [
    Parameter(
        "proposer.training.action_rows",
        Choice("points", "mined"),
        "papers points; mined adds confident rows around them",
        "proposer",
        method=("snippet", "hrpro"),
    ),
    Parameter(
        "detector.centre_radius",
        Float(1.0, 2.5),
        "ActionFormer 1.5; below 1 short actions have no positive point",
        "detector",
        method="actionformer",
    ),
    Parameter(
        "detector.levels",
        Integer(2, 7),
        "ActionFormer 6; the coarsest level should cover half the longest action",
        "detector",
        method="actionformer",
        stand_in=5,
    ),
    Parameter(
        "detector.upsample",
        Choice(None, 1, 2, 4),
        "ActionFormer 1; more rows for actions of few snippets, at linear cost",
        "detector",
        method="actionformer",
    ),
    Parameter(
        "detector.training.radius",
        Choice(1.0, 1.5, 2.0, 3.0, 4.0, None),
        "paper 2 strides; null samples the whole pseudo-label, errors at its ends included",
        "detector",
        method="potloc",
    ),
    Parameter(
        "detector.training.levels",
        Integer(1, 6),
        "paper 5, code 3; one level is the control without a pyramid",
        "detector",
        method="potloc",
    ),
    Parameter(
        "detector.training.upsample",
        Choice(None, 1, 2, 4),
        "paper 1; more rows for actions of few snippets, at linear cost",
        "detector",
        method="potloc",
    ),
    Parameter(
        "detector.training.positive_tiou",
        Float(0.2, 0.6),
        "paper .3; higher leaves fewer proposals to learn boundaries from",
        "detector",
        method="hrpro-instance",
    ),
    Parameter(
        "detector.training.max_proposals",
        Integer(200, 2000, log=True),
        "paper 1000 of a video in each epoch; sets the cost of a step",
        "detector",
        method="hrpro-instance",
    ),
    Parameter(
        "detector.negatives.share",
        Float(0.0, 2.0),
        "paper .5 as many pieces of background as candidates; 0: none",
        "detector",
        method="hrpro-instance",
    ),
]
