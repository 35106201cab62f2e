#!/usr/bin/env bash
# share.sh head | HEAD_IP   one folder, /shared, that all nodes see: the head exports it by NFS, the others mount it.
# Who may mount it: the private networks, and of these only what the security group lets in.
set -euo pipefail
apt() { sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq "$@" > /dev/null; }
apt update
if [ "$1" = head ]; then
  apt install -y nfs-kernel-server
  sudo install -d -o "$(id -u)" -g "$(id -g)" /shared /shared/data /shared/store /shared/cache
  options='rw,sync,no_subtree_check,root_squash'
  echo "/shared 10.0.0.0/8($options) 172.16.0.0/12($options) 192.168.0.0/16($options)" | sudo tee /etc/exports > /dev/null
  sudo exportfs -ra
else
  apt install -y nfs-common
  sudo mkdir -p /shared
  mountpoint -q /shared || sudo mount -t nfs4 -o noatime "$1:/shared" /shared
fi
df -h /shared | tail -1
