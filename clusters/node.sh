#!/usr/bin/env bash
# node.sh NAME=VALUE...   run by `ray up` on every node; run again it only brings things up to date.
# Installs this project with exactly the versions of constraints.txt into ~/tad-env, and gives every shell the variables.
# A ~/tad-env that is already there is kept: on hosts without internet, provide one that holds the dependencies.
set -euo pipefail
PYTHON=3.11.13
UV=0.13.8
# Of the wheels of this version on PyPI. uv knows the checksums of the Pythons that it downloads.
UV_x86_64=manylinux_2_17_x86_64.manylinux2014_x86_64:e18a57b8b352eb7c8feb317b9f6f533c8f0ad9673fd6cf34bbe3cf1a9f6a8984
UV_aarch64=manylinux_2_28_aarch64:5337c30bb893b4f9ce0ceb921ba2da0d13f649da644f40ad3bef84083bef0203
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=$HOME/tad-env

# The token first: `ray up` has just copied it, with the rights of the other machine's file.
if [ ! -s ~/.ray/auth_token ]; then
  echo "node.sh: ~/.ray/auth_token is missing: on your own machine run \`(umask 077; ray get-auth-token --generate)\`, then \`ray up\` again" >&2
  exit 1
fi
chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token

# Shells of `ray up`, `ray exec` and `ray attach` read ~/.bashrc, and Ray's processes inherit what they were started with.
{
  echo "export PATH=$env/bin:\$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
  for variable in "$@"; do printf 'export %q\n' "$variable"; done
} > ~/.tad-environment
grep -qs '\.tad-environment' ~/.bashrc || echo '. ~/.tad-environment' >> ~/.bashrc

fetch_uv() { # into ~/.uv, after its checksum was found right
  local wheel=UV_$(uname -m) folder file
  [ -n "${!wheel:-}" ] || { echo "node.sh: no uv for $(uname -m); provide ~/tad-env" >&2; exit 1; }
  folder=$(mktemp -d)
  file=uv-$UV-py3-none-${!wheel%%:*}.whl
  curl -LsSf -o "$folder/$file" "https://files.pythonhosted.org/packages/py3/u/uv/$file"
  echo "${!wheel#*:}  $folder/$file" | sha256sum --check --quiet
  python3 -m zipfile -e "$folder/$file" "$folder"
  install -D -m 755 "$folder/uv-$UV.data/scripts/uv" ~/.uv/uv
  rm -rf "$folder"
}

if [ ! -x "$env/bin/python" ]; then
  fetch_uv
  ~/.uv/uv venv --seed --python "$PYTHON" "$env"
fi
pip() { "$env/bin/python" -m pip install --quiet --disable-pip-version-check -c "$repository/constraints.txt" "$@"; }
pip 'setuptools>=77'
pip --no-build-isolation "$repository"
"$env/bin/python" -c 'import sys, ray, torch; print("node.sh: Python", sys.version.split()[0], "ray", ray.__version__, "torch", torch.__version__)'
