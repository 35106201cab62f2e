"""Labels of all kinds in one dataset: recipes that use them, what is refused, and the docs' table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from distributed.run.session import Options, self_train
from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.supervision import label_problems, label_warnings, labeler_problems
from tests.support.structure import ROOT
from tests.support.supervision import TYPES

DOCS = ROOT / "docs" / "supervision.md"


# -- whole recipes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "on", "sets"),
    [("mixed", "mixed", ["rounds=2"]), ("pser-weak", "classes", ["rounds=1", "labeler.pser.heads.epochs=2"])],
)
def test_the_recipes_run(name: str, on: str, sets: list[str], by_type: dict[str, Dataset], tmp_path: Path) -> None:
    quick = ["proposer.training.epochs=4", "detector.training.epochs=3", "stop.change=1.0", "stop.score_drop=1.0"]
    recipe = load_recipe(name, [*sets, *quick])
    self_train(name, recipe, by_type[on], Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == list(range(recipe.rounds + 1))
    assert all(row["test_map"]["average"] >= 0 for row in rows)
    labels = Segments.from_parquet(tmp_path / "run" / f"round-{recipe.rounds}" / "labels.parquet")
    assert {source.rpartition("@")[2] for source in labels.codes("source")[1]} == {str(recipe.rounds)}


def test_pser_on_classes_names_what_to_use_before_anything_is_trained(
    by_type: dict[str, Dataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["run", "pser", "--data", str(by_type["classes"].root), "--local", "--store", str(tmp_path / "store")])
    assert ended.value.code == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "no training video has a point, and labeler pser makes one pseudo-label for every point" in said
    assert "gaufuse or pser-weak" in said and "mixed" in said
    assert not list((tmp_path / "store").rglob("model.pt")) + list((tmp_path / "store").rglob("*.partial"))
    proposals = tmp_path / "proposals.json"
    Segments.of(by_type["classes"].videos("train")[0], 0.0, 1.0, by_type["classes"].classes[0]).to_json_file(proposals)
    with pytest.raises(SystemExit):
        main(
            [
                "label",
                "points",
                "--data",
                str(by_type["classes"].root),
                "--proposals",
                str(proposals),
                "--out",
                "x.json",
            ]
        )
    assert "labeler points makes one pseudo-label for every point" in " ".join(capsys.readouterr().err.split())


# -- the table of the docs -------------------------------------------------------------------------------------------


def table(heading: str) -> dict[str, dict[str, str]]:
    """The rows of the table under a heading, by method and label type."""
    section = re.split(r"^## ", DOCS.read_text(), flags=re.MULTILINE)
    lines = next(s for s in section if s.startswith(heading)).splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    head, _, *rows = cells
    assert tuple(head[1:]) == TYPES
    return {
        name: dict(zip(TYPES, row, strict=True)) for first, *row in rows for name in re.findall(r"`([\w-]+)`", first)
    }


def methods(role: str) -> set[str]:
    union = Recipe.model_json_schema()["properties"][role]["discriminator"]["mapping"]
    return set(union)


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_proposers_are_refused(name: str, by_type: dict[str, Dataset]) -> None:
    rows = table("Proposers")
    assert set(rows) == methods("proposer")
    for method, cells in rows.items():
        recipe = load_recipe("pser", [f"proposer.method={method}", "rounds=0"])
        problems, warnings = label_problems(recipe, by_type[name]), label_warnings(recipe, by_type[name])
        said = "refused" if problems else "partly" if warnings else "yes"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warnings}"


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_labelers_are_refused(name: str, by_type: dict[str, Dataset]) -> None:
    rows = table("Labelers")
    assert set(rows) == methods("labeler")
    for method, cells in rows.items():
        recipe = load_recipe("pser", [f"labeler.method={method}"])
        problems = labeler_problems(recipe.labeler, by_type[name])
        warned = [w for w in label_warnings(recipe, by_type[name]) if method in w]
        said = "refused" if problems else "partly" if warned else "yes"
        if name == "nothing" and not problems:
            said = "no proposer"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warned}"


def test_no_proposer_learns_from_nothing_so_the_table_has_no_labeler_and_detector_for_it(
    by_type: dict[str, Dataset],
) -> None:
    for method in methods("proposer"):
        problems = label_problems(load_recipe("mixed", [f"proposer.method={method}"]), by_type["nothing"])
        assert len(problems) == 1 and "none of the 8 training videos has a label" in problems[0]
    detectors = table("Detectors")
    assert set(detectors) == methods("detector")
    for cells in detectors.values():
        assert cells["nothing"].startswith("no proposer")
        assert all(cells[name].startswith("yes") for name in TYPES if name != "nothing")
