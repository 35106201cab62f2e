"""Recipe `auto`: which recipe is chosen for which labels, that it can be trained on them, and what `tad run` says."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from tad.cli import tad
from tad.data.dataset import Dataset
from tad.errors import ConfigError, DataError
from tad.recipe.auto import CHOICES, choose
from tad.recipe.recipe import load_recipe, recipe_names
from tad.selection.best_round import check_selection
from tests.support.structure import ROOT

CHOSEN = {"full": "actionformer-full", "points": "pser", "classes": "gaufuse-student", "mixed": "mixed"}


def few(data: Dataset) -> Dataset:
    """Full labels of two videos, nothing of the others."""
    kept = dict(list(data.full_by_id.items())[:2])
    return replace(data, full_by_id=kept, points_by_id={}, classes_by_id={})


def no_points(data: Dataset) -> Dataset:
    return replace(data, points_by_id={})


@pytest.mark.parametrize("kind", CHOSEN)
def test_the_labels_decide(kind: str, by_type: dict[str, Dataset]) -> None:
    assert choose(by_type[kind]).recipe == CHOSEN[kind]


def test_what_is_chosen_can_be_trained_and_its_best_round_selected(by_type: dict[str, Dataset]) -> None:
    some_full = by_type["full"]
    cases = [*(by_type[kind] for kind in CHOSEN), few(some_full), no_points(by_type["mixed"])]
    found = []
    for data in cases:
        choice = choose(data)
        recipe = load_recipe(choice.recipe, choice.overrides)
        assert not recipe.problems(data), choice
        check_selection(recipe, data)
        found.append(choice.recipe)
    assert set(found) == {recipe for recipe, _ in CHOICES.values()} <= set(recipe_names())
    assert "it labels the others" in choose(few(some_full)).why and "nothing to refine" in choose(some_full).why


def test_the_sentence_counts_the_labels(by_type: dict[str, Dataset]) -> None:
    data = by_type["mixed"]
    counts = data.kinds("train")
    said = choose(data).why
    assert said.startswith(f"the {counts.total()} training videos have all boundaries of {counts['full']}, ")
    assert f"points of {counts['points']}, classes alone of {counts['classes']}, no label of {counts['none']};" in said


@pytest.mark.parametrize("case", CHOICES)
def test_numbers_of_the_evidence_stand_on_the_page_that_it_names(case: str) -> None:
    text = CHOICES[case][1]
    page = (ROOT / re.search(r"docs/\S+\.md", text)[0]).read_text()
    assert all(number in page for number in re.findall(r"\d+\.\d", text))


def test_without_any_label_nothing_is_chosen(by_type: dict[str, Dataset]) -> None:
    with pytest.raises(
        DataError, match=r"none of the \d+ training videos has a label, so no recipe can be chosen; add"
    ):
        choose(by_type["nothing"])
    with pytest.raises(ConfigError, match="recipe auto: the labels of a dataset decide"):
        load_recipe("auto")


def test_run_without_a_name_takes_it_and_goes_on_as_if_it_had_been_named(
    by_type: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = by_type["points"]
    quick = ["--local", "--rounds", "0", "--set", "proposer.training.epochs=2", "--data", str(data.root)]
    first = CliRunner().invoke(tad, ["run", *quick])
    assert first.exit_code == 0, first.output
    assert f"recipe pser: {choose(data).why}" in first.stderr
    folder = tmp_path / "runs" / f"pser-{data.name}-seed0"
    assert json.loads((folder / "run.json").read_text())["recipe_name"] == "pser"
    for name in ("auto", "pser"):
        again = CliRunner().invoke(tad, ["run", name, *quick])
        assert again.exit_code == 0 and "snippet/train: already there" in again.stderr
    assert [path.name for path in (tmp_path / "runs").iterdir() if path.name != "store"] == [folder.name]
    assert CliRunner().invoke(tad, ["recipes"]).output.startswith("auto ")
