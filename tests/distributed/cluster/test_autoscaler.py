"""Nodes that are not there yet: the plan counts them if the autoscaler may start them, asks for them, and waits."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import yaml

from distributed.cluster.autoscaler import may_start
from distributed.cluster.placement import Node, enough, listed
from tests.support.nodes import MEMORY, ROOT, free_port

HEAD, GPU = Node("head", 4, 0.0), Node("a new gpu", 8, 1.0)


def test_what_may_still_start_is_what_the_file_allows_less_what_is_there():
    config = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    assert may_start(config, []) == [GPU] * 4
    assert may_start(config, [Node("10.0.0.1", 8, 1.0)]) == [GPU] * 3
    assert may_start(config | {"max_workers": 2}, [Node("10.0.0.1", 8, 1.0)]) == [GPU]
    assert may_start(config, [Node("10.0.0.1", 2, 0.0)] * 5) == []
    local = yaml.safe_load((ROOT / "clusters" / "on-premises.yaml").read_text())
    assert may_start(local, []) == []


def test_no_more_nodes_are_asked_for_than_the_workers_need():
    assert enough([HEAD], [GPU] * 4, 4, 0.0, None) == []
    assert enough([HEAD], [GPU] * 4, 5, 0.0, None) == [GPU]
    assert enough([HEAD], [GPU] * 4, 3, 0.5, None) == [GPU] * 2
    assert enough([HEAD], [GPU] * 4, 3, 0.5, "pack") == [GPU] * 4
    large = Node("a new large", 32, 8.0)
    assert enough([HEAD], [GPU, large], 8, 1.0, "pack") == [large]
    assert listed([GPU, large, GPU]) == "2 x a new gpu (8 CPUs, 1 GPU), a new large (32 CPUs, 8 GPUs)"


@contextmanager
def autoscaling(version: int) -> Iterator[dict[str, str]]:
    """The environment for a head with one CPU, whose autoscaler may start three nodes with one CPU each.

    The nodes are Ray's own fake ones, processes of this machine. `ray.cluster_utils.AutoscalingCluster` is not used:
    it would end every Ray of the machine.
    """
    from ray._private.services import get_node_ip_address

    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # short: sockets lie in it
    head, port, mark = "f" * 51 + "00000", free_port(), uuid.uuid4().hex
    address = f"{get_node_ip_address()}:{port}"
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    config = {
        "cluster_name": "fake",
        "max_workers": 3,
        "provider": {
            "type": "external",
            "module": provider,
            "gcs_address": address,
            "head_node_id": head,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "small": {"resources": {"CPU": 1, "object_store_memory": MEMORY}, "node_config": {}, "max_workers": 5},
        },
        "head_node_type": "ray.head.default",
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "file_mounts_sync_continuously": False,
        **{name: {} for name in ("auth", "docker", "file_mounts")},
        **{name: [] for name in ("cluster_synced_files", "rsync_exclude", "rsync_filter", "initialization_commands")},
        **{f"{node}_{what}_commands": [] for node in ("head", "worker") for what in ("setup", "start_ray")},
        "setup_commands": [],
    }
    (folder / "cluster.yaml").write_text(json.dumps(config))
    outer = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = outer | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_TMPDIR": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": str(version - 1),
        "PYTHONPATH": str(ROOT),
        "TAD_MARK": mark,
    }
    mine = {"RAY_OVERRIDE_NODE_ID_FOR_TESTING": head, "RAY_CLOUD_INSTANCE_ID": head} if version == 2 else {}
    command = [str(Path(sys.executable).with_name("ray")), "start", "--head", f"--port={port}", "--num-cpus=1"]
    command += [f"--autoscaling-config={folder / 'cluster.yaml'}", f"--dashboard-port={free_port()}"]
    command += [f"--object-store-memory={MEMORY}"]
    try:
        subprocess.run(command, env=environment | mine, check=True, capture_output=True, timeout=120)
        yield environment | {"RAY_ADDRESS": address}
    finally:
        for process in psutil.process_iter():
            try:
                if process.environ().get("TAD_MARK") == mark:
                    process.kill()
            except psutil.Error:
                continue
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("version", [1, 2])
def test_nodes_are_started_and_waited_for_and_the_impossible_is_refused(version):
    script = (
        "import distributed.cluster.autoscaler\nfrom distributed.cluster.connect import cluster\n"
        "from tad.errors import RunError\n"
        "distributed.cluster.autoscaler.EVERY = 1\n"
        "for workers in (5, 3):\n"
        "    try:\n"
        "        with cluster(workers, None) as resources: print(*resources.plan, sep='\\n')\n"
        "    except RunError as error: print(error)\n"
    )
    with autoscaling(version) as environment:
        result = subprocess.run(
            [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=240
        )
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stdout.splitlines() if "(" in line or "Ray" in line or "new" in line]
    assert said[0].startswith("5 workers need 5 CPUs; the cluster has 4 CPUs: ")
    assert said[0].endswith("(1 CPU), 3 x a new small (1 CPU)"), "refused before any was started"
    assert said[1] == "waiting for nodes, which the autoscaler starts: 2 x a new small (1 CPU)"
    assert said[2].startswith("  0 of 2 new nodes after ")
    plan = said[said.index("Ray: 3 nodes, 3 training workers, 3 mapping workers") :]
    assert len(plan) == 4 and all(line.endswith(" (1 CPU): 1 training worker, 1 mapping worker") for line in plan[1:])
