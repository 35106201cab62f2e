"""Options: the paper's values, fingerprints, explanations and the reference page follow what stands on the fields."""

from __future__ import annotations

import copy
import pickle
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from tad.cli import tad
from tad.options import Unsaid, _warn, again, declared, group, option
from tad.ranges import Float
from tad.recipe.explain import WIDTH
from tad.recipe.methods import registered
from tad.recipe.places import methods, methods_of
from tad.recipe.recipe import Recipe, changed, load_recipe, options, recipe_names
from tad.recipe.reference import reference
from tad.stages import StageConfig
from tests.support.structure import ROOT
from tests.support.tiny import TinyEngine, tiny_dataset


class Inner(StageConfig):
    rate: float = option(1.0, "rate", ge=0, paper=2.0, tune=Float(0.0, 3.0), why="w", when=("use", True))
    use: bool = option(True, "use", paper=False, free=True)


class Role(StageConfig):
    faithful: bool = option(False, "the published behaviour")
    size: int = option(1, "size", paper=8)
    plain: Inner = Inner()
    other: Inner = group(
        Inner(), stage="detections", paper={"rate": 3.0}, free=("rate",), tune={"rate": Float(1.0, 9.0)}
    )
    whole: Inner = group(Inner(), paper=Inner(rate=5.0))


# -- what is declared ------------------------------------------------------------------------------------------------


def test_a_place_changes_what_a_group_says():
    found = {one.key: one for one in declared(Role, "detector", "detector.")}
    assert list(found) == [f"detector.{key}" for key in ("faithful", "size")] + [
        f"detector.{place}.{key}" for place in ("plain", "other", "whole") for key in ("rate", "use")
    ]
    plain, other, whole = (found[f"detector.{place}.rate"] for place in ("plain", "other", "whole"))
    assert (plain.stage, other.stage, whole.stage) == ("detector", "detections", "detector")
    assert (plain.said.paper, other.said.paper, whole.said.paper) == (2.0, 3.0, 5.0)
    assert (plain.said.tune, other.said.tune) == (Float(0.0, 3.0), Float(1.0, 9.0))
    assert plain.said.when == ("detector.plain.use", True) and other.said.when == ("detector.other.use", True)
    assert (plain.said.free, other.said.free) == (False, True)
    assert Role.model_json_schema()["$defs"]["Inner"]["properties"]["rate"]["minimum"] == 0


def test_an_option_may_be_declared_again_with_what_differs():
    class Wider(Inner):
        rate: float = again(Inner, "rate", 0.5, why="another", paper=4.0)

    one, other = (next(iter(declared(model, "detector"))) for model in (Inner, Wider))
    assert (other.info.default, other.said.paper, other.said.why) == (0.5, 4.0, "another")
    assert (other.info.description, other.said.tune) == (one.info.description, one.said.tune)


def test_every_option_of_every_method_has_a_meaning():
    for method in methods():
        for one in method.options:
            assert one.info.description, f"{method.name} {one.key}"
            if one.said.when is not None:
                key, _ = one.said.when
                own = {key} & {other.key for other in method.options}
                assert own or not key.startswith(f"{method.role}.") or key.endswith(".method"), f"{one.key}: {key}"


def test_the_walk_finds_every_option_of_every_recipe():
    for name in recipe_names():
        recipe = load_recipe(name)
        found = {one.key for method in methods_of(recipe) for one in method.options}
        assert {key for key in options(recipe) if not key.endswith("method") or "postprocess" in key} <= found


# -- faithful: true --------------------------------------------------------------------------------------------------


def test_faithful_fills_the_papers_values():
    role = Role(faithful=True)
    assert role == Role(faithful=True, size=8, plain={"rate": 2.0, "use": False}, other=Inner(rate=3.0, use=False))
    assert role.whole == Inner(rate=5.0) and Role().size == 1
    assert Role(faithful=True, other={"rate": 4.0}, plain=Inner(use=True)).plain == Inner(rate=2.0, use=True)
    assert Role.model_validate(role.model_dump(mode="json")) == role
    with pytest.raises(ValidationError) as caught:
        Role(faithful=True, size=1, plain={"rate": 1.0}, other={"rate": 1.0})
    assert "faithful: true sets size to 8, found 1; plain.rate to 2.0, found 1.0. Drop these" in str(caught.value)
    with pytest.raises(ValidationError, match="plain"):
        Role(faithful=True, plain=3)


