"""Reliable proposals: the published rule, what is mended, the labeler."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from tad.methods.common.seeds import SHORTEST, SeedRule
from tad.methods.hrpro.labeler import HrproLabeler
from tests.support.rounds import round_of
from tests.support.seeds import many_points, many_proposals, select
from tests.support.tiny import TinyEngine, adopted, tiny_dataset

PUBLISHED = SeedRule(neighbours="any-class", crossing="keep", fallback="none", inside_video=False)
DEFAULT = HrproLabeler().seed_rule


def test_the_published_rule_on_two_adjacent_points():
    points, merged, alone = [(5.0, 0), (9.0, 0)], (3, 12, 0.9, 0), (4, 6, 0.1, 0)
    found = select(points, [merged, alone], PUBLISHED)
    np.testing.assert_allclose(found.spans, [[4, 6], [3, 12]], err_msg="uncut where nothing else holds the point")
    np.testing.assert_allclose(found.scores, [0.1, 0.9])
    both = select(points, [merged], PUBLISHED)
    np.testing.assert_allclose(both.spans, [[3, 12], [3, 12]], err_msg="one proposal may serve several points")


def test_the_default_cuts_between_adjacent_points():
    found = select([(5.0, 0), (9.0, 0)], [(3, 12, 0.9, 0), (4, 6, 0.1, 0)], DEFAULT)
    np.testing.assert_allclose(found.spans, [[4, 6], [7, 12]])


def test_points_of_two_classes_in_one_instance():
    """A cliff dive is a dive: by the published rule no proposal is free of the other class's point."""
    points = [(5.0, 0), (5.0, 1), (9.0, 0)]
    rows = [(3, 7, 0.5, 0), (2, 12, 0.9, 0), (3, 7, 0.6, 1), (1, 8, 0.7, 1)]
    np.testing.assert_allclose(select(points, rows, PUBLISHED).spans[:2], [[2, 12], [1, 8]])
    same_class = HrproLabeler(seed_rule={"neighbours": "same-class"}).seed_rule
    np.testing.assert_allclose(select(points, rows, same_class).spans[:2], [[3, 7], [1, 8]])
    near = [(5.0, 0), (5.02, 1)]
    np.testing.assert_allclose(select(near, [(3, 7, 0.5, 0), (4.99, 5.01, 0.1, 0)], PUBLISHED).spans[0], [4.99, 5.01])
    np.testing.assert_allclose(select(near, [(3, 7, 0.5, 0), (4.99, 5.01, 0.1, 0)], same_class).spans[0], [3, 7])


@settings(deadline=None)  # the first call may compile
@given(many_points, many_proposals)
def test_the_published_rule_by_a_loop(points, rows):
    points, rows = sorted(points), [(s, s + n, q, c) for s, n, q, c in rows]
    found = select(points, rows, PUBLISHED)
    for i, (t, c) in enumerate(points):
        low, high = points[i - 1][0] if i else -1, points[i + 1][0] if i + 1 < len(points) else 1e5
        mine = [(q, s, e) for s, e, q, k in rows if k == c and s <= t <= e and q > 0]
        free = [row for row in mine if row[1] > low and row[2] < high]
        pool = free or mine
        assert found.fallback[i] == (not pool)
        if pool:
            best = max(q for q, _, _ in pool)
            assert (best, *found.spans[i]) in pool and found.scores[i] == best


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("hrpro") / "data", videos=4)


def test_only_the_published_rule_leaves_points_out(data, tmp_path):
    engine, rows, bad = TinyEngine(data, 0, tmp_path), [], 0
    for video in data.videos("train"):
        for number, (time, label) in enumerate(zip(*data.points(video), strict=True)):
            name = data.classes[label]
            # The proposal of every other point scores nothing; that of the last of a video reaches its end.
            score = 1.4 if number % 2 == 0 else 0.0
            bad += number % 2
            rows.append((video, max(0.0, time - 1e-3), min(data.duration(video), time + 1e-3), name, score))
    round = round_of(engine, proposals=adopted(engine, rows))
    published = HrproLabeler(faithful=True).label(round).segments.segments()
    assert bad and len(published) == len(rows) - bad
    np.testing.assert_allclose(published.score, 1.0, err_msg="scores are cut to [0, 1]")
    assert set(published.table.column("source").to_pylist()) == {"hrpro/rank@0"}
    mended = HrproLabeler().label(round).segments.segments()
    points = {(v, data.classes[c], t) for v in data.videos("train") for t, c in zip(*data.points(v), strict=True)}
    answered = list(zip(mended.video_ids, mended.labels, mended.point, strict=True))
    assert set(answered) == points and len(answered) == len(points)
    assert (mended.end - mended.start >= SHORTEST * 0.999).all()
    for (video, _, time), (start, end) in zip(answered, mended.spans, strict=True):
        assert 0 <= start <= time <= end <= data.duration(video)


def test_faithful_sets_the_rule_and_refuses_contradictions():
    faithful = HrproLabeler(faithful=True)
    assert faithful.seed_rule == PUBLISHED != DEFAULT
    assert HrproLabeler.model_validate(faithful.model_dump(mode="json")) == faithful
    with pytest.raises(ValidationError, match=r"sets seed_rule.fallback to 'none', found 'window'"):
        HrproLabeler(faithful=True, seed_rule={"fallback": "window"})
