#!/usr/bin/env bash
# node.sh NAME=VALUE...   run by `ray up` on every node; run again it only brings things up to date.
# Installs this project with exactly the versions of constraints.txt into ~/tad-env, and gives every shell the variables.
# A ~/tad-env that is already there is kept: on hosts without internet, provide one that holds the dependencies.
set -euo pipefail
PYTHON=3.11.13
UV=0.13.8
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
env=$HOME/tad-env

# Shells of `ray up`, `ray exec` and `ray attach` read ~/.bashrc, and Ray's processes inherit what they were started with.
{
  echo "export PATH=$env/bin:\$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0"
  for variable in "$@"; do printf 'export %q\n' "$variable"; done
} > ~/.tad-environment
grep -qs '\.tad-environment' ~/.bashrc || echo '. ~/.tad-environment' >> ~/.bashrc

if [ ! -s ~/.ray/auth_token ]; then
  echo "node.sh: ~/.ray/auth_token is missing: on your own machine run \`ray get-auth-token --generate\`, then \`ray up\` again" >&2
  exit 1
fi
chmod 700 ~/.ray
chmod 600 ~/.ray/auth_token

if [ ! -x "$env/bin/python" ]; then
  curl -LsSf "https://astral.sh/uv/$UV/install.sh" | env UV_UNMANAGED_INSTALL="$HOME/.uv" sh
  "$HOME/.uv/uv" venv --seed --python "$PYTHON" "$env"
fi
pip() { "$env/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip 'setuptools>=77'
pip -c "$repository/constraints.txt" --no-build-isolation "$repository"
"$env/bin/python" -c 'import sys, ray, torch; print("node.sh: Python", sys.version.split()[0], "ray", ray.__version__, "torch", torch.__version__)'
