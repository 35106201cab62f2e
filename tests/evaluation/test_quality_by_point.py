"""Pseudo-label quality: real pseudo-labels on THUMOS14, hand-made cases, properties."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.commands.evaluate import quality as command
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.quality_by_point import instance_of, label_quality, row_of
from tad.prepare.import_hrpro import import_hrpro
from tests.support.annotated import annotated

SEGMENTS = [("a", "run", 10.0, 20.0), ("a", "run", 30.0, 40.0), ("a", "jump", 12.0, 13.0), ("b", "run", 0.0, 30.0)]
POINTS = [("a", "run", 15.0), ("a", "run", 35.0), ("a", "jump", 12.5), ("b", "run", 10.0)]


def labels(*rows: tuple[str, str, float, float, float | None]) -> Segments:
    """Pseudo-labels from (video, label, start, end, point)."""
    video, label, start, end, point = zip(*rows, strict=True)
    return Segments.of(video, start, end, label, 0.5, [np.nan if p is None else p for p in point])


def test_potloc_labels(shared, tmp_path):
    """The published pseudo-labels on real points: the numbers of reference/pseudo_label_quality.md."""
    import_hrpro(shared("data", "thumos14"), tmp_path / "data", features="none")
    path = shared("data", "potloc", "PL_dict.json")
    arguments = [str(path), "--data", str(tmp_path / "data"), "--subset", "train", "--json", str(tmp_path / "q.json")]
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0 and "0.628 92.4 % 73.5 % 42.3 %" in " ".join(result.output.split())
    document = json.loads((tmp_path / "q.json").read_text())
    assert (document["points"], document["missing"], document["outside"]) == (3003, 0, 0)
    assert document["mean_tiou"] == pytest.approx(0.6278, abs=5e-5)
    assert list(document["share"].values()) == pytest.approx([0.924, 0.735, 0.423], abs=5e-4)
    assert document["log2_length_ratio"] == pytest.approx(0.19, abs=5e-3)
    assert (document["precision"], document["recall"]) == pytest.approx((0.740, 0.861), abs=5e-4)
    by_length = {k: (v["points"], round(v["mean_tiou"], 3)) for k, v in document["per_length"].items()}
    assert by_length == {
        "0-1": (305, 0.450),
        "1-2": (703, 0.518),
        "2-4": (858, 0.670),
        "4-8": (835, 0.735),
        "8-16": (270, 0.662),
        "16+": (32, 0.505),
    }
    by_class = {k: v["mean_tiou"] for k, v in document["per_class"].items()}
    assert len(by_class) == 20
    assert (by_class["Diving"], by_class["Billiards"]) == pytest.approx((0.695, 0.382), abs=5e-4)


def test_by_hand(tmp_path):
    data = annotated(tmp_path, [*SEGMENTS, ("b", "jump", 50, 60)], [*POINTS, ("b", "run", 90.0)])
    rows = labels(
        ("a", "run", 10, 20, 15.0004),  # the point, to the millisecond
        ("a", "run", 30, 60, 35.0),
        ("a", "run", 12, 13, 12.5),  # wrong class for this point
        ("b", "run", 5, 20, None),
    )
    result = label_quality(rows, data)
    document = result.to_json()
    np.testing.assert_allclose(result.tiou, [0, 1, 1 / 3, 0.5])
    assert document["mean_tiou"] == pytest.approx((1 + 1 / 3 + 0.5) / 4)
    assert document["share"] == {"0.3": 0.75, "0.5": 0.5, "0.7": 0.25}
    assert {k: document[k] for k in ("points", "missing", "outside", "instances", "unpointed", "unmatched")} == {
        "points": 4,
        "missing": 1,
        "outside": 1,
        "instances": 5,
        "unpointed": 1,
        "unmatched": 1,
    }
    assert document["log2_length_ratio"] == pytest.approx(0)  # of 0, log2(3) and -1
    assert document["precision"] == pytest.approx((1 + 1 / 3 + 1) / 4)
    assert document["recall"] == pytest.approx((1 + 1 + 0.5) / 4)
    # Pseudo-labels cover 10 + 30 + 1 - 1 and 15 s, the truth 20 + 1, 30 and 10 s, both 20 and 15 s.
    assert document["time"] == pytest.approx({"precision": 35 / 55, "recall": 35 / 61})
    assert document["per_class"]["jump"]["points"] == 1 and document["per_class"]["jump"]["missing"] == 1
    assert document["per_class"]["jump"]["log2_length_ratio"] is None
    assert {k: v["points"] for k, v in document["per_length"].items()} == {
        "0-1": 0,
        "1-2": 1,
        "2-4": 0,
        "4-8": 0,
        "8-16": 2,
        "16+": 1,
    }
    assert document["per_length"]["0-1"]["mean_tiou"] is None


def test_no_labels_and_true_labels(tmp_path):
    data = annotated(tmp_path, SEGMENTS, POINTS)
    nothing = label_quality(Segments.empty(), data).to_json()
    assert (nothing["mean_tiou"], nothing["missing"], nothing["time"]["precision"]) == (0, 4, 0)
    whole = label_quality(labels(*[(v, c, s, e, None) for v, c, s, e in SEGMENTS]), data).to_json()
    assert whole["mean_tiou"] == 1 and whole["share"]["0.7"] == 1 and whole["missing"] == 0
    assert whole["time"] == {"precision": 1, "recall": 1}


def test_point_in_several_instances():
    """The nearest centre; of equally near ones the earlier; -1 outside all."""
    spans = np.array([[4.0, 10.0], [0.0, 10.0], [0.0, 9.0]])
    np.testing.assert_array_equal(instance_of(np.array([4.6, 6.9, 0.0, 11.0]), spans), [2, 0, 2, -1])
    np.testing.assert_array_equal(instance_of(np.array([5.0]), np.array([[2.0, 10.0], [0.0, 8.0]])), [1])
    np.testing.assert_array_equal(instance_of(np.array([5.0]), np.zeros((0, 2))), [-1])


def test_which_row_answers():
    spans = np.array([[0.0, 10.0], [0.0, 9.0], [1.0, 8.0], [2.0, 7.0], [2.0, 6.0]])
    point = np.array([5.0, 5.0005, np.nan, np.nan, 30.0])
    score = np.array([0.1, 0.9, 0.2, 0.3, 1.0])
    # 5.0 takes the nearest row that names it, not the better one; 4.0 the best row without a point; 9.0 has none.
    np.testing.assert_array_equal(row_of(np.array([5.0, 5.0004, 4.0, 9.0]), spans, score, point), [0, 1, 3, -1])
    same = np.array([5.0, 5.0, np.nan, np.nan, 5.0])
    np.testing.assert_array_equal(row_of(np.array([5.0]), spans, score, same), [4])
    np.testing.assert_array_equal(row_of(np.array([5.0]), spans[:0], score[:0], point[:0]), [-1])


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Dataset:
    return annotated(tmp_path_factory.mktemp("data"), SEGMENTS, POINTS)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8), st.integers(1, 9)), max_size=8), st.randoms())
def test_row_order_does_not_matter(small, rows, random):
    table = [(*POINTS[i][:2], POINTS[i][2] - n, POINTS[i][2] + m, POINTS[i][2] if n % 2 else None) for i, n, m in rows]
    shuffled = random.sample(table, len(table))
    a, b = (label_quality(labels(*t) if t else Segments.empty(), small).to_json() for t in (table, shuffled))
    assert a == b


def test_bad_input(tmp_path):
    data = annotated(tmp_path / "data", SEGMENTS, POINTS)
    with pytest.raises(DataError, match=r"share no video with the train videos .* 1 videos \(z\), evaluated are 2"):
        label_quality(labels(("z", "run", 0, 1, 0.5)), data)
    unpointed = annotated(tmp_path / "unpointed", SEGMENTS)
    with pytest.raises(DataError, match=r"no point of the 2 train videos lies in a ground-truth segment"):
        label_quality(labels(("a", "run", 0, 1, 0.5)), unpointed)
    (tmp_path / "none.json").write_text('{"results": {}}')
    with pytest.raises(DataError, match=r"none\.json: holds no pseudo-labels"):
        CliRunner().invoke(
            command, [str(tmp_path / "none.json"), "--data", str(tmp_path / "data")], catch_exceptions=False
        )
