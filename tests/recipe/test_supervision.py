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
from tad.recipe.rounds import Rounds
from tests.support.structure import ROOT
from tests.support.supervision import TYPES
from tests.support.tiny import TinyEngine

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


def recipe_of(proposals: Path, *overrides: str) -> Recipe:
    """A recipe, whose proposals are in a file if its proposer wants one."""
    more = [f"proposer.path={proposals}"] if "proposer.method=file" in overrides else []
    return load_recipe("mixed", [*overrides, *more])


@pytest.fixture(scope="module")
def proposals(by_type: dict[str, Dataset], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three proposals of each class in every training video."""
    data, path = by_type["nothing"], tmp_path_factory.mktemp("proposals") / "proposals.json"
    rows = [(v, float(i), i + 2.5, c) for v in data.videos("train") for c in data.classes for i in range(3)]
    video, start, end, label = zip(*rows, strict=True)
    Segments.of(list(video), list(start), list(end), list(label), 0.5).to_json_file(path)
    return path


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_proposers_are_refused(name: str, by_type: dict[str, Dataset], proposals: Path) -> None:
    rows = table("Proposers")
    assert set(rows) == methods("proposer")
    for method, cells in rows.items():
        recipe = recipe_of(proposals, f"proposer.method={method}", "rounds=0")
        problems, warnings = recipe.problems(by_type[name]), recipe.warnings(by_type[name])
        said = "refused" if problems else "partly" if warnings else "yes"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warnings}"


@pytest.mark.parametrize("name", TYPES)
def test_the_table_says_what_labelers_are_refused(name: str, by_type: dict[str, Dataset]) -> None:
    rows = table("Labelers")
    assert set(rows) == methods("labeler")
    for method, cells in rows.items():
        labeler = load_recipe("pser", [f"labeler.method={method}"]).labeler
        problems, warned = labeler.problems(by_type[name]), labeler.warnings(by_type[name])
        said = "refused" if problems else "partly" if warned else "yes"
        if name == "nothing" and not problems:
            said = "no proposer"
        assert cells[name].startswith(said), f"{method} on {name}: {problems or warned}"


def test_no_proposer_learns_from_nothing_so_the_table_has_no_labeler_and_detector_for_it(
    by_type: dict[str, Dataset], proposals: Path, tmp_path: Path
) -> None:
    for method in methods("proposer") - {"file"}:
        problems = load_recipe("mixed", [f"proposer.method={method}"]).problems(by_type["nothing"])
        assert len(problems) == 1 and "none of the 8 training videos has a label" in problems[0]
    for labeler, found in (("gaufuse", True), ("pser-weak", True), ("mixed", False)):
        recipe = recipe_of(proposals, "proposer.method=file", f"labeler.method={labeler}")
        assert recipe.problems(by_type["nothing"]) == []
        rounds = Rounds(recipe, TinyEngine(by_type["nothing"], 0, tmp_path))
        assert bool(len(rounds.labels(1).segments.segments())) == found, "proposals of a file need no labels"
    detectors = table("Detectors")
    assert set(detectors) == methods("detector")
    for cells in detectors.values():
        assert cells["nothing"].startswith("no proposer")
        assert all(cells[name].startswith("yes") for name in TYPES if name != "nothing")
