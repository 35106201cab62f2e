"""Spaces from files and by name: what is loaded, and what is refused."""

from __future__ import annotations

import os

import pytest

from search_spaces.load import load
from tad.errors import ConfigError
from tad.recipe.recipe import load_recipe


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
