"""POTLoc's ablations: what supervises the detector, with and without sampling (Table 2), and levels (Table 3).

Both show the detector alone, as the paper does; the rows "recipe" blend its curves with the proposer's. Ground truth
teaches the detector in its rows only, never the base. Sampled: only rows near a point teach; proposals have none, so
their centre takes its place.
"""

from __future__ import annotations

from benchmarks.studies.papers.paper import Line, Paper, Step, Table
from benchmarks.studies.real.rows import Way

LABELERS = {"truth": "full", "labels": "potloc", "proposals": "proposals", "points": "point-snippets"}
ALONE = ("detector.decode.curve_share=0", "detector.decode.video_power=0")
CONVOLUTIONS = ("detector.training.levels=1", "detector.training.stem=0", "detector.training.background_rows=published")
"""The base model's layers and background rule, on the labels of the row."""
EVERYTHING = ("detector.training.radius=null",)
POINTS = "labeler.method=point-snippets"


def alone(*changes: str) -> Way:
    return Way("potloc-small", ALONE + changes)


WAYS = {
    "base": Way("potloc-small", rounds=0),
    # The same model: an emptied group has the defaults, which potloc-small leaves as they are.
    "base-released": Way("potloc-released", ("proposer.training={}",), rounds=0),
    "recipe": Way("potloc-small"),
    "recipe-points": Way("potloc-small", (POINTS, *EVERYTHING)),
}
for _name, _labeler in LABELERS.items():
    for _net, _layers in (("attention", ()), ("convolutions", CONVOLUTIONS)):
        WAYS[f"{_net}-{_name}"] = alone(f"labeler.method={_labeler}", *_layers, *EVERYTHING)
        if _name != "points":  # without an extent there is nothing to sample
            WAYS[f"{_net}-{_name}-sampled"] = alone(f"labeler.method={_labeler}", *_layers)
WAYS |= {f"levels-{n}": alone(f"detector.training.levels={n + 1}") for n in range(6)}

TABLE_2 = Table(
    "Table 2, what supervises the detector, and sampling",
    (
        Line("base", "base"),
        Line("base, inference as released", "base-released", (47.4,)),
        Line("recipe", "recipe"),
        Line("recipe, points", "recipe-points"),
        Line("attention, ground truth, sampled", "attention-truth-sampled", (57.9,)),
        Line("attention, ground truth", "attention-truth", (55.4,)),
        Line("attention, pseudo-labels, sampled", "attention-labels-sampled", (57.6,)),
        Line("attention, pseudo-labels", "attention-labels", (54.1,)),
        Line("attention, proposals, sampled", "attention-proposals-sampled", (26.8,)),
        Line("attention, proposals", "attention-proposals", (38.3,)),
        Line("attention, points", "attention-points", (52.7,)),
        Line("convolutions, ground truth, sampled", "convolutions-truth-sampled", (50.1,)),
        Line("convolutions, ground truth", "convolutions-truth", (44.8,)),
        Line("convolutions, pseudo-labels, sampled", "convolutions-labels-sampled", (49.8,)),
        Line("convolutions, pseudo-labels", "convolutions-labels", (46.9,)),
        Line("convolutions, proposals, sampled", "convolutions-proposals-sampled", (28.7,)),
        Line("convolutions, proposals", "convolutions-proposals", (38.2,)),
        Line("convolutions, points", "convolutions-points", (47.4,)),
    ),
    (
        Step("POTLoc, recipe, over its base", "recipe", "base"),
        Step("POTLoc, alone, over its base", "attention-labels-sampled", "base"),
        Step("alone, over the base as released", "attention-labels-sampled", "base-released"),
        Step("pseudo-labels over points", "attention-labels-sampled", "attention-points"),
        Step("the same, recipe", "recipe", "recipe-points"),
        Step("the same, convolutions", "convolutions-labels-sampled", "convolutions-points"),
        Step("sampling, ground truth", "attention-truth-sampled", "attention-truth"),
        Step("sampling, pseudo-labels", "attention-labels-sampled", "attention-labels"),
        Step("sampling, proposals", "attention-proposals-sampled", "attention-proposals"),
        Step("sampling, ground truth, convolutions", "convolutions-truth-sampled", "convolutions-truth"),
        Step("sampling, pseudo-labels, convolutions", "convolutions-labels-sampled", "convolutions-labels"),
        Step("sampling, proposals, convolutions", "convolutions-proposals-sampled", "convolutions-proposals"),
        Step("ground truth over pseudo-labels, sampled", "attention-truth-sampled", "attention-labels-sampled"),
        Step("attention, ground truth, sampled", "attention-truth-sampled", "convolutions-truth-sampled"),
        Step("attention, pseudo-labels, sampled", "attention-labels-sampled", "convolutions-labels-sampled"),
        Step("attention, points", "attention-points", "convolutions-points"),
    ),
)

FIGURES = (51.9, 54.0, 57.9, 57.8, 57.6, 55.9)
TABLE_3 = Table(
    "Table 3, levels above the finest (pseudo-labels, sampled)",
    tuple(Line(str(n), f"levels-{n}", (figure,)) for n, figure in enumerate(FIGURES)),
    tuple(Step(f"{n} over none", f"levels-{n}", "levels-0") for n in range(1, len(FIGURES))),
)

PAPER = Paper("potloc", ("points",), "THUMOS14, I3D features, mean mAP at tIoU .1 to .7", 0.1, WAYS, (TABLE_2, TABLE_3))
