"""Compiled loops: all go through the one guard, and run where no cache can be written."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.support.structure import ROOT, files, imports


def test_numba_is_imported_by_the_guard_only():
    """tad.ops.nms.compiled; a bare @njit(cache=True) fails where no cache can be written."""
    found = [m for m, path in files().items() if any(i.split(".")[0] == "numba" for i in imports(m, path))]
    assert found == ["tad.ops.nms"]


def test_evaluation_without_any_cache_folder(tmp_path):
    """A read-only installation without HOME: numba finds no place for its cache, and compiles anew.

    The cache folders are regular files here, so that root cannot write into them either.
    """
    shutil.copytree(ROOT / "tad", tmp_path / "tad", ignore=shutil.ignore_patterns("__pycache__", "*.pyc"))
    for folder in (tmp_path / "tad", *(p for p in (tmp_path / "tad").rglob("*") if p.is_dir())):
        (folder / "__pycache__").touch()
    code = (
        "import tad.ops.nms, tad.ops.matching as m, numpy as np\n"
        f"assert tad.__file__.startswith({str(tmp_path)!r}), tad.__file__\n"
        "span = np.array([[0.0, 10.0]])\n"
        "print(m.by_detection(span, np.array([0]), np.array([1]), span, np.array([0.5])).tolist())\n"
        "print(m.by_detection.stats.cache_path)\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("NUMBA")}
    environment |= {"PYTHONPATH": str(tmp_path), "HOME": "/dev/null", "XDG_CACHE_HOME": "/dev/null/cache"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.splitlines() == ["[[True]]", "None"], done.stderr[-2000:]
