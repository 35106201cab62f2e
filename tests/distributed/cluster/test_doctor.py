"""`tad doctor` on real clusters of several nodes: green, and red for everything that would break a run."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import replace

import pytest

from distributed.cluster.doctor import Facts, Finding, judge, source_hash
from tests.support.nodes import ROOT, free_port, nodes
from tests.support.tiny import tiny_dataset

GOOD = Facts("host", "3.11.7", "2.60.0", "2.13.0+cpu", "0.1.0", "ab" * 32, disk=2**40, shm=2**34)


@pytest.fixture(scope="module")
def three():
    with nodes(1, 1, 1) as cluster:
        yield cluster


@pytest.mark.ray
def test_three_nodes_in_order_are_green(three, tmp_path):
    result = three.run("-m", "tad", "doctor", "--store", tmp_path / "store")
    assert result.returncode == 0, result.stderr
    rows = result.stdout.splitlines()[1:]
    assert len(rows) == 3 and all(row.startswith("green") for row in rows)
    assert "(head)" in rows[0] and source_hash()[:8] in rows[2] and rows[1].split()[-2:] == ["yes", "-"]
    assert list((tmp_path / "store").iterdir()) == [], "it leaves nothing behind"


@pytest.mark.ray
def test_a_job_begins_by_examining_the_cluster_unless_told_not_to(three, tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=4).root
    (tmp_path / "file").write_text("")
    command = ["-m", "tad", "run", "demo", "--data", data, "--out", tmp_path / "run", "--tracking"]
    result = three.run(*command, "none", TAD_STORE=tmp_path / "file" / "store")
    assert result.returncode == 1 and "artifact store cannot be written" in result.stderr
    assert not (tmp_path / "run").exists()
    result = three.run(*command, "http://127.0.0.1:9", TAD_STORE=tmp_path / "store")
    assert result.returncode == 1 and result.stderr.count("no MLflow server answers there") == 1
    result = three.run(*command, "none", "--workers", 9, "--no-doctor", TAD_STORE=tmp_path / "store")
    assert "doctor:" not in result.stderr and "9 workers need 9 CPUs; the cluster has 3" in result.stderr


@pytest.mark.slow
@pytest.mark.ray
def test_nodes_of_another_kind_are_red_each_for_its_reason(tmp_path):
    """A changed tad, a clock 90 s ahead and no cache; no tad; a GPU that is not there; one that hangs; one killed."""
    changed, bare = tmp_path / "changed", tmp_path / "bare"
    for package in ("tad", "distributed", "search_spaces"):
        shutil.copytree(ROOT / package, changed / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (changed / "tad" / "errors.py").open("a") as file:
        file.write("# changed\n")
    bare.mkdir()
    clock = "import sys, time\nnow = time.time\n"
    clock += "if any('default_worker' in a for a in sys.orig_argv): time.time = lambda: now() + 90\n"
    (changed / "sitecustomize.py").write_text(clock)
    (tmp_path / "file").touch()
    for package in ("tad", "distributed"):  # stands before the installed one; of a package that one would fill gaps
        (bare / f"{package}.py").touch()
    ask = (  # not from the project's folder: a driver's own is the first place where workers look
        "import os, sys\nfrom distributed.cluster.connect import connected\n"
        "from distributed.cluster.doctor import examine\n"
        "os.chdir('/')\n"
        "with connected():\n    found = examine(sys.argv[1], patience=20)\n"
        "for f in found: print('node', '|'.join(f.problems) or 'green')\n"
    )
    with nodes(1, TAD_CACHE=str(tmp_path / "shared")) as cluster:
        cluster.add(1, variables={"PYTHONPATH": str(changed), "TAD_CACHE": str(tmp_path / "file")})
        cluster.add(1, variables={"PYTHONPATH": str(bare)})
        cluster.add(1, gpus=1)
        cluster.add(1)
        cluster.add(1)
        os.kill(cluster.pids[4], signal.SIGSTOP)
        cluster.kill(5)  # Ray takes a while to notice: it may be asked, or may be gone from the list
        try:
            result = cluster.run("-c", ask, f"file://{tmp_path / 'store'}", TAD_CACHE=tmp_path / "shared")
        finally:
            os.kill(cluster.pids[4], signal.SIGCONT)
    assert result.returncode == 0, result.stderr
    found = [line[5:] for line in result.stdout.splitlines() if line.startswith("node ")]
    assert len(found) in (5, 6) and found.count("green") == 1, found
    assert any("tad's source differs from the driver's" in f and "its clock is 90 s ahead" in f for f in found)
    assert sum("this machine's cache, cannot be written" in f for f in found) == 1
    assert any(
        "tad does not work there (ModuleNotFoundError: No module named 'distributed.cluster.doctor'" in f for f in found
    )
    assert any("Ray has 1 GPUs, torch sees 0: torch 2" in f for f in found)
    assert sum("no answer;" in f or "it went away" in f for f in found) == len(found) - 4


def test_no_cluster_at_the_address_is_told_at_once(capsys):
    from tad.cli import main

    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit):
        main(["doctor", "--address", address])
    assert f"no Ray answers at {address}" in capsys.readouterr().err


def test_what_differs_from_the_driver_or_is_short_is_red():
    finding = Finding("10.0.0.1", facts=GOOD, skew=0.1, object_store=2**33)
    assert judge(finding, GOOD, set()) == []
    assert judge(replace(finding, facts=replace(GOOD, torch="2.13.0+cu130")), GOOD, set()) == []
    for change, message in {
        ("python", "3.11.9"): "Python is 3.11.9, the driver's is 3.11.7",
        ("ray", "2.59.0"): "Ray is 2.59.0, the driver's is 2.60.0",
        ("torch", "2.12.0"): "torch is 2.12.0, the driver's is 2.13.0",
        ("tad", "0.2.0"): "tad is 0.2.0, the driver's is 0.1.0",
        ("source", "cd" * 32): "tad's source differs from the driver's (cdcdcdcd, not abababab)",
        ("disk", 2**20): "1.0 MB of disk are free; 2.1 GB are the least",
        ("shm", 2**26): "/dev/shm has 67.1 MB, Ray's object store 8.6 GB",
        ("store", "no"): "no",
        ("token", "open"): "open",
        ("tracking", "away"): "away",
    }.items():
        field, value = change
        (problem,) = judge(replace(finding, facts=replace(GOOD, **{field: value})), GOOD, set())
        assert problem.startswith(message)
    (problem,) = judge(replace(finding, skew=-60.0), GOOD, set())
    assert problem == "its clock is 60 s behind; run NTP"
    with_gpu = replace(finding, gpus=1.0, facts=replace(GOOD, gpus=1, cuda="13.0"))
    assert judge(with_gpu, GOOD, {"13.0"}) == []
    assert judge(with_gpu, GOOD, {"13.0", "12.6"}) == ["CUDA 13.0; the nodes differ: 12.6, 13.0"]
