"""The order of the tests themselves: folders that mirror the packages, helpers in tests/support, small files."""

from __future__ import annotations

from pathlib import Path

from tests.support.structure import ROOT, imports

TESTS = sorted((ROOT / "tests").rglob("*.py"))
OWN = ("cluster", "project", "references", "rough", "support")
"""Folders that mirror no package: real clusters, the repository itself, bad input, and what tests share."""


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def test_no_file_takes_code_from_another_test() -> None:
    """What two files need lies in tests/support, and published ways in tests/references or benchmarks/references.

    Tests of benchmarks take what they test from there.
    """
    tests = {module(f) for f in TESTS if f.name.startswith(("test_", "conftest"))}
    for path in TESTS:
        found = imports(module(path), path)
        assert not found & tests - {module(path)}, path
        if path.parent.name != "benchmarks":
            assert not [name for name in found if name.startswith("benchmarks.") and ".references" not in name], path


def test_folders_mirror_packages() -> None:
    for folder in {path.parent.relative_to(ROOT / "tests") for path in TESTS}:
        if folder.parts and folder.parts[0] not in OWN:
            assert (ROOT / "tad" / folder).is_dir() or (ROOT / folder).is_dir(), f"tests/{folder} mirrors no package"


def test_files_are_small() -> None:
    assert not [module(path) for path in TESTS if len(path.read_text().splitlines()) > 400]
