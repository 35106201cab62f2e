"""Search spaces: every value is a valid recipe, defaults are the recipe, conditions and errors are told."""

from __future__ import annotations

import json
from dataclasses import replace
from fnmatch import fnmatchcase

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search_spaces.families import FAMILIES, LEFT_OUT, family_of
from search_spaces.load import families, load
from search_spaces.space import Choice, Float, Integer, Parameter, Space
from tad.errors import ConfigError
from tad.recipe.places import methods
from tad.recipe.recipe import changed, load_recipe, options, recipe_names
from tests.support.spaces import RECIPES, space_of, spaces

optuna.logging.set_verbosity(optuna.logging.ERROR)


# -- families ---------------------------------------------------------------------------------------------------


def test_every_parameter_is_of_some_recipe_and_says_why():
    found = [p for family, name in spaces() for p in space_of(family, name).parameters]
    covered = {replace(p, method=None, formerly=None) for p in found}
    everything = {replace(p, method=None) for family in families() for p in load(family).parameters}
    assert covered == everything
    assert all(p.why and len(p.why) < 90 and "\n" not in p.why for p in everything)
    assert all(families().values())


def test_every_range_of_an_option_is_in_a_family_or_left_out_on_purpose():
    places = {f"{m.name}/{o.stage}/{o.key}" for m in methods() for o in m.options if o.said.tune is not None}
    patterns = [*LEFT_OUT, *(pattern for _, has in FAMILIES.values() for pattern in has)]
    idle = [pattern for pattern in patterns if not any(fnmatchcase(place, pattern) for place in places)]
    assert not idle, "patterns that no option has"
    left = {place for place in places if family_of(place) is None}
    assert left == {place for place in places for pattern in LEFT_OUT if fnmatchcase(place, pattern)}
    for method in methods():
        for one in method.options:
            assert bool(one.said.why) == (one.said.tune is not None), f"{method.name} {one.key}"
            assert one.said.tune is not None or (one.said.stand_in, one.said.when) == (None, None)


@pytest.mark.parametrize("family", families())
def test_defaults_are_the_recipe(family):
    """Trial 0 of a search is the recipe; what the sampler is told of it gives the recipe back."""
    for name in recipe_names():
        recipe = load_recipe(name)
        try:
            space = load(family).for_recipe(recipe)
        except ConfigError as error:
            why = ("nothing to tune", "faithful", "rounds: the")
            assert any(text in str(error) for text in why), f"{name}: {error}"
            continue
        base = options(recipe)
        values = space.suggest(FixedTrial(space.defaults(recipe)))
        derived = {p.key for p in space.parameters if p.stand_in is not None and base[p.key] is None}
        uneven = {"labeler.bag.scales"} & values.keys()  # by hand, and only nearly symmetric
        assert changed(recipe, {k: v for k, v in values.items() if k not in derived | uneven}) == recipe
        assert all(values[k] is not None for k in derived)
        for key in uneven:
            assert len(values[key]) == len(base[key]) and max(values[key]) == max(base[key])


@pytest.mark.parametrize("family", families())
def test_everything_suggested_is_a_valid_recipe_and_seeded(family):
    for name in RECIPES:
        space = space_of(family, name)
        if space is None:
            continue
        recipe, found = load_recipe(*RECIPES[name]), []
        for _ in range(2):
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
            found.append([space.suggest(study.ask()) for _ in range(20)])
        assert found[0] == found[1]
        for values in found[0]:
            base = options(changed(recipe, values))
            assert all(base[k] == v for k, v in values.items())


def test_families_compose_without_a_key_twice():
    for name in RECIPES:
        recipe = load_recipe(*RECIPES[name])
        whole = load(",".join(families())).for_recipe(recipe)
        assert len({p.key for p in whole.parameters}) == len(whole.parameters)


# -- conditions and errors --------------------------------------------------------------------------------------


