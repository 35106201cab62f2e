"""Sizes, times and nested settings as people read them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def size(count: float) -> str:
    """Bytes: 12 bytes, 3.4 MB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds: 3.2 s, 5 min 07 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 60:
        return f"{max(seconds, 0):.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def flat(document: Mapping[str, Any], joint: str = ".", prefix: str = "") -> dict[str, Any]:
    """A nested mapping as one level: {"a": {"b": 1}} as {"a.b": 1}. An empty mapping is a value."""
    found: dict[str, Any] = {}
    for name, value in document.items():
        nested = isinstance(value, Mapping) and value
        found |= flat(value, joint, f"{prefix}{name}{joint}") if nested else {f"{prefix}{name}": value}
    return found
