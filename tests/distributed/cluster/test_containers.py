"""Where Ray finds less than it expects: no home, an open token, a long TMPDIR, little shared memory."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from distributed.cluster import own_ray
from distributed.cluster.connect import connected
from distributed.cluster.own_ray import BELOW, SOCKET, STORE_LEAST, STORE_ON_DISK, ray_folder, store_memory
from distributed.cluster.token import check_token, exposed, make_token
from tad.cli import main
from tad.errors import RunError
from tests.support.nodes import ROOT
from tests.support.tiny import RECIPE, tiny_dataset


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and no word about tokens in the environment."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def written(path: Path, rights: int) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("a" * 64)
    path.chmod(rights)
    return path


def test_a_new_token_is_its_owners_alone_whatever_the_umask(home):
    before = os.umask(0)
    try:
        make_token()
    finally:
        os.umask(before)
    file = home / ".ray" / "auth_token"
    assert (mode(file), mode(file.parent)) == (0o600, 0o700) and len(file.read_text()) == 64
    assert [path.name for path in file.parent.iterdir()] == ["auth_token"] and exposed() == ""
    first = file.read_text()
    make_token()
    assert file.read_text() == first


def test_a_token_that_is_there_stays_and_is_closed_and_an_empty_one_is_filled(home):
    file = written(home / ".ray" / "auth_token", 0o644)
    make_token()
    assert mode(file) == 0o600 and file.read_text() == "a" * 64
    file.write_text("")
    make_token()
    assert mode(file) == 0o600 and len(file.read_text()) == 64


@pytest.mark.parametrize("rights", [0o644, 0o640, 0o604, 0o620])
def test_a_token_that_others_can_read_or_change_is_refused_with_the_cure(home, monkeypatch, rights):
    file = written(home / "my token", rights)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(file))
    with pytest.raises(RunError, match=rf"mode {rights:o}.*`chmod 600 '.*my token'`"):
        check_token()
    with pytest.raises(RunError, match="chmod 600"):
        make_token()
    file.chmod(0o400)
    check_token()
    make_token()


def test_a_token_that_is_not_taken_from_a_file_is_not_examined(home, monkeypatch):
    assert exposed() is None
    written(home / ".ray" / "auth_token", 0o644)
    assert exposed()
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    assert exposed() is None
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert exposed() is None
    make_token()
    assert mode(home / ".ray" / "auth_token") == 0o644, "Ray does not use it"


def test_doctor_and_submit_refuse_an_open_token(home, capsys):
    """Before anything is sent: a listener that says nothing is enough of a cluster."""
    file = written(home / ".ray" / "auth_token", 0o644)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        for command in (
            ["doctor"],
            ["doctor", "--address", f"127.0.0.1:{port}"],
            ["submit", "--address", f"http://127.0.0.1:{port}", "--", "recipes"],
            ["jobs", "--address", f"http://127.0.0.1:{port}"],
        ):
            with pytest.raises(SystemExit) as end:
                main(command)
            assert end.value.code == 1 and f"`chmod 600 {file}`" in capsys.readouterr().err, command


def test_without_a_home_the_token_stays_in_memory(home, monkeypatch):
    (home.parent / "file").touch()
    for place in (home.parent / "file" / "home", Path("/nonexistent")):
        if os.geteuid() == 0 and place.parent == Path("/"):
            continue  # root could make it
        monkeypatch.setenv("HOME", str(place))
        monkeypatch.setenv("RAY_AUTH_TOKEN", "")
        make_token()
        assert len(os.environ["RAY_AUTH_TOKEN"]) == 64 and not place.exists()


def test_sockets_fit_below_the_folder_and_it_is_its_owners_alone(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    short = Path("/tmp") / f"t{os.getpid()}"
    short.mkdir()
    try:
        monkeypatch.setenv("TMPDIR", str(short))
        assert ray_folder() == short / f"ray-{os.geteuid()}" and mode(ray_folder()) == 0o700
        ray_folder().chmod(0o777)
        assert mode(ray_folder()) == 0o700
    finally:
        (short / f"ray-{os.geteuid()}").rmdir()
        short.rmdir()
    long = tmp_path / ("x" * 60)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert ray_folder() == Path("/tmp") / f"ray-{os.geteuid()}" and not list(long.iterdir())
    for folder in (short, Path("/tmp")):
        path = folder / f"ray-{os.geteuid()}"
        assert len(str(path)) + BELOW <= SOCKET


def test_a_folder_that_is_another_users_or_a_link_is_not_used(tmp_path, monkeypatch):
    base = Path("/tmp") / f"t{os.getpid()}"
    base.mkdir()
    try:
        (base / f"ray-{os.geteuid()}").symlink_to(tmp_path)
        monkeypatch.setenv("RAY_TMPDIR", str(base))
        assert ray_folder() == Path("/tmp") / f"ray-{os.geteuid()}"
    finally:
        (base / f"ray-{os.geteuid()}").unlink()
        base.rmdir()


def test_no_folder_at_all_is_told_with_each_reason(tmp_path, monkeypatch):
    long, file = tmp_path / ("x" * 60), tmp_path / "f"
    file.touch()
    monkeypatch.setattr(own_ray, "LAST", str(file))
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    monkeypatch.delenv("TMPDIR", raising=False)
    monkeypatch.setattr(own_ray, "SOCKET", len(str(tmp_path)) + BELOW + 30)
    with pytest.raises(RunError, match=r"set RAY_TMPDIR to a short one.*bytes too long for sockets; .*Not a directory"):
        ray_folder()


def test_the_object_store_is_made_to_fit(tmp_path, monkeypatch):
    class Disk:
        free = 64 * 2**20

    monkeypatch.setattr(own_ray.shutil, "disk_usage", lambda path: Disk)
    assert store_memory() == STORE_ON_DISK, "docker's 64 MB are less than Ray's least"
    Disk.free = 2**30
    assert STORE_LEAST < store_memory() < 2**30
    monkeypatch.setattr(own_ray, "SHM", tmp_path / "none")
    assert store_memory() is None


def test_another_version_at_the_address_is_told_in_one_sentence(monkeypatch):
    import ray

    def refuse(**_: object) -> None:
        raise RuntimeError(
            "Version mismatch: The cluster was started with:\n    Ray: 2.59.0\n    Python: 3.11.7\nThis process on "
            "node 192.0.2.2 was started with:\n    Ray: 2.60.0\n    Python: 3.11.7\n"
        )

    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(RunError) as told, connected("auto"):
        pass
    assert "Ray: 2.59.0" in str(told.value) and "install the cluster's versions here" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="makes namespaces: root and Linux")
def test_a_run_in_a_bare_container():
    """As `docker run --user 12345 --read-only --tmpfs /tmp`: nothing else can be written but a volume for the outputs.

    The user has neither name nor home, /dev/shm is docker's 64 MB, and TMPDIR leads nowhere and is long.
    """
    volume = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        data = tiny_dataset(volume / "data", videos=4, classes=2, dim=12).root
        volume.chmod(0o777)
        # The interpreter may lie below root's home, which the user may not enter without this right.
        user = "setpriv --reuid 12345 --regid 12345 --clear-groups --inh-caps +dac_read_search"
        user += " --ambient-caps +dac_read_search"
        mounts = (
            f"mount --bind {volume} {volume} && mount -o remount,bind,ro / && mount -t tmpfs -o size=64m tmpfs /dev/shm"
        )
        script = f"{mounts} && mount -t tmpfs -o mode=1777 tmpfs /tmp && cd {ROOT} && {user} " + '"$@" && ls -l /tmp'
        command = [sys.executable, "-m", "tad", "run", RECIPE, "--data", str(data)]
        command += [
            "--rounds",
            "0",
            "--tracking",
            "none",
            "--out",
            str(volume / "run"),
            "--store",
            str(volume / "store"),
        ]
        environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/nonexistent"}
        environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TMPDIR": "/tmp/" + "x" * 70}
        arguments = ["unshare", "--mount", "bash", "-c", script, "bash", *command]
        result = subprocess.run(arguments, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr[-3000:]
        assert "report: " in result.stdout and "Traceback" not in result.stderr
        assert re.search(r"^drwx------ .* ray-12345$", result.stdout, re.M), result.stdout
    finally:
        shutil.rmtree(volume)
