"""Search spaces: every value is a valid recipe, defaults are the recipe, and the declared stage of each is true."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from distributed.engine.engine import Engine
from distributed.engine.record import Record
from distributed.engine.store import Store
from distributed.run.selftrain import SelfTraining
from search_spaces.families import FAMILIES, LEFT_OUT, family_of
from search_spaces.load import families, load
from search_spaces.ranges import suggest
from search_spaces.space import STAGES, Choice, Float, Integer, Parameter, Space
from tad.errors import ConfigError
from tad.recipe.places import methods
from tad.recipe.recipe import changed, load_recipe, options, recipe_names
from tad.recipe.rounds import Rounds
from tad.stages import Artifact
from tests.support.tiny import TinyEngine, tiny_dataset

RECIPES = {
    "pser": ("pser", []),
    "mined": ("pser", ["proposer.training.action_rows=mined"]),
    "fallback": ("pser", ["labeler.merge.top_k=8", "proposer.candidates.suppression=nms"]),
    "hrpro": ("hrpro", []),
    "potloc": ("potloc", []),
    "potloc-hard": ("potloc", ["detector.postprocess.suppression=nms"]),
    "points": ("pser", ["labeler.method=points"]),
    "quality": ("pser", ["labeler.method=apl", "detector.training.quality.enabled=true"]),
    "seeds": ("seeds", []),
    "gaufuse": ("gaufuse-small", []),
    "bmn": ("apl-bmn", []),
    "apl": ("apl-small", []),
}
"""Recipes under which every parameter of every family matters at least once."""

optuna.logging.set_verbosity(optuna.logging.ERROR)


@cache
def space_of(family: str, name: str) -> Space | None:
    """The family's parameters for one of RECIPES; None if it has none."""
    try:
        return load(family).for_recipe(load_recipe(*RECIPES[name]))
    except ConfigError as error:
        assert "nothing to tune" in str(error), error
        return None


def spaces() -> list[tuple[str, str]]:
    return [(family, name) for family in families() for name in RECIPES if space_of(family, name)]


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
            assert one.said.tune is not None or one.said.stand_in is None


@pytest.mark.parametrize("family", families())
def test_defaults_are_the_recipe(family):
    """Trial 0 of a search is the recipe; what the sampler is told of it gives the recipe back."""
    for name in recipe_names():
        recipe = load_recipe(name)
        try:
            space = load(family).for_recipe(recipe)
        except ConfigError as error:
            assert "nothing to tune" in str(error) or "faithful" in str(error) or "rounds: the" in str(error)
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
    space = load("perturbation,thresholds").for_recipe(load_recipe("pser"))
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
    without = load("perturbation").for_recipe(load_recipe("pser", ["labeler.seed_rule.fallback=none"]))
    assert "labeler.seed_rule.half_width" not in {p.key for p in without.parameters}


def test_conditions_of_conditions(tmp_path):
    """A child may stand before its parent, and does not matter while its parent does not."""
    chain = [
        Parameter("stop.change", Float(0.8, 1), "w", "round", when=("rounds", 2)),
        Parameter("rounds", Integer(1, 3), "w", "round", when=("labeler.heads.bins", (8, 12))),
        Parameter("labeler.heads.bins", Choice(8, 12, 16), "w", "heads"),
    ]
    space = Space(tuple(chain)).for_recipe(load_recipe("pser"))
    assert [p.key for p in space.parameters] == ["labeler.heads.bins", "rounds", "stop.change"]
    bins = "labeler.heads.bins"
    assert space.suggest(FixedTrial({bins: 16})) == {bins: 16}
    assert space.suggest(FixedTrial({bins: 8, "rounds": 3})) == {bins: 8, "rounds": 3}
    whole = {bins: 8, "rounds": 2, "stop.change": 0.9}
    assert space.suggest(FixedTrial(whole)) == whole
    assert space.defaults(load_recipe("pser")) == {bins: 12, "rounds": 2, "stop.change": 0.97}
    gone = Parameter("rounds", Integer(1, 3), "w", "round", when=("labeler.method", "potloc"))
    assert [p.key for p in Space((*chain[:1], gone, chain[2])).for_recipe(load_recipe("pser")).parameters] == [bins]
    circle = [chain[0], Parameter("rounds", Integer(1, 3), "w", "round", when=("stop.change", 1))]
    with pytest.raises(ConfigError, match=r"rounds, stop\.change: each depends on another"):
        Space(tuple(circle)).for_recipe(load_recipe("pser"))


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