def test_only_a_faithful_method_has_fixed_options():
    for method in methods():
        if "faithful" in method.model.model_fields:
            assert any(one.said.paper is not Unsaid for one in method.options), method.name
            assert (
                method.model(faithful=True).model_dump()
                == method.model.model_validate(method.model(faithful=True).model_dump()).model_dump()
            )


def test_a_value_that_is_not_said_survives_a_copy():
    for made in (copy.deepcopy, lambda said: pickle.loads(pickle.dumps(said))):
        assert made(Recipe.model_fields["rounds"].json_schema_extra).paper is Unsaid


# -- fingerprints ----------------------------------------------------------------------------------------------------


class InnerLater(Inner):
    later: float | None = option(0.5, "came later", neutral=None)


class Old(StageConfig):
    size: int = option(1, "size")
    inner: Inner = Inner()


class New(Old):
    inner: InnerLater = InnerLater()
    power: float = option(1.0, "came later, too", neutral=1.0)


@dataclass(frozen=True)
class Stage:
    config: StageConfig
    name: str = "test/stage"
    version: int = 1


def test_a_later_option_at_its_neutral_value_changes_no_fingerprint(tmp_path):
    engine = TinyEngine(tiny_dataset(tmp_path / "data", videos=2), 0, tmp_path)

    def key(config: StageConfig) -> str:
        return engine._key(Stage(config), {}, "train", 0)[0]

    neutral = New(inner=InnerLater(later=None))
    assert neutral.identity() == Old().identity() == Old().model_dump() != neutral.model_dump()
    assert key(neutral) == key(Old())
    assert len({key(Old()), key(New()), key(New(inner=InnerLater(later=None), power=2.0))}) == 3


class Fewer(StageConfig):
    formerly: ClassVar[dict[str, object]] = {"power": 1.0}
    size: int = option(1, "size")


class Whole(Fewer):
    power: float = option(1.0, "was an option of Fewer, too")


def test_an_option_that_went_to_a_subclass_stays_in_the_fingerprint():
    assert Fewer().identity() == Whole().identity() == Whole().model_dump() != Whole(power=2.0).identity()


def test_options_that_went_to_apl_left_their_fingerprints_alone():
    """At APL's defaults the stages of both methods are the same, though not their options."""
    for plain, apl in (("actionformer", "apl-actionformer"), ("bmn", "apl-bmn")):
        mine, theirs = (registered("detector")[name]() for name in (plain, apl))
        assert mine.training.model_dump().keys() < theirs.training.model_dump().keys()
        without_start = {k: v for k, v in theirs.training.identity().items() if plain == "actionformer" or k != "init"}
        assert mine.training.identity() == without_start and mine.decode.identity() == theirs.decode.identity()


def test_other_options_are_all_in_the_fingerprint():
    for method in methods()[1:]:
        if method.name == "file":
            continue
        kept = method.model().identity()
        for one in method.options:
            _, *groups, name = one.key.split(".")
            place = reduce(lambda node, group: node[group], groups, kept)
            assert (one.said.formerly or name) in place or one.said.neutral is not Unsaid, f"{method.name} {one.key}"


# -- names of the last version ---------------------------------------------------------------------------------------


class Named(StageConfig):
    decay: float = option(0.5, "decay", formerly="ema")
    rule: str = option(
        "hard-cut", "rule", formerly="nms", old_words={"hard-cut": "hard", "soft-cut": "soft"}, paper="soft-cut"
    )


class Renamed(StageConfig):
    faithful: bool = option(False, "the published behaviour")
    inner: Named = Named()


