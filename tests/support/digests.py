"""Files told apart by their bytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tad.prepare.output import MARKER


def digests(root: Path) -> dict[str, str]:
    """Of every file below a folder, by its relative path; but for the marker, which holds times."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and p.name != MARKER)
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}
