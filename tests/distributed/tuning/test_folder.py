"""A study's folder and storage: any name, damaged, full, of somebody else; and no password in anything that stays."""

from __future__ import annotations

import errno
import inspect
import json
import os
import shlex
import subprocess
import sys

import optuna
import pytest
import torch

from distributed.tuning.folder import MARKER, claim, make, name_in, sign
from distributed.tuning.study import best_of, in_one_sentence, join, open_storage, read_storage
from distributed.tuning.trial import reason
from search_spaces.space import Float, Parameter, Space
from tad.errors import DataError, RunError
from tad.files import folder_name

SPACE = Space((Parameter("x", Float(0.0, 8.0), "for tests", "labels"),))
ODD_NAMES = [
    "a?b",
    "100%",
    "%41",
    "a#b",
    "my däta (1)",
    "[x]{y}",
    "{SCHEMA_VERSION}",
    "a&b=c",
    "a@b:c",
    "a+b",
    "'q' \"r\"",
    "a\\b",
    "-x",
    "~",
    "a;b",
    "file:x",
    "$HOME",
    "x" * 200,
]


@pytest.fixture(scope="module", autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


def files(folder) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file() and not p.name.endswith(".lock"))


def a_study(storage, name="s"):
    return join(storage, name, {"recipe": "r"}, ["maximize"])


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ODD_NAMES)
def test_the_file_is_made_in_the_folder_and_found_again(tmp_path, name):
    path = tmp_path / name / "study.db"
    study = a_study(open_storage(path))
    study.tell(study.ask(), 0.5)
    assert files(tmp_path) == [f"{name}/study.db"]
    assert [t.value for t in a_study(open_storage(path)).trials] == [0.5]
    assert [t.value for t in optuna.load_study(study_name="s", storage=read_storage(path)).trials] == [0.5]
    assert files(tmp_path) == [f"{name}/study.db"]


@pytest.mark.parametrize("text", ["x" * 5000, "ä" * 5000, "../../etc", ".", "", "a/b", "\x00", "\udcff"])
def test_a_study_s_name_can_be_a_folder(tmp_path, text):
    name = folder_name(text, "study")
    assert name and "/" not in name and not name.startswith(".")
    (tmp_path / name).mkdir()


def test_an_sqlite_url_with_a_question_mark_is_not_cut_off(tmp_path):
    with pytest.raises(RunError, match=r"options are not used; the \? of a file's name is written %3F"):
        open_storage(f"sqlite:///{tmp_path}/a?b/study.db")
    open_storage(f"sqlite:///{tmp_path}/a%3Fb/study.db")
    assert files(tmp_path) == ["a?b/study.db"]


# -- study.json --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"study": "s', "not a JSON file"),
        (b"", "not a JSON file"),
        (b"[1]", "names no study"),
        (b"{}", "names no study"),
        (b'{"study": 3}', "names no study"),
        (b'{"study": ""}', "names no study"),
        (b'{"study": "s", "study": "t"}', "'study': appears twice in one object"),
        (b'{"study": "s", "version": 2}', "is of version 2; this tad-selftrain reads version 1"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"study": "\xff"}', "not UTF-8"),
        (None, "is a folder, not a file"),
    ],
)
def test_a_damaged_study_json(tmp_path, content, message):
    marker = tmp_path / MARKER
    if content is None:
        marker.mkdir()
    else:
        marker.write_bytes(content)
    for read in (lambda: name_in(tmp_path), lambda: claim(tmp_path, "s")):
        with pytest.raises(RunError) as caught:
            read()
        assert message in str(caught.value) and str(marker) in str(caught.value)
    assert content is None or marker.read_bytes() == content, "nothing is written"


def test_whose_a_folder_is(tmp_path):
    out = tmp_path / "study"
    claim(out, "s")
    open_storage(out / "study.db")
    claim(out, "s")  # another driver that begins at the same moment
    sign(out, "s", None)
    claim(out, "s")
    with pytest.raises(RunError, match="holds the study s; give t another folder with --out"):
        claim(out, "t")
    (out / MARKER).write_text('{"study": "s", "command": "as earlier versions wrote it"}')
    claim(out, "s")
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "thesis.tex").write_text("")
    with pytest.raises(RunError, match="not empty and not a study's folder"):
        claim(tmp_path / "else", "s")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    for out, why in [
        (tmp_path / "file", "is a file"),
        (tmp_path / "file" / "below", "file is a file"),
        (tmp_path / ("x" * 300), "file name too long"),
        (tmp_path / "a\x00b", "null"),
    ]:
        for act in (lambda out=out: claim(out, "s"), lambda out=out: make(out)):
            with pytest.raises(RunError, match="choose another folder with --out") as caught:
                act()
            assert why in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


