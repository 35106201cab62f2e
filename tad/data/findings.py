"""What `tad check` reports, and what a file with errors is refused for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from tad.errors import DataError, listing


class Finding(NamedTuple):
    """One problem of a dataset."""

    severity: Literal["error", "warning"]
    """An error stops a run; a warning is handled by a stated rule (docs/data.md)."""
    kind: str
    where: str
    """The file, video, row or class."""
    detail: str
    """The offending value and what is done about it."""


def error(kind: str, where: str, detail: str) -> Finding:
    return Finding("error", kind, where, detail)


def warning(kind: str, where: str, detail: str) -> Finding:
    return Finding("warning", kind, where, detail)


def refuse(path: Path, findings: Sequence[Finding]) -> None:
    """Raises DataError with all errors among the findings of a file; passes if there are none."""
    errors = [f for f in findings if f.severity == "error"]
    places = [f.where.removeprefix(path.name).lstrip() for f in errors]
    if places == [""]:
        raise DataError(f"{path}: {errors[0].detail}")
    if errors:
        texts = [f"{place}: {f.detail}" if place else f.detail for place, f in zip(places, errors, strict=True)]
        raise DataError(f"{path}: " + listing(texts))


def summary(findings: Sequence[Finding], first: int = 5) -> str:
    """Counts per kind, errors before warnings, and the first few of each."""
    lines = []
    for severity in ("error", "warning"):
        kinds = list(dict.fromkeys(f.kind for f in findings if f.severity == severity))
        for kind in kinds:
            group = [f for f in findings if f.severity == severity and f.kind == kind]
            lines.append(f"{severity}: {kind}: {len(group)}")
            lines += [f"    {f.where}: {f.detail}" for f in group[:first]]
            if len(group) > first:
                lines.append(f"    ... and {len(group) - first} more")
    errors = sum(f.severity == "error" for f in findings)
    lines.append(f"{errors} errors, {len(findings) - errors} warnings")
    return "\n".join(lines)
