"""The cluster files, as `ray up` and kubectl would read them, and the settings that keep strangers out."""

from __future__ import annotations

import copy
import ipaddress
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import psutil
import pytest
import yaml

from tests.support.pins import pins
from tests.support.structure import ROOT

RAY_UP = ["cluster.yaml", "clusters/gcp.yaml", "clusters/on-premises.yaml"]
KUBERAY = ["clusters/kuberay/cluster.yaml", "clusters/kuberay/job.yaml"]
EVERY = [*RAY_UP, *KUBERAY, "clusters/kuberay/storage.yaml"]
COMMANDS = [
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
]


def read(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return document


def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """The file as `ray up` completes and checks it, without a cloud.

    Not caught by Ray itself, so caught here: settings that it drops in silence.
    """
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config(whole)
    provider = config["provider"]
    known = {
        "aws": {"type", "region", "availability_zone", "cache_stopped_nodes", "security_group"},
        "gcp": {"type", "region", "availability_zone", "project_id"},
        "local": {"type", "head_ip", "worker_ips"},
    }[provider["type"]]
    assert set(provider) <= known, set(provider) - known
    assert "min_workers" not in config, "dropped by Ray where node types are given"
    assert config.get("cluster_name"), "Ray would call it default"
    return whole


def commands(config: dict[str, Any]) -> list[str]:
    return [command for key in COMMANDS for command in config.get(key, [])]


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_up_accepts_the_file(name):
    config = read(name)
    whole = prepared(config)
    types = whole["available_node_types"]
    if config["provider"]["type"] == "local":
        workers = [t for n, t in types.items() if n != whole["head_node_type"]] or list(types.values())
        assert max(t["max_workers"] for t in workers) == len(config["provider"]["worker_ips"])
        return
    assert types["head"]["resources"]["CPU"] > 0 and "GPU" not in types["head"]["resources"]
    assert types["gpu"]["resources"]["GPU"] >= 1
    assert 1 <= types["gpu"]["min_workers"] <= types["gpu"]["max_workers"] <= whole["max_workers"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c.update(min_wokers=1),
        lambda c: c.update(head_node_type="heat"),
        lambda c: c["available_node_types"]["gpu"]["resources"].update(GPU=0.5),
        lambda c: c["available_node_types"]["gpu"].update(min_workers=9),
        lambda c: c.update(setup_commands=[7]),
        lambda c: c["provider"].update(regoin="us-west-2"),
    ],
)
def test_the_check_finds_mistakes(damage):
    config = copy.deepcopy(read("cluster.yaml"))
    damage(config)
    with pytest.raises((jsonschema.ValidationError, ValueError, click.ClickException, AssertionError)):
        prepared(config)


