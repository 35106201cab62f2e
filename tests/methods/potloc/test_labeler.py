"""POTLoc's Algorithm 1: the published pseudo-labels to the bit, cases by hand, plain loops, edge cases."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tad.cli import main
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.quality_by_point import label_quality
from tad.methods.potloc.labeler import (
    Grouped,
    GroupedPoints,
    PotlocLabeler,
    PotlocLabels,
    algorithm_one,
    mean_lengths,
    pairs,
)
from tad.prepare.import_hrpro import import_hrpro
from tad.stages import Artifact, Context
from tests.references.potloc_labels import labels_by_loops
from tests.support.annotated import annotated
from tests.support.rounds import round_of
from tests.support.shared import shared_path
from tests.support.tiny import TinyEngine

RULES = ("midpoints", "released", "paper")
DURATION = 100.0


def run(points, proposals, rule, classes=1, duration=DURATION):
    """[(start, end, score)] of points [(group, time)] and proposals [(group, start, end, score)]."""
    points = sorted(points)
    group, at = (np.array(column) for column in zip(*points, strict=True))
    table = np.array(proposals, dtype=float).reshape(-1, 4)
    labels = algorithm_one(
        GroupedPoints(group.astype(np.int64), at.astype(float), np.full(len(at), float(duration))),
        Grouped(table[:, 0].astype(np.int64), table[:, 1:3], table[:, 3]),
        rule,
        classes,
    )
    assert labels.group.tolist() == group.tolist()
    return [(s, e, q) for (s, e), q in zip(labels.spans.tolist(), labels.scores.tolist(), strict=True)]


# -- cases by hand ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("at", [4.0, 6.0])
def test_a_point_on_an_end_is_inside(rule, at):
    assert run([(0, at)], [(0, 4, 6, 0.5), (0, 1, 9, 0.4)], rule) == [(4, 6, 0.5)]


@pytest.mark.parametrize("rule", RULES)
def test_the_first_of_equal_scores_wins(rule):
    assert run([(0, 5)], [(0, 1, 9, 0.5), (0, 2, 8, 0.7), (0, 3, 7, 0.7)], rule) == [(2, 8, 0.7)]


@pytest.mark.parametrize("rule", RULES)
def test_groups_do_not_mix(rule):
    """Groups 0 and 1 are the two classes of one video, group 2 is the first class of another."""
    rows = [(1, 4, 6, 0.9), (0, 3, 7, 0.2), (2, 4.5, 5.5, 0.8)]
    assert run([(0, 5), (1, 5), (2, 5)], rows, rule, classes=2) == [(3, 7, 0.2), (4, 6, 0.9), (4.5, 5.5, 0.8)]


def test_a_proposal_over_several_points_is_cut_halfway_and_keeps_its_score():
    points, rows = [(0, 10), (0, 20), (0, 26), (0, 40)], [(0, 8, 30, 0.9), (0, 9, 11, 0.95), (0, 38, 41, 0.1)]
    ends = [(9, 11, 0.95), (15, 23, 0.9), (23, 30, 0.9), (38, 41, 0.1)]
    assert run(points, rows, "released") == ends
    assert run(points, rows, "midpoints") == ends


def test_midpoints_of_neighbours_outside_the_proposal():
    """The proposal around 10 ends short of the point 20, but beyond the midpoint."""
    points, rows = [(0, 10), (0, 20)], [(0, 8, 18, 0.9), (0, 12, 24, 0.8)]
    assert run(points, rows, "released") == [(8, 18, 0.9), (12, 24, 0.8)]
    assert run(points, rows, "midpoints") == [(8, 15, 0.9), (15, 24, 0.8)]


def test_the_paper_discards_proposals_over_several_points():
    points = [(0, 10), (0, 20), (0, 50)]
    rows = [(0, 8, 30, 0.9), (0, 9, 12, 0.3), (0, 49, 52, 0.2), (0, 1, 60, 0.5)]
    # Mean length (3 + 3) / 2 = 3 s; the point 20 is rescued by the best proposal around it, cut to 20 +- 1.5 s.
    assert run(points, rows, "paper") == [(9, 12, 0.3), (18.5, 21.5, 0.9), (49, 52, 0.2)]
    # A rescued one that is shorter than the window on one side keeps its end there.
    assert run(points, [(0, 19.5, 55, 0.9), *rows[1:3]], "paper")[1] == (19.5, 21.5, 0.9)


def test_the_paper_lets_a_rescued_window_serve_another_point():
    """The pooled pick: the window of 20 contains 21, whose own label scores less."""
    points, rows = [(0, 20), (0, 21), (0, 50)], [(0, 18, 30, 0.9), (0, 20.5, 22.5, 0.1), (0, 45, 55, 0.2)]
    assert run(points, rows, "paper") == [(18, 23, 0.9), (18, 23, 0.9), (45, 55, 0.2)]


def test_windows_of_the_mean_length():
    """Group 1 has no proposal. Candidates of the class: 4 s whole, and pieces of 5 s and 7 s; mean 16 / 3 s."""
    points, rows = [(0, 10), (0, 30), (0, 40), (1, 50)], [(0, 8, 12, 0.5), (0, 30, 42, 0.4)]
    half = 16 / 3 / 2
    assert run(points, rows, "released")[3] == (50 - half, 50 + half, 0)
    assert run(points, rows, "midpoints")[3] == (50 - half, 50 + half, 0)
    # The paper's statistic knows whole proposals over one point only; 30 and 40 are rescued.
    assert run(points, rows, "paper") == [(8, 12, 0.5), (30, 32, 0.4), (38, 42, 0.4), (48, 52, 0)]


def test_windows_begin_in_the_video():
    rows = [(0, 30, 40, 0.5)]
    assert run([(0, 35), (1, 2)], rows, "released")[1] == (0, 7, 0)
    assert run([(0, 35), (1, 98)], rows, "released")[1] == (93, 103, 0)
    assert run([(0, 35), (1, 98)], rows, "midpoints")[1] == (93, 100, 0)


def test_shared_windows():
    """Three windows of 10 s, all with score 0: the first that contains a point is its label, unless cut halfway."""
    points, rows = [(0, 35), (1, 20), (1, 24), (1, 26)], [(0, 30, 40, 0.5)]
    assert run(points, rows, "released")[1:] == [(15, 25, 0), (15, 25, 0), (19, 29, 0)]
    assert run(points, rows, "midpoints")[1:] == [(15, 22, 0), (22, 25, 0), (25, 31, 0)]


def test_a_window_beats_a_negative_score():
    """The published pool mixes windows with candidates; by default a point keeps to its own."""
    points, rows = [(0, 35), (1, 20), (1, 26)], [(0, 30, 40, 0.5), (1, 25, 27, -0.1)]
    half = (10 + 2) / 2 / 2
    assert run(points, rows, "released")[1:] == [(20 - half, 20 + half, 0), (25, 27, -0.1)]
    points = [(0, 35), (1, 23), (1, 26)]
    assert run(points, rows, "released")[1:] == [(20, 26, 0), (20, 26, 0)]
    assert run(points, rows, "midpoints")[1:] == [(20, 24.5, 0), (25, 27, -0.1)]


def test_a_class_without_candidates_takes_the_mean_of_all():
    points, rows = [(0, 35), (1, 60), (2, 50)], [(0, 30, 40, 0.5), (1, 59, 61, 0.1)]
    for rule in RULES:
        assert run(points, rows, rule, classes=3)[2] == (47, 53, 0)


def test_a_sliver_at_the_end_of_the_video_is_no_candidate():
    rows = [(0, 30, 40, 0.5), (1, 100, 104, 0.9)]
    assert run([(0, 35), (1, 100)], rows, "midpoints")[1] == (95, 100, 0)
    assert run([(0, 35), (1, 99.5)], [*rows, (1, 99, 104, 0.2)], "midpoints")[1] == (99, 100, 0.2)


def test_no_candidate_at_all():
    with pytest.raises(DataError, match="no proposal gives a candidate"):
        run([(0, 5)], [(0, 6, 7, 0.5)], "released")
    with pytest.raises(DataError, match="no proposal gives a candidate"):
        run([(0, 5), (0, 6)], [(0, 4, 7, 0.5)], "paper")
    assert run([(0, 5)], [(0, 5, 7, 0.5)], "paper") == [(5, 7, 0.5)]


def test_the_mean_does_not_depend_on_the_order():
    """Sums in order would differ in the last bits."""
    rng = np.random.default_rng(0)
    end = rng.random(1000) * 10.0 ** rng.integers(-3, 4, 1000)
    table = Grouped(rng.integers(0, 3, 1000), np.stack([np.zeros(1000), end], axis=1), np.zeros(1000))
    means = mean_lengths(table, 4)
    for _ in range(5):
        np.testing.assert_array_equal(mean_lengths(table.rows(rng.permutation(1000)), 4), means)
    np.testing.assert_allclose(means[:3], [end[table.group == c].mean() for c in range(3)])
    assert means[3] == math.fsum(end) / 1000


# -- plain loops -----------------------------------------------------------------------------------------------


half_seconds = st.integers(0, 60).map(lambda n: n / 2)
many_points = st.lists(st.tuples(st.integers(0, 3), half_seconds), min_size=1, max_size=14, unique=True)
many_proposals = st.lists(
    st.tuples(
        st.integers(0, 3), half_seconds, st.integers(1, 30).map(lambda n: n / 2), st.sampled_from([-0.5, 0, 0.3, 1])
    ),
    min_size=1,
    max_size=25,
)


@settings(deadline=None, max_examples=200)
@given(many_points, many_proposals, st.sampled_from(RULES))
def test_by_plain_loops(points, rows, rule):
    """Two videos of two classes; coordinates on a coarse grid, so that ties and points on ends are common."""
    rows = [(g, s, s + n, float(q)) for g, s, n, q in rows]
    expected = labels_by_loops(points, rows, rule, 2, 30.0)
    if expected is None:
        with pytest.raises(DataError):
            run(points, rows, rule, 2, 30.0)
    else:
        assert run(points, rows, rule, 2, 30.0) == expected


@settings(deadline=None)
@given(many_points, many_proposals)
def test_default_labels_hold_their_own_point_alone(points, rows):
    rows = [(g, s, s + n, float(q)) for g, s, n, q in rows]
    try:
        labels = run(points, rows, "midpoints", 2, 30.0)
    except DataError:
        return
    for (group, t), (start, end, _) in zip(sorted(points), labels, strict=True):
        assert 0 <= start <= t <= end <= 30
        assert not [u for g, u in points if g == group and u != t and start <= u <= end]


@given(many_points, many_proposals)
def test_pairs_by_a_loop(points, rows):
    points = sorted(points)
    group, at = (np.array(column) for column in zip(*points, strict=True))
    table = Grouped(*(np.array(x) for x in zip(*[(g, (s, s + n), q) for g, s, n, q in rows], strict=True)))
    expected = [
        (i, k) for i, (g, s, n, _) in enumerate(rows) for k, (h, t) in enumerate(points) if g == h and s <= t <= s + n
    ]
    found = pairs(GroupedPoints(group, at, at), table)
    assert list(zip(*(x.tolist() for x in found), strict=True)) == expected


# -- the stage -------------------------------------------------------------------------------------------------


SEGMENTS = [(v, c, 0.0, 1.0) for v in "abc" for c in ("jump", "run")]


def labelled(tmp_path, points, proposals, rule="midpoints", **more):
    """Rows of the stage from points (video, label, time) and proposals (video, start, end, label, score)."""
    data = annotated(tmp_path / "data", SEGMENTS, points, **more)
    engine = TinyEngine(data, 0, tmp_path)
    video, start, end, label, score = zip(*proposals, strict=True)
    artifact = engine.adopt(Segments.of(video, start, end, label, score), "proposals")
    found = PotlocLabeler(rule=rule).label(round_of(engine, proposals=artifact)).segments.segments()
    assert set(found.codes("source")[1]) <= {"potloc/label@0"}
    return [(r["video_id"], r["label"], r["point"], r["start"], r["end"], r["score"]) for r in found.rows()]


@pytest.mark.parametrize("rule", RULES)
def test_the_stage(tmp_path, rule):
    """Sorted by time in each video; repeated points merge; a video without proposals gets windows; scores are kept."""
    points = [("a", "run", 50.0), ("a", "jump", 50.0), ("a", "jump", 20.0), ("a", "run", 50.0), ("b", "jump", 99.0)]
    proposals = [("a", 18, 24, "jump", 1.2345678901234567), ("a", 49, 51, "run", -0.1), ("a", 48, 52, "jump", 0.1)]
    assert labelled(tmp_path, points, proposals, rule) == [
        ("a", "jump", 20.0, 18.0, 24.0, 1.2345678901234567),
        ("a", "jump", 50.0, 48.0, 52.0, 0.1),
        ("a", "run", 50.0, 49.0, 51.0, -0.1),
        ("b", "jump", 99.0, 96.5, 100.0, 0.0),  # the mean is 5 s, the video ends
    ]


def test_other_videos_do_not_count(tmp_path):
    """Neither those of another role nor unknown ones enter the mean length."""
    points = [("a", "run", 50.0), ("b", "run", 50.0), ("c", "run", 50.0)]
    proposals = [("a", 49, 51, "run", 0.5), ("c", 10, 90, "run", 0.5), ("elsewhere", 10, 90, "run", 0.5)]
    rows = labelled(tmp_path, points, proposals, roles={"c": "test"})
    assert rows == [("a", "run", 50.0, 49.0, 51.0, 0.5), ("b", "run", 50.0, 49.0, 51.0, 0.0)]


def test_nothing_to_label_and_nothing_to_label_with(tmp_path):
    data = annotated(tmp_path / "data", SEGMENTS, [("a", "run", 5.0)])
    artifact = Artifact("-", tmp_path)
    context = Context(data, {"proposals": artifact}, ["a", "b"], 0)
    Segments.empty().to_parquet(tmp_path / "segments.parquet")
    with pytest.raises(DataError, match=rf"{tmp_path}: no proposal gives a candidate for any point"):
        PotlocLabels(PotlocLabeler()).open(context)
    Segments.of("b", 1.0, 2.0, "flying").to_parquet(tmp_path / "segments.parquet")
    with pytest.raises(DataError, match=r"proposals of classes that .* does not have: flying"):
        PotlocLabels(PotlocLabeler()).open(context)
    Segments.of("b", 1.0, 2.0, "run").to_parquet(tmp_path / "segments.parquet")
    with pytest.raises(DataError, match="no proposal gives a candidate"):
        PotlocLabels(PotlocLabeler()).open(context)
    assert len(PotlocLabels(PotlocLabeler()).open(Context(data, {"proposals": artifact}, ["b"], 0))("b")) == 0


def test_unknown_rules_are_refused():
    with pytest.raises(ValidationError, match="'midpoints', 'released' or 'paper'"):
        PotlocLabeler(rule="pooled")


# -- real data -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thumos(tmp_path_factory):
    """The THUMOS14 annotations as a dataset; no features."""
    folder = tmp_path_factory.mktemp("thumos") / "data"
    import_hrpro(shared_path("data", "thumos14"), folder)
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def proposals(thumos, tmp_path_factory):
    """The proposals of POTLoc's base model, as an artifact."""
    folder = tmp_path_factory.mktemp("proposals")
    Segments.from_file(shared_path("data", "potloc", "base_proposals.json")).to_parquet(folder / "segments.parquet")
    return Artifact("-", folder)


