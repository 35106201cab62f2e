"""NMS against the golden cases of the compiled reference, and its invariants."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tad
from tad.ops.iou import tiou
from tad.ops.nms import classwise_nms

CLOSE = {"rtol": 1e-5, "atol": 1e-6}
GAUSSIAN = 2
"""The one method of the compiled reference that is used here."""
METHODS = ("gaussian", "hard")


def inputs(case, document):
    data = document["inputs"][case["input"]]
    spans = np.array(data["segs"], dtype=np.float32).reshape(-1, 2) * np.float32(case.get("scale", 1))
    return spans, np.array(data["scores"], dtype=np.float32), np.array(data["labels"], dtype=np.int64)


def cases(document, kind):
    found = [c for c in document["cases"] if c["kind"] == kind]
    assert found
    return found


def one_class(spans, scores, **rule):
    """Spans, scores and input rows of segments of one class."""
    kept, lowered, _, rows = classwise_nms(spans, scores, np.zeros(len(scores), np.int64), **rule)
    return kept, lowered, rows


def test_golden_soft_nms(golden):
    document = golden("nms")
    for case in cases(document, "raw_softnms"):
        spans, scores, _ = inputs(case, document)
        p = case["params"]
        if p["method"] == GAUSSIAN:
            kept, lowered, rows = one_class(spans, scores, sigma=p["sigma"], min_score=p["min_score"])
            assert rows.tolist() == case["out"]["inds"], case
            np.testing.assert_allclose(np.column_stack([kept, lowered]), case["out"]["dets"], **CLOSE)


def test_golden_hard_nms(golden):
    document = golden("nms")
    for case in cases(document, "raw_nms"):
        spans, scores, _ = inputs(case, document)
        rule = {"method": "hard", "min_score": -1e9, "iou_threshold": case["params"]["iou_threshold"]}
        assert one_class(spans, scores, **rule)[2].tolist() == case["out"]["inds"], case


def test_golden_wrapper(golden):
    """The published wrappers never vote class-wise. Where they vote, regardless of class, only the ends differ."""
    document = golden("nms")
    for case in cases(document, "batched_nms"):
        spans, scores, labels = inputs(case, document)
        p = case["params"]
        _, lowered, _, rows = found = classwise_nms(
            spans,
            scores,
            labels if p["multiclass"] else np.zeros_like(labels),
            method="gaussian" if p["use_soft_nms"] else "hard",
            sigma=p["sigma"],
            iou_threshold=p.get("iou_threshold", 0.1),
            min_score=p["min_score"],
            limit=p["max_seg_num"],
        )
        if p["multiclass"] and case["impl"] != "ot":
            np.testing.assert_allclose(found[0], np.array(case["out"]["segs"]).reshape(-1, 2), **CLOSE)
        np.testing.assert_allclose(lowered, case["out"]["scores"], **CLOSE, err_msg=str(case))
        assert labels[rows].tolist() == case["out"]["labels"], case


def test_all_golden_cases_are_of_a_tested_kind(golden):
    counts = [len(cases(golden("nms"), kind)) for kind in ("raw_softnms", "raw_nms", "batched_nms")]
    assert sum(counts) == len(golden("nms")["cases"]) == 59


# -- invariants ------------------------------------------------------------------------------------------------------


@st.composite
def detections(draw):
    count = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    start = rng.uniform(0, 30, count)
    spans = np.stack([start, start + rng.uniform(0, 15, count) * rng.integers(0, 2, count)], 1)
    # Few distinct scores, so that there are ties.
    return spans, rng.integers(0, 12, count) / 12, rng.integers(0, 4, count)


methods = st.sampled_from(sorted(METHODS))


@settings(deadline=None, max_examples=60)
@given(detections(), st.sampled_from([0.0, 0.001, 0.3]))
def test_soft_nms_only_lowers_and_sorts_and_selects(data, min_score):
    spans, scores, _ = data
    kept, lowered, rows = one_class(spans, scores, min_score=min_score)
    assert len(set(rows.tolist())) == len(rows)
    assert np.array_equal(kept, spans[rows])
    assert (lowered <= scores[rows].astype(np.float32)).all()
    assert (np.diff(lowered) <= 0).all()
    assert (lowered[1:] >= np.float32(min_score)).all()
    if len(scores):
        assert rows[0] == np.argmax(scores)
        assert lowered[0] == np.float32(scores.max())


@settings(deadline=None, max_examples=60)
@given(detections(), methods, st.integers(1, 10))
def test_a_limit_cuts_the_list_and_changes_nothing_else(data, method, limit):
    for a, b in zip(classwise_nms(*data, method=method), classwise_nms(*data, method=method, limit=limit), strict=True):
        assert np.array_equal(a[:limit], b)


@settings(deadline=None, max_examples=60)
@given(detections())
def test_soft_nms_equals_a_plain_loop(data):
    """The definition, in float64, on distinct scores."""
    spans, _, _ = data
    scores = np.random.default_rng(len(spans)).permutation(len(spans)) / 50 + 0.1
    left, expected = dict(enumerate(scores)), []
    while left:
        top = max(left, key=left.__getitem__)
        expected.append((top, left.pop(top)))
        for k in left:
            left[k] *= np.exp(-(float(tiou(spans[[top]], spans[[k]])[0, 0]) ** 2) / 0.5)
    _, lowered, rows = one_class(spans, scores, min_score=0.0)
    np.testing.assert_allclose(sorted(lowered), sorted(s for _, s in expected), rtol=1e-4, atol=1e-6)
    for (row, score), got in zip(expected, lowered, strict=True):
        # Rows may trade places where two lowered scores agree to rounding.
        assert abs(got - score) < 1e-4
        assert abs(lowered[rows.tolist().index(row)] - score) < 1e-4


@settings(deadline=None, max_examples=60)
@given(detections(), st.sampled_from([0.3, 0.5, 0.9]))
def test_hard_nms_keeps_what_nothing_better_covers(data, threshold):
    spans, scores, _ = data
    kept, _, rows = one_class(spans, scores, method="hard", iou_threshold=threshold, min_score=-1.0)
    overlap = tiou(kept, kept)
    np.fill_diagonal(overlap, 0)
    assert (overlap <= threshold + 1e-5).all()
    dropped = np.setdiff1d(np.arange(len(scores)), rows)
    for d in dropped:
        rivals = rows[scores[rows].astype(np.float32) >= np.float32(scores[d])]
        assert (tiou(spans[[d]], spans[rivals]) >= threshold - 1e-5).any()


@settings(deadline=None, max_examples=60)
@given(detections(), methods)
def test_classwise_is_each_class_alone(data, method):
    spans, scores, labels = data
    _, lowered, classes, rows = classwise_nms(*data, method=method)
    assert (np.diff(lowered) <= 0).all()
    for c in np.unique(labels):
        mine = np.flatnonzero(labels == c)
        _, alone, index = one_class(spans[mine], scores[mine], method=method)
        assert np.array_equal(rows[classes == c], mine[index])
        assert np.array_equal(lowered[classes == c], alone)


def test_input_type_is_kept():
    spans = np.array([[0.1, 1234.56789]])
    assert one_class(spans, np.array([0.5]))[0][0, 1] == 1234.56789
    assert one_class(spans.astype(np.float32), np.array([0.5]))[0].dtype == np.float32
    assert one_class(np.array([[0, 3]]), np.array([0.5]))[0].tolist() == [[0.0, 3.0]]


def test_empty_input():
    for method in METHODS:
        found = classwise_nms(np.zeros((0, 2)), np.zeros(0), np.zeros(0, dtype=np.int64), method=method)
        assert [x.shape for x in found] == [(0, 2), (0,), (0,), (0,)]


@pytest.mark.parametrize(
    ("spans", "scores", "extra", "message"),
    [
        ([[0, 1]], [0.5, 0.6], {}, "1 segments but 2 scores"),
        ([[0, np.nan]], [0.5], {}, "finite"),
        ([[0, 1]], [np.inf], {}, "finite"),
        ([[0, 1]], [0.5], {"method": "gauss"}, "unknown NMS method 'gauss'"),
        ([[0, 1]], [0.5], {"sigma": 0.0}, "sigma must be positive"),
        ([[0, 1]], [0.5], {"limit": 0}, "limit must be at least 1"),
    ],
)
def test_mistakes_are_named(spans, scores, extra, message):
    with pytest.raises(ValueError, match=message):
        classwise_nms(np.array(spans), np.array(scores), np.zeros(len(scores), dtype=int), **extra)


def test_a_label_for_each_score():
    with pytest.raises(ValueError, match="2 scores but labels of shape"):
        classwise_nms(np.array([[0, 1], [2, 3.0]]), np.array([0.5, 0.5]), np.array([1]))


def test_works_where_no_cache_folder_can_be_written(tmp_path):
    """A read-only installation without a home: plain files stand where the folders would be made."""
    source = Path(tad.__file__).parent
    package = tmp_path / "tad" / "ops"
    package.mkdir(parents=True)
    shutil.copy(source / "__init__.py", tmp_path / "tad")
    for name in ("__init__.py", "nms.py"):
        shutil.copy(source / "ops" / name, package)
    (package / "__pycache__").write_text("")
    home = tmp_path / "home"
    home.write_text("")
    gone = ("NUMBA_CACHE_DIR", "PYTHONPATH")
    environment = {k: v for k, v in os.environ.items() if k not in gone}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    code = (
        "import numpy as np, tad.ops.nms as m; print(m.__file__);"
        "one = np.array([[0, 1.0]]), np.array([0.5]), np.array([0]);"
        "print(m.classwise_nms(*one, method='hard')[3].tolist(), type(m._hard._cache).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, result = done.stdout.splitlines()
    assert Path(where) == package / "nms.py"
    assert result == "[0] NullCache"