def test_former_names_and_words_are_understood_and_named(caplog):
    _warn.cache_clear()
    found = Renamed.model_validate({"inner": {"ema": 0.25, "nms": "soft"}})
    assert found == Renamed(inner=Named(decay=0.25, rule="soft-cut"))
    assert [record.getMessage() for record in caplog.records] == [
        "the option inner.ema is now named inner.decay; the old name works in this version alone",
        "the option inner.nms is now named inner.rule: soft is now soft-cut; the old name works in this version alone",
    ]
    assert found.identity() == {"faithful": False, "inner": {"ema": 0.25, "nms": "soft"}}
    assert Renamed.model_validate(found.identity()) == found
    assert Named.model_validate({"ema": 0.1, "decay": 0.2}).decay == 0.2, "the last one counts"
    assert Named.model_validate({"decay": 0.1, "ema": 0.2}).decay == 0.2
    with pytest.raises(ValidationError, match=r"sets inner\.rule to 'soft-cut', found 'hard-cut'"):
        Renamed.model_validate({"faithful": True, "inner": {"nms": "hard"}})


def test_no_former_name_is_another_options_name_now():
    for method in methods():
        for one in method.options:
            assert one.said.formerly not in one.owner.model_fields, f"{method.name} {one.key}"


def test_recipes_of_the_last_version_are_read(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(
        "proposer: {method: snippet, training: {ema: 0.9, score_weight: 1.0}, candidates: {nms: hard}}\n"
        "labeler: {method: pser}\n"
        "detector: {method: actionformer, score_weight: 0.5, postprocess: {method: nms}}\n"
    )
    recipe = load_recipe(str(path), ["proposer.candidates.nms=soft", "proposer.training.ema_decay=0.8"])
    assert (recipe.proposer.training.ema_decay, recipe.proposer.training.score_contrast_weight) == (0.8, 1.0)
    assert recipe.proposer.candidates.suppression == "soft-nms"
    assert (recipe.detector.training.label_score_weight, recipe.detector.postprocess.suppression) == (0.5, "nms")
    assert Recipe.model_validate(recipe.identity()) == recipe
    assert changed(recipe, {"proposer.training.ema": 0.7}).proposer.training.ema_decay == 0.7


# -- what users see --------------------------------------------------------------------------------------------------


def test_the_reference_page_is_true():
    page = ROOT / "docs" / "reference" / "options.md"
    assert page.read_text() == reference(), "python -m tad.recipe.reference > docs/reference/options.md"


@pytest.mark.parametrize("name", ["pser", "hrpro-released", "apl-bmn"])
def test_explaining_a_recipe_says_everything_of_every_option(name):
    shown = CliRunner().invoke(tad, ["recipes", "show", name, "--explain", "--set", "rounds=3"], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    lines = shown.output.splitlines()
    assert max(len(line) for line in lines if " = " not in line) <= WIDTH
    values = options(load_recipe(name, ["rounds=3"]))
    explained = {line.partition(" = ")[0] for line in lines if line and not line.startswith(" ") and " = " in line}
    assert explained == {key for key in values if key.partition(".")[2] != "method"} - {"description"}
    assert "rounds = 3\n    label, train, detect; " in shown.output


def test_explaining_names_default_paper_and_range():
    def shown(*more: str) -> str:
        command = ["recipes", "show", "pser", "--set", "labeler.merge.top_k=4", *more]
        return CliRunner().invoke(tad, command, catch_exceptions=False).output

    text = shown("--explain")
    assert (
        "labeler.merge.top_k = 4\n"
        "    best members that are merged; null: all\n"
        "    default null; paper 8; takes a whole number from 1 or null\n"
        "    worth searching: null, 4, 8, 12, only if labeler.refine is bag (paper 8; null merges all, and\n"
        "    the smallest bag has 15 members)\n"
    ) in text
    assert "worth searching: all, first, only if labeler.merge.top_k is 4 or 8 or 12 (paper first;" in text
    assert "worth searching" not in shown() and "top_k: 4" in shown()
