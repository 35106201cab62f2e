"""Labeler `points`: worlds in which the answer is known, real data, edge cases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from benchmarks.references import simple_labelers as rules
from benchmarks.references.point_protocols import labelled, protocols, pseudo_labels
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.quality_by_point import label_quality
from tad.methods.points.labeler import PointsLabeler, PointsLabels, learned_labels
from tad.methods.points.model import Constants, Grid, PointModel
from tad.methods.potloc.labeler import Grouped, GroupedPoints
from tad.ops.iou import paired_tiou, tiou
from tad.prepare.import_hrpro import import_hrpro
from tad.stages import Artifact, Context
from tests.support.annotated import annotated
from tests.support.rounds import round_of
from tests.support.shared import shared_path
from tests.support.tiny import TinyEngine

CLASSES = 2
UNBIASED = Constants(compression=1.0)
EVERY = 40.0
"""Seconds from one instance of an invented world to the next."""


def world(position, videos=60, instances=5, noise=0.1, error=0.05, spread=0.4, scale=1.0, lag=0.0, seed=0):
    """An invented world: instances of about 3 s (class 0) or 12 s (class 1), with one proposal each.

    Args:
        position: draws the places of points in their instances, given a generator and a number.
        videos: their number; instances: how many each has.
        noise: spread of the proposals' log lengths; error: of their centres, in lengths; lag: all are early by it.
        spread: of the instances' log lengths.
        scale: length of the proposals of every seventh instance, as a share of the others'.

    Returns:
        GroupedPoints, Grouped, and the true segments.
    """
    rng = np.random.default_rng(seed)
    video = np.repeat(np.arange(videos), instances)
    count = len(video)
    length = np.exp(rng.normal(np.where(video % CLASSES, np.log(12.0), np.log(3.0)), spread))
    start = 20 + np.tile(np.arange(instances), videos) * EVERY + rng.uniform(0, 5, count)
    truth = np.stack([start, start + length], axis=1)
    seen = length * np.exp(rng.normal(0, noise, count)) * np.where(np.arange(count) % 7 == 3, scale, 1.0)
    centre = truth.mean(axis=1) + rng.normal(0, error, count) * length - lag
    spans = np.stack([centre - seen / 2, centre + seen / 2], axis=1)
    group, duration = video * CLASSES + video % CLASSES, np.full(count, instances * EVERY + 40)
    points = GroupedPoints(group, start + position(rng, count) * length, duration)
    return points, Grouped(group, spans, np.full(count, 0.8)), truth


def length(spans):
    return spans[:, 1] - spans[:, 0]


def central(rng, count):
    return rng.normal(0.5, 0.02, count)


def early(rng, count):
    return rng.beta(3, 9, count)


def anywhere(rng, count):
    return rng.uniform(0, 1, count)


def quality(spans, truth):
    return paired_tiou(spans, truth).mean()


def test_central_points_draw_labels_to_themselves():
    points, proposals, truth = world(central, error=0.15)
    labels = PointModel(points, proposals, CLASSES, UNBIASED).label()
    assert quality(labels.spans, truth) > quality(proposals.spans, truth) + 0.08
    off = np.abs(labels.spans.mean(axis=1) - points.time) / length(labels.spans)
    assert np.median(off) < 0.03 < np.median(np.abs(proposals.spans.mean(axis=1) - points.time) / length(truth))
    assert labels.positions[8:12].sum() > 0.7, "flat: 0.2"


def test_points_anywhere_leave_good_proposals_alone():
    points, proposals, truth = world(anywhere)
    labels = PointModel(points, proposals, CLASSES, UNBIASED).label()
    assert paired_tiou(labels.spans, proposals.spans).mean() > 0.85
    assert quality(labels.spans, truth) > quality(proposals.spans, truth) - 0.05
    centred = proposals.spans + (points.time - proposals.spans.mean(axis=1))[:, None]
    assert quality(labels.spans, truth) > quality(centred, truth) + 0.2
    assert labels.positions.max() < 0.1, "the learned positions are about flat"


@pytest.mark.parametrize(("draw", "mean"), [(early, 0.25), (anywhere, 0.5), (central, 0.5)])
def test_positions_are_found(draw, mean):
    points, proposals, _ = world(draw)
    labels = PointModel(points, proposals, CLASSES, UNBIASED).label()
    assert labels.positions @ Grid.around(1, 1, 20).position == pytest.approx(mean, abs=0.04)


@pytest.mark.parametrize("scale", [0.3, 4.0])
def test_other_instances_correct_a_length(scale):
    """Every seventh proposal has a wrong length; those of the same class and video tell."""
    points, proposals, truth = world(central, scale=scale, spread=0.1)
    wrong = np.arange(len(truth)) % 7 == 3
    spans = PointModel(points, proposals, CLASSES, Constants(compression=1.0, spread=0.2)).label().spans
    before = np.abs(np.log(length(proposals.spans[wrong]) / length(truth[wrong])))
    after = np.abs(np.log(length(spans[wrong]) / length(truth[wrong])))
    assert after.mean() < 0.6 * before.mean()
    assert quality(spans[wrong], truth[wrong]) > quality(proposals.spans[wrong], truth[wrong]) + 0.1


def test_compression_is_undone():
    """Proposals too long where actions are short, too short where they are long."""
    points, proposals, truth = world(central)
    middle = np.exp(np.log(length(truth)).mean())
    half = 0.5 * middle * (length(proposals.spans) / middle) ** 0.6
    centre = proposals.spans.mean(axis=1)
    squeezed = proposals._replace(spans=np.stack([centre - half, centre + half], axis=1))
    spans = {c: PointModel(points, squeezed, CLASSES, Constants(compression=c)).label().spans for c in (0.6, 1.0)}
    assert quality(spans[0.6], truth) > quality(spans[1.0], truth) + 0.03 > quality(squeezed.spans, truth) + 0.03


@pytest.mark.parametrize("lag", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("draw", [early, anywhere, central])
def test_the_lag_of_proposals_is_found(draw, lag):
    points, proposals, truth = world(draw, lag=lag, videos=100)
    labels = PointModel(points, proposals, CLASSES, UNBIASED).label()
    assert labels.lag == pytest.approx(lag, abs=0.2)
    if lag:
        assert quality(labels.spans, truth) > quality(proposals.spans, truth) + 0.04


def test_a_few_points_move_no_clock():
    points, proposals, _ = world(early, videos=2, lag=1.0)
    assert abs(PointModel(points, proposals, CLASSES, UNBIASED).label().lag) < 0.3


def test_score_is_the_expected_tiou():
    points, proposals, truth = world(anywhere, noise=0.3, error=0.12)
    labels = PointModel(points, proposals, CLASSES, UNBIASED).label()
    assert labels.scores.mean() == pytest.approx(quality(labels.spans, truth), abs=0.08)
    assert ((labels.scores > 0) & (labels.scores <= 1)).all()


def test_overlaps_of_the_grid():
    grid = Grid.around(3.0, 0.5, 5)
    length = np.repeat(np.exp(grid.log_length), 5)
    start = -np.tile(grid.position, len(grid.log_length)) * length
    spans = np.stack([start, start + length], axis=1)
    np.testing.assert_allclose(grid.overlaps(), tiou(spans, spans), rtol=1e-5)


def test_neighbours_are_cut_where_equal_segments_would_meet():
    points, proposals, _ = world(early)
    model = PointModel(points, proposals, CLASSES, UNBIASED)
    around = model.around(0.25, 0.0)
    same = np.diff(points.group) == 0
    np.testing.assert_allclose(around.territory[:-1, 1][same], around.territory[1:, 0][same])
    gap = np.diff(points.time)[same]
    np.testing.assert_allclose(around.territory[:-1, 1][same] - points.time[:-1][same], 0.75 * gap)
    spans = model.label().spans
    assert (spans[:-1, 1][same] <= spans[1:, 0][same] + 1e-9).all(), "labels of a group do not overlap"


# -- the stage ---------------------------------------------------------------------------------------------------------


def adopted(folder, rows):
    """Proposals from rows (video, start, end, label, score)."""
    folder.mkdir()
    columns = [list(c) for c in zip(*rows, strict=True)] or [[]] * 5
    Segments.of(*columns).to_parquet(folder / "segments.parquet")
    return Artifact("proposals", folder)


def labels_of(data, proposals, videos=None, labeler=None):
    videos = videos or data.videos("train")
    function = PointsLabels(labeler or PointsLabeler()).open(
        Context(data, {"proposals": proposals}, videos, 0, "here@0")
    )
    return Segments.concat(function(v) for v in videos)


SEGMENTS = [(v, "run", float(s), s + 6.0) for v in "abcd" for s in (10, 40, 70)] + [("a", "jump", 20.0, 22.0)]


def case(folder, points, rows):
    return annotated(folder / "data", SEGMENTS, points), adopted(folder / "proposals", rows)


def check(data, found):
    """One label per distinct point, inside the video, holding its point."""
    want = {(v, data.classes[c], t) for v in data.videos("train") for t, c in zip(*data.points(v), strict=True)}
    have = list(zip(found.video_ids, found.labels, found.point.tolist(), strict=True))
    assert set(have) == want and len(have) == len(want)
    assert (found.start >= 0).all() and (found.end <= 100).all() and (found.end - found.start >= 9e-4).all()
    assert (found.start <= found.point + 1e-3).all() and (found.point <= found.end + 1e-3).all()
    assert np.isfinite(found.score).all() and (found.score <= 1).all()


ROWS = [(v, s - 0.5, s + 6.5, "run", 0.9) for v in "abcd" for s in (10, 40, 70)]


def test_points_without_proposals_get_the_learned_length(tmp_path):
    points = [(v, "run", s + 3.0) for v in "abc" for s in (10.0, 40.0, 70.0)] + [
        ("d", "run", 50.0),
        ("a", "jump", 21.0),
    ]
    data, proposals = case(tmp_path, points, [r for r in ROWS if r[0] != "d"])
    found = labels_of(data, proposals)
    check(data, found)
    length = (found.end - found.start)[
        [v == "d" or c == "jump" for v, c in zip(found.video_ids, found.labels, strict=True)]
    ]
    assert len(length) == 2 and ((length > 4) & (length < 11)).all()


@pytest.mark.parametrize(
    "points",
    [
        [("a", "run", 13.0)],
        [("a", "run", 13.0), ("a", "run", 13.0), ("a", "jump", 13.0)],
        [("a", "run", 0.0), ("a", "run", 100.0), ("b", "run", 99.9999)],
        [("a", "run", 13.0), ("a", "run", 13.0001), ("a", "run", 13.0002)],
        [("a", "run", 13.0), ("a", "run", 13.0000001)],
        [("a", "run", float(t)) for t in range(10, 17)],
    ],
    ids=["one", "duplicates", "ends of the video", "crowded", "nearly the same", "seven in one proposal"],
)
@pytest.mark.parametrize("rows", [ROWS, [], [("a", 0.0, 100.0, "run", 5.0), ("a", 12.9995, 13.0, "run", -3.0)]])
def test_edge_cases(tmp_path, points, rows):
    data, proposals = case(tmp_path, points, rows)
    check(data, labels_of(data, proposals))


def test_no_points(tmp_path):
    data, proposals = case(tmp_path, [], ROWS)
    assert len(labels_of(data, proposals)) == 0


def test_foreign_proposals_are_refused(tmp_path):
    data, proposals = case(tmp_path, [("a", "run", 13.0)], [("a", 1.0, 2.0, "Flying", 0.5)])
    with pytest.raises(DataError, match=r"classes that .* does not have: Flying"):
        labels_of(data, proposals)


def test_options():
    assert PointsLabeler.model_validate({"method": "points", "spread": 0.5}).spread == 0.5
    for wrong in ({"spread": 0.0}, {"centre_noise": 0.0}, {"sharpness": -1.0}):
        with pytest.raises(ValidationError):
            PointsLabeler(**wrong)


times = st.lists(st.floats(0, 100), min_size=1, max_size=8)
proposed = st.lists(st.tuples(st.floats(0, 99), st.floats(0.01, 100), st.floats(-2, 2)), max_size=8)


@settings(max_examples=60, deadline=None)
@given(times, proposed, st.floats(0, 20), st.floats(0.05, 3), st.floats(0.01, 2), st.floats(0.2, 2))
def test_any_world_gets_valid_labels(time, rows, sharpness, noise, centre, compression):
    time = np.unique(time)
    start, length, score = np.array(rows, dtype=float).reshape(-1, 3).T
    spans = np.stack([start, np.minimum(start + length, 100.0)], axis=1)
    points = GroupedPoints(np.zeros(len(time), np.int64), time, np.full(len(time), 100.0))
    proposals = Grouped(np.zeros(len(score), np.int64), spans, score)
    constants = Constants(
        sharpness=sharpness, length_noise=noise, centre_noise=centre, compression=compression, spread=noise
    )
    labels = PointModel(points, proposals, 1, constants).label()
    assert np.isfinite(labels.spans).all() and np.isfinite(labels.scores).all() and np.isfinite(labels.lag)
    assert (labels.spans[:, 0] <= time).all() and (labels.spans[:, 1] >= time).all()
    assert (labels.spans[1:, 0] >= labels.spans[:-1, 1] - 1e-9).all()


# -- real data ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    import_hrpro(shared_path("data", "thumos14"), folder / "data", features="none")
    (folder / "proposals").mkdir()
    proposals = Segments.from_file(shared_path("data", "potloc", "base_proposals.json"))
    proposals.to_parquet(folder / "proposals" / "segments.parquet")
    return Dataset.open(folder / "data"), Artifact("proposals", folder / "proposals")


def test_quality_on_real_proposals(real):
    """Ground truth is read to measure only. POTLoc's rule has mean tIoU .628, and .693 once centred on these points."""
    data, proposals = real
    document = label_quality(labels_of(data, proposals), data).to_json()
    assert (document["points"], document["missing"]) == (3003, 0)
    assert document["mean_tiou"] > 0.72 and document["share"]["0.5"] > 0.84


