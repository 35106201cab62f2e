"""Findings of names: video ids that are none on another system, and classes that may be none."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tad.data.findings import Finding, warning

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for devices, with any extension."""

NO_ACTION = {"background", "bg", "none", "null", "nan", "na", "n/a", "no action", "noaction", "ambiguous", "unlabeled"}
"""What other tools call the time without an action, or an empty cell, in small letters."""


def check_classes(classes: Iterable[str]) -> list[Finding]:
    """Warnings: classes that would be learnt as actions and look like none, and classes that look like one."""
    findings = []
    alike: dict[str, list[str]] = {}
    for name in classes:
        plain = " ".join(re.split(r"[\s_-]+", name.casefold()))
        alike.setdefault(plain, []).append(name)
        if plain in NO_ACTION:
            detail = (
                "is learnt as an action; background needs no class: if it is none, leave the class and its rows out"
            )
            findings.append(warning("class that may be no action", f"class {name}", detail))
    for group in alike.values():
        if len(group) > 1:
            detail = "differ in case or blanks only, and are two classes"
            findings.append(warning("classes alike", f"classes {', '.join(group)}", detail))
    return findings


def check_ids(ids: Iterable[str]) -> list[Finding]:
    """Warnings: such a dataset works here, and breaks when it is copied to Windows or macOS."""
    findings = []
    alike: dict[str, list[str]] = {}
    for video_id in ids:
        alike.setdefault(video_id.lower(), []).append(video_id)
        if RESERVED.fullmatch(video_id):
            findings.append(warning("id reserved on Windows", f"video {video_id}", "is the name of a device there"))
        elif video_id.endswith("."):
            findings.append(warning("id reserved on Windows", f"video {video_id}", "the dot at its end is lost there"))
    for group in alike.values():
        if len(group) > 1:
            detail = "differ in case only: one file on macOS and Windows"
            findings.append(warning("ids alike", f"videos {', '.join(group)}", detail))
    return findings
