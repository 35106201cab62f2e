#!/usr/bin/env bash
# hosts.sh FOLDER COUNT VENV PYTHON_PREFIX   machines for a real `ray up`, on this machine: root, Linux, openssh-server.
#
# Makes a launcher (10.200.0.1) and COUNT hosts (10.200.0.11, .12, ...), each with its own network, processes, host name,
# /tmp, /dev/shm and home, and with its own sshd. Prints `ready` when all answer, then waits until its input ends.
# All is anonymous and lives below one process: when it ends, however it ends, the kernel removes the rest. The network
# of this machine is not touched; the hosts see its files read-only, and VENV through an overlay of their own.
#
# FOLDER/key is the ssh key, FOLDER/shared the file system that all see, FOLDER/N.pid a host's first process as the
# launcher sees it. The homes are FOLDER/launcher/home and FOLDER/N/home.
set -euo pipefail
network=10.200.0
namespaces=(--mount --net --pid --uts --ipc --fork --kill-child --propagation private)

private() { # NAME: this machine's files read-only, but for the folder, /tmp, /run and /dev/shm
  local own=$FOLDER/$1
  mkdir -p "$own"/{home,tmp,upper,work}
  hostname "tad-$1"
  mount --bind "$FOLDER" "$FOLDER"
  mount -t overlay overlay -o "lowerdir=$VENV,upperdir=$own/upper,workdir=$own/work" "$VENV"
  for path in "$FOLDER" "$VENV" "$PREFIX" ${REPOSITORY:+"$REPOSITORY"}; do # what lies in /tmp stays to be seen
    case $path in /tmp/*) mkdir -p "$own$path" && mount --rbind "$path" "$own$path" ;; esac
  done
  sed "s#^root:\([^:]*:[^:]*:[^:]*:[^:]*\):[^:]*#root:\1:$own/home#" /etc/passwd > "$own/passwd"
  printf '127.0.0.1 localhost\n%s tad-%s\n' "$2" "$1" > "$own/hosts"
  mount --bind "$own/passwd" /etc/passwd
  mount --bind "$own/hosts" /etc/hosts
  mount -o remount,bind,ro /
  mount --rbind "$own/tmp" /tmp
  mount -t tmpfs tmpfs /run
  mount -t tmpfs -o size=100% tmpfs /dev/shm
  mount -t proc proc /proc
  ip link set lo up
}

launcher() {
  REPOSITORY=$PWD private launcher $network.1
  ip link add bridge type bridge
  ip addr add $network.1/24 dev bridge
  ip link set bridge up
  ip route add default dev bridge # Ray asks which address would reach the internet; nothing is forwarded
  for n in $(seq "$COUNT"); do
    unshare "${namespaces[@]}" bash "$0" host "$n" > "$FOLDER/$n.log" 2>&1 < /dev/null &
    until child=$(cat "/proc/$!/task/$!/children") && [ -n "$child" ]; do sleep 0.05; done
    echo "${child// /}" > "$FOLDER/$n.pid"
    ip link add "host$n" type veth peer name eth0 netns "${child// /}"
    ip link set "host$n" master bridge up
  done
  for n in $(seq "$COUNT"); do
    for _ in $(seq 100); do
      (exec 3<> "/dev/tcp/$network.$((10 + n))/22") 2> /dev/null && continue 2
      sleep 0.1
    done
    echo "host $n does not answer: $(tail -3 "$FOLDER/$n.log")" >&2
    exit 1
  done
  echo ready
  cat > /dev/null
}

host() {
  local address=$network.$((10 + $1))
  until ip link show eth0 > /dev/null 2>&1; do sleep 0.05; done
  ip addr add "$address/24" dev eth0
  ip link set eth0 up
  ip route add default via $network.1
  private "$1" "$address"
  mkdir /run/sshd
  ln -sfn "$VENV" "$FOLDER/$1/home/tad-env" # no internet here: the environment is provided
  export HOME=$FOLDER/$1/home
  /usr/sbin/sshd -D -e -f /dev/null -o ListenAddress="$address" -o HostKey="$FOLDER/hostkey" \
    -o AuthorizedKeysFile="$FOLDER/key.pub" -o StrictModes=no -o UsePAM=no -o PasswordAuthentication=no \
    -o PermitRootLogin=prohibit-password -o PidFile=none -o MaxSessions=50 -o MaxStartups=50 &
  wait # a shell as first process buries what Ray leaves behind
}

case ${1:-} in
launcher) launcher ;;
host) host "$2" ;;
*)
  export FOLDER=$1 COUNT=$2 VENV=$3 PREFIX=$4
  mkdir -p "$FOLDER/shared"
  [ -f "$FOLDER/key" ] || ssh-keygen -q -t ed25519 -N '' -f "$FOLDER/key"
  [ -f "$FOLDER/hostkey" ] || ssh-keygen -q -t ed25519 -N '' -f "$FOLDER/hostkey"
  exec unshare "${namespaces[@]}" bash "$0" launcher
  ;;
esac
