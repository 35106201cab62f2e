"""The versions that constraints.txt pins."""

from __future__ import annotations

from tests.support.structure import ROOT


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return dict(line.split("==") for line in lines)
