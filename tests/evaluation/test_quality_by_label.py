"""Quality of pseudo-labels without points: hand-made cases, the labelled videos left out, the command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tad.commands.evaluate import quality as command
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.evaluation.quality_by_label import instance_quality, quality_of
from tad.prepare.relabel import split_labelled
from tests.support.annotated import annotated

TRUTH = [("a", "run", 10.0, 20.0), ("a", "jump", 10.0, 20.0), ("a", "jump", 30.0, 40.0), ("b", "run", 0.0, 30.0)]


def segments(*rows: tuple[str, str, float, float]) -> Segments:
    video, label, start, end = zip(*rows, strict=True)
    return Segments.of(video, start, end, label)


def test_by_hand() -> None:
    labels = segments(
        ("a", "jump", 10, 20),  # of two equal actions the one of its class
        ("a", "run", 31, 40),  # the wrong class
        ("a", "jump", 30, 32),  # too short
        ("a", "run", 50, 60),  # meets nothing
        ("b", "run", 0, 15),  # just half
        ("b", "run", 10, 30),  # a second hit of one action
        ("c", "run", 0, 9),  # a video without an action
    )
    result = quality_of(labels, segments(*TRUTH), ["a", "b", "c"])
    assert result == pytest.approx(
        {
            "labels": 7,
            "actions": 4,
            "class_accuracy": 4 / 7,
            "mean_tiou": (1 + 0.9 + 0.2 + 0 + 0.5 + 2 / 3 + 0) / 7,
            "hits": 3 / 7,
            "recall": 2 / 4,
        }
    )


def test_true_labels_and_none() -> None:
    truth = segments(*TRUTH)
    whole = quality_of(truth, truth, ["a", "b"])
    assert {whole[k] for k in ("class_accuracy", "mean_tiou", "hits", "recall")} == {1.0}
    nothing = quality_of(Segments.empty(), truth, ["a", "b"])
    assert nothing["mean_tiou"] is None and nothing["recall"] == 0 and nothing["actions"] == 4


def test_fully_labelled_videos_do_not_count(tmp_path: Path) -> None:
    rows = [(video, "run", 10.0, 20.0) for video in "abcd"]
    annotated(tmp_path / "whole", rows)
    split_labelled(Dataset.open(tmp_path / "whole"), 0.5, "stratified", 0, tmp_path / "few")
    few = Dataset.open(tmp_path / "few")
    others = [v for v in few.videos("train") if few.supervision(v) != "full"]
    assert len(others) == 2
    labels = segments(*[(v, "run", 10.0, 20.0) for v in "abcd" if v != others[1]], (others[1], "run", 15.0, 20.0))
    assert instance_quality(labels, few) == pytest.approx(
        {"labels": 2, "actions": 2, "class_accuracy": 1.0, "mean_tiou": 0.75, "hits": 1.0, "recall": 1.0}
    )
    labels.to_json_file(tmp_path / "labels.json")
    arguments = [str(tmp_path / "labels.json"), "--data", str(tmp_path / "few"), "--json", str(tmp_path / "q.json")]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert "2 pseudo-labels of videos with 2 actions" in result.output and "mean tIoU with it 0.750" in result.output
    assert json.loads((tmp_path / "q.json").read_text())["hits"] == 1.0
