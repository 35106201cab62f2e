"""Cross-fitted boundaries: labels kept apart, the search against one by hand, folds, and the whole of it."""

from __future__ import annotations

import shutil
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.cli import tad
from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.methods.pser import raters
from tad.methods.pser.apart import apart, chains
from tad.methods.pser.boundaries import LENGTH_SPREAD, best, between_rows, holding, own_rows, votes
from tad.methods.pser.labeler import PserLabeler
from tad.methods.pser.raters import raters_of
from tad.methods.pser.rows import fold_of
from tad.ops.iou import paired_tiou
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, adopted, tiny_dataset

CLASSES = ("a", "b")


def labels_of(*rows: tuple[float, float, str, float]) -> Segments:
    start, end, label, point = zip(*rows, strict=True)
    return Segments.of("v", list(start), list(end), list(label), 1.0, list(point))


# -- apart ---------------------------------------------------------------------------------------------------------


def test_a_label_that_reaches_a_neighbours_point_ends_halfway_to_it():
    found = apart(labels_of((0, 9, "a", 2), (5, 8, "b", 6)), CLASSES)
    assert found.spans.tolist() == [[0, 4], [5, 8]] and found.time.tolist() == [2, 6]


def test_two_that_overlap_get_half_each():
    assert apart(labels_of((4, 9, "a", 8), (0, 6, "b", 1)), CLASSES).spans.tolist() == [[0, 5], [5, 9]]


def test_two_names_of_one_stretch_stay_whole():
    found = apart(labels_of((0, 9, "a", 4), (1, 9, "b", 5)), CLASSES)
    assert found.spans.tolist() == [[0, 9], [1, 9]] and found.chain.tolist() == [0, 1]
    same = apart(labels_of((0, 9, "a", 4), (1, 9, "a", 5)), CLASSES)  # two actions of a class are never at once
    assert same.chain.tolist() == [0, 0] and same.spans[0, 1] == same.spans[1, 0] == 4.5


def test_three_at_once_are_three_chains():
    spans, time = np.array([[0.0, 9.0]] * 3), np.array([3.0, 4.0, 5.0])
    assert chains(spans, time, np.array([0, 1, 2])).tolist() == [0, 1, 2]


rows = st.lists(st.tuples(st.integers(0, 60), st.integers(1, 20), st.sampled_from(CLASSES)), min_size=1, max_size=8)


@given(rows)
def test_apart_keeps_points_inside_and_leaves_no_overlap(drawn):
    points = [(max(0.0, t - n / 2), t + n / 2, label, float(t)) for t, n, label in dict.fromkeys(drawn)]
    unique = {(p[2], p[3]): p for p in points}
    found = apart(labels_of(*unique.values()), CLASSES)
    assert ((found.spans[:, 0] <= found.time) & (found.time <= found.spans[:, 1])).all()
    for number in set(found.chain.tolist()):
        mine = found.spans[found.chain == number]
        assert (mine[1:, 0] >= mine[:-1, 1] - 1e-9).all()


# -- the search of boundaries ---------------------------------------------------------------------------------------


def by_hand(gain, points, log_length, length_weight):
    """Every set of segments, one after the other."""
    rows, ends = gain.shape[1], [*points[1:], None]
    starts = [0, *(p + 1 for p in points[:-1])]
    own = [
        [(s, e) for s in range(first, p + 1) for e in range(p + 1, (rows if end is None else end) + 1)]
        for p, first, end in zip(points, starts, ends, strict=True)
    ]
    top, found = -np.inf, None
    for one in product(*own):
        if any(b[0] < a[1] for a, b in pairwise(one)):
            continue
        total = 0.0
        for g, (s, e) in enumerate(one):
            total += gain[g, s:e].sum()
            total -= length_weight / 2 * ((np.log(e - s) - log_length[g]) / LENGTH_SPREAD) ** 2
        if total > top + 1e-12:
            top, found = total, one
    return top, np.array(found)


@settings(deadline=None)  # the first call compiles
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.5, 2.0]))
def test_best_equals_a_search_of_all(seed, length_weight):
    rng = np.random.default_rng(seed)
    count, rows = int(rng.integers(1, 4)), 9
    points = np.sort(rng.choice(rows, count, replace=False))
    gain, log_length = rng.normal(size=(count, rows)), np.log(rng.uniform(1, 5, count))
    found = best(gain, points, log_length, length_weight)
    _, expected = by_hand(gain, points, log_length, length_weight)
    assert found.tolist() == expected.tolist()


