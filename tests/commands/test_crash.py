"""Errors that nobody foresaw: one sentence and a private file, whatever the command."""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import pytest

from tad import cli
from tad.commands.crash import sentence
from tad.errors import DataError


class Panic(BaseException):
    """As those of libraries in Rust: no Exception."""


ERRORS = {
    "a full disk": (OSError(errno.ENOSPC, "No space left on device"), "the disk is full; make room"),
    "a full disk, with a place": (OSError(errno.ENOSPC, "No space", "/out/x"), "/out/x: the disk is full"),
    "a read-only place": (OSError(errno.EROFS, "Read-only", "/ro/x"), "/ro/x: the file system is read-only; choose"),
    "no permission": (PermissionError(errno.EACCES, "x", b"/x"), "/x: you may not read or write it"),
    "a long name": (OSError(errno.ENAMETOOLONG, "x", "y" * 9), "yyyyyyyyy: the name is too long"),
    "a folder": (IsADirectoryError(errno.EISDIR, "x", "/tmp"), "/tmp: is a folder, and a file is needed"),
    "below a file": (NotADirectoryError(errno.ENOTDIR, "x", "/f/x"), "/f/x: lies below a file"),
    "a large file": (OSError(errno.EFBIG, "Error writing bytes"), "ulimit -f"),
    "many files": (OSError(errno.EMFILE, "x"), "ulimit -n"),
    "no memory": (MemoryError(), "the memory is not enough"),
    "numpy's": (np._core._exceptions._ArrayMemoryError((10**15,), np.dtype("f8")), "memory is not enough: Unable to"),
    "a deep value": (RecursionError("maximum recursion depth exceeded"), "nested too deeply"),
    "an end": (EOFError("Ran out of input"), "unexpected EOFError: Ran out of input; this is a fault of tad"),
    "torch's disk": (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 12800"), "disk full?"),
    "no home": (RuntimeError("Could not determine home directory."), "set HOME to a folder"),
    "a fault": (KeyError("dataset"), "unexpected KeyError: 'dataset'; this is a fault of tad"),
    "a library's panic": (Panic("index out of bounds"), "unexpected Panic: index out of bounds"),
    "escape codes": (ValueError("\x1b[2Jcleared\x07\nsecond line"), r"ValueError: \x1b[2Jcleared\x07; this"),
    "a secret": (ValueError("at s3://KEY:word@b?x=1"), "ValueError: at s3://***@b?*** this"),
}


@pytest.fixture
def raising(monkeypatch, tmp_path):
    """raising(error) -> exit status of a command that raises it, and where its crash files are."""
    monkeypatch.delenv("TAD_TRACEBACK", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def run(error: BaseException) -> int | str | None:
        @click.command()
        def command() -> None:
            raise error

        monkeypatch.setattr(cli.LazyGroup, "get_command", lambda self, context, name: command)
        with pytest.raises(SystemExit) as end:
            cli.main(["anything"])
        return end.value.code

    return run


@pytest.mark.parametrize("kind", ERRORS)
def test_any_error_is_one_sentence_and_a_private_file(kind, raising, capsys, tmp_path):
    error, text = ERRORS[kind]
    assert raising(error) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert text in said and "Traceback (" not in said
    path = Path(re.search(r"traceback: (\S+)\)", said)[1])
    assert path.parent == tmp_path and stat.S_IMODE(path.stat().st_mode) == 0o600
    kept = path.read_text()
    assert "Traceback (most recent call last)" in kept and "\x1b" not in kept and "KEY:word" not in kept


def test_where_no_file_can_be_written_the_sentence_is_said_all_the_same(raising, capsys, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", "/nowhere/at/all")
    assert raising(KeyError("x")) == 1
    assert "(TAD_TRACEBACK=1 shows the traceback)" in capsys.readouterr().err


def test_tad_traceback_raises(raising, monkeypatch):
    monkeypatch.setenv("TAD_TRACEBACK", "1")
    with pytest.raises(KeyError):
        raising(KeyError("x"))


def test_errors_that_the_user_can_mend_leave_no_file(raising, capsys, tmp_path):
    assert raising(DataError("v\x1b1: bad, at s3://KEY:word@b")) == 1
    assert capsys.readouterr().err == "error: v\\x1b1: bad, at s3://***@b\n" and not list(tmp_path.iterdir())


def test_an_interrupt_gives_130_and_an_exit_its_own_status(raising, capsys):
    assert raising(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "interrupted\n"
    assert raising(SystemExit(7)) == 7
    assert raising(click.UsageError("no such option")) == 2


def test_an_interrupt_before_the_command_begins(capsys, monkeypatch):
    def ends() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "check_distributed", ends)
    with pytest.raises(SystemExit) as end:
        cli.main(["spaces"])
    assert end.value.code == 130 and capsys.readouterr().err == "interrupted\n"


def test_an_unknown_error_of_the_system_keeps_its_text():
    assert sentence(OSError("torch says so")).startswith("unexpected OSError: torch says so")


SAYING = """
import click
from tad import cli

@cli.tad.command()
def saying():
    click.echo("class \u8df3")

cli.COMMANDS["saying"] = ("__main__", "saying", "Say.")
cli.main(["saying"])
"""


def said_to(stdout, **environment) -> subprocess.CompletedProcess:
    environment = os.environ | environment
    return subprocess.run(
        [sys.executable, "-c", SAYING], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment
    )


def test_the_end_of_a_pipe_and_a_full_disk_behind_it():
    """`tad ... | head`, and `tad ... > FILE` on a full disk."""
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as gone:
        result = said_to(gone)
    assert result.stderr == "" and result.returncode == 1
    if os.path.exists("/dev/full"):
        with open("/dev/full", "wb") as full:
            result = said_to(full)
        assert result.returncode == 1 and result.stderr.startswith("error: the disk is full")
        assert result.stderr.count("\n") == 1


def test_a_locale_without_the_letters_stops_nothing():
    result = said_to(subprocess.PIPE, PYTHONIOENCODING="latin-1:strict")
    assert (result.returncode, result.stdout) == (0, "class \\u8df3\n"), result.stderr


BARE = """
import os
from pathlib import Path
import tad.report.charts
from distributed.engine.record import _user
from distributed.tracking.address import address
from distributed.tracking.database import TrackingStore
TrackingStore(address(None), "x")
print(_user())
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("setpriv") is None, reason="needs root and setpriv")
def test_a_user_without_name_and_home_needs_neither(request):
    """As in a container that is started with an arbitrary user."""
    work = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    work.chmod(0o777)
    request.addfinalizer(lambda: shutil.rmtree(work))
    read = ["--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"]  # Python may lie below /root
    user = ["setpriv", "--reuid", "4242", "--regid", "4242", "--clear-groups", *read]
    paths = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    for home in ({}, {"HOME": "/nonexistent"}):
        result = subprocess.run(
            [*user, sys.executable, "-c", BARE], capture_output=True, text=True, env=paths | home, cwd=work
        )
        assert (result.returncode, result.stdout, result.stderr) == (0, "unknown\n", ""), result.stderr
