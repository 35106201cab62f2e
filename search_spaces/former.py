"""Parameters under the names that options had in the last version: its studies hold these, and go on with them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from search_spaces.parameter import Parameter
from tad.options import Declared
from tad.ranges import Choice
from tad.recipe.places import methods_of
from tad.recipe.recipe import Recipe


def named(parameters: list[Parameter], recipe: Recipe) -> list[Parameter]:
    """The parameters with present names; what a study calls them, where that differs, is in `formerly`."""
    options = [one for method in methods_of(recipe) for one in method.options if one.said.formerly]
    now = {_former_key(one): (one.key, one.said.new_words) for one in options}
    then = {one.key: (_former_key(one), one.said.old_words) for one in options}
    found = []
    for given in parameters:
        present, past = _renamed(given, now), _renamed(given, then)
        found.append(present if past == present else replace(present, formerly=past))
    return found


def _former_key(one: Declared) -> str:
    return f"{one.key.rpartition('.')[0]}.{one.said.formerly}"


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
