"""`faithful: true`: one switch that sets several options to what the published code does."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel


def fill_published(data: Any, published: Mapping[str, Mapping[str, Any]], free: Collection[str] = ()) -> Any:
    """For a pydantic "before" validator: the input with the published values, where it says `faithful: true`.

    Args:
        data: the raw input of the config; returned as it is unless it is a mapping with `faithful` true.
        published: option group -> option -> published value.
        free: options ("group.option") that may be given another value all the same, such as a training budget.

    Raises:
        ValueError: an option is given that contradicts its published value; lists all of them.
    """
    if not isinstance(data, Mapping) or data.get("faithful") is not True:
        return data
    filled, problems = dict(data), []
    for group, values in published.items():
        given = data.get(group, {})
        given = given.model_dump(exclude_unset=True) if isinstance(given, BaseModel) else given
        if not isinstance(given, Mapping):
            continue  # of a wrong type: left to the validation of the group
        problems += [
            f"{group}.{name} to {value!r}, found {given[name]!r}"
            for name, value in values.items()
            if name in given and given[name] != value and f"{group}.{name}" not in free
        ]
        filled[group] = {**values, **given}
    if problems:
        raise ValueError(
            "faithful: true sets " + "; ".join(problems) + ". Drop these options, or faithful and set each yourself"
        )
    return filled
