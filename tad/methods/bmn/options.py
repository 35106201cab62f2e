"""Options of the training of the detector `bmn`, and what is derived from the data.

Source: BMN (ICCV 2019) section 3.4 and its public re-implementations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import model_validator

from tad import bounds
from tad.data.dataset import Dataset
from tad.methods.bmn.targets import Fit
from tad.methods.common.formerly import BMN
from tad.methods.common.optimisers import derived_width
from tad.methods.common.windows import SHORT, expected_length
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import StageConfig

SHAPE = ("dim", "fit", "length", "upsample", "width")
"""Settings on which the base alone depends."""


class BmnTraining(StageConfig):
    """Network, windows, losses and optimiser; null fields are derived from the data and saved with the model."""

    formerly: ClassVar[dict[str, Any]] = BMN
    fit: Fit | None = option(
        None,
        "resize whole videos, or cut them to windows that overlap by half; null: resize where the features "
        "are already resized or the median pseudo-label still covers 16 bins",
    )
    length: int | None = option(
        None,
        "bins of a window; null: the rows of resized features, else 128",
        ge=4,
        le=bounds.PARTS,
        tune=Choice(None, 64, 96, 128, 192),
        why="BMN 100, OpenTAD 128 bins of a window; cost grows with its square",
    )
    durations: bounds.Parts | None = option(None, "longest proposal in bins; null: length if resized, else half of it")
    upsample: int | None = option(
        None,
        "bins for each snippet in windows; null: until the median pseudo-label covers 16",
        ge=1,
        le=4,
        tune=Choice(None, 1, 2, 4),
        why="a positive proposal needs a tIoU of .9 with a label, so labels many bins long",
    )
    width: int | None = option(
        None,
        "of the base; null: published 256, or half the feature width",
        ge=8,
        le=bounds.WIDTH,
        multiple_of=4,
        tune=Choice(None, 64, 128, 256),
        why="BMN 256; null: half of the features'",
    )
    samples: int = option(
        32,
        "places at which a proposal is sampled",
        ge=2,
        le=bounds.PARTS,
        tune=Choice(8, 16, 32),
        why="BMN 32 places of a proposal; cost of its layer grows with them",
    )
    published_edges: bool = option(False, "true: the released code's uneven weights of samples beyond the window")
    coverage: bounds.PositiveFraction = option(0.75, "a window teaches the pseudo-labels of which it holds this share")
    positive: bounds.Decay = option(0.9, "tIoU above which a proposal is positive")
    best_positive: bool = option(True, "a pseudo-label's best proposal is positive too, if its tIoU is above 0.5")
    regression_weight: bounds.Weight = option(
        5.0, "of the tIoU map's loss", tune=Float(1.0, 20.0, log=True), why="BMN 5"
    )
    epochs: bounds.Epochs = option(
        10, "passes over the training windows", tune=Integer(3, 60, log=True), why="BMN 10; more for few videos"
    )
    batch_size: bounds.BatchSize = option(16, "windows of a step, over all workers")
    lr: bounds.Rate = option(
        1e-3,
        "of Adam",
        tune=Float(3e-5, 3e-3, log=True),
        why="BMN 1e-3, on resized videos; OpenTAD 1e-4 on windows, of which few videos give too few",
    )
    decay_at: bounds.PositiveFraction = option(0.7, "share of the steps after which the rate falls to .1")
    weight_decay: bounds.Penalty = option(1e-4, "10 times as much on the base")
    clip_norm: bounds.Norm = option(1.0, "largest norm of the gradient")
    ema_decay: bounds.Chance | None = option(
        None,
        "of the averaged weights; null: the last weights are used",
        tune=Choice(None, 0.9, 0.99, 0.995, 0.999),
        why="code .999, for 2,500 steps",
    )

    @model_validator(mode="after")
    def _shapes(self) -> BmnTraining:
        if None not in (self.length, self.durations) and self.durations > self.length:  # type: ignore[operator]
            raise ValueError(f"durations must not exceed length, got {self.durations} and {self.length}")
        return self


def shape(config: BmnTraining, data: Dataset, sizes: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The settings `SHAPE`; null options are derived from the data.

    Args:
        config: of the detector.
        data: whose features are read.
        sizes: lengths [N] of the labels of some videos, in snippets; where there are none, nothing speaks for resizing
            videos or refining their rows.
    """
    grid = data.manifest.grid
    every = np.concatenate([np.zeros(0), *sizes.values()])
    length, fit = config.length or grid.length or 128, config.fit
    if fit is None:
        covered = [size * length / expected_length(data, video) for video, size in sizes.items()]
        filled = len(every) > 0 and np.median(np.concatenate(covered)) >= SHORT
        fit = "resize" if grid.length or filled else "windows"
    derived = int(np.clip(math.ceil(SHORT / float(np.median(every))), 1, 4)) if len(every) else 1
    return {
        "dim": grid.dim,
        "fit": fit,
        "length": length,
        "upsample": 1 if fit == "resize" else config.upsample or derived,
        "width": config.width or min(256, derived_width(grid.dim, 4, "bmn")),
    }
