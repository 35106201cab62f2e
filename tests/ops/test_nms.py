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
from tad.ops.nms import METHODS, classwise_nms, hard_nms, soft_nms, vote

CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def inputs(case, document):
    data = document["inputs"][case["input"]]
    spans = np.array(data["segs"], dtype=np.float32).reshape(-1, 2) * np.float32(case.get("scale", 1))
    return spans, np.array(data["scores"], dtype=np.float32), np.array(data["labels"], dtype=np.int64)


def cases(document, kind):
    found = [c for c in document["cases"] if c["kind"] == kind]
    assert found
    return found


def test_golden_soft_nms(golden):
    document = golden("nms")
    names = {code: name for name, code in METHODS.items()}
    for case in cases(document, "raw_softnms"):
        spans, scores, _ = inputs(case, document)
        p = case["params"]
        threshold = p.get("t1", p["iou_threshold"])
        kept, lowered, rows = soft_nms(
            spans, scores, names[p["method"]], p["sigma"], threshold, p["min_score"], threshold_slope=p.get("t2", 0.0)
        )
        assert rows.tolist() == case["out"]["inds"], case
        np.testing.assert_allclose(np.column_stack([kept, lowered]), case["out"]["dets"], **CLOSE)


def test_golden_hard_nms(golden):
    document = golden("nms")
    for case in cases(document, "raw_nms"):
        spans, scores, _ = inputs(case, document)
        assert hard_nms(spans, scores, case["params"]["iou_threshold"])[2].tolist() == case["out"]["inds"], case


def test_golden_wrapper(golden):
    document = golden("nms")
    for case in cases(document, "batched_nms"):
        spans, scores, labels = inputs(case, document)
        p = case["params"]
        opentad = case["impl"] == "ot"
        # The published wrappers never vote class-wise; OpenTAD's vote has no tIoU factor.
        inside = p["voting_thresh"] if not p["multiclass"] and not opentad else None
        kept, lowered, classes, rows = classwise_nms(
            spans,
            scores,
            labels,
            method="gaussian" if p["use_soft_nms"] else "hard",
            sigma=p["sigma"],
            iou_threshold=p.get("iou_threshold", 0.1),
            min_score=p["min_score"],
            limit=p["max_seg_num"],
            voting=inside,
            class_agnostic=not p["multiclass"],
        )
        if opentad:
            kept = vote(kept, spans, scores, p["voting_thresh"], weigh_by_iou=False)
        np.testing.assert_allclose(kept, np.array(case["out"]["segs"]).reshape(-1, 2), **CLOSE, err_msg=str(case))
        np.testing.assert_allclose(lowered, case["out"]["scores"], **CLOSE, err_msg=str(case))
        assert classes.tolist() == case["out"]["labels"], case
        assert np.array_equal(labels[rows], classes)


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
@given(detections(), methods, st.sampled_from([0.0, 0.001, 0.3]))
def test_soft_nms_only_lowers_and_sorts_and_selects(data, method, min_score):
    spans, scores, _ = data
    kept, lowered, rows = soft_nms(spans, scores, method, min_score=min_score)
    assert len(set(rows.tolist())) == len(rows)
    assert np.array_equal(kept, spans[rows])
    assert (lowered <= scores[rows].astype(np.float32)).all()
    assert (np.diff(lowered) <= 0).all()
    assert (lowered[1:] >= np.float32(min_score)).all()
    if len(scores):
        assert rows[0] == np.argmax(scores)
        assert lowered[0] == np.float32(scores.max())


@settings(deadline=None, max_examples=60)
@given(detections(), methods, st.integers(1, 10), st.booleans())
def test_a_limit_cuts_the_list_and_changes_nothing_else(data, method, limit, class_agnostic):
    full = soft_nms(data[0], data[1], method)
    cut = soft_nms(data[0], data[1], method, limit=limit)
    for a, b in zip(full, cut, strict=True):
        assert np.array_equal(a[:limit], b)
    rule = {"method": method, "class_agnostic": class_agnostic}
    for a, b in zip(classwise_nms(*data, **rule), classwise_nms(*data, **rule, limit=limit), strict=True):
        assert np.array_equal(a[:limit], b)


