"""How a value of a range becomes numbers that Optuna suggests, and the other way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tad.ranges import Choice, Float, Integer, Range, Scales, Shifts, Steps, shown

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

DECIMALS = 4
"""Of the numbers in lists. The first and the last are rounded before the others, so a list says which list it is."""


def suggest(range: Range, trial: BaseTrial, key: str) -> Any:
    """A value of the range; of a list, the sampler sees a few numbers under `key/name`."""
    match range:
        case Float(low, high, log):
            return trial.suggest_float(key, low, high, log=log)
        case Integer(low, high, log, step):
            return trial.suggest_int(key, low, high, step=step, log=log)
        case Choice(values=values):
            return trial.suggest_categorical(key, list(values))
    return _LIST[type(range)](*(suggest(part, trial, f"{key}/{name}") for name, part in vars(range).items()))


def encode(range: Range, key: str, value: Any) -> Mapping[str, Any]:
    """The suggested numbers that give the value; for a list, those of the nearest one of its kind.

    Raises:
        ValueError: it is outside the range.
    """
    match range:
        case Float(low, high) | Integer(low, high):
            whole = isinstance(range, Integer)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
                raise ValueError(f"{value!r} is not a {'whole ' if whole else ''}number")
            if not low <= value <= high or (isinstance(range, Integer) and (value - low) % range.step):
                raise ValueError(f"{value!r} is outside {range if whole else f'{low:g} to {high:g}'}")
            return {key: value if whole else float(value)}
        case Choice(values=values):
            if isinstance(value, list) or value not in values:
                raise ValueError(f"{shown(value)} is not one of {range}")
            return {key: values[values.index(value)]}
    if not isinstance(value, list) or not value or any(isinstance(v, (bool, str)) or v is None for v in value):
        raise ValueError(f"{shown(value)} is not a list of numbers")
    match range:
        case Steps():
            numbers: tuple[float, ...] = (min(value), max(value), len(value))
        case Scales():
            numbers = (max(value), max(1, len(value) // 2))
        case Shifts():
            numbers = (max(abs(v) for v in value), max(1, len(value) // 2))
    parts: dict[str, Any] = {}
    for (name, part), number in zip(vars(range).items(), numbers, strict=True):
        parts |= _part(part, key, name, number)
    return parts


def ends(range: Range) -> list[Any]:
    """Values that a recipe must accept for the range to be usable."""
    match range:
        case Float(low, high) | Integer(low, high):
            return [low, high]
        case Choice(values=values):
            return list(values)
        case Steps(low=low, high=high, count=count):
            return [evenly(low.low, high.high, count.high), evenly(low.high, high.low, count.low)]
        case Scales(reach, count) | Shifts(reach, count):
            make = _LIST[type(range)]
            return [make(reach.low, count.high), make(reach.high, count.low)]


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


_LIST: Mapping[type, Any] = {Steps: evenly, Scales: ratios, Shifts: around_zero}
"""What makes a list of its numbers."""


def _part(range: Float | Integer, key: str, name: str, value: float) -> Mapping[str, Any]:
    inside = min(max(value, range.low), range.high)
    if isinstance(range, Float) and abs(inside - value) <= 10**-DECIMALS / 2:
        value = inside  # rounding may have moved it over a bound
    try:
        return encode(range, f"{key}/{name}", value)
    except ValueError as error:
        raise ValueError(f"{name} {error}") from None
