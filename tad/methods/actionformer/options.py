"""Options of the network and the training of ActionFormer."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import model_validator

from tad import bounds
from tad.methods.common.formerly import ACTIONFORMER
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import StageConfig


class Training(StageConfig):
    """Network and training; what is null is derived from labels and recordings, printed, and saved with the model."""

    formerly: ClassVar[dict[str, Any]] = ACTIONFORMER
    width: int | None = option(
        None,
        "of the network; null: the power of two nearest half the feature width, 32..512",
        ge=8,
        le=bounds.WIDTH,
        tune=Choice(None, 64, 128, 256, 512),
        why="ActionFormer 512 for features of width 2048; null: a quarter to half of theirs",
    )
    heads: bounds.Parts = option(4, "attention heads; divides the width")
    levels: int | None = option(
        None,
        "of the pyramid; null: until half the longest pseudo-label is in range",
        ge=1,
        le=10,
        tune=Integer(2, 7),
        why="ActionFormer 6; the coarsest level should cover half the longest action",
        stand_in=5,
    )
    upsample: int | None = option(
        None,
        "rows that the network sees for each snippet, interpolated; null: 2 where the median pseudo-label "
        "covers fewer than 16 snippets, else 1",
        ge=1,
        le=4,
        tune=Choice(None, 1, 2, 4),
        why="ActionFormer 1; more rows for actions of few snippets, at linear cost",
    )
    window: int = option(
        19,
        "snippets that attention sees on each level; odd",
        ge=3,
        le=bounds.SNIPPETS,
        tune=Integer(7, 31, step=2),
        why="ActionFormer 19 on THUMOS14, 7 on short sequences; odd",
    )
    drop_path: bounds.Chance = option(
        0.1,
        "chance that a residual branch is skipped",
        tune=Float(0.0, 0.3),
        why="ActionFormer .1; 0 for narrow networks and short schedules",
    )
    input_dropout: bounds.Chance = option(
        0.2, "chance that a feature channel is dropped", tune=Float(0.0, 0.5), why="OpenTAD .2; whole feature channels"
    )
    max_length: bounds.Snippets | None = option(
        None,
        "snippets of a training window; null: longer than 95 % of the videos, <= 2304",
        tune=Choice(None, 192, 384, 768, 1152, 2304),
        why="ActionFormer 2304; longer windows see whole videos at more cost",
    )
    epochs: bounds.Epochs | None = option(
        None,
        "passes over the training videos; null: 35, or as many as make 300 steps",
        tune=Integer(3, 100, log=True),
        why="ActionFormer 35; pseudo-labels are overfitted sooner than full labels",
        stand_in=35,
    )
    batch_size: bounds.BatchSize = option(
        2, "videos of a step, over all workers", tune=Integer(1, 16, log=True), why="ActionFormer 2, 16 on ActivityNet"
    )
    lr: bounds.Rate | None = option(
        None,
        "peak; null: 1e-4 for width 512 and batches of 2, more for narrower or larger",
        tune=Float(3e-5, 3e-3, log=True),
        why="ActionFormer 1e-4 for width 512; narrower networks want more",
        stand_in=4e-4,
    )
    warmup: bounds.Chance = option(
        1 / 7,
        "share of the steps until the peak; then a cosine",
        tune=Float(0.0, 0.4),
        why="ActionFormer 5 of 35 epochs",
    )
    weight_decay: bounds.Penalty = option(
        0.05, "of matrices; none on biases, norms and gains", tune=Float(1e-4, 0.2, log=True), why="ActionFormer .05"
    )
    clip_norm: bounds.Norm = option(1.0, "largest norm of the gradient")
    ema_decay: bounds.Chance | None = option(
        None,
        "of the averaged weights; null: 0.999, or less for fewer than 10,000 steps",
        tune=Choice(None, 0.9, 0.99, 0.995, 0.999),
        why="ActionFormer .999, for 10,000 steps",
    )
    centre_radius: bounds.Ratio = option(
        1.5,
        "of the positive zone around a centre, in strides",
        tune=Float(1.0, 2.5),
        why="ActionFormer 1.5; below 1 short actions have no positive point",
    )
    regression_weight: bounds.Weight = option(
        1.0,
        "of the boundary loss beside the class loss",
        tune=Float(0.25, 4.0, log=True),
        why="ActionFormer 1; less where the ends of pseudo-labels are poor",
    )
    label_score_weight: bounds.Fraction = option(
        0.0,
        "how far a pseudo-label's score weighs its loss; 0: all count alike",
        tune=Float(0.0, 1.0),
        why="papers 0: all pseudo-labels count alike",
        formerly="score_weight",
    )

    @model_validator(mode="after")
    def _shapes(self) -> Training:
        if self.window % 2 == 0:
            raise ValueError(f"window must be odd, got {self.window}")
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"heads must divide the width, got {self.heads} heads and width {self.width}")
        return self
