"""Families: which of the ranges that stand on the options (`tad.options`) are searched together.

A family is a list of patterns for METHOD/STAGE/KEY, for instance "potloc/detections/detector.decode.scale"; METHOD is
empty for the recipe's own options. The first family with a pattern for an option has it, so an option that is given a
range is searched without a word here.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from search_spaces.parameter import Parameter
from tad.recipe.places import methods

FAMILIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "rounds": ("Rounds of self-training: how many, and when they end early.", ("*/round/*",)),
    "perturbation": (
        "PseR's labels: the seed, cross-fitted boundaries, or its bag of copies, the negatives and the merge.",
        (
            "pser/*/labeler.cross_fitting.*",
            "pser/*/labeler.seed_rule.*",
            "pser/*/labeler.bag.*",
            "pser/*/labeler.negatives.*",
            "pser/*/labeler.merge.*",
            "pser/*/labeler.heads.rank_weight",
        ),
    ),
    "labels": (
        "Labelers on given proposals: points, potloc, gaufuse, pser-seed and hrpro, and the thresholds of apl.",
        ("*/labels/*",),
    ),
    "detector": (
        "Networks: width, windows of attention, regularisation by skipped branches, pooling; of detectors and heads.",
        (
            *("*/detector/*." + name for name in ("width", "window", "stem", "gain", "prior", "bins", "extension")),
            *("*/detector/*." + name for name in ("drop_path", "input_dropout", "max_length", "length", "samples")),
            *("*/detector/*." + name for name in ("top_ratio", "quality")),
            "*bmn/detector/*.upsample",
            *("*/heads/*.heads." + name for name in ("hidden", "project", "bins", "context")),
            *("*/proposer/*." + name for name in ("attention_layers", "block_dropout")),
        ),
    ),
    "sampling": (
        "Sampling: which rows and proposals teach: radius around points, pyramid levels, matches and negatives.",
        (
            *("*/detector/*." + name for name in ("centre_radius", "radius", "levels", "upsample", "positive_tiou")),
            *("*/detector/*." + name for name in ("max_proposals", "negatives.share")),
            "*/proposer/*.action_rows",
        ),
    ),
    "thresholds": (
        "Thresholds: video classes, curves and their grids, contrast, mining of action and background.",
        (
            "*/proposals/*",
            "*/proposer/*_threshold",
            "*/detector/*_threshold",
            *("*potloc/*.decode." + name for name in ("*_threshold*", "scale", "margin", "contrast", "curve_share")),
            *("*potloc/*.decode." + name for name in ("video_factor", "video_bonus")),
            *("rskp/detections/*." + name for name in ("class_threshold", "context", "exponent")),
        ),
    ),
    "postprocess": (
        "Detections from a trained detector: what is done with overlaps, score floors, fusion with video scores.",
        ("*/detections/*",),
    ),
    "proposer_training": (
        "Training of proposer, encoder and the labeler's networks: learning rates, decay, epochs, loss weights.",
        ("*/proposer/*", "*/heads/*"),
    ),
    "training": (
        "Training of the detector: learning rates, decay, epochs, batches, dropout and loss weights.",
        ("*/detector/*",),
    ),
}
"""Name, what it is for, and what it has."""

LEFT_OUT = (
    "mixed/*",
    "pser-weak/*",
    "*actionformer/*/proposer.[!p]*",
    "*actionformer/*/proposer.postprocess.*",
    "*/detector/detector.pretrain.*",
    "pser/*/labeler.seed_rule.fallback",
    "gaufuse/*.fusion.temperature",
    "*/proposals/*.fusion.*",
    *("rskp/proposals/*." + name for name in ("context", "exponent")),
    *("rskp/detections/*." + name for name in ("suppression", "sigma")),
    *("rskp/detector/*." + name for name in ("weight_decay", "batch_size", "ema_decay")),
    *("*bmn/*.contrast_" + name for name in ("frames", "temperature")),
)
"""Ranges that no family has, as the options stand in a group that is searched elsewhere."""


def parameters(family: str) -> list[Parameter]:
    """The parameters of a family, of all methods."""
    return [
        Parameter(
            one.key, one.said.tune, one.said.why, one.stage, method.name or None, one.said.when, one.said.stand_in
        )
        for method in methods()
        for one in method.options
        if one.said.tune is not None and family_of(f"{method.name}/{one.stage}/{one.key}") == family
    ]


def family_of(place: str) -> str | None:
    """The family that has the option at METHOD/STAGE/KEY; None if none has it."""
    if any(fnmatchcase(place, pattern) for pattern in LEFT_OUT):
        return None
    return next((name for name, (_, has) in FAMILIES.items() if any(fnmatchcase(place, p) for p in has)), None)
