"""Which process is meant: not by host name, clock or number."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from distributed.run import identity
from distributed.run.identity import NONE, Identity

ELSEWHERE = ["unshare", "--pid", "--fork", "--mount-proc"]


def can_unshare() -> bool:
    try:
        return subprocess.run([*ELSEWHERE, "true"], capture_output=True, timeout=30).returncode == 0
    except OSError:
        return False


other_namespace = pytest.mark.skipif(not can_unshare(), reason="process namespaces cannot be made here")
only_linux = pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="no /proc")
ASK = "import sys; from distributed.run.identity import Identity; print(Identity.parse(sys.argv[1]).state())"
TELL = "import sys; from distributed.run.identity import Identity; print(Identity.me(), flush=True); sys.stdin.read()"


def test_its_text_gives_it_back():
    me = Identity.me()
    assert Identity.parse(str(me)) == me and me.pid == os.getpid()


@pytest.mark.parametrize("text", ["", "vm 7 1.5", "a b c d e", "vm - - 7 9 9", "\x00", "vm boot ns 0 0", "vm b n -1 1"])
def test_of_anything_else_nothing_can_be_told(text):
    """Among it what earlier versions wrote: host, number, and a start time that followed the clock."""
    assert Identity.parse(text).state() == "unknown"


@only_linux
def test_this_process_is_alive_whatever_the_clock_says(monkeypatch):
    me = Identity.me()
    monkeypatch.setattr(time, "time", lambda: 5e9)
    assert me.state() == "alive" and Identity.me() == me


@only_linux
def test_a_process_that_ended_is_dead_also_before_its_parent_looks():
    child = subprocess.Popen([sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    other = Identity.parse(child.stdout.readline().strip())
    assert other.pid == child.pid and other.state() == "alive"
    child.stdin.close()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie now
    assert other.state() == "dead"
    child.wait()
    assert other.state() == "dead"
    child.stdout.close()


@only_linux
def test_a_number_that_is_used_again_is_another_process():
    me = Identity.me()
    assert me._replace(born=me.born - 1).state() == "dead"


@only_linux
def test_another_machine_of_the_same_name_is_not_judged():
    me = Identity.me()
    assert me._replace(boot="f34aa418-64c4-463a-b1d4-000000000000", born=1).state() == "unknown"


@only_linux
@other_namespace
def test_a_container_of_the_same_host_name_is_not_judged_from_here_nor_from_there():
    me = Identity.me()
    ask = [*ELSEWHERE, sys.executable, "-c", ASK, str(me)]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "unknown"
    with subprocess.Popen(
        [*ELSEWHERE, sys.executable, "-c", TELL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as there:
        other = Identity.parse(there.stdout.readline().strip())
        assert (other.host, other.boot) == (me.host, me.boot) and other.space != me.space and other.pid == 1
        assert other.state() == "unknown"


@only_linux
@other_namespace
def test_where_proc_is_not_that_of_the_namespace_nothing_is_claimed():
    ask = ["unshare", "--pid", "--fork", sys.executable, "-c", ASK, str(Identity.me())]
    assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip() == "unknown"
    tell = ["unshare", "--pid", "--fork", sys.executable, "-c", TELL]
    text = subprocess.run(tell, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout.strip()
    assert Identity.parse(text).boot == NONE


def test_a_system_without_proc_leaves_it_to_the_heartbeat(monkeypatch):
    monkeypatch.setattr(identity, "_surroundings", lambda: None)
    me = Identity.me()
    assert me.boot == NONE and Identity.parse(str(me)) == me and me.state() == "unknown"
