"""Numbers on the command line: the same thing has the same bounds in every command."""

from __future__ import annotations

import math
from typing import Any

import click

MOST_WORKERS = 10_000
"""Processes of one training, or trials at a time: above what Ray is made for."""


class Number(click.FloatRange):
    """A number in a range; nan, which click takes for one, lies in none."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = float(super().convert(value, param, context))
        if math.isnan(number):
            self.fail(f"{value!r} is not a number", param, context)
        return number


class Gpus(Number):
    """GPUs of a process; Ray shares one in ten-thousandths."""

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> float:
        number = super().convert(value, param, context)
        if 0 < number < 1e-4:
            self.fail(f"{value!r} is less than 0.0001, the least share of a GPU", param, context)
        return number


class Rate(Number):
    """Frames a second, or native."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if value == "native":
            return value
        try:
            return super().convert(value, param, context)
        except click.BadParameter:
            self.fail(f"{value!r} is neither `native` nor a number of {self.min} to {self.max}", param, context)


class Workers(click.ParamType):
    """A positive number, or auto."""

    name = "N|auto"

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> int | None:
        if value == "auto":
            return None
        try:
            workers = int(value)
        except ValueError:
            workers = 0
        if workers < 1:
            self.fail(f"{value!r} is neither a positive number nor auto")
        if workers > MOST_WORKERS:
            self.fail(f"{value!r} is more than {MOST_WORKERS}")
        return workers


SEED = click.IntRange(0, 2**32 - 1)
"""What NumPy and Optuna take."""
GPUS = Gpus(0, 1_000)
SHARE = Number(0, 1, min_open=True, max_open=True)
MINUTES = Number(0, 60 * 24 * 365, min_open=True)
MOST_SECONDS, MOST_GIB = Number(0, 1e9, min_open=True), Number(0, 1e6, min_open=True)
"""Of a recipe, in a search."""
TRIALS_OR_NONE = click.IntRange(0, 1_000_000)
ROUNDS = click.IntRange(0, 1_000)
"""Of self-training, as in a recipe."""
VIDEOS, NO_VIDEOS_OR_MORE = click.IntRange(1, 1_000_000), click.IntRange(0, 1_000_000)
FRAMES, OFFSET, ROWS, WIDTH = Number(1e-3, 1e6), Number(-1e6, 1e6), click.IntRange(1, 10**6), click.IntRange(1, 10**6)
"""Of a feature grid, as in dataset.yaml."""
VIDEO_RATE, RATE = Number(1e-4, 1e6), Rate(1e-4, 1e6)
"""Frames a second, as in annotations.json and dataset.yaml."""
