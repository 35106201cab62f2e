"""A parameter: one key of a recipe that a search may change, over which range, and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.ranges import encode, suggest
from tad.errors import ConfigError
from tad.options import STAGES, Stage
from tad.ranges import Choice, Range

if TYPE_CHECKING:
    from optuna.trial import BaseTrial


@dataclass(frozen=True)
class Parameter:
    """One key of a recipe that may change.

    Attributes:
        key: dotted, for instance "labeler.merge.rank_power".
        range: what it may become.
        why: one line, the reason for the range.
        stage: the first stage that a change runs again; see `tad.options.STAGES`.
        method: the method of the key's role that has this key, or a tuple of several; None: any.
        when: another key and the value (or a tuple of several) at which this one matters; None: always. If that key's
            own parameter does not matter, neither does this one. Nothing is suggested then: the recipe's value stays.
        stand_in: what the sampler takes the recipe's null for, where null means a value derived from the data.
        formerly: the same parameter as studies know it, if the option had another name in the last version.
    """

    key: str
    range: Range
    why: str
    stage: Stage
    method: str | tuple[str, ...] | None = None
    when: tuple[str, Any] | None = None
    stand_in: Any = None
    formerly: Parameter | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.key, str) or not isinstance(self.range, Range):
            raise ConfigError(f"parameter {self.key!r}: give a recipe's dotted key, and a range of search_spaces.space")
        if self.stage not in STAGES:
            raise ConfigError(f"parameter {self.key}: no stage {self.stage!r}; known: {', '.join(STAGES)}")
        if self.when is not None and len(self.when) != 2:
            raise ConfigError(f"parameter {self.key}: when={self.when!r} is not a key and its value")
        if self.stand_in is not None:
            try:
                encode(self.range, self.key, self.stand_in)
            except ValueError as error:
                raise ConfigError(f"parameter {self.key}: stand_in {error}") from None

    @property
    def methods(self) -> tuple[str, ...]:
        """`method` as a tuple; empty: any."""
        return self.method if isinstance(self.method, tuple) else (self.method,) if self.method else ()

    def encode(self, value: Any) -> Mapping[str, Any]:
        """Optuna's parameters for the recipe's value, or for what stands in for its null.

        Raises:
            ValueError: no number of the range gives the value.
        """
        if value is None and self.stand_in is not None:
            value = self.stand_in
        asked = self.formerly or self
        return encode(asked.range, asked.key, _same(value, self.range, asked.range))

    def suggest(self, trial: BaseTrial) -> Any:
        """A value of the range."""
        asked = self.formerly or self
        return _same(suggest(asked.range, trial, asked.key), asked.range, self.range)

    def wants(self, value: Any) -> bool:
        """Whether this value of the key in `when` makes the parameter matter."""
        wanted = self.when[1] if self.when is not None else None
        return value in wanted if isinstance(wanted, tuple) else bool(value == wanted)


def _same(value: Any, range: Range, other: Range) -> Any:
    """The value by its place in another range, whose words may differ."""
    if isinstance(range, Choice) and isinstance(other, Choice) and value in range.values:
        return other.values[range.values.index(value)]
    return value