def test_a_clear_action_gets_its_rows_and_the_ends_lie_between_rows():
    gain = np.array([[-3.0, -3, -1, 3, 3, 3, -3, -3]])
    edges = best(gain, np.array([4]), np.log([3.0]), 0.0)
    assert edges.tolist() == [[3, 6]]
    # Centres of rows 2 and 3 are at edges 2.5 and 3.5, with log odds -1 and 3: zero at 2.75; between 5 and 6: at 6.
    assert between_rows(edges, gain).tolist() == [[2.75, 6.0]]


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(-20, 20), st.integers(-20, 20)), min_size=1, max_size=6))
def test_labels_hold_their_points_and_none_lies_over_another(drawn):
    """Points as far apart as rows, edges that were moved by up to half a row."""
    time = np.cumsum([gap for gap, _, _ in drawn]).astype(float)
    spans = np.sort(time[:, None] + np.array([moved for _, *moved in drawn]) / 40, axis=1)
    found = holding(spans, time, 0.5)
    assert (found[:, 0] <= time).all() and (time <= found[:, 1]).all()
    assert (found[:-1, 1] <= found[1:, 0] + 1e-12).all()
    assert (found[:, 1] - found[:, 0] >= 0.25).all()


def test_points_of_one_row_get_a_row_each():
    assert own_rows(np.array([3, 3, 3]), 10).tolist() == [3, 4, 5]
    assert own_rows(np.array([9, 9]), 10).tolist() == [8, 9]
    assert own_rows(np.array([0, 5, 6]), 10).tolist() == [0, 5, 6]


# -- folds and models -----------------------------------------------------------------------------------------------


def test_neighbours_in_the_list_share_a_fold_and_strangers_have_none():
    videos = [f"v{i}" for i in range(6)]
    assert [fold_of(v, videos, 3) for v in videos] == [0, 0, 1, 1, 2, 2]
    assert fold_of("other", videos, 3) is None and fold_of("v", [], 3) is None


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cross-fitted")
    tiny_dataset(folder / "whole", videos=8, classes=2, dim=8)
    tad.main(["split", str(folder / "whole"), "--dev", "0.25", "--out", str(folder / "data")], standalone_mode=False)
    return Dataset.open(folder / "data")


def proposals_of(data, *roles):
    rng = np.random.default_rng(0)
    return [
        (v, max(0.0, t - rng.uniform(0.5, 3)), t + rng.uniform(0.5, 3), data.classes[c], 0.5)
        for role in roles
        for v in data.videos(role)
        for t, c in zip(*data.points(v), strict=True)
    ]


# -- whether rows are believed ---------------------------------------------------------------------------------------


def actions(log_length, video="v"):
    """One label of each action, around its point, and of the class of its parity."""
    time = np.arange(1, len(log_length) + 1) * 100.0
    half = np.exp(log_length) / 2
    return Segments.of(video, time - half, time + half, ["ab"[i % 2] for i in range(len(time))], 1.0, time)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**32 - 1), st.sampled_from([0.05, 0.2]), st.sampled_from([0.05, 0.1, 0.6]))
def test_the_noise_of_both_raters_is_found_without_the_truth(seed, first, second):
    rng = np.random.default_rng(seed)
    true = rng.normal(1.0, 0.3, 4000) + 0.4 * (np.arange(4000) % 2)  # classes have lengths of their own
    seeds, rows = actions(true + rng.normal(0.2, first, 4000)), actions(true + rng.normal(0, second, 4000))
    seeds = seeds.replace(video_id=["v", "w"] * 2000)
    rows = rows.replace(video_id=["v", "w"] * 2000)
    order = rng.permutation(4000)[:3900]  # rows of another order, and some are missing
    found = raters_of(seeds, rows.take(order), CLASSES)
    assert found.seeds == pytest.approx(first**2, abs=0.03) and found.rows == pytest.approx(second**2, abs=0.13)
    assert found.ratio == pytest.approx(np.exp(-0.2), rel=0.05)
    assert found.believed == (second < 0.5)


