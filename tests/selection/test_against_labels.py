"""Detections judged by pseudo-labels: right, wrong, and left out where nothing is known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.selection.against_labels import judged_by_labels, known_videos

VIDEOS = ("pointed", "pointless", "bare", "empty")


@pytest.fixture
def data(tmp_path) -> Dataset:
    """Videos of 100 s: two with points, one without a label, one whose full labels say that it holds nothing."""
    return dataset(tmp_path)


def dataset(folder: Path) -> Dataset:
    grid = {"fps": 25.0, "stride": 16, "window": 16, "dim": 4}
    manifest = {"name": "four", "classes": ["jump", "run"], "subsets": {"training": "train"}, "grid": grid}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest | {"held_out": "held_out.csv"}))
    entry = {"subset": "training", "duration": 100.0, "fps": 25.0, "annotations": []}
    (folder / "annotations.json").write_text(json.dumps({"database": dict.fromkeys(VIDEOS, entry)}))
    (folder / "points.csv").write_text("video_id,label,time\npointed,jump,12\npointless,run,50\n")
    (folder / "held_out.csv").write_text("video_id,label,time\npointed,jump,42\n")
    (folder / "full_labels.csv").write_text("video_id,label,start,end\nempty,,,\n")
    return Dataset.open(folder)


LABELS = Segments.of(["pointed"], [10.0], [14.0], ["jump"])


def found(*rows: tuple[str, float, float, str, float]) -> Segments:
    return Segments.of(*zip(*rows, strict=True))


def test_what_is_known_of_a_video(data):
    assert known_videos(LABELS, data) == ["pointed", "pointless", "empty"]


def test_only_what_the_labels_tell_is_judged(data):
    detections = found(
        ("pointed", 10, 14, "jump", 0.9),
        ("pointed", 40, 44, "jump", 0.8),  # at a point that training does not see
        ("pointed", 40, 44, "run", 0.7),  # of another class: not counted, no label has it
        ("pointed", 10, 44, "jump", 0.65),  # too long, though it holds that point, too
        ("pointed", 70, 80, "jump", 0.6),
        ("pointless", 1, 5, "jump", 0.5),
        ("bare", 1, 5, "jump", 0.4),  # nobody knows
        ("empty", 1, 5, "jump", 0.3),
    )
    judged = judged_by_labels(detections, LABELS, data)
    assert judged.score.tolist() == [0.9, 0.65, 0.6, 0.5, 0.3]
    assert judged.right.tolist() == [True, False, False, False, False]


def test_stretches_that_are_ignored_count_neither_way(data):
    ignored = Segments.of(["pointed", "pointed"], [60.0, 90.0], [76.0, 95.0], "jump")
    detections = found(
        ("pointed", 10, 14, "jump", 0.9),
        ("pointed", 70, 80, "jump", 0.8),  # six of ten seconds
        ("pointed", 72, 84, "jump", 0.7),  # four of twelve
        ("pointless", 70, 80, "jump", 0.6),
    )
    assert judged_by_labels(detections, LABELS, data, ignored).score.tolist() == [0.9, 0.7, 0.6]


def test_nothing_to_judge_is_an_error(data):
    with pytest.raises(DataError, match="no pseudo-labels"):
        judged_by_labels(found(("pointed", 1, 2, "jump", 1.0)), Segments.empty(), data)
    with pytest.raises(DataError, match="no detections in 3 held-out training videos"):
        judged_by_labels(found(("bare", 1, 2, "jump", 1.0)), LABELS, data)
