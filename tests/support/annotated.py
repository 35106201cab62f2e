"""Dataset folders without features, from rows: for tests of evaluation, pseudo-label quality and honest scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tad.data.dataset import Dataset, FeatureGrid, Manifest
from tad.data.labels import POINTS
from tad.prepare.write import write_dataset

Row = tuple[str, str, float, float]


def annotated(
    folder: Path,
    segments: Sequence[Row],
    points: Sequence[tuple[str, str, float]] = (),
    roles: dict[str, str] | None = None,
    ambiguous: Sequence[tuple[str, float, float]] = (),
    ignored: Sequence[str] = (),
) -> Dataset:
    """A dataset of 100 s videos: segments (video, label, start, end), points (video, label, time), role by video."""
    folder.mkdir(parents=True, exist_ok=True)
    videos = dict.fromkeys([s[0] for s in segments] + [p[0] for p in points] + list(roles or {}))
    database = {
        v: {
            "subset": (roles or {}).get(v, "train"),
            "duration": 100.0,
            "fps": 25.0,
            "annotations": [{"label": c, "segment": [s, e]} for w, c, s, e in segments if w == v],
        }
        for v in videos
    }
    manifest = Manifest(
        name="annotated",
        classes=sorted({s[1] for s in segments} | {p[1] for p in points}),
        subsets={role: role for role in ("train", "dev", "test")},
        grid=FeatureGrid(dim=4),
        ambiguous="ambiguous.csv" if ambiguous else None,
        ignored=list(ignored),
    )
    write_dataset(folder, manifest, database, {POINTS: points}, ambiguous)
    return Dataset.open(folder)
