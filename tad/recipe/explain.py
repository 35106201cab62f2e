"""What every option of a recipe means: its value and default, the paper's value, the range worth searching and why."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from functools import cache
from inspect import cleandoc
from itertools import groupby
from typing import Any

from pydantic import BaseModel

from tad.options import Declared, Unsaid
from tad.ranges import shown
from tad.recipe.places import Method, methods_of
from tad.recipe.recipe import Recipe, options

WIDTH = 100
"""Columns of a page in the terminal."""
FEW = 6
"""Items of a list that are shown."""
ENDLESS = 1e4
"""Bounds beyond it only guard against slips."""


def explain(recipe: Recipe) -> str:
    """Every option of the recipe, with its whole key, under its group; for the terminal."""
    values, lines = options(recipe), []
    for method in methods_of(recipe):
        if method.role:
            title = f"{method.role}: {method.name}"
            lines += [title, "=" * len(title), *_wrapped(summary(method.model)), ""]
        for group, members in grouped(method):
            if group != method.role:
                lines += [*_wrapped(f"{group}: {summary(members[0].owner)}"), ""]
            for one in members:
                if one.key in values and one.key != "description":
                    lines += [f"{one.key} = {short(values[one.key])}", *_about(one), ""]
    return "\n".join(lines)


def grouped(method: Method) -> list[tuple[str, list[Declared]]]:
    """The options of a method by the key of their group, those that have none first."""
    by_group = groupby(method.options, lambda one: one.key.rpartition(".")[0])
    found: dict[str, list[Declared]] = {}
    for group, members in by_group:
        found.setdefault(group, []).extend(members)
    return sorted(found.items(), key=lambda item: item[0] != method.role)


def summary(model: type[BaseModel]) -> str:
    """The first sentence of a config's docstring."""
    return cleandoc(model.__doc__ or "").partition("\n\n")[0].replace("\n", " ")


def worth(one: Declared) -> str:
    """The range worth searching, when it matters, and why; empty if there is none."""
    said = one.said
    if said.tune is None:
        return ""
    condition = ""
    if said.when is not None:
        key, value = said.when
        wanted = " or ".join(shown(v) for v in (value if isinstance(value, tuple) else (value,)))
        condition = f", only if {key} is {wanted}"
    return f"{said.tune}{condition} ({said.why})"


def short(value: Any) -> str:
    """A value as YAML writes it, long lists by their ends."""
    if isinstance(value, list) and len(value) > FEW:
        return f"[{shown(value[0])}, {shown(value[1])}, ... {shown(value[-1])}], {len(value)} values"
    return shown(value)


def default(one: Declared) -> str:
    """The value where the recipe says nothing."""
    return "none, it must be given" if one.info.is_required() else short(one.info.get_default())


def paper(one: Declared) -> str:
    """The published code's value; empty if nothing is said."""
    return "" if one.said.paper is Unsaid else short(one.said.paper)


def allowed(one: Declared) -> str:
    """The values that the option takes."""
    name = one.key.rpartition(".")[2]
    return _kind(_schema(one.owner)["properties"][name])


def _about(one: Declared) -> list[str]:
    values = [f"default {default(one)}", f"paper {paper(one)}" if paper(one) else "", f"takes {allowed(one)}"]
    lines = _wrapped(one.info.description or "", "    ") + _wrapped("; ".join(v for v in values if v), "    ")
    return lines + (_wrapped(f"worth searching: {worth(one)}", "    ") if worth(one) else [])


def _wrapped(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False)


@cache
def _schema(model: type[BaseModel]) -> Mapping[str, Any]:
    return model.model_json_schema()


def _kind(schema: Mapping[str, Any]) -> str:
    """A JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(part) for part in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(shown(value) for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_kind(schema['items'])}"
    if kind not in ("number", "integer"):
        return {"null": "null", "boolean": "true, false", "string": "text"}.get(str(kind), "a method")
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    limits = [
        f"from {low:g}" if low is not None else "",
        f"above {above:g}" if above is not None else "",
        f"to {high:g}" if high is not None and high < ENDLESS else "",
        f"below {below:g}" if below is not None else "",
        f"in steps of {schema['multipleOf']}" if "multipleOf" in schema else "",
    ]
    return " ".join([{"number": "a number", "integer": "a whole number"}[kind], *(part for part in limits if part)])
