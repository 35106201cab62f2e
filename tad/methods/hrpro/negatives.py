"""Negative proposals for the instance model: pieces of background.

Source: HR-Pro (AAAI 2024), reliability ranking, in the form its code runs; but in seconds, as candidates are, where the
published file mixes snippets and seconds.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from tad import bounds
from tad.data.segments import Segments
from tad.methods.hrpro.background_pieces import sample_background
from tad.methods.hrpro.detector_training import segments_of
from tad.methods.snippet.mining import background_runs
from tad.options import option
from tad.ranges import Float
from tad.stages import Context, StageConfig


class NegativesConfig(StageConfig):
    """Pieces of mined background as further proposals."""

    share: float = option(
        0.5,
        "how many, as a share of the video's candidates",
        ge=0,
        le=bounds.SHARE,
        paper=0.5,
        tune=Float(0.0, 2.0),
        why="paper .5 as many pieces of background as candidates; 0: none",
    )
    background_threshold: bounds.Fraction = option(
        0.95,
        "mined background: at least this score",
        paper=0.95,
        tune=Float(0.8, 0.98),
        why="paper .95; background that negatives are drawn from",
    )


@dataclass(frozen=True)
class Negatives:
    """Map stage: random pieces of the background mined on the proposer's curve; inputs "scores" and "candidates".

    Their class, the first of the video's, and their score, 0, say nothing.
    """

    config: NegativesConfig
    name: str = "hrpro-instance/negatives"
    version: int = 1
    output: Literal["segments", "arrays"] = "segments"

    def open(self, context: Context) -> Callable[[str], Segments]:
        data, scores, config = context.data, context.inputs["scores"], self.config
        candidates = segments_of(context, "candidates")

        def draw(video: str) -> Segments:
            points, count = data.points(video), int(config.share * len(candidates.get(video, ())))
            background = scores.array("background", video)
            grid = data.grid(video, len(background))
            free = background_runs(background, grid.row(points.time), config.background_threshold)
            # By video: what is drawn depends on neither order nor worker.
            rng = np.random.default_rng([context.seed, zlib.crc32(self.name.encode()), zlib.crc32(video.encode())])
            pieces = sample_background(free, count, rng)
            spans = np.clip(grid.from_edge(pieces), 0.0, data.duration(video))
            spans = spans[spans[:, 0] < spans[:, 1]]
            if not len(spans):
                return Segments.empty()
            label = data.classes[points.label[0]]
            return Segments.of(video, spans[:, 0], spans[:, 1], label, 0.0, source=context.source)

        return draw