def test_real_points_are_found_to_be_central_and_proposals_to_be_early(real):
    """The points are at .475; the released proposals are 0.28 s early by construction."""
    data, proposals = real
    _, labels = learned_labels(PointsLabeler(), Context(data, {"proposals": proposals}, data.videos("train"), 0))
    assert labels.positions[7:12].sum() > 0.8, "flat: 0.25"
    assert labels.lag == pytest.approx(0.28, abs=0.08)


def test_benchmark_rows_are_those_of_the_reference(shared, tmp_path):
    kinds = protocols(shared("data").parent, tmp_path)
    released, human = next(kinds), next(kinds)
    for rule, mean in (
        (rules.highest, 0.5051),
        (rules.highest_cut, 0.6312),
        (rules.released_labels, 0.6278),
        (rules.later, 0.6507),
        (rules.gaussian_fusion, 0.5998),
        (rules.recentred_cut, 0.6931),
        (rules.oracle_proposal, 0.7107),
        (rules.oracle_bag, 0.8724),
    ):
        assert np.nan_to_num(paired_tiou(rule(released), released.truth)).mean() == pytest.approx(mean, abs=6e-5)
    scored = ~np.isnan(human.truth[:, 0])
    assert (len(scored), (~scored).sum()) == (2980, 121)
    found = pseudo_labels(human, PointsLabeler(), tmp_path / "labels")
    mean = paired_tiou(labelled(human, found)[scored], human.truth[scored]).mean()
    assert mean == pytest.approx(label_quality(found, human.data).to_json()["mean_tiou"])
    assert mean > 0.69


