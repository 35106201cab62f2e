"""Labelers that work nothing out: full labels, proposals as they are, snippets of points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tad.data.dataset import Dataset
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.methods.controls.labelers import FullLabeler, PointSnippetsLabeler, ProposalsLabeler
from tad.methods.potloc.detector import PotlocDetector
from tad.prepare.relabel import derive_labels, one_kind
from tests.support.potloc import SMALL
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, adopted


@pytest.fixture
def full(whole: Dataset, tmp_path: Path) -> Dataset:
    """All training videos but the last have full labels beside their points."""
    derive_labels(whole, one_kind(whole, "full", whole.videos("train")[:-1]), tmp_path / "full")
    return Dataset.open(tmp_path / "full")


def test_full_labels_hold_their_points_and_teach_potloc_around_them(full: Dataset, tmp_path: Path) -> None:
    now = round_of(TinyEngine(full, 0, tmp_path / "engine"), number=1)
    found = FullLabeler().label(now).segments
    truth = ground_truth(full, "train")
    labels, last = found.segments(), full.videos("train")[-1]
    expected = truth.filter(np.array(truth.video_ids) != last)
    columns = ["video_id", "start", "end", "label", "score"]
    assert labels.table.select(columns).equals(expected.table.select(columns))
    assert labels.codes("source")[1] == ["controls/full@1"]
    assert ((labels.start <= labels.point) & (labels.point <= labels.end)).all()
    for video, rows in labels.by_video().items():
        assert sorted(rows.point) == sorted(full.points(video).time)
    detector = PotlocDetector(training=SMALL | {"epochs": 1})
    assert len(detector.detect(now, detector.train(now, taught(found))).segments())


def test_full_labels_where_there_are_none(whole: Dataset, full: Dataset) -> None:
    (said,) = FullLabeler().problems(whole)
    assert "none of the 8 training videos has full labels" in said and "`tad labels --kind full`" in said
    assert not FullLabeler().problems(full) and not FullLabeler().warnings(whole)[1:]
    assert FullLabeler().warnings(full)[0].startswith("1 of 8 training videos have no full labels")


def test_proposals_as_they_are_or_as_many_as_points(whole: Dataset, tmp_path: Path) -> None:
    engine, rng = TinyEngine(whole, 0, tmp_path), np.random.default_rng(0)
    rows = [
        (v, t, t + 2, whole.classes[c], float(rng.integers(5)))
        for v in whole.videos("train")[1:]
        for t, c in zip(rng.uniform(0, 20, 60), rng.integers(3, size=60), strict=True)
    ]
    now = round_of(engine, number=1, proposals=adopted(engine, rows))
    every = ProposalsLabeler().label(now).segments.segments()
    assert every.digest() == now.proposals().segments().replace(source="controls/proposals@1").digest()
    best = ProposalsLabeler(count="points").label(now).segments.segments()
    want = []
    for video in whole.videos("train")[1:]:
        for c, name in enumerate(whole.classes):
            mine = [row for row in rows if row[0] == video and row[3] == name]
            count = int((whole.points(video).label == c).sum())
            want += sorted(mine, key=lambda row: -row[4])[:count]
    assert list(zip(best.video_ids, best.start, best.end, best.labels, best.score, strict=True)) == want
    assert np.isnan(best.point).all() and 0 < len(want) < len(rows)
    with pytest.raises(DataError, match="does not have: Flying"):
        ProposalsLabeler().label(round_of(engine, proposals=adopted(engine, [(rows[0][0], 0.0, 1.0, "Flying", 1.0)])))


def test_as_many_proposals_as_points_needs_points(by_type: dict[str, Dataset]) -> None:
    data = by_type["classes"]
    assert not ProposalsLabeler().problems(data)
    assert "labeler.count: all" in ProposalsLabeler(count="points").problems(data)[0]


def test_the_snippet_of_each_point(whole: Dataset, tmp_path: Path) -> None:
    labels = PointSnippetsLabeler().label(round_of(TinyEngine(whole, 0, tmp_path))).segments.segments()
    want = [(v, t, whole.classes[c]) for v in whole.videos("train") for t, c in zip(*whole.points(v), strict=True)]
    assert list(zip(labels.video_ids, labels.point, labels.labels, strict=True)) == want
    assert ((labels.start <= labels.point) & (labels.point <= labels.end)).all() and (labels.score == 1).all()
    np.testing.assert_allclose(labels.end - labels.start, 16 / 25)
    np.testing.assert_allclose(labels.start / 0.64, np.round(labels.start / 0.64), atol=1e-9)