# -- disks -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a disk of so many KB, or as read-only."""
    mounted = []

    def mount(options):
        folder = tmp_path / "disk"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("no file system can be mounted here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_read_only_disk(small_disk):
    disk = small_disk("ro")
    with pytest.raises(RunError, match="cannot be made: read-only file system; choose another folder with --out"):
        claim(disk / "study", "s")
    with pytest.raises(RunError, match=r"study.json: cannot be written: read-only file system; choose another"):
        sign(disk, "s", None)


def test_a_disk_that_is_full_from_the_start_and_one_that_fills_up(small_disk):
    disk = small_disk("size=400k")
    study = a_study(open_storage(disk / "study.db"))
    ballast = disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    with pytest.raises(RunError) as caught, in_one_sentence(disk / "study.db"):
        for number in range(1000):
            study.set_user_attr(f"key {number}", "x" * 1000)
    said = str(caught.value)
    assert f"{disk}/study.db: the study's storage failed: " in said and "\n" not in said
    assert "disk is full" in said or "disk I/O error" in said
    with pytest.raises(RunError, match="the study's storage cannot be used"):
        open_storage(disk / "another.db")
    ballast.unlink()
    assert a_study(open_storage(disk / "study.db")).user_attrs["identity"] == {"recipe": "r"}


def test_a_full_disk_is_named_and_other_errors_stay(tmp_path):
    said = "f: no space left on device; once it is mended, the same command goes on"
    with pytest.raises(RunError, match=said), in_one_sentence("s"):
        raise OSError(errno.ENOSPC, "No space left on device", "f")
    with pytest.raises(ConnectionError), in_one_sentence("s"):
        raise ConnectionError("Ray is gone")


# -- of somebody else ------------------------------------------------------------------------------------------------


LINKED = ("study.json", "study.db", "best.yaml", "data", "trials", "trials/2/events.jsonl", "figures", "events.jsonl")


@pytest.mark.parametrize("name", LINKED)
@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_a_study_does_not_write_through_links(tmp_path, name, kind):
    victim, out = tmp_path / "victim", tmp_path / "study"
    victim.mkdir()
    claim(out, "s")
    sign(out, "s", None)
    (out / name).unlink(missing_ok=True)
    (out / name).parent.mkdir(parents=True, exist_ok=True)
    (out / name).symlink_to(victim) if kind == "link" else os.mkfifo(out / name)
    with pytest.raises(RunError, match=f"{name}: is "):
        claim(out, "s")
    assert not list(victim.iterdir())


def another(folder):
    """A finished study of another user."""
    claim(folder, "theirs")
    study = a_study(open_storage(folder / "study.db"), "theirs")
    trial = study.ask()
    trial.suggest_float("x", 0.0, 8.0)
    study.tell(trial, 0.5)
    sign(folder, "theirs", None)
    return trial.params


def test_a_warm_start_writes_nothing_and_reads_below_the_folder_only(tmp_path):
    from distributed.tuning.search import Options, _warm

    params = another(tmp_path / "theirs")
    document = json.loads((tmp_path / "theirs" / MARKER).read_text())
    document |= {"storage": "postgresql://u:p@127.0.0.1:9/x", "command": "tad tune --storage postgresql://h/x"}
    (tmp_path / "theirs" / MARKER).write_text(json.dumps(document))
    lock = tmp_path / "theirs" / ".study.db.lock"
    lock.unlink(missing_ok=True)
    before = {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "theirs").iterdir()}
    own = open_storage(tmp_path / "mine" / "study.db")
    options = Options(name="s", out=tmp_path / "mine", trials=1, warm_start=str(tmp_path / "theirs"))
    assert _warm(own, SPACE, options) == [params]
    assert {p.name: (p.stat().st_mtime_ns, p.read_bytes()) for p in (tmp_path / "theirs").iterdir()} == before

    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / MARKER).write_text('{"study": "theirs"}')
    (tmp_path / "trap" / "study.db").symlink_to(tmp_path / "theirs" / "study.db")
    with pytest.raises(RunError, match="is a link to another folder"):
        _warm(own, SPACE, Options(name="s", out=tmp_path / "mine", trials=1, warm_start=str(tmp_path / "trap")))
    (tmp_path / "trap" / "study.db").unlink()
    with pytest.raises(RunError, match="--warm-start theirs: no such study"):
        _warm(own, SPACE, Options(name="s", out=tmp_path / "mine", trials=1, warm_start=str(tmp_path / "trap")))


