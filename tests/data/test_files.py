"""Small files of the user: every way in which they can be bad, and writing them whole."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tad.data.csv_table import read_csv
from tad.errors import DataError, TadError, printable
from tad.files import number, parse_json, parse_yaml, read_json, read_text, read_yaml, regular, whole, write_text


def written(tmp_path, content: bytes, name: str = "file"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_a_byte_order_mark_is_no_text(tmp_path):
    mark = b"\xef\xbb\xbf"
    assert read_text(written(tmp_path, mark + "café".encode())) == "café"
    assert read_json(written(tmp_path, mark + b'{"a": 1}')) == {"a": 1}
    assert read_yaml(written(tmp_path, mark + b"a: 1")) == {"a": 1}
    assert read_csv(written(tmp_path, mark + b"a,b\r\n1,2\r\n"), ("a", "b")).rows == [(2, {"a": "1", "b": "2"})]


def test_text_is_utf8_whatever_the_locale(tmp_path):
    path = written(tmp_path, "café\n".encode())
    code = (
        "import sys; from pathlib import Path; from tad.files import read_text\n"
        "print(ascii(read_text(Path(sys.argv[1]))))"
    )
    env = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    shown = subprocess.run([sys.executable, "-c", code, path], env=env, capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == r"'caf\xe9\n'"


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"one\ntwo\ncaf\xe9\n", "line 3: the byte 0xe9 is not UTF-8"), ("a,b".encode("utf-16"), "is UTF-16")],
)
def test_other_encodings_are_named(tmp_path, content, says):
    with pytest.raises(DataError, match=says):
        read_text(written(tmp_path, content))


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(written(tmp_path, b"x"))
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert read_text(tmp_path / "link") == "x"
    for name, says in {
        "pipe": "is a named pipe",
        "": "is a folder",
        "none": "missing",
        "file/below": "missing",
        "loop": "cannot be read",
        "x" * 300: "cannot be read",
        "nul\0": "cannot be read",
    }.items():
        with pytest.raises(DataError, match=says):
            regular(tmp_path / name)
    with pytest.raises(DataError, match="is a device"):
        regular(tmp_path.__class__("/dev/null"))


def test_a_key_twice_is_an_error_that_names_it():
    with pytest.raises(DataError, match="key 'a': appears twice in one object"):
        parse_json('{"x": {"a": 1, "b": 2, "a": 3}}', "file.json")
    with pytest.raises(DataError, match=r"line 3: the key 'a' appears twice in one mapping"):
        parse_yaml("a: 1\nb: 2\na: 3\n", "file.yaml")


def test_nesting_and_aliases_have_a_limit():
    for parse in (parse_json, parse_yaml):
        with pytest.raises(DataError, match="nested too deeply"):
            parse("[" * 100_000, "file")
    bomb = "a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [{', '.join([f'*a{i}'] * 10)}]\n" for i in range(9))
    with pytest.raises(DataError, match="aliases stand for more than"):
        parse_yaml(bomb, "file.yaml")
    with pytest.raises(DataError, match="an alias holds itself"):
        parse_yaml("a: &a [*a]", "file.yaml")
    assert parse_yaml("a: &a {x: 1}\nb: {<<: *a, x: 2}", "file.yaml") == {"a": {"x": 1}, "b": {"x": 2}}


def test_huge_integers_are_floats():
    assert parse_json("[12, -12, 1" + "0" * 400 + "]", "f") == [12, -12, float("inf")]
    assert number(10**400) == float("inf") and number(" 1.5") == 1.5
    for bad in (True, None, "x", [1]):
        with pytest.raises(ValueError, match="is not a number"):
            number(bad)


def test_rows_have_the_fields_of_the_header(tmp_path):
    path = written(tmp_path, b"a,b\n\n 1 , 2\n1\n1,2,3\n")
    with pytest.raises(DataError, match=r"2 problems[\s\S]*line 4: 1 fields[\s\S]*line 5: 3 fields"):
        read_csv(path, ("a", "b"))
    assert read_csv(written(tmp_path, b"a,b\n\n 1 , 2\n")).rows == [(3, {"a": "1", "b": "2"})]
    with pytest.raises(DataError, match="the header must be a,b; found a,c"):
        read_csv(written(tmp_path, b"a,c\n"), ("a", "b"))
    with pytest.raises(DataError, match="the header must be a,b; found nothing"):
        read_csv(written(tmp_path, b""), ("a", "b"))
    with pytest.raises(DataError, match="line 2: field larger"):
        read_csv(written(tmp_path, b"a,b\n" + b"x" * 200_000 + b",1\n"), ("a", "b"))


def test_a_file_is_written_whole_or_stays(tmp_path):
    path = written(tmp_path, b"old")
    with pytest.raises(RuntimeError), whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]
    with whole(path) as temporary:
        temporary.write_text("new")
    assert path.read_text() == "new" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_nothing_but_a_file_is_replaced(tmp_path):
    """Also through write_text and write_json; the link stays, and so does what it leads to."""
    aim = written(tmp_path, b"mine")
    (tmp_path / "link").symlink_to(aim)
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, kind in (
        ("link", f"is a link to {aim}, and stays; remove it, or name what it leads to"),
        ("folder", "is a folder, not a file; choose another"),
        ("pipe", "is a named pipe, not a file"),
        ("/dev/null", "is a device, not a file"),
    ):
        with pytest.raises(DataError, match=f"{tmp_path / name}: {kind}"):
            write_text(tmp_path / name, "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder", "link", "pipe"]
    assert (tmp_path / "link").is_symlink() and aim.read_text() == "mine" and (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["\U00020000" * 63, "é" * 127, "x" * 255, "x" * 251 + "\U00020000", "\udcff" * 255])
def test_names_as_long_as_a_file_system_takes_them(tmp_path, name):
    """255 bytes, of letters of up to four."""
    assert 251 < len(os.fsencode(name)) <= 255
    write_text(tmp_path / name, "text")
    assert [p.name for p in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "text"


def test_errors_cannot_command_a_terminal():
    evil = "class \x1b]0;owned\x07\x1b[2J \udc80 \u202e café 動作\nnext"
    assert str(TadError(evil)) == "class \\x1b]0;owned\\x07\\x1b[2J \\udc80 \\u202e café 動作\nnext"
    assert printable("plain") == "plain"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "it is empty"),
        ('{"a": 1}\n{"a": 2}\n', "several documents, one a line maybe"),
        ('// mine\n{"a": 1}', "JSON has no comments"),
        ('{"a": 1, # mine\n "b": 2}', "JSON has no comments"),
        ('{"a": 1,}', "no comma behind the last item"),
        ("{'a': 1}", "double quotes"),
        ('{"a": [1, 2', "cut off"),
        ('{"a": "xy', "cut off"),
    ],
)
def test_what_usually_breaks_json_is_said(text, hint):
    with pytest.raises(DataError, match=hint):
        parse_json(text, "a.json")


def test_what_spreadsheets_add_to_csv_is_no_content(tmp_path):
    path = written(tmp_path, b"sep=;\r\n\r\na;b;;\r\n1;2;;\r\n3;4\r\n;;;\r\n")
    assert read_csv(path).rows == [(4, {"a": "1", "b": "2"}), (5, {"a": "3", "b": "4"})]
    path = written(tmp_path, b"a,b\n1,2,\n3,4,,5\n")
    with pytest.raises(DataError, match=r"1 problem:\n  line 3: 4 fields, but the header has 2"):
        read_csv(path)
    path = written(tmp_path, b"x" * 100_000)
    with pytest.raises(DataError) as caught:
        read_csv(path, ("a", "b"))
    assert len(str(caught.value)) < 500


def test_utf_32_is_told_from_utf_16(tmp_path):
    with pytest.raises(DataError, match="is UTF-32"):
        read_text(written(tmp_path, "a".encode("utf-32")))
