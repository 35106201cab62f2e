"""Options of recipes that have moved: old recipes, overrides and runs are read as the new ones, with a warning."""

from __future__ import annotations

import copy

import pytest

from tad.errors import ConfigError
from tad.recipe.recipe import Recipe, changed, load_recipe
from tad.recipe.renamed import APL, renamed

APL_BEFORE = """
proposer:
  method: actionformer
  pretrain: {enabled: true, epochs: 15}
  training: {quality: {enabled: true}, contrast_weight: 0.1, weight_decay: 1e-4, steps: 3500}
labeler: {method: apl}
detector:
  method: actionformer
  quality: {enabled: true}
  contrast_weight: 0.1
  weight_decay: 1e-4
  init: before
  unlabelled_weight: 2.0
  epochs: 20
  decode: {video_power: 0.0}
rounds: 2
select: classes
stop: {change: 1.0, score_drop: 1.0}
"""
"""The recipe before its options moved."""


def test_an_old_recipe_is_the_new_one_and_the_warning_names_the_new_keys(tmp_path, caplog):
    path = tmp_path / "old.yaml"
    path.write_text(APL_BEFORE)
    new = load_recipe("apl")
    assert load_recipe(str(path)) == new.model_copy(update={"description": ""})
    (record,) = caplog.records
    said = record.getMessage()
    assert "detector.epochs is detector.training.epochs now; " in said
    assert "proposer.method is apl-actionformer now, with pretrain.enabled, " in said
    caplog.clear()
    load_recipe("apl")
    assert not caplog.records


def test_overrides_by_old_keys_count_in_their_order():
    old = load_recipe("thumos14-small", ["detector.epochs=3", "detector.training.width=32", "detector.lr=1e-3"])
    assert (old.detector.training.epochs, old.detector.training.width, old.detector.training.lr) == (3, 32, 1e-3)
    assert load_recipe("demo", ["detector.training.epochs=3", "detector.epochs=4"]).detector.training.epochs == 4
    assert load_recipe("demo", ["detector.epochs=3", "detector.training.epochs=4"]).detector.training.epochs == 4
    part = load_recipe("apl", ["detector.quality.tnd_power=1"]).detector.training.quality
    assert (part.enabled, part.tnd_power) == (True, 1)
    assert changed(load_recipe("demo"), {"detector.epochs": 5}).detector.training.epochs == 5


def test_options_of_apl_name_its_method_unless_they_change_nothing(caplog):
    plain = load_recipe("pser")
    for nothing in ("detector.quality.enabled=false", "detector.init=none", "detector.decode.quality_power=1.0"):
        assert load_recipe("pser", [nothing]) == plain
    for override in ("quality.enabled=true", "decode.quality_power=0.5", "unlabelled_weight=1"):
        assert load_recipe("pser", [f"detector.{override}"]).detector.method == "apl-actionformer"
    assert load_recipe("pser", ["detector.method=bmn", "detector.training.quality=true"]).detector.method == "apl-bmn"
    potloc = load_recipe("potloc", ["detector.pretrain.enabled=true"]).detector
    assert potloc.method == "apl-potloc" and potloc.pretrain.enabled


@pytest.mark.parametrize(("role", "name"), APL)
def test_a_whole_old_dump_with_neutral_values_is_the_plain_method(role, name):
    """As the recipes in run.json are: every default included."""
    document = load_recipe("pser", [f"{role}.method={APL[role, name]}"]).model_dump()
    config = document[role] | {"method": name}
    if name == "actionformer" and role == "detector":
        config |= config.pop("training")
    if role == "proposer":
        config["training"] |= {"init": "none", "unlabelled_weight": None}
    document[role] = config
    before = copy.deepcopy(document)
    assert getattr(Recipe.model_validate(document), role).method == name
    assert document == before, "what is given stays as it is"


def test_unknown_keys_stay_unknown():
    with pytest.raises(ConfigError, match=r"detector\.epoch: unknown key"):
        load_recipe("pser", ["detector.epoch=3"])
    with pytest.raises(ConfigError, match=r"proposer\.training\.init: unknown key"):
        load_recipe("apl", ["proposer.training.init=before"])
    odd_training = {"method": "actionformer", "training": 3}
    for odd in (None, 3, {"detector": 3}, {"detector": {"method": 3}}, {"detector": odd_training}):
        assert renamed(copy.deepcopy(odd)) == odd
