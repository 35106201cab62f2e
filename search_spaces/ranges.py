"""Ranges of one recipe key, and how its value becomes numbers that Optuna suggests and the other way round.

Scalars are one suggested number. Lists are a few: a list of thresholds is where it starts, where it ends and how many
values it has. Every bound is part of its range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tad.errors import ConfigError

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

LARGEST = 10**30
"""The most that any option of a recipe may be."""
MOST_COUNT = 499
"""Of a list's values, or of those on either side of its middle: recipes take lists of 1,000."""
Params = Mapping[str, Any]
"""Optuna's parameters by name."""


@dataclass(frozen=True)
class Float:
    """A number from low to high; `log`: equal ratios are as likely, for which low is above 0."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        _check_bounds(self)

    def suggest(self, trial: BaseTrial, key: str) -> float:
        return trial.suggest_float(key, self.low, self.high, log=self.log)

    def encode(self, key: str, value: Any) -> Params:
        """The suggested numbers that give the value.

        Raises:
            ValueError: it is outside the range.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"{value!r} is not a number")
        if not self.low <= value <= self.high:
            raise ValueError(f"{value!r} is outside {self.low:g} to {self.high:g}")
        return {key: float(value)}

    def ends(self) -> list[Any]:
        """Values that a recipe must accept for the range to be usable."""
        return [self.low, self.high]

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

    def suggest(self, trial: BaseTrial, key: str) -> int:
        return trial.suggest_int(key, self.low, self.high, step=self.step, log=self.log)

    def encode(self, key: str, value: Any) -> Params:
        """See `Float.encode`."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"{value!r} is not a whole number")
        if not self.low <= value <= self.high or (value - self.low) % self.step:
            raise ValueError(f"{value!r} is outside {self}")
        return {key: value}

    def ends(self) -> list[Any]:
        return [self.low, self.high]

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

    def suggest(self, trial: BaseTrial, key: str) -> Any:
        return trial.suggest_categorical(key, list(self.values))

    def encode(self, key: str, value: Any) -> Params:
        """See `Float.encode`."""
        if isinstance(value, list) or value not in self.values:
            raise ValueError(f"{shown(value)} is not one of {self}")
        return {key: self.values[self.values.index(value)]}

    def ends(self) -> list[Any]:
        return list(self.values)

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

    def suggest(self, trial: BaseTrial, key: str) -> list[float]:
        first, last = self.low.suggest(trial, f"{key}/low"), self.high.suggest(trial, f"{key}/high")
        return evenly(first, last, self.count.suggest(trial, f"{key}/count"))

    def encode(self, key: str, value: Any) -> Params:
        """The numbers of the evenly spaced list with the same ends and count; see `Float.encode`."""
        values = _numbers(value)
        return {
            **_part(self.low, key, "low", min(values)),
            **_part(self.high, key, "high", max(values)),
            **_part(self.count, key, "count", len(values)),
        }

    def ends(self) -> list[Any]:
        return [
            evenly(self.low.low, self.high.high, self.count.high),
            evenly(self.low.high, self.high.low, self.count.low),
        ]

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

    def suggest(self, trial: BaseTrial, key: str) -> list[float]:
        return ratios(self.widest.suggest(trial, f"{key}/widest"), self.count.suggest(trial, f"{key}/count"))

    def encode(self, key: str, value: Any) -> Params:
        """The numbers of the symmetric list with the same widest and as many values; see `Float.encode`."""
        values = _numbers(value)
        return {
            **_part(self.widest, key, "widest", max(values)),
            **_part(self.count, key, "count", max(1, len(values) // 2)),
        }

    def ends(self) -> list[Any]:
        return [ratios(self.widest.low, self.count.high), ratios(self.widest.high, self.count.low)]

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

    def suggest(self, trial: BaseTrial, key: str) -> list[float]:
        return around_zero(self.reach.suggest(trial, f"{key}/reach"), self.count.suggest(trial, f"{key}/count"))

    def encode(self, key: str, value: Any) -> Params:
        """The numbers of the symmetric list with the same reach and as many values; see `Float.encode`."""
        values = _numbers(value)
        return {
            **_part(self.reach, key, "reach", max(abs(v) for v in values)),
            **_part(self.count, key, "count", max(1, len(values) // 2)),
        }

    def ends(self) -> list[Any]:
        return [around_zero(self.reach.low, self.count.high), around_zero(self.reach.high, self.count.low)]

    def __str__(self) -> str:
        return f"reach {self.reach}; {self.count} on either side of 0"


Range = Float | Integer | Choice | Steps | Scales | Shifts


DECIMALS = 4
"""Of the numbers in lists. The first and the last are rounded before the others, so a list says which list it is."""


def evenly(first: float, last: float, count: int) -> list[float]:
    """`count` numbers from the first to the last."""
    first, last = round(first, DECIMALS), round(last, DECIMALS)
    return [round(first + (last - first) * i / (count - 1), DECIMALS) for i in range(count)]


def ratios(widest: float, count: int) -> list[float]:
    """1 and `count` powers of a ratio on either side, up to `widest`; ascending."""
    widest = round(widest, DECIMALS)
    return [round(widest ** (k / count), DECIMALS) for k in range(-count, count + 1)]


def around_zero(reach: float, count: int) -> list[float]:
    """0, then `count` pairs of a negative number and its opposite, up to `reach`."""
    reach = round(reach, DECIMALS)
    return [0.0] + [round(sign * reach * k / count, DECIMALS) for k in range(1, count + 1) for sign in (-1, 1)]


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


def _numbers(value: Any) -> list[float]:
    if not isinstance(value, list) or not value or any(isinstance(v, (bool, str)) or v is None for v in value):
        raise ValueError(f"{shown(value)} is not a list of numbers")
    return value


def _part(range: Float | Integer, key: str, name: str, value: float) -> Params:
    inside = min(max(value, range.low), range.high)
    if isinstance(range, Float) and abs(inside - value) <= 10**-DECIMALS / 2:
        value = inside  # rounding may have moved it over a bound
    try:
        return range.encode(f"{key}/{name}", value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
