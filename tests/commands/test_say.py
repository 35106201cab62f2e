"""What commands print cannot command a terminal, whoever named the files."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from distributed.engine.locks import note
from distributed.engine.store import Store
from tad.cli import tad
from tests.support.sources import opentad_source
from tests.support.structure import files, tree
from tests.support.tiny import tiny_dataset

EVIL, SHOWN = "\x1b[2J\x07owned", "\\x1b[2J\\x07owned"
ALLOWED = {
    "tad.cli": "says that it was interrupted, and errors through tad.commands.crash",
    "tad.commands.say": "is what all others call",
    "tad.commands.doctor": "colours a table that is printable before",
    "tad.commands.submit": "hands the output of the user's job on as it is",
}


def test_all_that_is_printed_goes_one_way():
    printing = {
        module
        for module, path in files().items()
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "click.secho", "sys.stdout.write")
    }
    assert printing == set(ALLOWED)


def test_names_of_files_videos_and_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TAD_CACHE", str(tmp_path / "cache"))
    data = tiny_dataset(tmp_path / "data", videos=4, classes=2)
    src = opentad_source(tmp_path / "src")
    document = json.loads((src / "anno.json").read_text())
    document["database"][f"gone{EVIL}"] = {"subset": "training", "annotations": []}
    document["database"]["other"] = {"subset": f"sub{EVIL}", "annotations": []}
    (src / "anno.json").write_text(json.dumps(document))
    results = {"results": {data.videos("test")[0]: [{"segment": [1, 2], "label": data.classes[0], "score": 1}]}}
    (tmp_path / f"{EVIL}.json").write_text(json.dumps(results))
    store = Store(tmp_path / "store")
    (store.root / f"x{EVIL}").mkdir()
    run = CliRunner()
    for arguments in (
        ("import", "opentad", "src", f"out{EVIL}"),
        ("evaluate", f"{EVIL}.json", "--data", "data", "--subset", "test", "--json", f"{EVIL}.out"),
        ("labels", "data", f"labels{EVIL}", "--kind", "classes"),
        ("store", "list", "--store", "store"),
    ):
        result = run.invoke(tad, list(arguments), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        assert SHOWN in result.output and "\x1b" not in result.output and "\x07" not in result.output, arguments


def test_notes_above_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    note(f"waiting for {EVIL}")
    assert capsys.readouterr().err == f"waiting for {SHOWN}\n"