@settings(deadline=None, max_examples=60)
@given(detections(), st.sampled_from(["gaussian", "linear"]))
def test_soft_nms_equals_a_plain_loop(data, method):
    """The definition, in float64, on distinct scores."""
    spans, _, _ = data
    scores = np.random.default_rng(len(spans)).permutation(len(spans)) / 50 + 0.1
    left, expected = dict(enumerate(scores)), []
    while left:
        top = max(left, key=left.__getitem__)
        expected.append((top, left.pop(top)))
        for k in left:
            overlap = float(tiou(spans[[top]], spans[[k]])[0, 0])
            left[k] *= np.exp(-(overlap**2) / 0.5) if method == "gaussian" else (1 - overlap) ** (overlap >= 0.5)
    _, lowered, rows = soft_nms(spans, scores, method, min_score=0.0)
    np.testing.assert_allclose(sorted(lowered), sorted(s for _, s in expected), rtol=1e-4, atol=1e-6)
    for (row, score), got in zip(expected, lowered, strict=True):
        # Rows may trade places where two lowered scores agree to rounding.
        assert abs(got - score) < 1e-4
        assert abs(lowered[rows.tolist().index(row)] - score) < 1e-4


@settings(deadline=None, max_examples=60)
@given(detections(), st.sampled_from([0.3, 0.5, 0.9]))
def test_hard_nms_keeps_what_nothing_better_covers(data, threshold):
    spans, scores, _ = data
    kept, _, rows = hard_nms(spans, scores, threshold)
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
        if method == "hard":
            mine = mine[scores[mine] > 0.001]
            _, alone, index = hard_nms(spans[mine], scores[mine], 0.5)
        else:
            _, alone, index = soft_nms(spans[mine], scores[mine], method)
        assert np.array_equal(rows[classes == c], mine[index])
        assert np.array_equal(lowered[classes == c], alone)


def test_class_agnostic_suppresses_across_classes():
    spans, scores, labels = np.array([[0, 10], [0, 10.0]]), np.array([0.9, 0.8]), np.array([0, 1])
    apart = classwise_nms(spans, scores, labels)
    together = classwise_nms(spans, scores, labels, class_agnostic=True)
    assert np.allclose(apart[1], [0.9, 0.8])
    assert np.allclose(together[1], [0.9, 0.8 * np.exp(-2)], atol=1e-6)


@settings(deadline=None, max_examples=60)
@given(detections(), st.booleans())
def test_voting_moves_ends_within_the_voters_of_its_class(data, class_agnostic):
    spans, scores, labels = data
    scores = scores + 0.1
    plain = classwise_nms(spans, scores, labels, class_agnostic=class_agnostic)
    voted = classwise_nms(spans, scores, labels, class_agnostic=class_agnostic, voting=0.6)
    for a, b in zip(plain[1:], voted[1:], strict=True):
        assert np.array_equal(a, b)
    for before, after, label in zip(plain[0], voted[0], plain[2], strict=True):
        candidates = spans if class_agnostic else spans[labels == label]
        source = scores if class_agnostic else scores[labels == label]
        overlap = tiou(before[None], candidates)[0]
        if (np.abs(overlap - 0.6) < 1e-5).any():
            continue
        weight = np.where(overlap >= 0.6, overlap * source, 0)
        expected = (weight[:, None] * candidates).sum(0) / weight.sum() if weight.sum() else before
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-4)


def test_input_type_is_kept():
    spans = np.array([[0.1, 1234.56789]])
    assert soft_nms(spans, np.array([0.5]))[0][0, 1] == 1234.56789
    assert soft_nms(spans.astype(np.float32), np.array([0.5]))[0].dtype == np.float32
    assert soft_nms(np.array([[0, 3]]), np.array([0.5]))[0].tolist() == [[0.0, 3.0]]


def test_empty_input():
    none = np.zeros((0, 2)), np.zeros(0)
    assert [x.shape for x in soft_nms(*none)] == [(0, 2), (0,), (0,)]
    assert [x.shape for x in hard_nms(*none, 0.5)] == [(0, 2), (0,), (0,)]
    for method in METHODS:
        found = classwise_nms(*none, np.zeros(0, dtype=np.int64), method=method, voting=0.7)
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
        soft_nms(np.array(spans), np.array(scores), **extra)
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
        "print(m.hard_nms(np.array([[0, 1.0]]), np.array([0.5]), 0.5)[2].tolist(), type(m._hard._cache).__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    where, result = done.stdout.splitlines()
    assert Path(where) == package / "nms.py"
    assert result == "[0] NullCache"
