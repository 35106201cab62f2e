"""What is fetched and installed is what was pinned: packages, uv, the MLflow image."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shlex
import subprocess
import zipfile

import pytest
from packaging.requirements import Requirement

from tests.support.pins import pins
from tests.support.structure import ROOT


def test_all_that_make_setup_installs_is_pinned_and_no_more():
    """The packages that tad-selftrain[dev] needs, and theirs, as they say themselves."""
    waiting, needed = [("tad-selftrain", frozenset({"dev"}))], set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in needed:
            continue
        needed.add((name, extras))
        try:
            requires = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        for text in requires:
            found = Requirement(text)
            if found.marker is None or any(found.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((normal(found.name), frozenset(found.extras)))
    names = {name for name, _ in needed if not name.startswith(("nvidia-", "triton", "cuda-"))} - {"tad-selftrain"}
    clouds = {"boto3", "google-api-python-client", "google-auth-httplib2", "httplib2", "uritemplate"}
    pinned = {normal(name) for name in pins()}
    assert names - pinned == set()
    assert pinned - names - clouds - {"setuptools"} == set(), "setuptools builds"


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def test_nothing_that_was_fetched_runs_before_its_checksum_was_found_right():
    script = (ROOT / "clusters/node.sh").read_text()
    assert not re.search(r"(curl|wget)[^\n]*\|\s*(env [^|]*)?(ba)?sh\b", script), "no download into a shell"
    fetch = script[script.index("fetch_uv()") : script.index("if [ ! -x")]
    assert fetch.index("sha256sum --check") < fetch.index("zipfile -e")
    assert set(re.findall(r"^UV_(\w+)=\w+(?:\.\w+)?:[0-9a-f]{64}$", script, re.M)) == {"x86_64", "aarch64"}
    requirements = (ROOT / "clusters/mlflow/requirements.txt").read_text()
    blocks = re.split(r"\n(?=\S)", requirements[requirements.index("\naiohappy") + 1 :].rstrip())
    assert len(blocks) > 80
    own = {normal(name): version for name, version in pins().items()}
    for block in blocks:
        name, version = block.split()[0].split("==")
        assert re.search(r"--hash=sha256:[0-9a-f]{64}$", block), block
        assert own.get(normal(name), version) == version, f"{name} differs from constraints.txt"


@pytest.mark.parametrize("changed", [False, True])
def test_uv_is_refused_unless_it_is_the_one_that_was_pinned(tmp_path, changed):
    """node.sh's own function, with a wheel made here in the place of the download."""
    script = (ROOT / "clusters/node.sh").read_text()
    fetch = script[script.index("fetch_uv()") : script.index("if [ ! -x")]
    wheel, machine = tmp_path / "uv.whl", platform.machine()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("uv-1.data/scripts/uv", "#!/bin/sh\necho the pinned one\n")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if changed:
        with zipfile.ZipFile(wheel, "a") as archive:
            archive.writestr("more", "")
    # curl reads the file that stands where it would put the download
    curl = f'curl() {{ cp {shlex.quote(str(wheel))} "$3"; }}'
    program = f"set -euo pipefail\nUV=1\nUV_{machine}=any:{digest}\n{curl}\n{fetch}\nfetch_uv\n~/.uv/uv\n"
    command = ["bash", "-c", program]
    environment = os.environ | {"HOME": str(tmp_path / "home")}
    (tmp_path / "home").mkdir()
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if changed:
        assert result.returncode and not (tmp_path / "home" / ".uv").exists(), result.stdout
    else:
        assert result.stdout == "the pinned one\n", result.stderr
