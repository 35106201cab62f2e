#!/usr/bin/env bash
# Run on the AWS head before Ray starts: the nodes that the head starts take the head's own image.
# You may look an image up in SSM (cluster.yaml: resolve:ssm:...), but the role that Ray gives to the head may not.
set -euo pipefail
metadata=http://169.254.169.254/latest
token=$(curl -sSf -X PUT "$metadata/api/token" -H 'X-aws-ec2-metadata-token-ttl-seconds: 60')
image=$(curl -sSf "$metadata/meta-data/ami-id" -H "X-aws-ec2-metadata-token: $token")
sed -i "s|resolve:ssm:[^\"]*|$image|g" ~/ray_bootstrap_config.yaml
