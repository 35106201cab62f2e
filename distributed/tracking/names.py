"""Names and values as MLflow takes them."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tad.data.remote import redacted

PARAM_LENGTH, TAG_LENGTH, KEY_LENGTH = 6000, 5000, 250


def flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow's flat strings: names joined by dots, lists as JSON, long values cut."""
    flat: dict[str, str] = {}
    for name, value in params.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            text = json.dumps(value, default=str) if isinstance(value, (list, tuple, dict)) else str(value)
            flat[clean(f"{prefix}{name}")] = _text(text, PARAM_LENGTH)
    return flat


def tags_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Short facts as tags."""
    return {clean(name): _text(str(value), TAG_LENGTH) for name, value in values.items()}


def clean(name: str) -> str:
    """A name that MLflow takes: `mAP@0.5` becomes `mAP_0.5`."""
    name = posixpath.normpath(re.sub(r"[^\w./: -]", "_", name).strip("/") or "_")
    return "_" if name == "." else name.replace("..", "_")[:KEY_LENGTH]


def distinct(names: Iterable[str]) -> dict[str, str]:
    """Names as MLflow takes them; of some that it would take for one (classes `a?b` and `a*b`), the later ones are
    numbered."""
    found: dict[str, str] = {}
    for name in names:
        known, number = clean(name), 1
        while known in found:
            known, number = f"{clean(name)[: KEY_LENGTH - 8]} {number + 1}", number + 1
        found[known] = name
    return {name: known for known, name in found.items()}


def _text(text: str, length: int) -> str:
    """Without passwords, and without NUL and lone surrogates, which some database refuses."""
    return redacted(text).replace("\0", "").encode(errors="replace").decode()[:length]
