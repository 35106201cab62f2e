"""A method of another package: one class and one entry point, and nothing else is touched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.structure import ROOT
from tests.support.tiny import tiny_dataset

POINTS = ROOT / "tests" / "methods" / "test_contracts.py"


def code(page: str) -> str:
    """The Python of a page or of a module's docstring."""
    text = (ROOT / page).read_text().partition("```python\n")[2]
    return text.partition("```")[0]


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """An installed package with the labeler and the detector of the docs."""
    site = tmp_path / "site"
    site.mkdir()
    labeler, detector = code("tad/methods/roles.py"), code("docs/how-to/add-a-method.md")
    (site / "tad_top.py").write_text(labeler + detector)
    lines = re.search(r"```toml\n.*?\n(.*?)```", (ROOT / "docs/how-to/add-a-method.md").read_text(), re.DOTALL)
    assert lines is not None
    install(site, "tad-top", lines[1].replace('"', ""))
    return site


def install(site: Path, name: str, entries: str) -> None:
    folder = site / f"{name.replace('-', '_')}-0.1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1\n")
    (folder / "entry_points.txt").write_text(f"[tad.methods]\n{entries}")


def run(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    command = [sys.executable, "-m", *map(str, words)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)


def test_a_recipe_names_them_and_the_contracts_test_them(package, tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=6, classes=2, dim=8).root
    recipe = tmp_path / "top.yaml"
    recipe.write_text(
        "proposer: {method: snippet}\nlabeler: {method: top, top: {count: 4}}\ndetector: {method: linear}\nrounds: 2\n"
    )
    short = ["--set", "proposer.training.epochs=2", "--set", "detector.training.epochs=3"]
    where = ["--local", "--store", tmp_path / "store", "--out", tmp_path / "run"]
    done = run(package, "tad", "run", recipe, "--data", data, *short, *where)
    assert done.returncode == 0, done.stderr
    assert all(text in done.stderr for text in ("top/label", "linear/train: 3 epochs", "round 2"))
    tested = run(package, "pytest", POINTS, "-k", "labeler-top or detector-linear")
    assert tested.returncode == 0 and "6 passed" in tested.stdout, tested.stdout


def test_a_method_that_cannot_be_had_is_named(package):
    install(package, "broken", "lost = tad_lost:LostLabeler")
    done = run(package, "tad", "recipes", "show", "pser")
    assert done.returncode == 1 and "tad_lost:LostLabeler of broken cannot be loaded" in done.stderr


def test_two_methods_of_one_name_are_refused(package):
    (package / "tad_again.py").write_text("from tad_top import TopLabeler\nclass Again(TopLabeler): ...\n")
    install(package, "again", "top = tad_again:Again")
    done = run(package, "tad", "recipes", "show", "pser")
    assert done.returncode == 1 and "there is another labeler named top" in done.stderr