@pytest.mark.parametrize("content", [b"", b"text", b"SQLite format 3\x00" + bytes(200), None])
def test_a_damaged_file_of_somebody_else(tmp_path, content):
    path = tmp_path / "study.db"
    if content is None:
        os.mkfifo(path)
    else:
        path.write_bytes(content)
    with pytest.raises((RunError, DataError)) as caught:
        best_of(read_storage(path), "s", SPACE)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["study.db"]


def test_optuna_unpickles_nothing_of_a_database():
    from optuna.storages import _cached_storage
    from optuna.storages._rdb import models, storage

    for module in (models, storage, _cached_storage):
        assert "pickle" not in inspect.getsource(module)


# -- passwords -------------------------------------------------------------------------------------------------------

SECRETS = [
    "postgresql://ann:hunter2-SECRET@127.0.0.1:9/x",
    "postgresql://ann:hunter2%2FSECRET%40@127.0.0.1:9/x?sslmode=require&password=hunter2-SECRET",
    "postgresql://ann:hunter2{SECRET}@127.0.0.1:9/x",
    "mysql+nothing://ann:hunter2-SECRET@127.0.0.1/x",
    "postgres://ann:hunter2-SECRET@127.0.0.1/x",
    "postgresql://ann:hunter2-SECRET@127.0.0.1:port/x",
    "post gres://ann:hunter2-SECRET@127.0.0.1/x",
    "://ann:hunter2-SECRET@127.0.0.1/x",
]


@pytest.mark.parametrize("url", SECRETS)
def test_no_error_shows_a_password(url):
    with pytest.raises(RunError) as caught:
        open_storage(url)
    said = str(caught.value)
    assert "SECRET" not in said and "hunter2" not in said and len(said.splitlines()) == 1
    assert caught.value.__cause__ is None and caught.value.__suppress_context__, "nor does a traceback"


@pytest.mark.parametrize("url", SECRETS[:3])
def test_study_json_keeps_no_password(tmp_path, monkeypatch, url):
    words = ["tad", "tune", "pser", "--data", "my däta (1)", "--storage", url, f"--storage={url}"]
    words += ["--tracking", "http://me:hunter2-SECRET@host/", "--store", "s3://KEY:hunter2-SECRET@bucket/a?x=SECRET"]
    monkeypatch.setattr(sys, "argv", words)
    sign(tmp_path, "s", url)
    text = (tmp_path / MARKER).read_text()
    assert "SECRET" not in text and "hunter2" not in text
    kept = shlex.split(json.loads(text)["command"])
    assert kept[:6] == words[:6] and kept[6].startswith("postgresql://***@127.0.0.1:9/x")
    assert name_in(tmp_path) == "s"


# -- why trials fail ---------------------------------------------------------------------------------------------------


class OfRay(ValueError):
    """As Ray raises it: its text is a traceback, its cause what the worker raised."""

    cause = RunError("stage a/b: loss is nan")

    def __str__(self):
        return "\x1b[36mray::_worker()\x1b[39m\nTraceback (most recent call last):\n  File"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (RunError("2 problems:\n  one\n  two"), "RunError: 2 problems: one two"),
        (
            RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be\nasynchronously"),
            "RuntimeError: CUDA error: device-side assert triggered",
        ),
        (torch.cuda.OutOfMemoryError("CUDA out of memory.\nTried"), "OutOfMemoryError: CUDA out of memory."),
        (OfRay(), "RunError: stage a/b: loss is nan"),
        (AssertionError(), "AssertionError: AssertionError"),
        (OSError("\x1b]0;x\x07s3://KEY:SECRET@b/x"), r"OSError: \x1b]0;x\x07s3://***@b/x"),
    ],
)
def test_the_reason_is_one_line(error, text):
    assert reason(error) == text