def test_labels_do_not_depend_on_the_order_of_videos_or_rows(real, tmp_path):
    data, proposals = real
    videos = data.videos("train")
    once = labels_of(data, proposals)
    assert labels_of(data, proposals).table.equals(once.table), "deterministic"
    rows = proposals.segments()
    mixed = rows.take(np.random.default_rng(0).permutation(len(rows)))
    mixed.to_parquet(tmp_path / "segments.parquet")
    other = labels_of(data, Artifact("mixed", tmp_path), videos[::-1]).by_video()
    other = Segments.concat(other[v] for v in videos)
    assert other.video_ids == once.video_ids and other.labels == once.labels
    np.testing.assert_array_equal(other.point, once.point)
    np.testing.assert_allclose(other.score, once.score, atol=1e-5)
    same = np.isclose(other.spans, once.spans, atol=1e-6).all(axis=1)
    assert same.mean() > 0.999, "rounding may break a tie of the grid"


def test_the_engine_gives_what_the_stage_gives(tmp_path):
    points = [(v, "run", s + 3.0) for v in "abcd" for s in (10.0, 40.0, 70.0)]
    data, proposals = case(tmp_path, points, ROWS)
    engine, labeler = TinyEngine(data, 0, tmp_path), PointsLabeler()
    round = round_of(engine, proposals=engine.adopt(proposals.segments(), "proposals"))
    artifact = labeler.label(round).segments
    found = artifact.segments()
    np.testing.assert_array_equal(found.spans, labels_of(data, proposals).spans)
    assert set(found.table.column("source").to_pylist()) == {"points/label@0"}
    assert labeler.seeds(round) == artifact
