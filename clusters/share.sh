#!/usr/bin/env bash
# share.sh head | HEAD_IP   one folder, /shared, that all nodes see: the head exports it by NFS, the others mount it.
# share.sh network          the addresses that may mount it: the subnet of the head's own interface, no others.
# NFS asks nobody who he is: what a machine of this subnet reaches, any user of that machine can change.
set -euo pipefail
apt() { sudo DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 -qq "$@" > /dev/null; }

network() { # ADDRESS/BITS
  local device interface
  device=$(ip -o -4 route show default | awk '{for (i = 1; i < NF; i++) if ($i == "dev") {print $(i + 1); exit}}')
  interface=$(ip -o -4 address show dev "${device:?no default route}" scope global | awk '{print $4; exit}')
  case ${interface:?no address} in
    */32) # Google Cloud gives every machine a network of its own; its metadata know the subnet
      interface=${interface%/32}/$(curl -sSf -H 'Metadata-Flavor: Google' \
        http://metadata.google.internal/computeMetadata/v1/instance/network-interfaces/0/subnetmask) ;;
  esac
  python3 -c 'import ipaddress, sys; print(ipaddress.ip_interface(sys.argv[1]).network)' "$interface"
}

case ${1:?head, the address of the head, or network} in
  network) network ;;
  head)
    apt update
    apt install -y nfs-kernel-server
    sudo install -d -o "$(id -u)" -g "$(id -g)" /shared /shared/data /shared/store /shared/cache
    addresses=$(network)
    echo "/shared $addresses(rw,sync,no_subtree_check,root_squash)" | sudo tee /etc/exports > /dev/null
    sudo exportfs -ra
    df -h /shared | tail -1
    ;;
  *)
    apt update
    apt install -y nfs-common
    sudo mkdir -p /shared
    # lookupcache=positive: a file that was not there a moment ago may be there now; other machines write here.
    mountpoint -q /shared || sudo mount -t nfs4 -o noatime,nosuid,nodev,lookupcache=positive "$1:/shared" /shared
    df -h /shared | tail -1
    ;;
esac
