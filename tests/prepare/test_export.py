"""OpenTAD export: training videos hold pseudo-labels and nothing of the ground truth."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

from tad.commands import data as commands
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.prepare.export import export_opentad
from tad.prepare.import_opentad import import_opentad
from tad.prepare.synth import make_dataset
from tests.support.annotated import annotated


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_dataset(tmp_path_factory.mktemp("export") / "d", videos=4, classes=2, dim=4, dev=1)


@pytest.fixture
def labels():
    """One label in a video, one that ends beyond it, one too short for milliseconds, one entirely beyond it."""
    start, end = [1.00049, 20.0, 5.0001, 500.0], [9.87654, 1000.0, 5.0002, 501.0]
    return Segments.of(["train_0000", "train_0001", "train_0001", "train_0001"], start, end, "jump", 0.5)


def test_training_videos_hold_pseudo_labels_only(data, labels, tmp_path):
    written = export_opentad(labels, data, tmp_path / "out")
    database = json.loads(written.annotations.read_text())["database"]
    truth = {role: ground_truth(data, role) for role in ("train", "dev", "test")}
    training = {v: e for v, e in database.items() if e["subset"] == "training"}
    assert list(training) == data.videos("train")
    assert training["train_0000"]["annotations"] == [{"segment": [1.0, 9.877], "label": "jump"}]
    last = data.duration("train_0001")
    assert training["train_0001"]["annotations"] == [{"segment": [20.0, last], "label": "jump"}]
    assert training["train_0002"]["annotations"] == training["train_0003"]["annotations"] == []
    exported = {(v, *a["segment"]) for v, e in training.items() for a in e["annotations"]}
    boundaries = set(zip(truth["train"].video_ids, truth["train"].start, truth["train"].end, strict=True))
    assert len(boundaries) > 10
    assert not exported & boundaries
    assert (written.labels, written.dropped) == (2, 2)
    assert written.videos == {"training": 4, "development": 1, "validation": 2}
    for role, subset in (("dev", "development"), ("test", "validation")):
        found = [(v, *a["segment"]) for v, e in database.items() if e["subset"] == subset for a in e["annotations"]]
        assert len(found) == len(truth[role])
        np.testing.assert_allclose([f[1:] for f in found], truth[role].spans, atol=6e-4)


def test_frames_are_ticks_of_the_feature_clock(data, labels, tmp_path):
    """OpenTAD takes frame / duration for the rate that its stride counts."""
    export_opentad(labels, data, tmp_path / "out")
    for video_id, entry in json.loads((tmp_path / "out" / "opentad.json").read_text())["database"].items():
        assert entry["frame"] / entry["duration"] == pytest.approx(25, rel=1e-3)
        assert entry["duration"] == data.duration(video_id)


def test_the_export_is_an_opentad_source(data, labels, tmp_path):
    export_opentad(labels, data, tmp_path / "out")
    done = import_opentad(tmp_path / "out", tmp_path / "back", fps=25, stride=16)
    assert done.videos == {"train": 4, "test": 2}
    assert (tmp_path / "out" / "category_idx.txt").read_text() == "jump\nthrow\n"


def test_labels_must_fit_the_dataset(data, tmp_path):
    wrong = Segments.of(["test_0000", "nobody", "train_0000"], [1, 1, 1], [2, 2, 2], ["jump", "jump", "swim"])
    with pytest.raises(DataError, match=r"(?s)3 problems.*test_0000.*nobody.*'swim'"):
        export_opentad(wrong, data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_labels_give_empty_training_videos(data, tmp_path):
    export_opentad(Segments.empty(), data, tmp_path / "out")
    database = json.loads((tmp_path / "out" / "opentad.json").read_text())["database"]
    assert all(e["annotations"] == [] for e in database.values() if e["subset"] == "training")


def test_command(data, labels, tmp_path):
    labels.to_parquet(tmp_path / "labels.parquet")
    arguments = ["opentad", "--labels", str(tmp_path / "labels.parquet"), "--data", str(data.root)]
    result = CliRunner().invoke(commands.export, [*arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "2 pseudo-labels, 2 dropped" in result.output
    again = CliRunner().invoke(commands.export, [*arguments, "--out", str(tmp_path / "out")])
    assert isinstance(again.exception, DataError)


def test_class_ids_are_those_of_the_dataset(data, tmp_path):
    """As ActionFormer writes labels, which names no class."""
    columns = {"video-id": ["train_0000"] * 2, "t-start": [1, 2], "t-end": [3, 4], "label": [1, 0], "score": [1, 1]}
    (tmp_path / "labels.json").write_text(json.dumps(columns))
    arguments = ["opentad", "--labels", str(tmp_path / "labels.json"), "--data", str(data.root), "--out"]
    CliRunner().invoke(commands.export, [*arguments, str(tmp_path / "out")], catch_exceptions=False)
    rows = json.loads((tmp_path / "out" / "opentad.json").read_text())["database"]["train_0000"]["annotations"]
    assert [row["label"] for row in rows] == [data.classes[1], data.classes[0]]
    (tmp_path / "labels.json").write_text(json.dumps(columns | {"label": [0, 2]}))
    with pytest.raises(DataError, match=r"label 2 is not an id of the class list \(2 classes, 0 to 1\)"):
        CliRunner().invoke(commands.export, [*arguments, str(tmp_path / "no")], catch_exceptions=False)


@pytest.mark.parametrize("name", ["jump\nhigh", "jump\rhigh", "jump\u2028high", " jump"])
def test_class_names_that_would_shift_the_list(tmp_path, name):
    """OpenTAD numbers classes by lines: a line break in a name would give all later ones another number."""
    data = annotated(tmp_path / "data", [("a", "kick", 0, 10)])
    data = replace(data, manifest=data.manifest.model_copy(update={"classes": [name, "kick"]}))
    with pytest.raises(DataError, match=r"1 problem:\n  class .*OpenTAD's list has a name a line"):
        export_opentad(Segments.of("a", [0.0], [1.0], "kick"), data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_places_that_cannot_be_written(data, labels, tmp_path):
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "out", tmp_path / ("x" * 300)):
        with pytest.raises(DataError):
            export_opentad(labels, data, out)
    assert (tmp_path / "file").read_text() == "mine" and [p.name for p in tmp_path.iterdir()] == ["file"]
