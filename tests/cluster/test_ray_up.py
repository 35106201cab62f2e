"""A real `ray up` over ssh on three hosts, a run that loses one of them, and `ray down`: `make test-cluster`."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster.hosts import REPOSITORY, Hosts, missing
from tests.support.runs import digests, events
from tests.support.tiny import tiny_dataset

reason = missing()
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(reason is not None, reason=str(reason)),
]
OUTPUTS = ["round-0/proposals-test", "round-1/labels", "round-1/detections-test"]
EPOCHS = 40  # of the proposer: long enough to die in the middle


def edited(source: str, hosts: Hosts) -> str:
    """clusters/on-premises.yaml as its user would edit it: the lines marked EDIT, and no others."""
    workers = ", ".join(hosts.address(n) for n in range(2, hosts.count + 1))
    answers = [
        (r"head_ip: \S+", f"head_ip: {hosts.address(1)}"),
        (r"worker_ips: \[.*\]", f"worker_ips: [{workers}]"),
        (r"ssh_user: \S+", "ssh_user: root"),
        (r"ssh_private_key: \S+", f"ssh_private_key: {hosts.key}"),
        (r"SHARED=[^;]+", f"SHARED={hosts.shared}"),
    ]
    lines = source.splitlines()
    for n, line in enumerate(lines):
        if "  # EDIT" in line:
            matching = [(pattern, answer) for pattern, answer in answers if re.search(pattern, line)]
            assert len(matching) == 1, line
            lines[n] = re.sub(matching[0][0], matching[0][1], line)
            answers.remove(matching[0])
    assert not answers
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="tad-hosts-", dir="/var/tmp"))
    try:
        with Hosts(folder, 3) as made:
            yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def wait_until(what: str, ready: Callable[[], object], seconds: float, every: float = 1.0) -> None:
    end = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < end, f"after {seconds:.0f} s not yet: {what}"
        time.sleep(every)


def test_ray_up_run_loses_a_host_ray_down(hosts, capfd):
    began = time.monotonic()

    def say(text: str) -> None:
        with capfd.disabled():
            print(f"[{time.monotonic() - began:6.1f} s] {text}", flush=True)

    file = hosts.folder / "on-premises.yaml"
    file.write_text(edited((REPOSITORY / "clusters/on-premises.yaml").read_text(), hosts))

    refused = hosts.launcher("ray", "up", "-y", "--no-config-cache", str(file), check=False)
    assert "auth_token" in refused, refused[-2000:]
    assert not hosts.ray_processes(1), "without a token nothing starts"
    say("ray up without a token: refused")
    hosts.launcher("bash", "-c", "umask 077; ray get-auth-token --generate")
    hosts.launcher("ray", "up", "-y", "--no-config-cache", str(file))
    say("ray up: the head runs")

    def joined() -> bool:
        status = hosts.on(1, ". ~/.tad-environment && ray status", check=False)
        active = re.search(r"^ (\d+) local.cluster.node", status, re.M)
        return active is not None and int(active[1]) == hosts.count

    wait_until("three nodes joined", joined, 180)
    say("all three nodes have joined")

    examined = hosts.launcher("ray", "exec", str(file), "tad doctor --address auto")
    assert len(re.findall(r"green +tad-[123]", examined)) == hosts.count, examined
    say("tad doctor: three nodes, all green")

    check_doors(hosts)
    say("doors: dashboard on 127.0.0.1 alone; 401 without the token")

    tunnel = hosts.start_on_launcher("ray", "dashboard", "-p", "8265", str(file))
    reached = "exec 3<>/dev/tcp/127.0.0.1/8265"
    wait_until("the tunnel", lambda: hosts.launcher("bash", "-c", f"{reached} && echo yes", check=False) == "yes\n", 60)
    say("ray dashboard: the tunnel stands")

    tiny_dataset(hosts.shared / "data", videos=8, classes=2, dim=16)
    shutil.copy(REPOSITORY / "tests/support/tiny.yaml", hosts.shared / "tiny.yaml")
    whole, job = hosts.shared / "whole", submit(hosts, "whole")
    output = job.communicate(timeout=900)[0]
    assert job.returncode == 0, output[-4000:]
    assert json.loads((whole / "run.json").read_text())["state"] == "finished"
    say("an uninterrupted run has finished")

    job = submit(hosts, "killed")
    killed = hosts.shared / "killed"
    wait_until("epoch 5 of the proposer", lambda: last_epoch(killed) >= 5, 240, every=0.1)
    busy = [n for n in range(2, hosts.count + 1) if "RayTrainWorker" in " ".join(hosts.ray_processes(n).values())]
    assert busy, "training is spread, so a worker host has a part in it"
    died = hosts.kill_ray(busy[0])
    at = last_epoch(killed)
    assert died > 3 and at < EPOCHS - 5, (died, at)
    say(f"host {busy[0]}: {died} processes of Ray killed after epoch {at} of {EPOCHS}")
    wait_until("training goes on", lambda: last_epoch(killed) > at + 1, 240)
    say(f"training goes on with epoch {at + 1}")
    output = job.communicate(timeout=600)[0]
    assert job.returncode == 0, output[-4000:]
    assert digests(killed, OUTPUTS) == digests(whole, OUTPUTS)
    epochs = [e["epoch"] for e in events(killed / "events.jsonl", "snippet/train")]
    assert epochs.count(0) == 1 and max(epochs) == EPOCHS - 1, "it resumed from a checkpoint, not from the start"
    wait_until("the host is back", joined, 180)
    say("the run has finished with the result of the uninterrupted one; the host is back by itself")

    tunnel.terminate()
    tunnel.wait(timeout=30)
    hosts.launcher("ray", "down", "-y", str(file))
    say("ray down")
    everyone = range(1, hosts.count + 1)
    wait_until("no process of Ray is left", lambda: not any(hosts.ray_processes(n) for n in everyone), 180)
    say("nothing of Ray is left on any host")


def submit(hosts: Hosts, name: str) -> subprocess.Popen[str]:
    """Submits a run of two workers on different hosts through the tunnel, and follows it."""
    shared = hosts.shared
    command = f"tad submit -- run {shared}/tiny.yaml --data {shared}/data --workers 2 --placement spread --rounds 1"
    command += f" --set proposer.training.epochs={EPOCHS} --set proposer.training.batch_size=4"
    command += f" --set labeler.heads.batch_size=4 --store {shared}/store-{name} --out {shared}/{name} --tracking none"
    return hosts.start_on_launcher("python", "-m", *shlex.split(command))


def last_epoch(run: Path) -> int:
    path = run / "events.jsonl"
    return max([e["epoch"] for e in events(path, "snippet/train")], default=-1) if path.exists() else -1


def check_doors(hosts: Hosts) -> None:
    """Who listens where on the head, as another host sees it."""
    head = hosts.address(1)
    listening = hosts.on(1, "ss -Hltn | awk '{print $4}'").split()
    assert [address for address in listening if address.endswith(":8265")] == ["127.0.0.1:8265"]
    closed = hosts.on(2, f"(exec 3<>/dev/tcp/{head}/8265) 2>/dev/null || echo closed", check=False)
    assert closed == "closed\n"
    ask = "curl -s -o /dev/null -w '%{http_code}' http://127.0.0.1:8265/api/jobs/"
    assert hosts.on(1, ask) == "401"
    assert hosts.on(1, f'{ask} -H "Authorization: Bearer $(cat ~/.ray/auth_token)"') == "200"
    assert hosts.on(1, "stat -c %a ~/.ray/auth_token ~/.ray") == "600\n700\n"
    unknown = "RAY_AUTH_MODE=disabled ~/tad-env/bin/python -c 'import ray; ray.init(\"auto\")' 2>&1 | tail -1"
    assert "ConnectionError" in hosts.on(1, f"{unknown}; true", timeout=120)
