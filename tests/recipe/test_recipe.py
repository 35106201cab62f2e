"""Recipes: strict, every problem at once, the closest valid name."""

from __future__ import annotations

import os

import pytest
import yaml

from tad.errors import ConfigError
from tad.recipe.recipe import Recipe, dump, load_recipe, recipe_names


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


def test_all_problems_at_once_with_the_closest_name():
    with pytest.raises(ConfigError) as caught:
        load_recipe(
            "pser", ["labeler.bag.scale=[1]", "rounds=many", "detector.training.epoch=3", "nonsense", "proposr.lr=1"]
        )
    message = str(caught.value)
    assert "5 problems" in message
    assert "labeler.bag.scale: unknown key; did you mean scales?" in message
    assert "rounds: input should be a valid integer" in message and "found 'many'" in message
    assert "detector.training.epoch: unknown key; did you mean epochs?" in message
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


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"rounds: 3\n# \xe4", "line 2: the byte 0xe4 is not UTF-8"),
        ("rounds: 3".encode("utf-16"), "UTF-16"),
        (b"\x7fELF\x02\x01\x01\x00", "not a YAML file"),
        (b"rounds: 1\nrounds: 2", "the key 'rounds' appears twice"),
        (b"labeler: &a {method: *a}", "an alias holds itself"),
        (BOMB.encode(), "aliases stand for more than 1,000,000 values"),
        (b"[" * 100_000, "nested too deeply"),
        (b"rounds: " + b"9" * 5000, "not a YAML file of this kind"),
        (b"rounds: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"1: 2", "1: keys should be strings"),
        (b"rounds: [" + b"1, " * 5000 + b"1]", "valid integer, found [1, 1, 1, 1, 1, 1, ...]"),
        (b"rounds: " + b"x" * 5000, "..."),
    ],
)
def test_files_that_are_no_recipe(tmp_path, content, message):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load_recipe(str(path))
    assert message in str(caught.value) and f"recipe {path}: " in str(caught.value) and len(str(caught.value)) < 900


def test_what_is_no_file_is_not_opened(tmp_path):
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigError, match="is a named pipe, not a file"):
        load_recipe(str(pipe))
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(ConfigError, match="is a folder, not a file"):
        load_recipe(str(tmp_path / "folder.yaml"))
    with pytest.raises(ConfigError, match="no such recipe file"):
        load_recipe("x" * 5000 + ".yaml")


def test_a_byte_order_mark_and_umlauts_are_read_in_any_locale(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + "description: für alle\nrounds: 3".encode())
    recipe = load_recipe(str(path))
    assert (recipe.description, recipe.rounds) == ("für alle", 3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=[", "'[' is not a YAML value: while parsing a flow node"),
        ("labeler={method: pser, method: hrpro}", "the key 'method' appears twice"),
        ("rounds=&a [*a]", "an alias holds itself"),
        ("rounds=" + "[" * 100_000, "nested too deeply"),
        ("rounds=!!python/name:os.system", "could not determine a constructor"),
        ("rounds=" + "x" * 5000, "valid integer, found 'xxx"),
        ("rounds.x=1", "rounds is not a group"),
        ("a..b=1", "a: unknown key"),
        ("=1", "write key.path=value"),
        ("rounds=.inf", "valid integer, found inf"),
        ("detector.training.lr=.inf", "detector.training.lr: input should be a finite number"),
        ("rounds=1000000000", "less than or equal to 1000, found 1000000000"),
    ],
)
def test_hostile_overrides(override, message):
    with pytest.raises(ConfigError) as caught:
        load_recipe("pser", ["rounds=1", override])
    assert message in str(caught.value) and len(str(caught.value)) < 900


def test_an_unknown_recipe_names_the_known():
    with pytest.raises(ConfigError, match=r"no recipe 'psr'; did you mean pser\? Known: .*seeds"):
        load_recipe("psr")
    with pytest.raises(ConfigError, match="no such recipe file"):
        load_recipe("missing.yaml")
