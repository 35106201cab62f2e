"""Recipes: strict, every problem at once, the closest valid name."""

from __future__ import annotations

import pytest
import yaml

from tad.config import Recipe, dump, load_labeler, load_recipe, recipe_names
from tad.errors import ConfigError


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_its_dump_is_the_same_recipe(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.description
    path = tmp_path / "dumped.yaml"
    path.write_text(dump(recipe))
    assert load_recipe(str(path)) == recipe


def test_dump_holds_every_default():
    document = yaml.safe_load(dump(load_recipe("pser")))
    assert set(document) == set(Recipe.model_fields)
    assert document["labeler"]["bag"]["scales"]


def test_overrides():
    recipe = load_recipe(
        "pser", ["labeler.bag.scales=[0.5,1,1.5]", "rounds=3", "proposer.training.lr=1e-4", "stop.change=0.9"]
    )
    assert recipe.labeler.bag.scales == [0.5, 1, 1.5]
    assert (recipe.rounds, recipe.proposer.training.lr, recipe.stop.change) == (3, 1e-4, 0.9)
    assert load_recipe("pser", ["labeler.method=pser-seed"]).labeler.method == "pser-seed"
    assert load_labeler("pser", ["bag.shifts=[0]"]).bag.shifts == [0]


def test_all_problems_at_once_with_the_closest_name():
    with pytest.raises(ConfigError) as caught:
        load_recipe("pser", ["labeler.bag.scale=[1]", "rounds=many", "detector.epoch=3", "nonsense", "proposr.lr=1"])
    message = str(caught.value)
    assert "5 problems" in message
    assert "labeler.bag.scale: unknown key; did you mean scales?" in message
    assert "rounds: input should be a valid integer" in message and "found 'many'" in message
    assert "detector.epoch: unknown key; did you mean epochs?" in message
    assert "proposr: unknown key; did you mean proposer?" in message
    assert "override 'nonsense': write key.path=value" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rounds: [", "not a YAML file"),
        ("- a\n- b", "expected a mapping at the top, found list"),
        ("rounds: -1", "rounds: input should be greater than or equal to 0, found -1"),
        ("rounds: true", "rounds: input should be a valid integer, found True"),
        ("select: best", "'points', 'classes', 'dev-map', 'dev-quality' or 'test', found 'best'"),
        ("labeler: {method: magic}", "labeler: input tag 'magic'"),
    ],
)
def test_bad_recipe_files(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_an_unknown_recipe_names_the_known():
    with pytest.raises(ConfigError, match=r"no recipe 'psr'; did you mean pser\? Known: .*seeds"):
        load_recipe("psr")
    with pytest.raises(ConfigError, match="no such recipe file"):
        load_recipe("missing.yaml")
