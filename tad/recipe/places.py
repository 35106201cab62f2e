"""Every option of every method that a recipe can name."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from pydantic import BaseModel

from tad.options import Declared, Stage, declared
from tad.recipe.methods import METHODS, registered
from tad.recipe.recipe import Recipe

FIRST: dict[str, Stage] = {
    "": "round",
    "proposer": "proposer",
    "encoder": "proposer",
    "labeler": "labels",
    "detector": "detector",
}
"""What a change of a role's options runs again, unless a group in it says otherwise."""


class Method(NamedTuple):
    """One of the methods of a role; the recipe's own options are those of a method without a name."""

    role: str
    name: str
    model: type[BaseModel]

    @property
    def options(self) -> tuple[Declared, ...]:
        """With their keys in a recipe."""
        return _options(self)


def methods() -> list[Method]:
    """The recipe itself, then all methods of all roles."""
    named = [Method(role, name, model) for role in METHODS for name, model in registered(role).items()]
    return [Method("", "", Recipe), *named]


def methods_of(recipe: Recipe) -> list[Method]:
    """The recipe itself, then the methods that it names."""
    roles = {role: getattr(recipe, role) for role in ("proposer", "encoder", "labeler", "detector")}
    named = [Method(role, config.method, type(config)) for role, config in roles.items() if config is not None]
    return [Method("", "", Recipe), *named]


@cache
def _options(method: Method) -> tuple[Declared, ...]:
    return tuple(declared(method.model, FIRST[method.role], f"{method.role}." if method.role else ""))
