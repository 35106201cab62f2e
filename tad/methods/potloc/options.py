"""Options of the training of the detector `potloc`."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from tad import bounds
from tad.options import option
from tad.ranges import Choice, Float, Integer
from tad.stages import StageConfig


class PotlocTraining(StageConfig):
    """Network, targets, losses and optimiser; null fields are derived from the data and saved with the model."""

    width: int | None = option(
        None,
        "of the network; null: the power of two nearest half the feature width, 32..512",
        ge=8,
        le=bounds.WIDTH,
        paper=512,
        free=True,
        tune=Choice(None, 64, 128, 256, 512),
        why="code 512; null: half of the features'",
    )
    heads: bounds.Parts = option(4, "attention heads; divides the width", paper=4)
    levels: int = option(
        3,
        "of the pyramid, strides 1, 2, 4, ...",
        ge=1,
        le=10,
        paper=3,
        free=True,
        tune=Integer(1, 6),
        why="paper 5, code 3; one level is the control without a pyramid",
    )
    upsample: int | None = option(
        None,
        "rows that the network sees for each snippet, interpolated; null: 2 where the median pseudo-label "
        "covers fewer than 16 snippets, else 1",
        ge=1,
        le=4,
        paper=1,
        tune=Choice(None, 1, 2, 4),
        why="paper 1; more rows for actions of few snippets, at linear cost",
    )
    gain: bounds.Factor = option(
        0.1,
        "factor of each residual branch at the start",
        paper=1e-4,
        tune=Float(1e-4, 0.5, log=True),
        why="code 1e-4, which a short schedule does not leave",
    )
    prior: bounds.Decay = option(
        0.5,
        "probability that all outputs start near; few rows teach, so from the middle",
        paper=0.01,
        tune=Float(0.01, 0.5, log=True),
        why="code .01, of a loss over all rows; here few rows teach",
    )
    stem: int = option(
        2,
        "attention blocks at full rate; 0 with levels 1 leaves convolutions alone",
        ge=0,
        le=bounds.PARTS,
        paper=2,
        tune=Integer(0, 3),
        why="code 2 attention blocks at full rate",
    )
    window: int = option(
        19,
        "snippets that attention sees on each level; an even number sees one more",
        ge=3,
        le=bounds.SNIPPETS,
        paper=12,
        free=True,
        tune=Integer(7, 25),
        why="paper 19, code 12 (which sees 13), 7 on short sequences",
    )
    drop_path: bounds.Chance = option(
        0.1,
        "chance that a residual branch is skipped",
        paper=0.1,
        tune=Float(0.0, 0.3),
        why="code .1; 0 for narrow networks and short schedules",
    )
    input_dropout: bounds.Chance = option(
        0.0,
        "chance that a feature channel is dropped",
        paper=0.0,
        tune=Float(0.0, 0.5),
        why="code 0; whole feature channels",
    )
    max_length: bounds.Snippets | None = option(
        None,
        "snippets of a training window; null: longer than 95 % of the videos, <= 2304",
        paper=768,
        free=True,
        tune=Choice(None, 192, 384, 768, 1152, 2304),
        why="paper 2304, code 768",
    )
    radius: bounds.Ratio | None = option(
        2.0,
        "how far from its point a pseudo-label is sampled, in strides; null: all of it",
        paper=2.0,
        tune=Choice(1.0, 1.5, 2.0, 3.0, 4.0, None),
        why="paper 2 strides; null samples the whole pseudo-label, errors at its ends included",
    )
    rounded: bool = option(False, "true: the published targets, rounded to whole snippets", paper=True)
    background_rows: Literal["gaps", "published"] = option(
        "gaps",
        "background rows: mined in all gaps; published: in outer ones only where the model is sure",
        paper="published",
        formerly="seeds",
    )
    background_threshold: bounds.Fraction = option(
        0.95,
        "mined background: at least this score",
        paper=0.95,
        tune=Float(0.8, 0.98),
        why="paper .95; mined background that teaches the detector",
    )
    top_ratio: bounds.Snippets = option(
        8,
        "a video's class score is the mean of its T / top_ratio best",
        paper=8,
        tune=Integer(2, 16, log=True),
        why="paper 8; 2 to 4 where actions fill their video",
    )
    video_weight: bounds.Weight = option(
        0.0,
        "weight of the video-level loss",
        paper=1.0,
        tune=Float(0.0, 2.0),
        why="code 1, which makes actions as long as top_ratio says; points teach classes without it",
    )
    action_weight: bounds.Weight = option(
        0.5,
        "weight of the loss on sampled rows",
        paper=0.5,
        tune=Float(0.1, 2.0, log=True),
        why="code .5; the loss of sampled rows",
    )
    background_weight: bounds.Weight = option(
        1.0,
        "weight of the loss on mined background rows",
        paper=1.0,
        tune=Float(0.1, 2.0, log=True),
        why="code 1; the loss of mined background",
    )
    focal: bounds.Power = option(
        2.0, "focusing exponent of the row losses", paper=2.0, tune=Float(1.0, 3.0), why="paper 2"
    )
    epochs: bounds.Epochs = option(
        50,
        "passes over the training videos",
        paper=50,
        free=True,
        tune=Integer(3, 150, log=True),
        why="paper 100, code 50",
    )
    batch_size: bounds.BatchSize = option(
        4,
        "videos of a step, over all workers",
        paper=4,
        free=True,
        tune=Integer(1, 64, log=True),
        why="paper 3, code 4; 64 of the paper's 192 rows on ActivityNet",
    )
    lr: bounds.Rate | None = option(
        None,
        "peak; null: 1e-4 for width 512 and batches of 4, more for narrower or larger",
        paper=1e-4,
        free=True,
        tune=Float(3e-5, 3e-3, log=True),
        why="paper 1e-4 for width 512; narrower networks want more",
        stand_in=4e-4,
    )
    warmup: bounds.Chance = option(
        0.2,
        "share of the steps until the peak; then a cosine",
        paper=0.2,
        tune=Float(0.0, 0.3),
        why="code 10 of 50 epochs; paper none",
    )
    weight_decay: bounds.Penalty = option(
        0.05,
        "of matrices; none on biases, norms and gains",
        paper=0.05,
        tune=Float(1e-4, 0.2, log=True),
        why="code .05",
    )
    clip_norm: bounds.Norm | None = option(1.0, "largest norm of the gradient; null: any", paper=1.0)
    ema_decay: bounds.Chance | None = option(
        None,
        "of the averaged weights; null: 0.999, or less for fewer than 10,000 steps",
        paper=0.999,
        free=True,
        tune=Choice(None, 0.9, 0.99, 0.995, 0.999),
        why="code .999, for 2,500 steps",
    )

    @model_validator(mode="after")
    def _shapes(self) -> PotlocTraining:
        if self.width is not None and self.width % self.heads:
            raise ValueError(f"heads must divide the width, got {self.heads} heads and width {self.width}")
        return self
