"""How noisy the lengths are that rows give labels, found without ground truth, and whether rows are believed.

Seeds and boundaries by rows are two raters of the same actions. Within a class, what both say about which action is
longer is the actions' own doing; the rest of each one's variance is its own noise. So with log lengths s and r

    noise of the seeds = var(s) - cov(s, r),    noise of the rows = var(r) - cov(s, r),

each about the median of its class. It is the estimate of two raters by Grubbs (1948), who had products and instruments.
Noise alone is seen: an error that all labels of a class share is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from tad.data.segments import Segments
from tad.stages import Artifact, Context, StageConfig

CLIP = 1.0
"""Of log length about the class's median: beyond a factor of e, how wrong a label is does not matter."""
MORE = 0.1
"""So much more noise than the seeds rows may have. With more, labels got worse in seven of ten samples of real
recordings and on three invented datasets; with less, and what is asked below, better in each of 20 samples, but worse
on two invented datasets, whose seeds had the right length (README.md)."""
FEWEST = 10
"""Labels that can be compared; of fewer, noise cannot be told."""
SHRUNK = 2.0
"""Nor are rows by which labels get shorter, or longer, by this factor: a constant length has no noise."""


class Raters(NamedTuple):
    """What two raters say of the same actions.

    Attributes:
        seeds: noise variance of the seeds' log lengths.
        rows: the same of the rows'.
        ratio: median length by rows over that of the seeds.
        compared: labels of several videos beside another of their class; the others say nothing about noise.
    """

    seeds: float
    rows: float
    ratio: float
    compared: int

    @property
    def doubt(self) -> str:
        """Why boundaries by rows may not take the place of the seeds'; empty: they may."""
        if self.compared < FEWEST:
            return f"of {self.compared} labels can be told how noisy lengths by rows are; it takes {FEWEST}"
        if self.rows > self.seeds + MORE:
            noise = (
                f"variance of logs {self.rows:.2f}, that of the seeds {self.seeds:.2f}; up to {MORE:g} more is believed"
            )
            return f"lengths by rows are too noisy ({noise})"
        if not 1 / SHRUNK < self.ratio < SHRUNK:
            return f"rows make labels {self.ratio:.2f} times as long; beyond {SHRUNK:g} times they are not believed"
        return ""

    @property
    def believed(self) -> bool:
        return not self.doubt

    def sentence(self) -> str:
        """The decision, for a user."""
        if self.doubt:
            return f"seeds stay as they are: {self.doubt}"
        noise = f"noise of log lengths: seeds {self.seeds:.3f}, rows {self.rows:.3f}"
        return f"seeds refined by models of other videos ({noise}; rows alone make them {self.ratio:.2f} times as long)"


@dataclass(frozen=True)
class Believed:
    """Map stage: input "refined" where rows are believed, else input "seeds".

    Other inputs: "first" and "rows", the seeds of the training videos, and the same with boundaries by rows alone.
    """

    config: StageConfig = field(default_factory=StageConfig)
    name: str = "pser/believed"
    version: int = 3
    output: Literal["segments"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        believed = compare(context.inputs, context.data.classes).believed
        labels = context.inputs["refined" if believed else "seeds"].by_video()
        return lambda video: labels.get(video, Segments.empty())


def compare(labels: Mapping[str, Artifact], classes: Sequence[str]) -> Raters:
    """The raters "first" (the seeds) and "rows"; see `raters_of`."""
    return raters_of(labels["first"].segments(), labels["rows"].segments(), classes)


def raters_of(seeds: Segments, rows: Segments, classes: Sequence[str]) -> Raters:
    """Both raters of the labels of the same points; a class with one label says nothing.

    Args:
        seeds: one label for every point.
        rows: the same actions with other boundaries.
        classes: all names.
    """
    pairs = _pairs(seeds, rows)
    label = seeds.label_index(classes)[pairs[:, 0]]
    log_length = np.stack([np.log(s.end - s.start)[i] for s, i in zip((seeds, rows), pairs.T, strict=True)])
    ratio = float(np.exp(np.median(log_length[1]) - np.median(log_length[0]))) if len(pairs) else 1.0
    away, free, compared = np.zeros_like(log_length), 0, 0
    for index in np.unique(label):
        own = label == index
        away[:, own] = log_length[:, own] - np.median(log_length[:, own], axis=1, keepdims=True)
        free += own.sum() - 1
        compared += int(own.sum()) if own.sum() > 1 else 0
    compared *= len(set(seeds.video_ids)) > 1  # one video is judged by models of its own rows
    away = np.clip(away, -CLIP, CLIP)
    (first, both), (_, second) = away @ away.T / max(free, 1)
    return Raters(float(first - both), float(second - both), ratio, compared)


def _pairs(seeds: Segments, rows: Segments) -> np.ndarray:
    """[P, 2] rows of the two tables that name the same video, class and point."""
    key = [{k: i for i, k in enumerate(zip(s.video_ids, s.labels, s.point, strict=True))} for s in (seeds, rows)]
    shared = [k for k in key[0] if k in key[1]]
    return np.array([[k[name] for k in key] for name in shared], dtype=np.int64).reshape(-1, 2)
