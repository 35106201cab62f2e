"""The documentation is executed, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tad.options import declared
from tad.recipe.methods import METHODS, registered
from tests.support.structure import ROOT

PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *(ROOT / "tad").rglob("*.md")])


def named(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path) -> list[str]:
    """The fenced blocks marked `bash`: those that run as they stand, in order, in an empty folder."""
    return re.findall(r"```bash\n(.*?)```", page.read_text(), flags=re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)], ids=named)
def test_the_blocks_of_a_page_run(page, tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -euo pipefail\n" + "\n".join(blocks(page))
    result = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{named(page)} links to {target}"


@pytest.mark.parametrize("page", sorted((ROOT / "tad").rglob("*.md")), ids=named)
def test_options_that_a_method_s_page_names_exist(page):
    """In code marks, by their place in a role or by the end of it; `detector.decode.keep=both`, `quality.enabled`."""
    keys = {d.key for role in METHODS for method in registered(role).values() for d in declared(method, "round")}
    known = {"method", *keys, *(key.rpartition(".")[0] for key in keys)}
    known |= {key.partition(".")[2] for key in known}
    text = re.findall(r"`([a-z_]+(?:\.[a-z_0-9]+)+)(?:[=:][^`]*)?`", page.read_text())
    found = {re.sub(r"^(proposer|encoder|labeler|detector)\.", "", name) for name in text}
    assert {name for name in found - known if not name.endswith((".py", ".md", ".yaml", ".json"))} == set()
