"""Gaussian weighted fusion against the golden cases, a plain loop, and its invariants."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.ops.fusion import gaussian_fusion

OVERLAPS = ["inter/candidate", "iou", "inter/min"]
AGGREGATES = ["mean", "max", "noisy-or"]


def test_golden(golden):
    document = golden("gaufuse")["fusion"]
    rows = np.array(document["input"])
    spans, scores, labels = rows[:, :2], rows[:, 2], np.zeros(len(rows), dtype=int)
    assert len(document["cases"]) == 7
    for case in document["cases"]:
        fused = gaussian_fusion(
            spans,
            scores,
            rows[:, case["weight_column"]],
            labels,
            temperature=case["T"],
            overlap_threshold=case["overlap_thr"],
            stretch=1.0,
        )
        found = np.column_stack([fused.spans, fused.scores])
        np.testing.assert_allclose(found, case["expected"], atol=1e-6, rtol=0, err_msg=case["name"])
        assert groups(fused) == [sorted(group) for group in case["groups"]], case["name"]


def test_golden_candidates_of_a_curve(golden):
    document = golden("gaufuse")["proposals"]
    rows = np.array(document["expected_rows"])
    fused = gaussian_fusion(
        rows[:, :2], rows[:, 2], rows[:, 3], np.zeros(len(rows), dtype=int), temperature=0.2, stretch=1.0
    )
    found = np.column_stack([fused.spans, fused.scores])
    np.testing.assert_allclose(found, document["fused_T0p2"], atol=1e-6, rtol=0)
    assert groups(fused) == [sorted(group) for group in document["groups"]]


def groups(fused) -> list[list[int]]:
    return [np.flatnonzero(fused.group == k).tolist() for k in range(len(fused.scores))]


def test_any_temperature_is_stable():
    spans, scores = np.array([[0, 10], [2, 8], [3, 7.0]]), np.array([0.9, 0.8, 0.7])
    labels, weights = np.zeros(3, dtype=int), np.array([0.2, 0.9, 0.5])
    rule = {"overlap_threshold": 0.2}
    for temperature in (5e-324, 1e-300, 0.0014):
        fused = gaussian_fusion(spans, scores, weights, labels, temperature=temperature, **rule)
        assert fused.spans.tolist() == [[2, 8]] and fused.scores.tolist() == [0.8]
    for temperature in (1e300, float("inf")):
        fused = gaussian_fusion(spans, scores, weights, labels, temperature=temperature, **rule)
        np.testing.assert_allclose(fused.spans, [[5 / 3, 25 / 3]])
        np.testing.assert_allclose(fused.scores, [0.8])
    huge = gaussian_fusion(spans, scores, np.array([-1e308, 1e308, 1e308]), labels, temperature=0.1, **rule)
    np.testing.assert_allclose(huge.spans, [[2.5, 7.5]])


def test_what_joins_by_each_overlap():
    """Anchor [0, 10]; a long one that it covers by .3, a short one inside it, and one that covers it."""
    spans, scores = np.array([[0, 10], [7, 17], [4, 6], [-10, 30.0]]), np.array([0.9, 0.8, 0.7, 0.6])
    joined = {
        "inter/candidate": [0, 1, 2],  # .3, 1, .25 is not above .25
        "iou": [0],  # 3 / 17, .2, .25
        "inter/min": [0, 1, 2, 3],
    }
    for overlap, first in joined.items():
        fused = gaussian_fusion(spans, scores, scores, np.zeros(4, dtype=int), temperature=1e-9, overlap=overlap)
        # At this temperature each group is its anchor.
        assert np.flatnonzero(fused.group == 0).tolist() == first
        assert fused.spans[0].tolist() == [0, 10]


def test_the_score_of_a_group():
    spans, scores = np.array([[0, 10], [1, 9], [20, 30.0]]), np.array([0.5, 0.25, -0.5])
    labels, rule = np.zeros(3, dtype=int), {"temperature": float("inf")}
    expected = {"mean": [0.375, -0.5], "max": [0.5, -0.5], "noisy-or": [1 - 0.5 * 0.75, 0.0]}
    for aggregate, found in expected.items():
        fused = gaussian_fusion(spans, scores, scores, labels, aggregate=aggregate, **rule)
        np.testing.assert_allclose(fused.scores, found)
        np.testing.assert_allclose(fused.spans, [[0.5, 9.5], [20, 30]])


# -- invariants ------------------------------------------------------------------------------------------------------


@st.composite
def candidates(draw):
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Whole numbers and few distinct scores, so that there are ties, and equal and empty segments.
    start = rng.integers(0, 30, count).astype(float)
    spans = np.stack([start, start + rng.integers(0, 15, count)], 1)
    return spans, rng.integers(-2, 12, count) / 12, rng.random(count), rng.integers(0, 3, count)


rules = st.fixed_dictionaries(
    {
        "temperature": st.sampled_from([1e-3, 0.2, float("inf")]),
        "overlap_threshold": st.sampled_from([0.0, 0.25, 0.7]),
        "overlap": st.sampled_from(OVERLAPS),
        "aggregate": st.sampled_from(AGGREGATES),
        "stretch": st.sampled_from([0.0, 1.0]),
    }
)


def plain(spans, scores, weights, labels, temperature, overlap_threshold, overlap, aggregate, stretch):
    """The definition, one class and one anchor at a time: (start, end, score, label, members) of each group."""
    found = []
    for label in sorted(set(labels.tolist())):
        left = sorted(np.flatnonzero(labels == label), key=lambda i: -scores[i])
        while left:
            i, group, rest = left[0], [left[0]], []
            for j in left[1:]:
                (a, b), (c, d) = spans[i] + [0, stretch], spans[j] + [0, stretch]
                inter = max(0.0, min(b, d) - max(a, c))
                whole = {"inter/candidate": d - c, "iou": b - a + d - c - inter, "inter/min": min(b - a, d - c)}
                joins = inter > 0 and inter / whole[overlap] > overlap_threshold
                (group if joins else rest).append(j)
            omega = np.exp((weights[group] - weights[group].max()) / temperature)
            omega /= omega.sum()
            score = {
                "mean": omega @ scores[group],
                "max": scores[group].max(),
                "noisy-or": 1 - np.prod(1 - scores[group].clip(0, 1)),
            }[aggregate]
            found.append((*(omega @ spans[group]), score, label, sorted(int(j) for j in group)))
            left = rest
    return found


@settings(deadline=None, max_examples=100)
@given(candidates(), rules)
def test_equals_a_plain_loop(data, rule):
    fused = gaussian_fusion(*data, **rule)
    expected = {tuple(members): row for *row, members in plain(*data, **rule)}
    assert {tuple(members) for members in groups(fused)} == set(expected)
    assert (np.diff(fused.scores) <= 0).all()
    for k, members in enumerate(groups(fused)):
        found = [*fused.spans[k], fused.scores[k], fused.labels[k]]
        np.testing.assert_allclose(found, expected[tuple(members)], atol=1e-9)


@settings(deadline=None, max_examples=60)
@given(candidates(), rules)
def test_stays_in_the_hull_of_its_group(data, rule):
    spans, scores, _, labels = data
    fused = gaussian_fusion(*data, **rule)
    for k, members in enumerate(groups(fused)):
        assert members and (labels[members] == fused.labels[k]).all()
        assert (spans[members].min(0) <= fused.spans[k]).all() and (fused.spans[k] <= spans[members].max(0)).all()
        assert fused.spans[k, 0] <= fused.spans[k, 1]
        if rule["aggregate"] == "mean":
            assert scores[members].min() - 1e-12 <= fused.scores[k] <= scores[members].max() + 1e-12


@settings(deadline=None, max_examples=60)
@given(candidates(), rules, st.integers(-10_000, 10_000), st.sampled_from([-64.0, 0.5, 2048.0]))
def test_shifts_with_time_and_ignores_a_constant_on_weights(data, rule, seconds, constant):
    spans, scores, weights, labels = data
    weights = np.round(weights * 1024) / 1024  # so that adding the constant rounds nothing
    before = gaussian_fusion(spans, scores, weights, labels, **rule)
    after = gaussian_fusion(spans + seconds, scores, weights + constant, labels, **rule)
    np.testing.assert_allclose(after.spans, before.spans + seconds, atol=1e-9, rtol=0)
    for a, b in zip(before[1:], after[1:], strict=True):
        assert np.array_equal(a, b)


@settings(deadline=None, max_examples=60)
@given(candidates(), rules)
def test_classwise_is_each_class_alone(data, rule):
    fused = gaussian_fusion(*data, **rule)
    large = gaussian_fusion(*data[:3], data[3] + 10**6, **rule)
    assert np.array_equal(large.spans, fused.spans) and np.array_equal(large.labels, fused.labels + 10**6)
    for label in np.unique(data[3]):
        mine = data[3] == label
        alone = gaussian_fusion(*(column[mine] for column in data), **rule)
        assert np.array_equal(fused.spans[fused.labels == label], alone.spans)
        assert np.array_equal(fused.scores[fused.labels == label], alone.scores)


@settings(deadline=None, max_examples=60)
@given(candidates(), rules)
def test_without_ties_the_order_of_the_input_changes_nothing(data, rule):
    for a, b in zip(gaussian_fusion(*data, **rule), gaussian_fusion(*data, **rule), strict=True):
        assert np.array_equal(a, b)
    spans, _, weights, labels = data
    columns = spans, np.linspace(0.9, 0.1, len(spans)), weights, labels
    back = gaussian_fusion(*(column[::-1] for column in columns), **rule)
    reverse = [sorted(len(spans) - 1 - i for i in group) for group in groups(back)]
    assert sorted(groups(gaussian_fusion(*columns, **rule))) == sorted(reverse)


def test_of_equal_scores_the_first_is_the_anchor():
    spans, scores, labels = np.array([[0, 10], [4, 14], [9, 15.0]]), np.array([0.5, 0.5, 0.4]), np.zeros(3, dtype=int)
    rule = {"temperature": 0.2, "overlap_threshold": 0.5}
    first = gaussian_fusion(spans, scores, scores, labels, **rule)
    assert first.group.tolist() == [0, 0, 1]  # [0, 10] covers a sixth of [9, 15]
    second = gaussian_fusion(spans[[1, 0, 2]], scores, scores, labels, **rule)
    assert second.group.tolist() == [0, 0, 0]  # [4, 14] covers five sixths


def test_empty_input():
    none = np.zeros((0, 2)), np.zeros(0), np.zeros(0), np.zeros(0, dtype=np.int64)
    assert [part.shape for part in gaussian_fusion(*none, temperature=0.2)] == [(0, 2), (0,), (0,), (0,)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scores": [0.5, 0.6]}, "1 segments but 2 scores"),
        ({"labels": [[0]]}, r"labels of shape \(1, 1\)"),
        ({"spans": [[0, np.nan]]}, "finite"),
        ({"weights": [np.inf]}, "finite"),
        ({"spans": [[1, 0]]}, "end before they start"),
        ({"temperature": 0.0}, "temperature must be positive"),
        ({"temperature": float("nan")}, "temperature must be positive"),
        ({"stretch": -1.0}, "stretch must not be negative"),
        ({"overlap": "giou"}, "unknown overlap 'giou'; known are inter/candidate, iou, inter/min"),
        ({"aggregate": "sum"}, "unknown aggregate 'sum'; known are mean, max, noisy-or"),
    ],
)
def test_mistakes_are_named(changes, message):
    good = {"spans": [[0, 1]], "scores": [0.5], "weights": [0.5], "labels": [0], "temperature": 0.2}
    given = {k: np.array(v) if isinstance(v, list) else v for k, v in (good | changes).items()}
    with pytest.raises(ValueError, match=message):
        gaussian_fusion(**given)
