"""Invented videos: durations, annotated instances and points, for a dataset that does not exist."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from tad.data.dataset import ROLES, Role

FIRST = ("jump", "throw", "kick", "lift", "swing", "dive", "run", "spin", "climb", "catch")
NAMES = (*FIRST, "push", "pull", "roll", "bow", "wave", "clap", "row", "serve", "punch", "skate")
DURATION = (30.0, 120.0)
"""Seconds, uniform."""
LENGTH = (5.0, 0.5, 1.5, 15.0)
"""Instances, seconds: median and log-spread of a log-normal, then its limits."""
GAP = (1.0, 6.0)
"""Seconds between instances: the least, and the mean of the exponential added to it."""
SECOND_CLASS = 0.25
"""Share of videos in which a second class occurs."""
POINT_SPREAD = 0.1
"""Points are Gaussian around the centre of their instance, with this share of its length, kept in its inner 90 %."""


class Invented(NamedTuple):
    """Annotations as they are written."""

    classes: list[str]
    database: dict[str, dict[str, Any]]
    points: list[tuple[str, str, float]]
    """(video, label, seconds), one for each training instance."""


def invent(videos: dict[Role, int], classes: int, seed: int) -> Invented:
    """Videos for each role. The i-th video of a role is the same however many are asked for.

    Video i shows class i modulo `classes`, and sometimes a second one, so that every class is taught and tested as
    soon as a role has as many videos as there are classes.
    """
    names = [NAMES[i] if i < len(NAMES) else f"action-{i + 1}" for i in range(classes)]
    database: dict[str, dict[str, Any]] = {}
    points: list[tuple[str, str, float]] = []
    for role, count in videos.items():
        for i in range(count):
            rng = np.random.default_rng([seed, 5, ROLES.index(role), i])
            video_id = f"{role}_{i:04d}"
            database[video_id] = entry = _video(role, names, i, rng)
            if role == "train":
                points += [(video_id, row["label"], _point(row["segment"], rng)) for row in entry["annotations"]]
    return Invented(names, database, points)


def _video(role: Role, names: list[str], number: int, rng: np.random.Generator) -> dict[str, Any]:
    duration = round(float(rng.uniform(*DURATION)), 2)
    fps = float(rng.choice([25.0, 30.0]))
    shown = [number % len(names)]
    if len(names) > 1 and rng.random() < SECOND_CLASS:
        shown.append(int((shown[0] + rng.integers(1, len(names))) % len(names)))
    median, spread, least, most = LENGTH
    rows: list[dict[str, Any]] = []
    time = float(rng.exponential(GAP[1]))
    while True:
        length = float(np.clip(median * np.exp(spread * rng.standard_normal()), least, most))
        if time + length > duration - 0.5:
            if rows:
                break
            time = float(rng.uniform(0, duration - 0.5 - length))  # every video shows something
        label = names[int(rng.choice(shown))] if rows else names[shown[0]]
        rows.append({"segment": [round(time, 2), round(time + length, 2)], "label": label})
        time += length + GAP[0] + float(rng.exponential(GAP[1]))
    return {"subset": role, "duration": duration, "fps": fps, "annotations": rows}


def _point(segment: list[float], rng: np.random.Generator) -> float:
    start, end = segment
    share = float(np.clip(0.5 + POINT_SPREAD * rng.standard_normal(), 0.05, 0.95))
    return round(start + share * (end - start), 3)
