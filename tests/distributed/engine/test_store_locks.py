"""Who waits says for whom; what is finished is read without a lock, by other users and from read-only folders."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from distributed.engine import locks
from distributed.engine.locks import held, is_held
from distributed.engine.record import Record
from distributed.engine.store import Store, fingerprint
from distributed.engine.uses import Notes, noted
from tad.errors import RunError
from tests.support.nodes import ROOT

K = fingerprint({"k": 1})
OTHER = 65533
"""Uid and gid of a second user."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")


def test_who_waits_says_for_whom_and_how_long(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "PATIENCE", 0.2)
    monkeypatch.setattr(locks, "EVERY", 0.2)
    lines: list[str] = []
    with held(tmp_path / "k.lock", "stage a"):
        thread = threading.Thread(target=lambda: held(tmp_path / "k.lock", "stage a", lines.append).__enter__())
        thread.start()
        while len(lines) < 2:
            time.sleep(0.05)
        assert is_held(tmp_path / "k.lock") == locks.holder_of(tmp_path / "k.lock")
    thread.join(timeout=30)
    assert not thread.is_alive()
    assert lines[0].startswith(f"waiting for stage a: process {os.getpid()} on ") and "since 20" in lines[0]
    assert "s so far, Ctrl-C gives up" in lines[1]


WAIT = """
import signal, sys
from distributed.engine import locks
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells have jobs in the background ignore it
locks.PATIENCE = 0.1
with locks.held(__import__("pathlib").Path(sys.argv[1]), "stage a"):
    print("in")
"""


def test_ctrl_c_ends_the_waiting(tmp_path):
    with held(tmp_path / "k.lock", "stage a"):
        command = [sys.executable, "-c", WAIT, str(tmp_path / "k.lock")]
        waiting = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
        assert waiting.stderr is not None and "waiting for stage a: process" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=60)
    assert "KeyboardInterrupt" in said and waiting.returncode != 0
    assert is_held(tmp_path / "k.lock") is None and not (tmp_path / "k.lock.holder").exists()


def test_a_lock_file_has_the_rights_of_its_folder(tmp_path):
    for folder_mode, mode in ((0o755, 0o644), (0o2775, 0o664), (0o777, 0o666)):
        folder = tmp_path / f"{folder_mode:o}"
        folder.mkdir()
        folder.chmod(folder_mode)
        with held(folder / "k.lock", "x"):
            assert stat.S_IMODE((folder / "k.lock").stat().st_mode) == mode


def test_a_file_system_without_locks_is_told(tmp_path, monkeypatch):
    """Some network file systems answer ENOSYS to flock; filelock then makes a file stand for the lock."""
    import fcntl

    def none(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", none)
    lines: list[str] = []
    with held(tmp_path / "k.lock", "x", lines.append):
        assert (tmp_path / "k.lock").exists()
    assert "has no locks (flock), so k.lock stands for one" in lines[0] and not (tmp_path / "k.lock").exists()


def artifact(folder: Path) -> Path:
    """A store with one artifact."""
    store = Store(folder)
    with store.lock(K, "stage a"):
        (store.partial(K).folder / "output" / "model.pt").write_text("weights")
        return store.commit(K, {"stage": "a"}).path


def as_other(code: str, *arguments: object) -> str:
    """What a second Unix user's process prints, or its error."""
    become = f"import os; os.setgroups([]); os.setgid({OTHER}); os.setuid({OTHER}); os.umask(0o022)\n"
    imports = "import sys, encodings.utf_8_sig\nfrom distributed.engine.record import Record\n"
    imports += "from distributed.engine.store import Store\nfrom distributed.engine.uses import Notes, noted\n"
    code = imports + become + code
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    return done.stdout + (done.stderr.splitlines()[-1] if done.returncode else "")


@pytest.fixture
def shared():
    """A folder that all may pass through, as /srv is; pytest's own is closed to others."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        before = os.umask(0o022)
        yield Path(folder) / "store"
        os.umask(before)


@as_root
def test_a_second_user_reads_what_is_finished_and_may_not_write(shared):
    artifact(shared)
    code = """
store = Store(sys.argv[1])
print(store.find(sys.argv[2]).path.name)
for key in ("0" * 24, sys.argv[2]):
    try:
        with store.lock(key, "a stage"):
            print("held")
    except Exception as error:
        print(error)
"""
    name, make, again = as_other(code, shared, K).splitlines()
    assert name == K
    assert "the artifact store cannot be written: permission denied" in make
    assert f"{K}.lock: cannot be locked: permission denied; another user made it" in again and "chmod g+ws" in again


@as_root
def test_users_of_one_group_take_turns_in_a_store(shared):
    """The first user leaves a partial artifact in a folder of the group; the second goes on with it."""
    shared.mkdir()
    os.chown(shared, 0, OTHER)
    shared.chmod(0o2775)
    store = Store(shared)
    with store.lock(K, "stage a"):
        (store.partial(K).folder / "checkpoint.pt").write_text("state")
    go_on = """
store = Store(sys.argv[1])
with store.lock(sys.argv[2], "stage a"):
    folder = store.partial(sys.argv[2]).folder
    print((folder / "checkpoint.pt").read_text())
    (folder / "output" / "model.pt").write_text("weights")
    store.commit(sys.argv[2], {})
"""
    assert as_other(go_on, shared, K).strip() == "state"
    assert Store(shared).find(K) is not None


@as_root
def test_runs_of_all_users_of_a_group_are_noted(shared, tmp_path):
    """Also when the second user goes on with a run of the first; one who may only read the store is not noted."""
    shared.mkdir()
    os.chown(shared, 0, OTHER)
    shared.chmod(0o2775)
    Notes(Store(shared), Record(shared.parent / "one")).add(K)
    shutil.copytree(shared.parent / "one", shared.parent / "two")
    for path in (shared.parent / "two", shared.parent / "two" / "events.jsonl"):
        os.chown(path, OTHER, OTHER)
    note = "Notes(Store(sys.argv[1]), Record(__import__('pathlib').Path(sys.argv[2]))).add(sys.argv[3])"
    assert as_other(note, shared, shared.parent / "two", "1" * 24) == ""
    [use] = noted(Store(shared))
    assert use.keys == {K, "1" * 24} and [Path(place).name for place, _ in use.places] == ["one", "two"]
    assert not use.lies_in([str(shared.parent / "one")]) and use.lies_in([str(shared.parent)])
    [path] = (shared / ".runs").iterdir()
    path.chmod(0o600)
    assert "it is not known which artifacts a run needs" in as_other("noted(Store(sys.argv[1]))", shared)
    shared.chmod(0o755)
    (shared / ".runs").chmod(0o755)
    assert as_other(note, shared, shared.parent / "two", "2" * 24) == ""


@as_root
def test_an_artifact_that_others_may_not_read_is_told(shared):
    artifact(shared).joinpath("meta.json").chmod(0o600)
    assert "its owner must let others read it" in as_other("print(Store(sys.argv[1]).find(sys.argv[2]))", shared, K)


@as_root
def test_a_read_only_store_is_read(shared):
    artifact(shared)
    subprocess.run(["mount", "--bind", shared, shared], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", shared], check=True)
        store = Store(shared)
        assert store.find(K) is not None and store.meta(K)["stage"] == "a"
        with pytest.raises(RunError, match="the artifact store cannot be written: read-only file system"):
            store.lock("0" * 24, "stage b").__enter__()
    finally:
        subprocess.run(["umount", "-l", shared], check=True)
