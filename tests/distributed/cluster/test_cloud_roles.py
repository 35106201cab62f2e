"""What the head of a cloud cluster may do: all that Ray's own code asks for, and nothing to others' machines."""

from __future__ import annotations

import copy
import fnmatch
import json
import subprocess
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws

from tests.support.structure import ROOT

POLICY = json.loads((ROOT / "clusters/aws-head-policy.json").read_text())
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())
REGION = "us-west-2"


def allowed(action: str, resource: str, context: dict[str, str], policy: dict[str, Any] = POLICY) -> bool:
    """As IAM decides about one resource of a request, for the parts of its language that our policies use."""

    def listed(value: Any) -> list[str]:
        return value if isinstance(value, list) else [value]

    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow" and set(statement.get("Condition", {})) <= {"StringEquals"}
        wanted = statement.get("Condition", {}).get("StringEquals", {})
        if (
            action in listed(statement["Action"])
            and any(fnmatch.fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
            and all(context.get(key) == value for key, value in wanted.items())
        ):
            return True
    return False


def asked(
    operation: str, params: dict[str, Any], tags: dict[str, dict[str, str]]
) -> list[tuple[str, str, dict[str, str]]]:
    """The (action, resource, context) that AWS asks the policy about for a request; `tags` of instances that exist."""
    arn = f"arn:aws:ec2:{REGION}:123456789012:"
    if operation == "DescribeInstances":
        return [("ec2:DescribeInstances", "*", {})]
    if operation == "RunInstances":
        (spec,) = params["TagSpecifications"]
        assert spec["ResourceType"] == "instance"
        request = {f"aws:RequestTag/{tag['Key']}": tag["Value"] for tag in spec["Tags"]}
        more = {"ec2:MetadataHttpTokens": params["MetadataOptions"]["HttpTokens"]}
        rows = [("ec2:RunInstances", f"{arn}instance/*", request | more)]
        rows += [("ec2:CreateTags", f"{arn}instance/*", request | {"ec2:CreateAction": "RunInstances"})]
        rows += [
            ("ec2:RunInstances", f"{arn}{kind}/x", {}) for kind in ("key-pair", "network-interface", "subnet", "volume")
        ]
        rows += [("ec2:RunInstances", f"{arn}security-group/{group}", {}) for group in params["SecurityGroupIds"]]
        rows += [("ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/{params['ImageId']}", {})]
        if "InstanceMarketOptions" in params:
            rows += [("ec2:RunInstances", f"{arn}spot-instances-request/*", {})]
        if profile := params.get("IamInstanceProfile"):
            role = f"arn:aws:iam::123456789012:role/{profile['Name']}"
            rows += [("iam:PassRole", role, {"iam:PassedToService": "ec2.amazonaws.com"})]
        return rows
    ids = params["Resources"] if operation == "CreateTags" else params["InstanceIds"]
    keys = [{f"aws:ResourceTag/{key}": value for key, value in tags.get(i, {}).items()} for i in ids]
    return [(f"ec2:{operation}", f"{arn}instance/{i}", key) for i, key in zip(ids, keys, strict=True)]


@mock_aws
def test_rays_autoscaler_gets_by_with_the_heads_policy_and_others_machines_are_out_of_reach(monkeypatch):
    """Ray's own provider starts, tags, lists and ends nodes of cluster.yaml at moto's EC2; each request is judged."""
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    provider = AWSNodeProvider(CLUSTER["provider"], CLUSTER["cluster_name"])
    client = boto3.client("ec2", REGION)
    requests: list[tuple[str, dict[str, Any]]] = []
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register(
            "provide-client-params.ec2.*",
            lambda params, model, **_: requests.append((model.name, copy.deepcopy(params))),
        )
    subnet = client.describe_subnets()["Subnets"][0]
    group = client.create_security_group(GroupName="tad-cluster", Description="x", VpcId=subnet["VpcId"])["GroupId"]
    image = client.describe_images()["Images"][0]["ImageId"]
    node = copy.deepcopy(CLUSTER["available_node_types"]["gpu"]["node_config"])
    node |= {"ImageId": image, "SecurityGroupIds": [group], "SubnetIds": [subnet["SubnetId"]]}
    for extra in ({}, {"IamInstanceProfile": {"Name": "tad-worker"}, "InstanceMarketOptions": {"MarketType": "spot"}}):
        client.create_key_pair(KeyName=f"key{len(extra)}")
        if extra:
            boto3.client("iam").create_instance_profile(InstanceProfileName="tad-worker")
        made = provider.create_node(node | extra | {"KeyName": f"key{len(extra)}"}, {"ray-node-type": "worker"}, 1)
        (one,) = made
        assert one in provider.non_terminated_nodes({"ray-node-type": "worker"})
        provider.set_node_tags(one, {"ray-node-status": "up-to-date"})
        provider.terminate_nodes([one])
    assert {name for name, _ in requests} == {"RunInstances", "DescribeInstances", "CreateTags", "TerminateInstances"}
    for name, params in requests:
        of_cluster = {i: {"ray-cluster-name": "tad"} for i in params.get("Resources", params.get("InstanceIds", []))}
        for row in asked(name, params, of_cluster):
            assert allowed(*row), row
        if name in ("CreateTags", "TerminateInstances"):
            assert not any(allowed(*row) for row in asked(name, params, {}))

    arn = f"arn:aws:ec2:{REGION}:123456789012:instance/"
    mine = {"aws:RequestTag/ray-cluster-name": "tad"}
    assert not allowed("ec2:RunInstances", f"{arn}*", mine | {"ec2:MetadataHttpTokens": "optional"})
    assert not allowed("ec2:RunInstances", f"{arn}*", {"ec2:MetadataHttpTokens": "required"})
    assert not allowed("ec2:CreateTags", f"{arn}i-others", mine), "else it could make a machine one of the cluster's"
    passed = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert not allowed("iam:PassRole", "arn:aws:iam::123456789012:role/admin", passed)


def test_roles_name_one_cluster_and_one_bucket_and_no_more():
    text = json.dumps(POLICY)
    assert POLICY["Version"] == "2012-10-17" and CLUSTER["cluster_name"] == "tad"
    assert "s3:" not in text and not [s for s in POLICY["Statement"] if "*" in str(s["Action"])]
    data = json.loads((ROOT / "clusters/aws-data-policy.json").read_text())
    own = json.loads(json.dumps(data).replace("BUCKET", "mine"))
    assert allowed("s3:GetObject", "arn:aws:s3:::mine/store/x", {}, own)
    assert allowed("s3:ListBucket", "arn:aws:s3:::mine", {}, own)
    assert not allowed("s3:GetObject", "arn:aws:s3:::mine2/x", {}, own)
    types = CLUSTER["available_node_types"]
    assert types["head"]["node_config"]["IamInstanceProfile"] == {"Name": "tad-head"}
    assert "IamInstanceProfile" not in types["gpu"]["node_config"], "a node runs what jobs bring along"

    google = yaml.safe_load((ROOT / "clusters/gcp-role.yaml").read_text())
    assert not [p for p in google["includedPermissions"] if "*" in p or not p.startswith("compute.")]
    nodes = yaml.safe_load((ROOT / "clusters/gcp.yaml").read_text())
    account = nodes["available_node_types"]["head"]["node_config"]["serviceAccounts"][0]["email"]
    assert account == f"tad-head@{nodes['provider']['project_id']}.iam.gserviceaccount.com"
    assert "serviceAccounts" not in nodes["available_node_types"]["gpu"]["node_config"]


@pytest.mark.parametrize("cidr", ["", "0.0.0.0/0", "203.0.113.7", "1.0.0.0/2"])
def test_the_group_is_not_opened_to_everybody(cidr):
    command = ["bash", str(ROOT / "clusters/aws-prepare.sh"), cidr]
    result = subprocess.run(command, capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"})
    assert result.returncode == 1 and ("CIDR" in result.stderr), result.stderr
