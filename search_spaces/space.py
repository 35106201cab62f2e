"""A search space: the recipe's keys that may change, the range of each, and what changing it costs."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search_spaces.former import named
from search_spaces.parameter import Parameter
from search_spaces.ranges import ends
from tad.errors import ConfigError, listing
from tad.options import STAGES, Stage
from tad.ranges import Choice, Float, Integer, Scales, Shifts, Steps
from tad.recipe.recipe import Recipe, changed, options

if TYPE_CHECKING:
    from optuna.trial import BaseTrial

__all__ = ["STAGES", "Choice", "Float", "Integer", "Parameter", "Scales", "Shifts", "Space", "Stage", "Steps"]


@dataclass(frozen=True)
class Space:
    """Parameters; `for_recipe` gives those of one recipe, from which values are suggested."""

    parameters: tuple[Parameter, ...]

    def for_recipe(self, recipe: Recipe) -> Space:
        """The parameters that this recipe has, those that others depend on first.

        Raises:
            ConfigError: keys that the recipe does not have (with the closest one), values of the recipe outside their
                range, ranges with values that the recipe refuses, conditions on each other in a circle, or nothing left
                to tune. Lists every problem.
        """
        base = options(recipe)
        methods = {key.removesuffix(".method"): value for key, value in base.items() if key.endswith(".method")}
        mine = [p for p in self.parameters if not p.methods or methods.get(p.key.split(".")[0]) in p.methods]
        mine = named(mine, recipe)
        problems, known = [], []
        for p in mine:
            unknown = [key for key in (p.key, *(p.when or ())[:1]) if key not in base]
            problems += [_unknown(p, key, base) for key in unknown]
            if not unknown:
                known.append(p)
        problems += [f"{key}: given {n} times" for key, n in Counter(p.key for p in known).items() if n > 1]
        kept: list[Parameter] = []
        every = {p.key for p in known}
        while known:
            # What others depend on comes before them; apart from that the order stays.
            waiting = {p.key for p in known}
            ready = [p for p in known if p.when is None or p.when[0] not in waiting]
            if not ready:
                problems.append(f"{', '.join(sorted(waiting))}: each depends on another of them")
                break
            p = ready[0]
            known.remove(p)
            varied = {k.key for k in kept}
            if p.when is None or p.when[0] in varied or (p.when[0] not in every and p.wants(base[p.when[0]])):
                kept.append(p)
        problems += _misfits(kept, recipe, base)
        if not mine:
            names = ", ".join(f"{role} {method}" for role, method in methods.items())
            given = sorted({method for p in self.parameters for method in p.methods})
            problems.append(f"nothing to tune: the recipe has {names}, the space is for {', '.join(given) or 'none'}")
        elif not kept and not problems:
            problems.append("nothing to tune: every parameter depends on a value that the recipe does not have")
        if problems:
            raise ConfigError("search space: " + listing(problems, most=len(problems)))
        return Space(tuple(kept))

    def defaults(self, recipe: Recipe) -> dict[str, Any]:
        """The recipe as Optuna's parameters; a list or a null that no numbers give is stood for by what is nearest."""
        base = options(recipe)
        found: dict[str, Any] = {}

        def encoded(p: Parameter) -> Any:
            found.update(p.encode(base[p.key]))
            return base[p.key]

        self._chosen(encoded)
        return found

    def suggest(self, trial: BaseTrial) -> dict[str, Any]:
        """New values by key, for `tad.recipe.recipe.changed`; of conditional parameters only those that matter.

        Conditions on keys that are not in the space count as met: `for_recipe` has looked at them.
        """
        return self._chosen(lambda p: p.suggest(trial))

    def _chosen(self, value: Callable[[Parameter], Any]) -> dict[str, Any]:
        keys = {p.key for p in self.parameters}
        values: dict[str, Any] = {}
        for p in self.parameters:
            key = p.when[0] if p.when is not None else None
            if key not in keys or (key in values and p.wants(values[key])):
                values[p.key] = value(p)
        return values

    def since(self, stage: str) -> Space:
        """The parameters of this stage and of those after it: changing them shares all that is before.

        Raises:
            ConfigError: no such stage.
        """
        if stage not in STAGES:
            raise ConfigError(f"no stage {stage!r}; known: {', '.join(STAGES)}")
        first = STAGES.index(stage)
        return Space(tuple(p for p in self.parameters if STAGES.index(p.stage) >= first))

    @property
    def fingerprint(self) -> str:
        """Hash of what is suggested: keys, ranges, conditions and stand-ins; not of words about them."""
        asked = [p.formerly or p for p in self.parameters]
        parts = [[p.key, repr(p.range), repr(p.when), repr(p.stand_in)] for p in asked]
        return hashlib.sha256(json.dumps(sorted(parts)).encode()).hexdigest()[:24]


def _unknown(p: Parameter, key: str, base: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(key, list(base), 1, cutoff=0.5)
    hint = f"; did you mean {close[0]}?" if close else ""
    place = "" if key == p.key else f" (on which {p.key} depends)"
    return f"{key}{place}: the recipe has no such key{hint}"


def _misfits(parameters: list[Parameter], recipe: Recipe, base: Mapping[str, Any]) -> list[str]:
    """What is wrong with defaults, and with what ranges would make of the recipe."""
    problems: list[str] = []
    fixed: dict[str, list[str]] = {}
    for p in parameters:
        role = p.key.split(".")[0]
        try:
            p.encode(base[p.key])
            for value in ends(p.range):
                changed(recipe, {p.key: value})
        except ValueError as error:
            hint = "; give its parameter a stand_in" if base[p.key] is None else ""
            problems.append(f"{p.key}: the recipe's value: {error}{hint}")
        except ConfigError as error:
            if base.get(f"{role}.faithful"):
                fixed.setdefault(role, []).append(p.key)
                continue
            reason = str(error).partition("\n")[2].strip()
            problems.append(f"{p.key}: the range ({p.range}) has values that the recipe refuses: {reason}")
    for role, keys in fixed.items():
        problems.append(f"{role}: faithful: true fixes {', '.join(keys)}; drop faithful and set each option yourself")
    return problems
