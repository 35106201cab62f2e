"""The structure that the docs promise, checked on the code itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from tests.support.structure import (
    EMPTY,
    LAYERS,
    PACKAGES,
    ROOT,
    TRAINING,
    circles,
    files,
    graph,
    imports,
    layer,
    leaks,
    strays,
    tree,
)

FILES = files()


def test_every_module_has_a_layer():
    assert not strays(), "give each a layer in tests/support/structure.py"


def test_imports_point_one_way():
    order = list(LAYERS)
    wrong = [
        f"{module} ({layer(module)}) imports {imported} ({layer(imported)}), a higher layer"
        for module, found in graph(FILES).items()
        for imported in found
        if not {module, imported} & {*EMPTY} and order.index(layer(imported)) > order.index(layer(module))  # type: ignore[arg-type]
    ]
    assert not wrong


def test_no_folders_import_each_other():
    assert not circles()


def test_a_circle_of_folders_is_seen(tmp_path):
    sources = {"tad.ops.iou": "import tad.data.labels\n", "tad.data.labels": "def of():\n    import tad.files\n"}
    root = fake(tmp_path, sources | {"tad.files": "from tad.ops.iou import x\n"})
    assert circles(root) == [["tad.data", "tad.files", "tad.ops"]]


def test_the_science_needs_no_cluster():
    """tad imports neither ray, mlflow nor optuna, and nothing of `distributed` but at the command line's edge."""
    for module, path in FILES.items():
        found = {name.split(".")[0] for name in imports(module, path)}
        if module.split(".")[0] == "tad":
            assert not found & {"ray", "mlflow", "optuna"}, module
            assert layer(module) == "commands" or not found & set(PACKAGES[1:]), module


def test_training_code_cannot_come_to_read_boundaries():
    assert not leaks()
    trains = [module for module in FILES if layer(module) in TRAINING]
    assert len(trains) > 60 and {"tad.methods.points.labeler", "tad.stages", "tad.methods.bmn.model"} <= set(trains)


def fake(root: Path, sources: dict[str, str]) -> Path:
    """A tree of modules with these texts."""
    for module, text in sources.items():
        path = root.joinpath(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "tad" / "__init__.py").touch()
    return root


def test_a_leak_through_other_modules_is_seen(tmp_path):
    root = fake(
        tmp_path,
        {
            "tad.evaluation.ground_truth": "import json\n",
            "tad.data.labels": "import csv\n",
            "tad.evaluation.subset": "def of():\n    from tad.evaluation import ground_truth\n",
            "tad.evaluation.quality_by_label": "from tad.evaluation.subset import of\n",
            "tad.methods.points.labeler": "def label():\n    from tad.evaluation.quality_by_label import quality\n",
            "tad.methods.points.clean": "from tad.data.labels import read\n",
            "tad.ops.near": "from ..evaluation import ground_truth\n",
            "tad.ops.hidden": "import importlib\nname = 'tad.evaluation.subset'\nimportlib.import_module(name)\n",
            "tad.report.run": "from tad.evaluation.ground_truth import ground_truth\n",
        },
    )
    assert sorted(leaks(root)) == [
        "tad.methods.points.labeler imports tad.evaluation.quality_by_label imports tad.evaluation.subset imports "
        "tad.evaluation.ground_truth",
        "tad.ops.hidden imports tad.evaluation.subset imports tad.evaluation.ground_truth",
        "tad.ops.near imports tad.evaluation.ground_truth",
    ]


def test_what_a_package_imports_when_it_is_entered_counts(tmp_path):
    sources = {"tad.evaluation.ground_truth": "", "tad.data.labels": "", "tad.ops.iou": "import tad.data.labels\n"}
    root = fake(tmp_path, sources)
    assert not leaks(root)
    (root / "tad" / "data" / "__init__.py").write_text("from tad.evaluation import ground_truth\n")
    assert leaks(root) == ["tad.ops.iou imports tad.data imports tad.evaluation.ground_truth"]


def test_a_module_without_a_layer_is_seen(tmp_path):
    root = fake(
        tmp_path, {"tad.scores": "", "tad.methods.points.labeler": "from tad.scores import x\n", "tad.datatypes": ""}
    )
    assert strays(root) == ["tad.datatypes", "tad.scores"]


def test_no_unsafe_call():
    for module, path in FILES.items():
        for node in ast.walk(tree(path)):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = {a.name.split(".")[0] for a in node.names} | {getattr(node, "module", None) or ""}
                assert not names & {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}, module
            if isinstance(node, ast.Call):
                called, where = ast.unparse(node.func), f"{path}:{node.lineno}"
                unsafe = ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "os.system")
                assert called not in unsafe, where
                keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
                assert keywords.get("allow_pickle") != "True" and keywords.get("shell") != "True", where
                if called == "np.load":
                    assert keywords.get("allow_pickle") == "False", where
                if called == "torch.load":
                    assert keywords.get("weights_only") == "True", where


def test_files_are_small_and_have_a_subject():
    sizes = {f: len(f.read_text().splitlines()) for f in FILES.values()}
    assert max(sizes.values()) <= 400, max(sizes, key=lambda f: sizes[f])
    real = sorted(n for n in sizes.values() if n > 5)
    assert real[len(real) // 2] < 160
    assert not {f.name for f in FILES.values()} & {"utils.py", "helpers.py", "misc.py", "common.py"}


def test_seconds_and_snippets_are_converted_by_the_grid_only():
    """The feature rate 25/16, or its inverse .64 s, appears nowhere but as the grid's defaults."""
    for path in FILES.values():
        if path.name in ("grid.py",):
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                assert node.value not in (0.64, 1.5625), f"{path}:{node.lineno}"


def test_tad_imports_without_ray_mlflow_and_optuna():
    code = (
        "import sys\n"
        "for name in ('ray', 'mlflow', 'optuna'): sys.modules[name] = None\n"
        "import tad, tad.recipe.recipe, tad.evaluation.evaluator, tad.cli, distributed.run.session\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