def test_loading(tmp_path):
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from search_spaces.space import Float, Parameter\n"
        "SPACE = [Parameter('labeler.merge.rank_power', Float(1, 5), 'mine', 'labels')]\n"
    )
    both = load(f"rounds, {mine}").for_recipe(load_recipe("pser"))
    assert [p.key for p in both.parameters] == ["rounds", "stop.change", "stop.score_drop", "labeler.merge.rank_power"]
    assert {p.stage for p in load("perturbation:labels").parameters} == {"labels"}
    assert [p.key for p in load(f"{mine}:heads").parameters] == ["labeler.merge.rank_power"]

    broken = tmp_path / "broken.py"
    broken.write_text("SPACE = [1 / 0]\n")
    empty = tmp_path / "empty.py"
    empty.write_text("SPACES = []\n")
    reverse = tmp_path / "reverse.py"
    reverse.write_text("from search_spaces.space import Float\nFloat(2, 1)\n")
    with pytest.raises(ConfigError) as caught:
        load(f"treshold,{broken},{empty},{reverse},{tmp_path / 'none.py'},rounds:heds")
    message = str(caught.value)
    assert "6 problems" in message
    for part in (
        "no space 'treshold'; did you mean thresholds? Known: detector, labels, perturbation,",
        "broken.py: cannot be imported: ZeroDivisionError",
        "empty.py: needs a list SPACE of search_spaces.space.Parameter",
        "reverse.py: 2 to 1: the lower bound must be below the upper one",
        "none.py: no such file",
        "no stage 'heds'; known: proposer, proposals, heads,",
    ):
        assert part in message, message
    with pytest.raises(ConfigError, match="no space named; known: detector"):
        load(" , ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"import sys\nsys.exit(0)", "cannot be imported: it calls sys.exit: 0"),
        (b"import sys\nsys.exit('bye')", "cannot be imported: it calls sys.exit: bye"),
        (b"raise SystemExit", "cannot be imported: it calls sys.exit"),
        (b"class Odd(BaseException): pass\nraise Odd('x\\ny')", "cannot be imported: Odd: x y"),
        (b"raise GeneratorExit", "cannot be imported: GeneratorExit"),
        (b"def f(): f()\nf()", "RecursionError"),
        (b"SPACE = [", "SyntaxError"),
        (b"SPACE = '\xe4'", "SyntaxError"),
        ("SPACE = []".encode("utf-16"), "null bytes"),
        (b"import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (b"raise ValueError('x' * 10_000)", "ValueError: xxx"),
        (b"def __getattr__(name): raise SystemExit", "needs a list SPACE"),
    ],
)
def test_a_file_that_does_anything_but_hold_a_space(tmp_path, content, message):
    path = tmp_path / "mine.py"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert f"{path}: " in str(caught.value) and message in str(caught.value) and len(str(caught.value)) < 600


def test_what_a_space_prints_is_no_output_of_the_command(tmp_path, capsys):
    path = tmp_path / "mine.py"
    text = "print('loading')\nfrom search_spaces.space import Integer, Parameter\n"
    path.write_text(text + "SPACE = [Parameter('rounds', Integer(1, 3), 'w', 'round')]")
    assert [p.key for p in load(str(path)).parameters] == ["rounds"]
    assert capsys.readouterr() == ("", "loading\n")


def test_what_is_no_file_is_not_imported(tmp_path):
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    with pytest.raises(ConfigError, match="2 problems") as caught:
        load(f"{tmp_path / 'pipe.py'},{tmp_path / 'folder.py'}")
    assert "is a named pipe" in str(caught.value) and "is a folder" in str(caught.value)


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


# -- stages -----------------------------------------------------------------------------------------------------

STAGE_OF = {
    "snippet/train": "proposer",
    "hrpro/train": "proposer",
    "rskp/train": "proposer",
    "actionformer/propose": "proposals",
    "actionformer/labelled": "proposer",
    "contrastive/train": "proposer",
    "snippet/propose": "proposals",
    "rskp/propose": "proposals",  # of a later round: detections
    "pser/heads": "heads",
    "pser/seed": "labels",
    "pser/refine": "labels",
    "hrpro/rank": "labels",
    "potloc/label": "labels",
    "points/label": "labels",
    "gaufuse/seed": "labels",
    "gaufuse/fuse": "labels",
    "apl/icd": "heads",
    "apl/select": "labels",
    "apl/label": "labels",
    "rskp/targets": "detector",
    "rskp/retrain": "detector",
    "hrpro-instance/negatives": "detector",
    "actionformer/train": "detector",
    "hrpro-instance/train": "detector",
    "potloc/train": "detector",
    "bmn/pretrain": "detector",
    "bmn/train": "detector",
    "actionformer/detect": "detections",
    "hrpro-instance/detect": "detections",
    "potloc/detect": "detections",
    "bmn/detect": "detections",
}
"""Stages of the code by the tier of a space; scores and embeddings follow the proposer and have no options."""


