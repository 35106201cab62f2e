"""The command line: quick help, clear errors, the right `distributed`."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from tad.cli import COMMANDS, check_distributed, main
from tad.errors import TadError


def tad(*arguments, **more):
    return subprocess.run([sys.executable, "-m", "tad", *map(str, arguments)], capture_output=True, text=True, **more)


def test_help_lists_every_command_and_imports_nothing_heavy():
    code = "import sys; from tad.cli import main\ntry: main(['--help'])\nfinally: print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    listed, modules = out.rsplit("\n[", 1)
    for name in COMMANDS:
        assert f"\n  {name}" in listed
    for heavy in ("torch", "numpy", "ray", "mlflow", "optuna", "pyarrow", "matplotlib", "pydantic"):
        assert f"'{heavy}'" not in modules


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_its_line_is_true(name):
    module, attribute, line = COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    assert command.help and line.endswith(".")


@pytest.mark.parametrize(
    ("name", "claims"),
    [
        ("split", {"dev videos": "--dev", "points": "--hide-points", "folds": "--kfold", "label a few": "--labelled"}),
        ("ui", {"missed": "--replay"}),
        ("jobs", {"end it": "--stop"}),
        ("synth", {"invent": "--videos"}),
    ],
)
def test_what_a_line_says_of_a_command_it_can_do(name, claims):
    """And what the command can do besides its first purpose is said."""
    module, attribute, line = COMMANDS[name]
    options = {option for p in getattr(importlib.import_module(module), attribute).params for option in p.opts}
    for words, option in claims.items():
        assert words in line and option in options


def test_errors_of_the_user_have_no_traceback(tmp_path):
    result = tad("run", "pser", "--data", tmp_path / "nowhere", "--local")
    assert result.returncode == 1 and "Traceback" not in result.stderr
    assert result.stderr.strip() == f"error: {tmp_path / 'nowhere'}: no such dataset folder"


def test_another_package_named_distributed_is_told(tmp_path, monkeypatch):
    check_distributed()
    (tmp_path / "distributed").mkdir()
    (tmp_path / "distributed" / "__init__.py").write_text("class Client: ...")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(sys.modules, "distributed", raising=False)
    with pytest.raises(TadError, match=r"not tad-selftrain's.*Dask's has that name"):
        check_distributed()


def test_version(capsys):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert "0.1.0" in capsys.readouterr().out
