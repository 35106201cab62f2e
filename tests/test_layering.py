"""The structure that the docs promise, checked on the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("tad", "distributed", "search_spaces")
FILES = sorted(f for package in PACKAGES for f in (ROOT / package).rglob("*.py"))

LAYERS = ["tad.data", "tad.ops", "tad.models", "tad.methods", "tad.recipe", "tad.run", "tad.commands"]
"""From low to high: a module may import from its own layer and from lower ones."""

TRAINING = ("tad.ops", "tad.models", "tad.methods")


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, lazy: bool = True) -> set[str]:
    """Modules that a file imports; without lazy ones, only those at its top level."""
    tree = ast.parse(path.read_text())
    nodes = ast.walk(tree) if lazy else iter(tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> str | None:
    if module.startswith(("tad.proposers", "tad.labelers", "tad.detectors", "tad.stage", "tad.published")):
        return "tad.methods"
    if module.startswith("tad.config"):
        return "tad.recipe"
    if module.startswith(("tad.commands", "tad.cli")):
        return "tad.commands"
    runs = ("tad.evaluate", "tad.quality", "tad.honest", "tad.protocols", "tad.report", "tad.supervision")
    if module.startswith(runs):
        return "tad.run"
    return next((x for x in LAYERS if module == x or module.startswith(x + ".")), None)


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path):
    mine = layer(module_name(path))
    for imported in imports(path):
        top = imported.split(".")[0]
        if top in PACKAGES[1:] and mine is not None:
            assert mine == "tad.commands", f"{imported}: only the command line's edge may import {top}"
        if top in ("ray", "mlflow", "optuna"):
            assert mine is None, f"tad imports {top}"
        theirs = layer(imported)
        if mine is not None and theirs is not None:
            assert LAYERS.index(theirs) <= LAYERS.index(mine), f"{module_name(path)} imports {imported}, a higher layer"


@pytest.mark.parametrize("path", [f for f in FILES if layer(module_name(f)) in TRAINING], ids=module_name)
def test_training_code_cannot_read_boundaries(path):
    assert not {i for i in imports(path) if "ground_truth" in i}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_unsafe_call(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            names = {a.name.split(".")[0] for a in node.names} | {getattr(node, "module", None) or ""}
            assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system")
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert keywords.get("allow_pickle") != "True" and keywords.get("shell") != "True"
            if called == "np.load":
                assert keywords.get("allow_pickle") == "False", node.lineno
            if called == "torch.load":
                assert keywords.get("weights_only") == "True", node.lineno


def test_files_are_small_and_have_a_subject():
    sizes = {f: len(f.read_text().splitlines()) for f in FILES}
    assert max(sizes.values()) <= 500, max(sizes, key=lambda f: sizes[f])
    real = sorted(n for n in sizes.values() if n > 5)
    assert real[len(real) // 2] < 200
    assert not {f.name for f in FILES} & {"utils.py", "helpers.py", "misc.py", "common.py"}


def test_seconds_and_snippets_are_converted_by_the_grid_only():
    """The feature rate 25/16, or its inverse .64 s, appears nowhere but as the grid's defaults."""
    for path in FILES:
        if path.name in ("grid.py",):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                assert node.value not in (0.64, 1.5625), f"{path}:{node.lineno}"


def test_all_packages_are_declared():
    import tomllib

    declared = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    assert declared == {module_name(f) for f in FILES if f.name == "__init__.py"}


def test_tad_imports_without_ray_mlflow_and_optuna():
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna'): sys.modules[name] = None\n"
        "import tad, tad.config, tad.evaluate, tad.quality, tad.cli, distributed.session\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
