"""Values of published files: durations, rates and ids of videos, mended or refused."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from typing import Any

from tad.data.csv_table import video_id as file_stem
from tad.data.findings import Finding
from tad.data.videos import video_of
from tad.files import number

Entry = Mapping[str, Any]
"""A video as a published file holds it."""


def own_clock(entry: Entry, duration: float) -> tuple[float, float | None]:
    """The duration as it is, and the entry's fps, if it tells one."""
    return duration, None if entry.get("fps") is None else positive(entry, "fps")


def told_duration(entry: Entry) -> float | None:
    """Seconds: the video's `duration`, else its `frame` / `fps`. Null, NaN and an empty field tell nothing.

    Raises:
        ValueError: a number that is told is not positive and finite.
    """

    def told(key: str) -> bool:
        value = entry.get(key)
        return value is not None and value != "" and value == value

    if told("duration"):
        return positive(entry, "duration")
    return positive(entry, "frame") / positive(entry, "fps") if told("frame") and told("fps") else None


def positive(entry: Entry, key: str) -> float:
    """A positive, finite number of a video's entry.

    Raises:
        ValueError: it is missing or none.
    """
    if entry.get(key) is None:
        raise ValueError(f"has no {key}")
    try:
        value = number(entry[key])
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if not 0 < value < math.inf:
        raise ValueError(f"{key} {value:g} must be positive")
    return value


def known(name: str, videos: Container[str]) -> str | None:
    """The video that a list of a data set means: by its id, its file or path, or with or without "v_"; None if none.

    Published lists name the same videos differently: `video_1`, `features/video_1.npy`, `v_video_1`.
    """
    if name in videos:
        return name
    stem = file_stem(name)
    return next((v for v in (stem, stem.removeprefix("v_"), f"v_{stem}") if v in videos), None)


def unusable(video_id: str, entry: Entry) -> str | None:
    """What to say of a video that no command would read: of its id, subset, duration or fps; None if it is good."""
    found = video_of(video_id, entry, None)
    return f"{found.where}: {found.detail}" if isinstance(found, Finding) else None
