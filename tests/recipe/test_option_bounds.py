"""Every number that a recipe takes has bounds: beyond sense it is refused, with its key."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from tad.errors import ConfigError
from tad.recipe.places import methods
from tad.recipe.recipe import Recipe, changed, load_recipe, options

WIDE = 1e30
"""What the widest bound admits: a learning rate that any float32 can still hold."""
UNBOUNDED: dict[str, str] = {}
"""Keys without bounds, and why; there are none."""


def kinds(annotation: Any) -> set[type]:
    """Of numbers that a field holds, also in lists."""
    if annotation in (int, float):
        return {annotation}
    return set() if get_origin(annotation) is Literal else {k for inner in get_args(annotation) for k in kinds(inner)}


def recipes() -> dict[str, Recipe]:
    """A valid recipe for each method of each role."""
    found = {}
    for role, name, _ in methods()[1:]:
        more = ["proposer.method=rskp"] if (role, name) == ("detector", "rskp") else []
        more += [f"{role}.method={name}"] + (["proposer.path=proposals.json"] if name == "file" else [])
        found[f"{role} {name}"] = load_recipe("pser", more)
    return found


def fields(model: type[BaseModel], prefix: str, values: BaseModel) -> dict[str, Any]:
    """Dotted key of every number, and its annotation."""
    found: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            found |= fields(type(value), f"{prefix}{name}.", value)
        elif kinds(info.annotation):
            found[prefix + name] = info.annotation
    return found


RECIPES = recipes()
NUMBERS = {(name, key): note for name, r in RECIPES.items() for key, note in fields(Recipe, "", r).items()}


def is_list(note: Any) -> bool:
    return get_origin(note) is list or any(is_list(inner) for inner in get_args(note))


def test_all_numbers_are_found():
    """As many as a walk over the values finds, and those whose default is null besides."""
    for name, recipe in RECIPES.items():
        plain = {
            key
            for key, value in options(recipe).items()
            if isinstance(value, (int, float)) and not isinstance(value, bool)
        }
        assert plain <= {key for of, key in NUMBERS if of == name}
    assert {key for _, key in NUMBERS} >= {"proposer.training.lr", "detector.schedule.lr", "labeler.bag.scales"}


BEYOND = (math.inf, -math.inf, math.nan, 1e300, -1e300, 10**31, 10**400, -(10**31), True, "1", [[1]])


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("value", BEYOND, ids=repr)
def test_what_is_beyond_sense_is_refused_by_its_key(name, value):
    """All of a recipe's numbers at once: each is named."""
    notes = {key: note for (of, key), note in NUMBERS.items() if of == name and key not in UNBOUNDED}
    with pytest.raises(ConfigError) as caught:
        changed(RECIPES[name], {key: [value] if is_list(note) else value for key, note in notes.items()})
    said = [line.strip() for line in str(caught.value).splitlines()]
    for key in notes:
        assert any(line.startswith((f"{key}:", f"{key}.")) for line in said), key
    assert max(map(len, said)) < 1900


@pytest.mark.parametrize("name", RECIPES)
def test_a_list_has_no_more_values_than_make_sense(name):
    for (of, key), note in NUMBERS.items():
        if of == name and key not in UNBOUNDED and is_list(note):
            with pytest.raises(ConfigError, match=key):
                changed(RECIPES[name], {key: [0.5] * 1001})


@given(st.sampled_from(sorted(NUMBERS)), st.floats() | st.integers() | st.floats(-10, 10))
def test_what_is_accepted_is_finite_and_what_was_given(place, value):
    name, key = place
    given = [value] if is_list(NUMBERS[place]) else value
    try:
        recipe = changed(RECIPES[name], {key: given})
    except ConfigError as error:
        assert key.split(".")[0] in str(error)
        return
    assert options(recipe)[key] == given and math.isfinite(value) and abs(value) <= WIDE


@given(
    st.sampled_from(sorted(NUMBERS)),
    st.sampled_from([".inf", "-.inf", ".nan", "1e300", "1e999", "9" * 400, "9" * 5000, "0x" + "f" * 300, "{}"]),
)
def test_on_the_command_line_too(place, text):
    name, key = place
    role, _, method = name.partition(" ")
    more = ["proposer.method=rskp"] if method == "rskp" else []
    with pytest.raises(ConfigError, match=key):
        load_recipe("pser", [*more, f"{role}.method={method}", f"{key}={text}"])


def test_what_a_published_schedule_needs_is_allowed():
    """LACP's 2,000 epochs, potloc's 333; learning rates that diverge are for the training loop to name."""
    recipe = load_recipe("pser", ["proposer.training.epochs=2000", "proposer.training.lr=1e30", "stop.score_drop=1.0"])
    assert recipe.proposer.training.epochs == 2000 and recipe.proposer.training.lr == 1e30


def test_annotations_of_items_count():
    assert kinds(list[Annotated[float, "x"]] | None) == {float} and kinds(Literal[1, 2]) == set()
