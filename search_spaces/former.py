"""Parameters under the names that options had in the last version: its studies hold these, and go on with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search_spaces.parameter import Parameter
from tad.methods.apl.warm_start import NETWORK
from tad.options import Declared
from tad.ranges import Choice
from tad.recipe.places import Method, methods_of
from tad.recipe.recipe import Recipe

START = tuple(f"detector.training.{name}" for name in NETWORK)
"""Options that mattered to ActionFormer only where no model was to start from, which is APL's to say now."""


def named(parameters: list[Parameter], recipe: Recipe) -> list[Parameter]:
    """The parameters with present names; what a study calls them, where that differs, is in `formerly`."""
    options = [(method, one, _former_key(method, one)) for method in methods_of(recipe) for one in method.options]
    now = {key: (one.key, one.said.new_words) for _, one, key in options if key != one.key}
    then = {one.key: (key, one.said.old_words) for _, one, key in options if key != one.key}
    found = []
    for given in parameters:
        present, past = _renamed(given, now), _renamed(given, then)
        if recipe.detector.method == "actionformer" and present.key in START:
            past = replace(past, when=("detector.init", "none"))
        found.append(present if past == present else replace(present, formerly=past))
    return found


def _former_key(method: Method, one: Declared) -> str:
    group, _, name = one.key.rpartition(".")
    if method.role == "detector" and method.name in ("actionformer", "apl-actionformer"):
        group = group.replace("detector.training", "detector", 1)
    return f"{group}.{one.said.formerly or name}".lstrip(".")


def _renamed(given: Parameter, names: Mapping[str, tuple[str, Mapping[Any, Any]]]) -> Parameter:
    key, words = names.get(given.key, (given.key, {}))
    range, when = given.range, given.when
    if isinstance(range, Choice):
        range = Choice(*(words.get(value, value) for value in range.values))
    if when is not None and when[0] in names:
        other, its = names[when[0]]
        wanted = when[1]
        now = tuple(its.get(v, v) for v in wanted) if isinstance(wanted, tuple) else its.get(wanted, wanted)
        when = (other, now)
    return replace(given, key=key, range=range, when=when)
