"""The cluster files, as `ray up` and kubectl would read them, and the settings that keep strangers out."""

from __future__ import annotations

import copy
import json
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
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


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)


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
        assert config["provider"]["security_group"]["IpPermissions"] == []
        for node in config["available_node_types"].values():
            assert node["node_config"]["MetadataOptions"] == {"HttpTokens": "required"}
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


def test_the_versions_agree_with_the_constraints():
    pinned = pins()
    project = (ROOT / "pyproject.toml").read_text()
    version = re.search(r'^version = "(.*)"', project, re.M)[1]
    python = re.search(r"^PYTHON=(\d+)\.(\d+)\.\d+$", (ROOT / "clusters/node.sh").read_text(), re.M)
    assert python, "an exact version: Ray refuses others"
    image = re.search(
        r"^FROM rayproject/ray:(\S+)-py(\d)(\d+)-gpu$", (ROOT / "clusters/kuberay/Dockerfile").read_text(), re.M
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
    for pod in pods(cluster):
        assert closed.items() <= pod["metadata"]["labels"].items(), "the policy covers every pod"
        assert pod["spec"]["securityContext"]["runAsNonRoot"] and not pod["spec"]["automountServiceAccountToken"]
        assert pod["spec"]["volumes"] == [{"name": "shared", "persistentVolumeClaim": {"claimName": "tad-shared"}}]
    for container in containers(cluster):
        assert not container["securityContext"]["allowPrivilegeEscalation"]
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
    image = (folder / "Dockerfile").read_text()
    for package in ("mlflow", "SQLAlchemy", "alembic"):
        assert f"{package}=={pins()[package]} " in image
    compose = yaml.safe_load((folder / "compose.yaml").read_text())
    assert compose["services"]["mlflow"]["ports"] == ["${BIND:-127.0.0.1}:5000:5000"]
    assert "ports" not in compose["services"]["database"]
    assert not re.search(r"PASSWORD: |password: \w", (folder / "compose.yaml").read_text())
    assert "/clusters/mlflow/secret/" in (ROOT / ".gitignore").read_text()