@pytest.mark.parametrize("name", RAY_UP)
def test_commands_are_whole_and_are_shell(name):
    """A ` #` that is not quoted ends a YAML string: a command would be cut there."""
    for key, value in yaml.compose((ROOT / name).read_text()).value:
        if key.value in COMMANDS:
            assert all(command.style in ('"', ">") for command in value.value), f"{key.value}: quote it or fold it"
    for command in commands(read(name)):
        assert "#" not in command
        shlex.split(command)
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("script", sorted(p.name for p in (ROOT / "clusters").glob("*.sh")))
def test_scripts_are_shell_and_are_used(script):
    checked = subprocess.run(["bash", "-n", str(ROOT / "clusters" / script)], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    if script == "aws-prepare.sh":  # of the user's own machine
        assert f"bash clusters/{script} CIDR" in (ROOT / "cluster.yaml").read_text()
        return
    assert any(f"clusters/{script}" in command for name in RAY_UP for command in commands(read(name)))


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_listens_to_nobody_without_the_token(name):
    config = prepared(read(name))
    starts = {key: " ".join(config[key]) for key in ("head_start_ray_commands", "worker_start_ray_commands")}
    for start in starts.values():
        assert re.search(r"RAY_AUTH_MODE=token ray start", start)
    head = starts["head_start_ray_commands"]
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8265" in head
    assert "0.0.0.0" not in (ROOT / name).read_text()
    assert "--ray-client-server-port" not in head
    if config["provider"]["type"] == "aws":
        assert "security_group" not in config["provider"], "Ray's own opens ssh to everybody"
        for node in config["available_node_types"].values():
            assert node["node_config"]["SecurityGroupIds"] == ["sg-EDIT"], "AWS refuses what was not filled in"
            metadata = {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
            assert node["node_config"]["MetadataOptions"] == metadata
            assert all(disk["Ebs"]["Encrypted"] for disk in node["node_config"]["BlockDeviceMappings"])
            assert "latest_dlami" not in node["node_config"]["ImageId"]
    if config["provider"]["type"] == "local":
        assert "RAY_enable_autoscaler_v2=0" in head


@pytest.mark.parametrize("name", RAY_UP)
def test_only_the_source_and_the_token_are_copied(name):
    mounts = read(name)["file_mounts"]
    token = mounts.pop("~/.ray/auth_token")
    assert token == "~/.ray/auth_token"
    for remote, local in mounts.items():
        assert remote == f"~/tad-selftrain/{local}"
        assert (ROOT / local).exists()
    listed = subprocess.run(["git", "ls-files", *mounts.values()], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode == 0:
        assert not [f for f in listed.stdout.split() if re.search(r"\.(pem|key|env)$|credential|secret", f)]
    text = (ROOT / name).read_text()
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|(?i:password|secret_key)\s*[:=]", text)
    build = (ROOT / "pyproject.toml").read_text()
    needed = ["tad", "distributed", "search_spaces", "constraints.txt", "pyproject.toml", "clusters"]
    needed += re.findall(r'^readme = "(.*)"', build, re.M)
    assert set(needed) == set(mounts.values()), "what pip builds from must be there, and no more"


@pytest.mark.parametrize("name", RAY_UP)
def test_every_node_gets_the_pinned_versions_and_the_environment(name):
    config = prepared(read(name))
    for key in ("head_setup_commands", "worker_setup_commands"):
        text = " ".join(config[key])
        assert "clusters/node.sh" in text
        assert re.search(r"TAD_STORE=\S+ TAD_CACHE=\S+ MLFLOW_TRACKING_URI=\S+", text)
    script = (ROOT / "clusters/node.sh").read_text()
    assert '-c "$repository/constraints.txt"' in script
    assert "RAY_AUTH_MODE=token" in script
    assert not re.search(r"pip .*(ray|torch|mlflow)==", script), "versions stand in constraints.txt alone"
    installs = [c for c in commands(read(name)) if "pip install" in c]
    assert all("-c ~/tad-selftrain/constraints.txt" in c and not re.search("[<>=]=", c) for c in installs)
    needed = {"boto3", "google-api-python-client", "google-auth", "google-auth-httplib2", "py-spy", "setuptools"}
    assert needed <= pins().keys()


def test_a_node_closes_the_token_before_all_else(tmp_path):
    """node.sh as it is, with an environment that is there already and a pip that does nothing."""
    home = tmp_path / "home"
    (home / "tad-env" / "bin").mkdir(parents=True)
    python = home / "tad-env" / "bin" / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)
    command = ["bash", str(ROOT / "clusters/node.sh"), "TAD_STORE=/s"]
    environment = os.environ | {"HOME": str(home)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 1 and "(umask 077; ray get-auth-token --generate)" in result.stderr
    token = home / ".ray" / "auth_token"
    token.parent.mkdir()
    token.write_text("a" * 64)
    token.chmod(0o644)
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert (token.stat().st_mode & 0o777, token.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_every_text_makes_the_token_for_its_owner_alone():
    texts = [*ROOT.glob("*.md"), *ROOT.glob("*.yaml"), *ROOT.glob("docs/*.md"), *ROOT.glob("clusters/**/*.*")]
    found = [line for text in texts for line in text.read_text().splitlines() if "get-auth-token --generate" in line]
    assert len(found) >= 6
    assert [line for line in found if "umask 077" not in line] == []


def test_the_head_exports_to_its_own_subnet_alone():
    script = (ROOT / "clusters/share.sh").read_text()
    assert not re.search(r"10\.0\.0\.0/8|172\.16|192\.168", script) and "lookupcache=positive" in script
    if shutil.which("ip") is None:
        pytest.skip("needs ip (iproute2)")
    route = subprocess.run(["ip", "-4", "route", "show", "default"], capture_output=True, text=True).stdout.split()
    if "dev" not in route:
        pytest.skip("this machine has no network")
    addresses = psutil.net_if_addrs()[route[route.index("dev") + 1]]
    own = next(a for a in addresses if a.family == socket.AF_INET)
    if own.netmask == "255.255.255.255":
        pytest.skip("this machine's address is a network of its own")
    result = subprocess.run(["bash", str(ROOT / "clusters/share.sh"), "network"], capture_output=True, text=True)
    assert ipaddress.ip_network(result.stdout.strip()) == ipaddress.ip_interface(f"{own.address}/{own.netmask}").network


def test_the_versions_agree_with_the_constraints():
    pinned = pins()
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.M)[1]
    python = re.search(r"^PYTHON=(\d+)\.(\d+)\.\d+$", (ROOT / "clusters/node.sh").read_text(), re.M)
    assert python, "an exact version: Ray refuses others"
    image = re.search(
        r"^ARG RAY_IMAGE=rayproject/ray:(\S+)-py(\d)(\d+)-gpu$",
        (ROOT / "clusters/kuberay/Dockerfile").read_text(),
        re.M,
    )
    assert image[1] == pinned["ray"]
    assert image.groups()[1:] == python.groups()
    assert (int(python[1]), int(python[2])) >= (3, 11)
    for name in KUBERAY:
        spec = read(name)["spec"]
        cluster = spec.get("rayClusterSpec", spec)
        assert cluster["rayVersion"] == pinned["ray"]
        assert {c["image"] for c in containers(cluster)} == {f"REGISTRY/tad-selftrain:{version}"}


def pods(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [group["template"] for group in groups]


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    return [container for pod in pods(cluster) for container in pod["spec"]["containers"]]


@pytest.mark.parametrize("name", KUBERAY)
def test_kuberay_manifests(name):
    document = read(name)
    assert document["apiVersion"] == "ray.io/v1"
    job = document["kind"] == "RayJob"
    cluster = document["spec"]["rayClusterSpec"] if job else document["spec"]
    assert cluster["authOptions"] == {"mode": "token"}
    # The operator submits a RayJob through the dashboard; a RayCluster's is reached by port-forward alone.
    host = cluster["headGroupSpec"]["rayStartParams"]["dashboard-host"]
    assert host == ("0.0.0.0" if job else "127.0.0.1")
    assert "serviceType" not in cluster["headGroupSpec"], "the default is ClusterIP: no door to the outside"
    assert not {"hostNetwork", "hostPID"} & {key for pod in pods(cluster) for key in pod["spec"]}
    policy = next(
        d for d in yaml.safe_load_all((ROOT / "clusters/kuberay/storage.yaml").read_text()) if "Policy" in d["kind"]
    )
    closed = policy["spec"]["podSelector"]["matchLabels"]
    pods_of_ours, operator = policy["spec"]["ingress"][0]["from"]
    assert pods_of_ours == {"podSelector": {"matchLabels": closed}}
    assert list(operator["namespaceSelector"]["matchLabels"]) == ["kubernetes.io/metadata.name"]
    for pod in pods(cluster):
        assert closed.items() <= pod["metadata"]["labels"].items(), "the policy covers every pod"
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and not pod["spec"]["automountServiceAccountToken"]
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        claim = {"name": "shared", "persistentVolumeClaim": {"claimName": "tad-shared"}}
        assert pod["spec"]["volumes"] == [claim, {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}}]
    for container in containers(cluster):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {m["mountPath"] for m in container["volumeMounts"]} == {"/shared", "/tmp"}
        assert {"name": "HOME", "value": "/tmp"} in container["env"], "the image's own cannot be written"
        assert not container.get("ports")
        assert {"TAD_STORE", "TAD_CACHE", "MLFLOW_TRACKING_URI"} <= {e["name"] for e in container["env"]}
        assert not [e for e in container["env"] if "TOKEN" in e["name"]], "the operator hands the token out"
        assert {"cpu", "memory"} <= container["resources"]["limits"].keys()
    worker = cluster["workerGroupSpecs"][0]
    assert worker["minReplicas"] <= worker["replicas"] <= worker["maxReplicas"]
    gpus = worker["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    assert gpus == worker["rayStartParams"]["num-gpus"]


def test_the_job_is_a_command_of_tad():
    from search_spaces.load import load
    from tad.commands.tune import tune

    words = shlex.split(read("clusters/kuberay/job.yaml")["spec"]["entrypoint"])
    assert words[:2] == ["tad", "tune"]
    given = tune.make_context("tune", words[2:]).params  # raises for unknown, missing and wrong options
    load(given["names"])


@pytest.mark.parametrize("name", EVERY)
def test_lines_to_edit_are_few_and_marked(name):
    lines = [line for line in (ROOT / name).read_text().splitlines() if "  # EDIT" in line]
    assert 1 <= len(lines) <= 10
    placeholders = r"your-|REGISTRY/|192\.168\.|/mnt/"
    for line in (ROOT / name).read_text().splitlines():
        if re.search(placeholders, line) and not line.lstrip().startswith("#"):
            assert "  # EDIT" in line, line


def test_the_schema_is_rays_own():
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    for name in RAY_UP:
        jsonschema.validate(read(name), schema)


def test_the_mlflow_server_is_pinned_and_closed():
    folder = ROOT / "clusters/mlflow"
    assert "--require-hashes" in (folder / "Dockerfile").read_text()
    requirements = (folder / "requirements.txt").read_text()
    for package in ("mlflow", "SQLAlchemy", "alembic", "psycopg2-binary", "boto3"):
        assert f"\n{package}=={pins()[package]} " in requirements
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert compose["services"]["mlflow"]["ports"] == ["${BIND:-127.0.0.1}:5000:5000"]
    assert "ports" not in compose["services"]["database"]
    for service in compose["services"].values():
        assert service["read_only"] and service["cap_drop"] == ["ALL"] and service["mem_limit"]
        assert service["security_opt"] == ["no-new-privileges:true"]
    assert not re.search(r"PASSWORD: |password: \w", (folder / "compose.yaml").read_text())
    assert "/clusters/mlflow/secret/" in (ROOT / ".gitignore").read_text()
