"""Boundaries: repairs are counted, everything else is an error, raw rows stay raw; and nobody who trains reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ambiguous, ground_truth, raw_ground_truth
from tad.prepare.import_hrpro import import_hrpro


def row(start, end, label="jump"):
    return {"segment": [start, end], "label": label}


def dataset(root: Path, rows, **manifest) -> Dataset:
    root.mkdir(exist_ok=True)
    document = {"name": "toy", "classes": ["jump", "throw"], "subsets": {"training": "train", "v": "test"}}
    (root / "dataset.yaml").write_text(yaml.safe_dump(document | {"grid": {"dim": 4}} | manifest))
    videos = {"a": {"subset": "training", "duration": 10.0, "annotations": rows}}
    videos["b"] = {"subset": "v", "duration": 5.0, "annotations": [row(1, 2, "throw")]}
    (root / "annotations.json").write_text(json.dumps({"database": videos}))
    return Dataset.open(root)


def test_segments_are_repaired(tmp_path):
    rows = [row(1, 2), row(1, 2), row(1, 2, "throw"), row(8, 12), row(-1, 1), row(10, 11), row(20, 30), row(-3, -1)]
    segments = ground_truth(dataset(tmp_path, rows), "train")
    assert segments.spans.tolist() == [[1, 2], [1, 2], [8, 10], [0, 1]]
    assert segments.labels == ["jump", "throw", "jump", "jump"]
    assert set(segments.table.column("source").to_pylist()) == {"ground-truth"}
    assert (segments.score == 1).all()
    assert np.isnan(segments.point).all()


def test_every_other_defect_is_an_error_and_all_are_listed(tmp_path):
    rows = [row(3, 2), row(1, 0.89), row(float("nan"), 1), row(0, 1, "swim"), {"segment": [1]}, {"label": "jump"}]
    rows += [row(10**400, 1), row(True, 2), row(1, "x"), {"segment": "12", "label": "jump"}, None, row(1, 2, None)]
    with pytest.raises(DataError) as raised:
        ground_truth(dataset(tmp_path, rows), "train")
    for i in range(12):
        assert f"video a, row {i}" in str(raised.value)
    assert "12 problems" in str(raised.value)


def test_segments_of_zero_length_and_reversed_by_rounding_are_dropped(tmp_path):
    rows = [row(1, 2), row(0, 0), row(10, 10), row(3, 2.9), row(0.3, 0.2), row(3, 3), row(12, 12), row(3, 3)]
    assert ground_truth(dataset(tmp_path, rows), "train").spans.tolist() == [[1, 2]]


def test_blanks_around_class_names_are_cut_off_and_other_spellings_named(tmp_path):
    data = dataset(tmp_path, [row(1, 2, "jump "), row(2, 3, "\tthrow")], classes=[" jump", "throw"])
    assert data.classes == ["jump", "throw"] and ground_truth(data, "train").labels == ["jump", "throw"]
    assert raw_ground_truth(data.root, ["training"]).label.tolist() == ["jump", "throw"]
    data = dataset(tmp_path, [row(1, 2, "Jump"), row(2, 3, "cafe\u0301")], classes=["jump", "caf\u00e9", "throw"])
    with pytest.raises(DataError, match=r"(?s)2 problems.*'Jump' \(but there is 'jump'.* \(but there is 'caf"):
        ground_truth(data, "train")


def test_ignored_videos_have_no_ground_truth(tmp_path):
    assert len(ground_truth(dataset(tmp_path, [row(1, 2)], ignored=["a"]), "train")) == 0


def test_raw_rows_are_unrepaired(tmp_path):
    rows = [row(1, 2), row(1, 2), row(8, 12), row(4, 4), row(3, 2), row("5", "6")]
    data = dataset(tmp_path, rows)
    raw = raw_ground_truth(data.root, ["training"])
    assert raw.videos == ["a"]
    assert raw.video_id.tolist() == ["a"] * 6
    assert raw.start.tolist() == [1, 1, 8, 4, 3, 5]
    assert raw.end.tolist() == [2, 2, 12, 4, 2, 6]
    both = raw_ground_truth(data.root / "annotations.json", ["training", "v"])
    assert both.label.tolist() == ["jump"] * 6 + ["throw"]
    assert len(raw_ground_truth(data.root, []).start) == 7


def test_raw_names_the_subsets_it_found(tmp_path):
    data = dataset(tmp_path, [row(1, 2)])
    with pytest.raises(DataError, match="no video in subset testing; found training, v"):
        raw_ground_truth(data.root, ["testing"])
    with pytest.raises(DataError, match="missing"):
        raw_ground_truth(tmp_path / "x.json", ["testing"])
    data = dataset(tmp_path, [row(1, float("inf"))])
    with pytest.raises(DataError, match=r"video a, row 0: jump .* is not finite"):
        raw_ground_truth(data.root, ["training"])


def test_raw_keeps_videos_without_segments(tmp_path):
    raw = raw_ground_truth(dataset(tmp_path, []).root, ["training"])
    assert raw.videos == ["a"]
    assert raw.start.shape == raw.end.shape == raw.label.shape == (0,)


def test_ambiguous_intervals(tmp_path):
    data = dataset(tmp_path, [], ambiguous="amb.csv")
    with pytest.raises(DataError, match=r"amb.csv: missing"):
        ambiguous(data)
    (tmp_path / "amb.csv").write_text("video_id,start,end\na,1,2.5\nb,0,1\na,4,5\n")
    assert ambiguous(data) == {"a": [(1.0, 2.5), (4.0, 5.0)], "b": [(0.0, 1.0)]}
    (tmp_path / "amb.csv").write_text("video_id,start,end\na,2,1\na,x,5\n")
    with pytest.raises(DataError, match=r"(?s)2 problems.*line 2.*line 3"):
        ambiguous(data)
    assert ambiguous(dataset(tmp_path, [])) == {}


def test_real_thumos14(shared, tmp_path):
    source = shared("data", "thumos14")
    import_hrpro(source, tmp_path / "thumos14")
    data = Dataset.open(tmp_path / "thumos14")
    # The four train instances without a point are exactly those that lie beyond their video.
    assert len(ground_truth(data, "train")) == 3003 and len(ground_truth(data, "test")) == 3307
    assert len(raw_ground_truth(data.root, ["train"]).start) == 3007
    assert len(raw_ground_truth(data.root, ["test"]).start) == 3311
    assert len(raw_ground_truth(source / "gt_full.json", ["Test"]).start) == 3358
    intervals = ambiguous(data)
    assert intervals["video_test_0000278"][0] == (0.0, 1.4)
    # The published list has 99 intervals of 37 videos; 2 videos are in no split.
    assert set(intervals) <= set(data.videos("test"))
    assert len(intervals) == 35
