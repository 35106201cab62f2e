#!/usr/bin/env bash
# aws-prepare.sh CIDR [BUCKET]   once, on your own machine, before `ray up cluster.yaml`; run again it brings things up to date.
# CIDR: from where ssh is let in, such as $(curl -s https://checkip.amazonaws.com)/32. BUCKET: of TAD_STORE and --data, if in S3.
#
# Makes the roles tad-head (starts and ends machines tagged ray-cluster-name=tad) and tad-worker (nothing), lets both use
# BUCKET alone, and makes the security group tad-cluster in the default network: all between its members, ssh from CIDR.
# Your own user needs the right to do so, and iam:PassRole on both roles.
set -euo pipefail
cidr=${1:?from which addresses is ssh let in? Give a CIDR such as 203.0.113.7/32}
bucket=${2:-}
[[ $cidr =~ ^[0-9.]+/([0-9]+)$ ]] && [ "${BASH_REMATCH[1]}" -ge 8 ] || { echo "$cidr: not a CIDR, or open to everybody" >&2; exit 1; }
cd "$(dirname "$0")"
export AWS_PAGER= AWS_DEFAULT_REGION
AWS_DEFAULT_REGION=$(sed -n 's/^  region: \([a-z0-9-]*\).*/\1/p' ../cluster.yaml)  # version 1 of aws reads this one
export AWS_REGION=$AWS_DEFAULT_REGION

for role in tad-head tad-worker; do
  aws iam get-role --role-name $role > /dev/null 2>&1 ||
    aws iam create-role --role-name $role --assume-role-policy-document file://aws-trust.json > /dev/null
  if ! aws iam get-instance-profile --instance-profile-name $role > /dev/null 2>&1; then
    aws iam create-instance-profile --instance-profile-name $role > /dev/null
    aws iam add-role-to-instance-profile --instance-profile-name $role --role-name $role
  fi
  if [ -n "$bucket" ]; then
    aws iam put-role-policy --role-name $role --policy-name data \
      --policy-document "$(sed "s/BUCKET/$bucket/g" aws-data-policy.json)"
  fi
done
aws iam put-role-policy --role-name tad-head --policy-name nodes --policy-document file://aws-head-policy.json

vpc=$(aws ec2 describe-vpcs --filters Name=is-default,Values=true --query 'Vpcs[0].VpcId' --output text)
group() { aws ec2 describe-security-groups --filters Name=group-name,Values=tad-cluster "Name=vpc-id,Values=$vpc" --query "$1" --output text; }
id=$(group 'SecurityGroups[0].GroupId')
if [ "$id" = None ]; then
  id=$(aws ec2 create-security-group --group-name tad-cluster --description 'Ray cluster of tad' --vpc-id "$vpc" --query GroupId --output text)
  aws ec2 authorize-security-group-ingress --group-id "$id" --protocol all --source-group "$id" > /dev/null
fi
for old in $(group 'SecurityGroups[0].IpPermissions[?FromPort==`22`].IpRanges[].CidrIp'); do
  aws ec2 revoke-security-group-ingress --group-id "$id" --protocol tcp --port 22 --cidr "$old" > /dev/null
done
aws ec2 authorize-security-group-ingress --group-id "$id" --protocol tcp --port 22 --cidr "$cidr" > /dev/null
echo "in cluster.yaml: SecurityGroupIds: &groups [$id]"
