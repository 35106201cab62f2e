"""Scores of pseudo-labels from points alone, on the real proposals of benchmarks.references.point_protocols."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.references.point_protocols import Protocol, labelled, pseudo_labels
from tad.methods.common.seeds import neighbour_times
from tad.methods.points.model import CUTS, ROUNDS, Constants, Grid, PointModel
from tad.ops.iou import paired_tiou
from tad.recipe.recipe import load_recipe
from tad.selection.reference import by_proposals

LABELERS: list[tuple[str, list[str]]] = [
    *(
        ("pser-seed", [*options])
        for options in (
            [],
            ["faithful=true"],
            ["seed_rule.crossing=keep"],
            ["seed_rule.half_width=0.5"],
            ["seed_rule.half_width=5.0"],
            ["seed_rule.min_score=0.3"],
            ["seed_rule.min_score=0.6"],
            ["seed_rule.neighbours=same-class"],
            ["seed_rule.min_score=0.9", "seed_rule.half_width=1.0"],
            ["seed_rule.min_score=0.9", "seed_rule.half_width=4.0"],
        )
    ),
    ("hrpro", []),
    ("hrpro", ["faithful=true"]),
    *(("potloc", [f"rule={rule}"]) for rule in ("midpoints", "released", "paper")),
    *(
        ("points", [*options])
        for options in (
            [],
            ["compression=0.5"],
            ["compression=1.0"],
            ["compression=1.5"],
            ["sharpness=0.0"],
            ["sharpness=20.0"],
            ["length_noise=0.1"],
            ["length_noise=1.0"],
            ["centre_noise=0.05"],
            ["centre_noise=0.5"],
            ["spread=0.2"],
            ["spread=2.0"],
            ["compression=2.5", "spread=0.1"],
            ["length_noise=2.0", "centre_noise=1.0", "sharpness=0.0"],
        )
    ),
]
DESIGNS = ("tIoU with the reference", "tIoU expected by the model", "not crowded", "one length a class")


class Expected:
    """The tIoU that the model of labeler `points`, with its default constants, expects of any label."""

    def __init__(self, of: Protocol) -> None:
        model = PointModel(of.points, of.grouped, len(of.data.classes), Constants())
        lag, grid = model.find_lag(), Grid.around(model.typical, 0.1, 20)
        prior = model.start(grid)
        for _ in range(CUTS):
            around = model.around(prior.middle, lag)
            evidence = model.evidence(grid, around, prior)
            for _ in range(ROUNDS):
                prior = model.learn(grid, around, evidence, prior)[0]
        posterior = evidence * prior.length[model.group][:, :, None] * prior.position
        self.posterior = (posterior / posterior.sum(axis=(1, 2), keepdims=True)).reshape(len(posterior), -1)
        length = np.exp(grid.log_length)[:, None]
        self.start, self.end = (-length * grid.position).ravel(), (length * (1 - grid.position)).ravel()
        self.time, self.room = of.points.time[:, None], around.territory - of.points.time[:, None]

    def __call__(self, spans: np.ndarray) -> float:
        """Mean over points; spans [G, 2] seconds, NaN for a missing label."""
        total = 0.0
        for i in range(0, len(spans), 512):
            rows = slice(i, i + 512)
            label = spans[rows] - self.time[rows]
            low, high = np.maximum(self.start, self.room[rows, :1]), np.minimum(self.end, self.room[rows, 1:])
            shared = np.maximum(np.minimum(label[:, 1:], high) - np.maximum(label[:, :1], low), 0)
            either = (label[:, 1:] - label[:, :1]) + np.maximum(high - low, 1e-9) - shared
            total += float(np.nan_to_num((self.posterior[rows] * shared / either).sum(axis=1)).sum())
        return total / len(spans)


def measure(of: Protocol, folder: Path) -> tuple[list[str], np.ndarray, Mapping[str, np.ndarray]]:
    """Names of the labelers, their true mean tIoU [L], and each design's values [L]."""
    names, truth = [], []
    values: dict[str, list[float]] = {name: [] for name in DESIGNS}
    scored, expected = ~np.isnan(of.truth[:, 0]), Expected(of)
    judge = labelled(of, by_proposals(of.proposals.segments(), of.data).segments)
    before, after = neighbour_times(of.points.time, of.points.group, same_class=True)
    for i, (method, options) in enumerate(LABELERS):
        recipe = load_recipe("seeds", [f"labeler.method={method}", *(f"labeler.{o}" for o in options)])
        spans = labelled(of, pseudo_labels(of, recipe.labeler, folder / f"{of.name}-{i}"))
        names.append(" ".join([method, *options]))
        truth.append(np.nan_to_num(paired_tiou(spans[scored], of.truth[scored])).mean())
        length = np.log(spans[:, 1] - spans[:, 0])
        by_class: Sequence[float] = [np.nanstd(length[of.label == c]) for c in np.unique(of.label)]
        found = (
            np.nan_to_num(paired_tiou(spans, judge)).mean(),
            expected(spans),
            1 - np.mean((spans[:, 0] <= before) | (spans[:, 1] >= after)),
            -np.mean(by_class),
        )
        for name, value in zip(DESIGNS, found, strict=True):
            values[name].append(float(value))
    return names, np.array(truth), {name: np.array(v) for name, v in values.items()}
