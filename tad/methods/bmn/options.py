"""Options of the training of the detector `bmn`, and what is derived from the data or from a model to start from.

Source: BMN (ICCV 2019) section 3.4 and its public re-implementations.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import Field, model_validator

from tad import bounds
from tad.data.dataset import Dataset
from tad.methods.bmn.targets import Fit
from tad.methods.common.frame_contrast import ContrastOptions
from tad.methods.common.optimisers import derived_width
from tad.methods.common.warm_start import Kin
from tad.methods.common.windows import SHORT, expected_length

FILLED = 8.0
"""Bins that the median pseudo-label should cover; where a resized video leaves it fewer, videos are cut to windows."""

SHAPE = ("dim", "fit", "length", "upsample", "width")
"""Settings that a network shares with a base that was pre-trained alone."""
BASE = Kin(
    same=(*SHAPE, "classes", "durations", "samples", "published_edges", "distance"),
    always=SHAPE,
    parts=("base.",),
    refusal="no base of bmn, so the detector cannot start from it; use a model of bmn, or set init to none",
)


class BmnTraining(ContrastOptions):
    """Network, windows, losses and optimiser; null fields are derived from the data and saved with the model."""

    fit: Fit | None = Field(
        default=None,
        description="resize whole videos, or cut them to windows that overlap by half; null: resize where the features "
        "are already resized or the median pseudo-label still covers 8 bins",
    )
    length: int | None = Field(
        default=None,
        ge=4,
        le=bounds.PARTS,
        description="bins of a window; null: the rows of resized features, else 128",
    )
    durations: int | None = Field(
        default=None,
        ge=1,
        le=bounds.PARTS,
        description="longest proposal in bins; null: length if resized, else half of it",
    )
    upsample: int | None = Field(
        default=None,
        ge=1,
        le=4,
        description="bins for each snippet in windows; null: until the median pseudo-label covers 16",
    )
    width: int | None = Field(
        default=None,
        ge=8,
        le=bounds.WIDTH,
        multiple_of=4,
        description="of the base; null: published 256, or half the feature width",
    )
    samples: int = Field(default=32, ge=2, le=bounds.PARTS, description="places at which a proposal is sampled")
    published_edges: bool = Field(
        default=False, description="true: the released code's uneven weights of samples beyond the window"
    )
    quality: bool = Field(
        default=False, description="a third map, the distance of centres, and a joint score (APL's quality branches)"
    )
    quality_weight: float = Field(default=0.1, ge=0, le=bounds.WEIGHT, description="of the third map's loss")
    coverage: float = Field(
        default=0.75, gt=0, le=1, description="a window teaches the pseudo-labels of which it holds this share"
    )
    positive: float = Field(default=0.9, gt=0, lt=1, description="tIoU above which a proposal is positive")
    best_positive: bool = Field(
        default=True, description="a pseudo-label's best proposal is positive too, if its tIoU is above 0.5"
    )
    regression_weight: float = Field(default=5.0, ge=0, le=bounds.WEIGHT, description="of the tIoU map's loss")
    unlabelled_weight: float | None = Field(
        default=None,
        ge=0,
        le=bounds.WEIGHT,
        description="of the loss on videos that are not fully labelled, balanced on its own; null: all in one loss",
    )
    epochs: int = Field(default=10, ge=1, le=bounds.EPOCHS, description="passes over the training windows")
    batch_size: int = Field(default=16, ge=1, le=bounds.BATCH, description="windows of a step, over all workers")
    lr: float | None = Field(
        default=None, gt=0, le=bounds.LR, description="null: 1e-3 for resized videos, 1e-4 for windows"
    )
    decay_at: float = Field(default=0.7, gt=0, le=1, description="share of the steps after which the rate falls to .1")
    weight_decay: float = Field(default=1e-4, ge=0, le=bounds.DECAY, description="10 times as much on the base")
    clip_norm: float = Field(default=1.0, gt=0, le=bounds.NORM, description="largest norm of the gradient")
    ema_decay: float | None = Field(
        default=None, ge=0, lt=1, description="of the averaged weights; null: the last weights are used"
    )

    @model_validator(mode="after")
    def _shapes(self) -> BmnTraining:
        if None not in (self.length, self.durations) and self.durations > self.length:  # type: ignore[operator]
            raise ValueError(f"durations must not exceed length, got {self.durations} and {self.length}")
        return self


def shape(
    config: BmnTraining, data: Dataset, sizes: Mapping[str, np.ndarray], theirs: Mapping[str, Any]
) -> dict[str, Any]:
    """The settings `SHAPE`; null options are those of a model to start from, or derived from the data.

    Args:
        config: of the detector.
        data: whose features are read.
        sizes: lengths [N] of the labels of some videos, in snippets; where there are none, nothing speaks for resizing
            videos or refining their rows.
        theirs: settings of the model to start from; empty: none.
    """
    grid = data.manifest.grid
    every = np.concatenate([np.zeros(0), *sizes.values()])
    length = config.length or theirs.get("length") or grid.length or 128
    fit = config.fit or theirs.get("fit")
    if fit is None:
        covered = [size * length / expected_length(data, video) for video, size in sizes.items()]
        filled = len(every) > 0 and np.median(np.concatenate(covered)) >= FILLED
        fit = "resize" if grid.length or filled else "windows"
    derived = int(np.clip(math.ceil(SHORT / float(np.median(every))), 1, 4)) if len(every) else 1
    return {
        "dim": grid.dim,
        "fit": fit,
        "length": length,
        "upsample": 1 if fit == "resize" else config.upsample or theirs.get("upsample") or derived,
        "width": config.width or theirs.get("width") or min(256, derived_width(grid.dim, 4, "bmn")),
    }


def published_rate(fit: Fit) -> float:
    """The learning rate of the public re-implementations."""
    return 1e-3 if fit == "resize" else 1e-4