def test_conditional_parameters_are_suggested_only_where_they_matter():
    bag = load_recipe("pser", ["labeler.refine=bag"])
    space = load("perturbation,thresholds").for_recipe(bag)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    seen = [space.suggest(study.ask()) for _ in range(60)]
    assert {v["labeler.merge.top_k"] for v in seen} == {None, 4, 8, 12}
    for values in seen:
        assert ("labeler.merge.ties" in values) == (values["labeler.merge.top_k"] is not None)
        assert ("proposer.candidates.sigma" in values) == (values["proposer.candidates.suppression"] == "soft-nms")
        assert ("proposer.candidates.iou_threshold" in values) == (values["proposer.candidates.suppression"] == "nms")
    # What depends on a key that stays is there, or not, for good.
    keys = {p.key for p in space.parameters}
    assert "labeler.seed_rule.half_width" in keys and "proposer.training.action_threshold" not in keys
    assert "labeler.bag.scales" in keys and "labeler.cross_fitting.rows.folds" not in keys
    default = {p.key for p in load("perturbation").for_recipe(load_recipe("pser")).parameters}
    assert "labeler.bag.scales" not in default and "labeler.cross_fitting.rows.folds" in default
    without = load("perturbation").for_recipe(load_recipe("pser", ["labeler.seed_rule.fallback=none"]))
    assert "labeler.seed_rule.half_width" not in {p.key for p in without.parameters}


def test_conditions_of_conditions(tmp_path):
    """A child may stand before its parent, and does not matter while its parent does not."""
    recipe = load_recipe("pser", ["rounds=2"])
    chain = [
        Parameter("stop.change", Float(0.8, 1), "w", "round", when=("rounds", 2)),
        Parameter("rounds", Integer(1, 3), "w", "round", when=("labeler.heads.bins", (8, 12))),
        Parameter("labeler.heads.bins", Choice(8, 12, 16), "w", "heads"),
    ]
    space = Space(tuple(chain)).for_recipe(recipe)
    assert [p.key for p in space.parameters] == ["labeler.heads.bins", "rounds", "stop.change"]
    bins = "labeler.heads.bins"
    assert space.suggest(FixedTrial({bins: 16})) == {bins: 16}
    assert space.suggest(FixedTrial({bins: 8, "rounds": 3})) == {bins: 8, "rounds": 3}
    whole = {bins: 8, "rounds": 2, "stop.change": 0.9}
    assert space.suggest(FixedTrial(whole)) == whole
    assert space.defaults(recipe) == {bins: 12, "rounds": 2, "stop.change": 0.97}
    gone = Parameter("rounds", Integer(1, 3), "w", "round", when=("labeler.method", "potloc"))
    assert [p.key for p in Space((*chain[:1], gone, chain[2])).for_recipe(recipe).parameters] == [bins]
    circle = [chain[0], Parameter("rounds", Integer(1, 3), "w", "round", when=("stop.change", 1))]
    with pytest.raises(ConfigError, match=r"rounds, stop\.change: each depends on another"):
        Space(tuple(circle)).for_recipe(recipe)


def test_all_problems_at_once_with_the_closest_key():
    wrong = [
        Parameter("labeler.merge.rank_powr", Float(0, 1), "w", "labels"),
        Parameter("labeler.bag.scale", Float(0, 1), "w", "heads", method="pser"),
        Parameter("labeler.merge.class_power", Float(0.5, 3), "w", "labels"),
        Parameter("labeler.merge.top_k", Integer(4, 12), "w", "labels"),
        Parameter("labeler.heads.dropout", Float(0, 1.5), "w", "heads"),
        Parameter("rounds", Integer(1, 3), "w", "round", when=("roundz", 1)),
        Parameter("stop.change", Float(0.5, 1), "w", "round"),
        Parameter("stop.change", Float(0.6, 1), "w", "round"),
        Parameter("labeler.rule", Choice("released", "paper"), "another labeler's", "labels", method="potloc"),
    ]
    with pytest.raises(ConfigError) as caught:
        Space(tuple(wrong)).for_recipe(load_recipe("pser"))
    message = str(caught.value)
    assert "7 problems" in message
    for part in (
        "labeler.merge.rank_powr: the recipe has no such key; did you mean labeler.merge.rank_power?",
        "labeler.bag.scale: the recipe has no such key; did you mean labeler.bag.scales?",
        "labeler.merge.class_power: the recipe's value: 0.0 is outside 0.5 to 3",
        "labeler.merge.top_k: the recipe's value: None is not a whole number; give its parameter a stand_in",
        "labeler.heads.dropout: the range (0 to 1.5) has values that the recipe refuses: "
        "labeler.heads.dropout: input should be less than 1, found 1.5",
        "roundz (on which rounds depends): the recipe has no such key; did you mean rounds?",
        "stop.change: given 2 times",
    ):
        assert part in message, message