class Keys(Engine):
    """Names the artifacts that a recipe needs, under their real fingerprints, without making any."""

    def __init__(self, *parts) -> None:
        super().__init__(*parts)
        self.needed: dict[str, tuple[int, str]] = {}

    def fit(self, stage, inputs=None, number=0):
        return self.map(stage, inputs, "train", number)

    def map(self, stage, inputs=None, role="train", number=0):
        key, _ = self._key(stage, inputs or {}, role, number)
        self.needed[key] = (number, stage.name)
        return Artifact(key, self.store.root / key)


def needed(recipe, engine: Keys) -> dict[str, tuple[int, str]]:
    """Round and stage by fingerprint, as self-training asks for them."""
    engine.needed, rounds = {}, Rounds(recipe, engine)
    for number in range(1, recipe.rounds + 1):
        rounds.seeds(number)
        rounds.detections(number, "train")
    return engine.needed


def first_stage(before: dict, after: dict, rounds: int) -> str:
    """The first tier of the first round in which something is newly needed that was there before."""
    again = [
        (number, STAGES.index("detections" if number and name == "rskp/propose" else STAGE_OF[name]))
        for key, (number, name) in after.items()
        if key not in before and name in STAGE_OF and number <= rounds
    ]
    return STAGES[min(again)[1]] if again else "round"


def another(p: Parameter, value):
    """A value of the range that is not the recipe's."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return next(v for _ in range(50) if (v := suggest(p.range, study.ask(), p.key)) != value)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("stages") / "data", videos=6, classes=2, dim=16)


@pytest.mark.parametrize(("family", "name"), spaces())
def test_the_declared_stage_is_the_first_that_a_change_runs_again(family, name, data, tmp_path):
    engine = Keys(data, Store(tmp_path / "store"), Record(tmp_path / "run"))
    recipe = load_recipe(*RECIPES[name])
    before, base = needed(recipe, engine), options(recipe)
    for p in space_of(family, name).parameters:
        start = recipe
        if p.when is not None and not p.wants(base[p.when[0]]):
            key, wanted = p.when  # set the condition first
            start = changed(recipe, {key: wanted[0] if isinstance(wanted, tuple) else wanted})
        after = needed(changed(start, {p.key: another(p, base[p.key])}), engine)
        compared = before if start is recipe else needed(start, engine)
        assert first_stage(compared, after, recipe.rounds) == p.stage, p.key


def test_real_runs_repeat_what_the_keys_say(tmp_path):
    """One change for each stage, run for real on one store: the record names the stages that were not there."""
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2, dim=8)
    tiny = ["proposer.training.epochs=3", "labeler.heads.epochs=3", "detector.training.epochs=3", "rounds=1"]
    recipe = load_recipe("pser", [*tiny, "labeler.heads.project=8", "labeler.heads.hidden=16"])

    def ran(name: str, values: dict) -> set[str]:
        engine = TinyEngine(data, 0, tmp_path)
        engine.record = Record(tmp_path / name)
        SelfTraining(changed(recipe, values), engine, {"scores": {}}).score()
        events = [json.loads(line) for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
        return {e["name"] for e in events if e["kind"] == "stage"}

    assert set(STAGE_OF) >= ran("base", {}) - {"snippet/score", "snippet/embed"} and not ran("again", {})
    declared = {p.key: p for family in families() if (s := space_of(family, "pser")) for p in s.parameters}
    for key, value in {
        "proposer.training.dropout": 0.5,
        "proposer.candidates.margin": 0.3,
        "labeler.negatives.count": 20,
        "labeler.merge.rank_power": 2.0,
        "detector.training.drop_path": 0.2,
        "detector.postprocess.sigma": 0.3,
        "stop.change": 0.9,
    }.items():
        stages = {STAGE_OF[name] for name in ran(key, {key: value}) if name in STAGE_OF}
        expected = declared[key].stage if key in declared else "round"
        assert min(stages, key=STAGES.index, default="round") == expected, key


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
