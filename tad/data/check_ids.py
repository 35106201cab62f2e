"""Findings of video ids that are good names here and none on another system."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tad.data.findings import Finding, warning

RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that Windows keeps for devices, with any extension."""


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