def test_changed_recipes_are_validated_with_all_problems_at_once():
    recipe = load_recipe("pser")
    made = changed(recipe, {"labeler.bag.scales": [0.5, 1, 2], "rounds": 3, "labeler.merge.top_k": 8})
    assert (made.labeler.bag.scales, made.rounds, made.labeler.merge.top_k) == ([0.5, 1, 2], 3, 8)
    assert changed(recipe, options(recipe)) == changed(recipe, {}) == recipe != made
    assert changed(recipe, {"labeler.method": "points", "labeler.spread": 0.5}).labeler.spread == 0.5
    with pytest.raises(ConfigError) as caught:
        changed(recipe, {"labeler.merge.rank_powr": 1.0, "rounds": -1, "rounds.more": 1, "detector.training.window": 8})
    message = str(caught.value)
    assert "4 problems" in message
    assert "labeler.merge.rank_powr: unknown key; did you mean rank_power?" in message
    assert "rounds.more: rounds is not a group" in message and "window must be odd, got 8" in message


def test_a_space_for_other_methods_and_a_faithful_role_are_refused():
    with pytest.raises(ConfigError, match=r"the recipe has proposer snippet, labeler pser.* the space is for .*potloc"):
        load("labels").for_recipe(load_recipe("pser"))
    with pytest.raises(ConfigError, match=r"detector: faithful: true fixes detector\.decode\.keep, .* drop faithful"):
        load("postprocess").for_recipe(load_recipe("hrpro-released"))
    with pytest.raises(ConfigError, match="nothing to tune: every parameter depends on"):
        only = Parameter("labeler.merge.ties", Choice("all", "first"), "w", "labels", when=("labeler.merge.top_k", 8))
        Space((only,)).for_recipe(load_recipe("pser"))


def test_the_fingerprint_is_that_of_what_is_suggested():
    def of(**changes):
        parts = {"key": "rounds", "range": Integer(1, 3), "why": "w", "stage": "round"} | changes
        return Space((Parameter(**parts), Parameter("stop.change", Float(0.5, 1), "w", "round"))).fingerprint

    assert of() == of(why="another reason")
    assert len({of(), of(range=Integer(1, 4)), of(when=("rounds", 2)), of(stand_in=2), of(key="stop.score_drop")}) == 5
    space = load("perturbation,rounds")
    assert space.fingerprint == load("rounds,perturbation").fingerprint != load("rounds").fingerprint


def test_studies_of_the_last_version_go_on_under_its_names(caplog):
    recipe = load_recipe("pser")
    space = load("thresholds,proposer_training").for_recipe(recipe)
    asked = space.defaults(recipe)
    assert asked["proposer.candidates.nms"] == "soft" and asked["proposer.training.ema"] == 0.95
    values = space.suggest(
        FixedTrial(asked | {"proposer.candidates.nms": "hard", "proposer.candidates.iou_threshold": 0.5})
    )
    assert values["proposer.candidates.suppression"] == "nms" and values["proposer.candidates.iou_threshold"] == 0.5
    assert changed(recipe, values).proposer.candidates.suppression == "nms"
    old = [
        Parameter("proposer.candidates.nms", Choice("soft", "hard"), "w", "proposals"),
        Parameter(
            "proposer.candidates.sigma", Float(0.1, 1), "w", "proposals", when=("proposer.candidates.nms", "soft")
        ),
    ]
    new = [
        Parameter("proposer.candidates.suppression", Choice("soft-nms", "nms"), "w", "proposals"),
        replace(old[1], when=("proposer.candidates.suppression", "soft-nms")),
    ]
    assert Space(tuple(old)).for_recipe(recipe) == Space(tuple(new)).for_recipe(recipe)
    assert Space(tuple(new)).for_recipe(recipe).fingerprint == Space(tuple(old)).fingerprint


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_stored_parameters_give_the_same_values(seed):
    """So a trial can be repeated from the study."""
    space = load("perturbation,thresholds,training").for_recipe(load_recipe("pser"))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    values = space.suggest(trial)
    assert space.suggest(FixedTrial(json.loads(json.dumps(trial.params)))) == values


@pytest.mark.parametrize("name", ["pser", "hrpro", "potloc", "points"])
def test_an_enqueued_recipe_is_what_a_study_in_a_database_suggests_first(name, tmp_path, recwarn):
    recipe = load_recipe(*RECIPES[name])
    space = load(",".join(families())).for_recipe(recipe)
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True, group=True)
    study = optuna.create_study(storage=f"sqlite:///{tmp_path}/study.db", sampler=sampler)
    study.enqueue_trial(space.defaults(recipe))
    trial = study.ask()
    assert space.suggest(trial) == space.suggest(FixedTrial(space.defaults(recipe)))
    assert trial.params == space.defaults(recipe)
    assert not [str(w.message) for w in recwarn if "range" in str(w.message) or "fixed" in str(w.message)]
