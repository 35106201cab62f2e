"""The most that options of methods may be, each with its reason, and types of numbers within these bounds.

They are far above what any published method uses and refuse what cannot be meant: a slip of the keyboard, a unit
mistaken for another, a number that float32 or the memory cannot hold. Whether a value is good is for `tad tune`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

LR = 1e30
"""A learning rate: a larger one is no float32 after a few steps. Which rates diverge depends on the data; the training
loop stops at the first loss that is not finite and says so."""
DECAY = 10.0
"""Of weights, times the learning rate: more turns their sign."""
NORM = 1e6
"""Of a gradient: nothing is cut beyond it."""
WEIGHT = 1e6
"""Of a loss term or a share of a score: float32 has seven digits, so nothing would be left of the terms beside it."""
FACTOR = 1e3
"""On a cosine, logit, gain or weight: its exponential or power is still a float64."""
POWER = 100.0
"""An exponent of a probability: the hundredth power of 0.9 is 3e-5, so only the best is left."""
TEMPERATURE = 1e6
"""Divides scores: beyond it all are equal in float32."""
SHARE = 1e3
"""A length or shift as a share of another length: no video is a thousand times an action's margin."""
SCORE = 1e6
"""Of a proposal, of any method and either sign: float32 has seven digits."""
SPREAD = 100.0
"""A deviation of scores or log lengths: e^100 is longer than any video."""
SECONDS = 86_400.0
"""A day."""
EPOCHS = 100_000
"""Passes over the videos; the longest published schedule has 2,000."""
STEPS = 100_000_000
"""Of an optimiser; a year at three a second."""
BATCH = 1_000_000
"""Items of a step: more than the videos of any dataset."""
SNIPPETS = 1_000_000
"""Rows of a video, a window or a run: a week at the usual feature rate."""
COUNT = 1_000_000
"""Candidates, detections, samples or neighbours of one video."""
WIDTH = 65_536
"""Channels of a layer: a square matrix of them takes 16 GB."""
PARTS = 4_096
"""Bins, heads, prototypes, slots, clusters, blocks: parts that a network holds or loops over."""
ITEMS = 1_000
"""Of a list of thresholds, scales or rounds."""
ROUNDS = 1_000
"""Of self-training; published methods have at most six."""
FOLDS = 20
"""Of cross-fitting: each costs a training, and beyond it each sees nearly all videos."""
DIGITS = 15
"""After the point: a float64 has no more."""

Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFraction = Annotated[float, Field(gt=0, le=1)]
Chance = Annotated[float, Field(ge=0, lt=1)]
"""Of leaving something out: at 1 nothing would be left."""
Decay = Annotated[float, Field(gt=0, lt=1)]
"""What an average keeps of itself in each step."""
Weight = Annotated[float, Field(ge=0, le=WEIGHT)]
Factor = Annotated[float, Field(gt=0, le=FACTOR)]
Power = Annotated[float, Field(ge=0, le=POWER)]
Temperature = Annotated[float, Field(gt=0, le=TEMPERATURE)]
Ratio = Annotated[float, Field(gt=0, le=SHARE)]
Score = Annotated[float, Field(ge=-SCORE, le=SCORE)]
Spread = Annotated[float, Field(gt=0, le=SPREAD)]
Seconds = Annotated[float, Field(ge=0, le=SECONDS)]
Rate = Annotated[float, Field(gt=0, le=LR)]
Penalty = Annotated[float, Field(ge=0, le=DECAY)]
Norm = Annotated[float, Field(gt=0, le=NORM)]
Epochs = Annotated[int, Field(ge=1, le=EPOCHS)]
BatchSize = Annotated[int, Field(ge=1, le=BATCH)]
Snippets = Annotated[int, Field(ge=1, le=SNIPPETS)]
Count = Annotated[int, Field(ge=1, le=COUNT)]
Width = Annotated[int, Field(ge=1, le=WIDTH)]
Parts = Annotated[int, Field(ge=1, le=PARTS)]