def test_rows_as_noisy_as_the_seeds_are_believed():
    rng = np.random.default_rng(0)
    true = rng.normal(1.0, 0.3, 2000)
    seeds, rows = (
        actions(true + rng.normal(0, 0.45, 2000)).replace(video_id=["v", "w"] * 1000) for _ in ("seeds", "rows")
    )
    exact = actions(true).replace(video_id=["v", "w"] * 1000)
    assert raters_of(seeds, rows, CLASSES).believed and not raters_of(exact, rows, CLASSES).believed


def test_what_is_not_believed_says_why():
    rng = np.random.default_rng(0)
    seeds = actions(rng.normal(1.0, 0.3, 100)).replace(video_id=["v", "w"] * 50)
    assert raters_of(seeds, seeds, CLASSES).believed
    short = seeds.replace(start=seeds.point - 0.1, end=seeds.point + 0.1)
    assert "times as long" in raters_of(seeds, short, CLASSES).doubt  # a constant length has no noise
    noisy = seeds.replace(end=seeds.point + np.exp(rng.normal(0.5, 1.6, 100)))
    assert "too noisy" in raters_of(seeds, noisy, CLASSES).doubt
    assert "of 0 labels" in raters_of(seeds, Segments.empty(), CLASSES).doubt
    assert "of 0 labels" in raters_of(seeds.take(np.arange(2)), seeds.take(np.arange(2)), CLASSES).doubt
    alone = seeds.replace(video_id="v")
    assert "of 0 labels" in raters_of(alone, alone, CLASSES).doubt  # one video: models saw its own rows


# -- the whole of it ------------------------------------------------------------------------------------------------


def test_votes_are_one_over_the_rows_of_a_label_for_its_own_and_against_all_others():
    grid = SnippetGrid(fps=1, stride=1, window=1, length=6)
    found = votes(np.array([[1.0, 3.0], [4.2, 4.4]]), grid)
    assert found.tolist() == [[-0.5, 0.5, 0.5, -0.5, -0.5, -0.5], [-1] * 6]


def test_one_label_for_every_point_also_of_dev_videos(data, tmp_path, monkeypatch):
    monkeypatch.setattr(raters, "MORE", np.inf)  # a few generated videos: rows would not be believed
    monkeypatch.setattr(raters, "SHRUNK", np.inf)
    engine = TinyEngine(data, 0, tmp_path)
    proposals = adopted(engine, proposals_of(data, "train", "dev"))
    labeler, found = PserLabeler(), {}
    for role in ("train", "dev"):
        round = round_of(engine, role, proposals=proposals, known=True)
        labels = labeler.label(round).segments.segments()
        assert list(zip(labels.video_ids, labels.point, strict=True)) == [
            (v, t) for v in data.videos(role) for t in data.points(v).time
        ]
        assert ((labels.start <= labels.point) & (labels.point <= labels.end)).all()
        assert ((labels.score > 0) & (labels.score <= 1)).all()
        assert (labels.end <= [data.duration(v) for v in labels.video_ids]).all() and (labels.start >= 0).all()
        found[role] = labels
    seeds = labeler.seeds(round_of(engine, proposals=proposals)).segments()
    assert (paired_tiou(found["train"].spans, seeds.spans) < 0.999).any(), "labels are not just the seeds"
    other = TinyEngine(data, 0, tmp_path / "again")
    again = labeler.label(round_of(other, proposals=adopted(other, proposals_of(data, "train", "dev"))))
    assert again.segments.segments().table.equals(found["train"].table), "the same input gives the same labels"


def test_seeds_stay_where_rows_are_not_believed(data, tmp_path):
    shutil.copytree(data.root, tmp_path / "data")
    for number, video in enumerate(data.videos("train")):  # features of nothing
        rows = np.random.default_rng(number).normal(size=data.features(video).shape)
        np.save(tmp_path / "data" / "features" / f"{video}.npy", rows.astype(np.float32))
    nothing = Dataset.open(tmp_path / "data")
    engine, labeler = TinyEngine(nothing, 0, tmp_path), PserLabeler(cross_fitting={"boundaries": {"vote": 0.0}})
    round = round_of(engine, proposals=adopted(engine, proposals_of(nothing, "train")))
    labels = labeler.label(round)
    assert labels.segments.segments().table.equals(labeler.seeds(round).segments().table)
    assert "seeds stay as they are: lengths by rows are too noisy" in labels.note()