def opened(thumos, artifact, rule):
    videos = thumos.videos("train")
    label = PotlocLabels(PotlocLabeler(rule=rule)).open(Context(thumos, {"proposals": artifact}, videos, 0))
    return Segments.concat(label(video) for video in videos)


def by_video(document):
    """Rows (label, point, score, start, end) of each video, sorted; exact numbers."""
    return {
        video: sorted((r["label"], r["point"], r["score"], *r["segment"]) for r in rows)
        for video, rows in document["results"].items()
    }


def test_the_published_labels_to_the_bit(thumos, proposals):
    published = by_video(json.loads(shared_path("data", "potloc", "PL_dict.json").read_text()))
    assert sum(map(len, published.values())) == 3003
    assert by_video(opened(thumos, proposals, "released").to_results_json()) == published


@pytest.mark.parametrize(
    ("rule", "mean", "shares", "same"),
    [
        ("released", 0.6278, [0.924, 0.735, 0.423], 3003),
        ("paper", 0.6084, [0.904, 0.704, 0.392], 2211),
        ("midpoints", 0.6317, [0.925, 0.742, 0.429], None),
    ],
)
def test_quality_on_real_proposals(thumos, proposals, rule, mean, shares, same):
    """Ground truth is read to measure only."""
    labels = opened(thumos, proposals, rule)
    quality = label_quality(labels, thumos).to_json()
    assert (len(labels), quality["missing"]) == (3003, 0)
    assert quality["mean_tiou"] == pytest.approx(mean, abs=5e-5)
    assert list(quality["share"].values()) == pytest.approx(shares, abs=6e-4)
    if same is not None:
        published = by_video(json.loads(shared_path("data", "potloc", "PL_dict.json").read_text()))
        found = by_video(labels.to_results_json())
        assert sum(len(set(rows) & set(published[video])) for video, rows in found.items()) == same


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_the_videos_in_the_file_does_not_matter(thumos, proposals, rule, tmp_path):
    parts = list(proposals.segments().by_video().values())
    np.random.default_rng(0).shuffle(parts)
    Segments.concat(parts).to_parquet(tmp_path / "segments.parquet")
    shuffled = Artifact("-", tmp_path)
    assert opened(thumos, shuffled, rule).digest() == opened(thumos, proposals, rule).digest()


def test_the_command(tmp_path, monkeypatch):
    """`tad import`, `tad label potloc`: the file that POTLoc's authors made."""
    monkeypatch.chdir(tmp_path)

    def tad(*arguments):
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        return ended.value.code

    assert tad("import", "hrpro", shared_path("data", "thumos14"), "thumos14") == 0
    more = ("--data", "thumos14", "--proposals", shared_path("data", "potloc", "base_proposals.json"), "--local")
    assert tad("label", "potloc", *more, "--set", "rule=released", "--out", "labels.json", "--store", "store") == 0
    document = json.loads((tmp_path / "labels.json").read_text())
    assert by_video(document) == by_video(json.loads(shared_path("data", "potloc", "PL_dict.json").read_text()))
    for rows in document["results"].values():
        assert [r["point"] for r in rows] == sorted(r["point"] for r in rows)
    assert tad("label", "potloc", *more, "--set", "rule=pooled", "--out", "labels.json", "--store", "store") == 1
