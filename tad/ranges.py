"""Ranges: the values of an option that are worth searching.

Scalars are one number. Lists are described by a few: where a list of thresholds starts, where it ends and how many
values it has. Every bound is part of its range. `search_spaces.ranges` draws values from a range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tad.errors import ConfigError

LARGEST = 10**30
"""The most that any option of a recipe may be."""
MOST_COUNT = 499
"""Of a list's values, or of those on either side of its middle: recipes take lists of 1,000."""


@dataclass(frozen=True)
class Float:
    """A number from low to high; `log`: equal ratios are as likely, for which low is above 0."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self)

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Integer:
    """A whole number from low to high, in steps; `log` as for `Float`."""

    low: int
    high: int
    log: bool = False
    step: int = 1

    def __post_init__(self) -> None:
        _check_bounds(self)
        if self.step < 1 or (self.high - self.low) % self.step or (self.log and self.step > 1):
            raise ConfigError(f"{self}: high must be a whole number of steps above low, and log has steps of 1")

    def __str__(self) -> str:
        steps = f" in steps of {self.step}" if self.step > 1 else ""
        return f"{self.low} to {self.high}{steps}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """One of a few values: null, booleans, numbers, text."""

    values: tuple[Any, ...]

    def __init__(self, *values: Any) -> None:
        object.__setattr__(self, "values", values)
        odd = [
            v
            for v in values
            if (v is not None and not isinstance(v, (bool, int, float, str)))
            or (isinstance(v, float) and not math.isfinite(v))
        ]
        if odd or len(set(values)) < 2 or len(set(values)) < len(values):
            raise ConfigError(
                f"Choice{values}: give two or more different values, each null, a boolean, a finite number or text"
            )

    def __str__(self) -> str:
        return ", ".join(shown(v) for v in self.values)


@dataclass(frozen=True)
class Steps:
    """An evenly spaced list, ascending: where it starts, where it ends, how many values."""

    low: Float
    high: Float
    count: Integer

    def __post_init__(self) -> None:
        if self.low.high > self.high.low or not 2 <= self.count.low <= self.count.high <= MOST_COUNT:
            raise ConfigError(f"Steps({self}): the first value must stay below the last; counts are 2 to {MOST_COUNT}")

    def __str__(self) -> str:
        return f"from {self.low} up to {self.high}; {self.count} values"


@dataclass(frozen=True)
class Scales:
    """Ratios, ascending and symmetric in the logarithm around 1: the widest, and how many on either side of 1."""

    widest: Float
    count: Integer

    def __post_init__(self) -> None:
        if self.widest.low <= 1 or not 1 <= self.count.low <= self.count.high <= MOST_COUNT:
            raise ConfigError(f"Scales({self}): the widest must be above 1; counts are 1 to {MOST_COUNT}")

    def __str__(self) -> str:
        return f"widest {self.widest}; {self.count} on either side of 1"


@dataclass(frozen=True)
class Shifts:
    """0 and evenly spaced numbers on both sides of it: the largest, and how many on either side."""

    reach: Float
    count: Integer

    def __post_init__(self) -> None:
        if self.reach.low <= 0 or not 1 <= self.count.low <= self.count.high <= MOST_COUNT:
            raise ConfigError(f"Shifts({self}): the reach must be above 0; counts are 1 to {MOST_COUNT}")

    def __str__(self) -> str:
        return f"reach {self.reach}; {self.count} on either side of 0"


Range = Float | Integer | Choice | Steps | Scales | Shifts


def shown(value: Any) -> str:
    """A value as YAML writes it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(shown(v) for v in value) + "]"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_bounds(range: Float | Integer) -> None:
    low, high = range.low, range.high
    numbers = (int,) if isinstance(range, Integer) else (int, float)
    if any(isinstance(v, bool) or not isinstance(v, numbers) or abs(v) > LARGEST for v in (low, high)):
        raise ConfigError(f"{type(range).__name__}({low!r}, {high!r}): the bounds must be numbers up to {LARGEST:g}")
    if not (math.isfinite(low) and math.isfinite(high) and low < high and (low > 0 or not range.log)):
        raise ConfigError(f"{range}: the lower bound must be below the upper one, and above 0 for log")
