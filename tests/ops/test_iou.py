"""tIoU against a loop, and its invariants."""

import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tad.ops.iou import paired_tiou, tiou

time = st.floats(-1e4, 1e4, allow_nan=False, width=32)
segments = st.lists(st.tuples(time, time).map(sorted), max_size=12).map(lambda x: np.array(x).reshape(-1, 2))


def loop(a, b):
    inter = min(a[1], b[1]) - max(a[0], b[0])
    return inter / ((a[1] - a[0]) + (b[1] - b[0]) - inter) if inter > 0 else 0.0


@given(segments, segments)
def test_matrix_equals_a_loop(a, b):
    expected = np.array([[loop(x, y) for y in b] for x in a]).reshape(len(a), len(b))
    np.testing.assert_allclose(tiou(a, b), expected, atol=1e-12)


@given(segments, segments)
def test_symmetric_and_within_bounds(a, b):
    matrix = tiou(a, b)
    assert np.array_equal(matrix, tiou(b, a).T)
    assert ((matrix >= 0) & (matrix <= 1)).all()


@given(segments)
def test_a_segment_equals_itself_unless_it_has_no_length(a):
    assert np.array_equal(np.diag(tiou(a, a)), (a[:, 1] > a[:, 0]).astype(float))
    assert np.array_equal(paired_tiou(a, a), np.diag(tiou(a, a)))


@given(st.lists(st.tuples(time, time, time, time), max_size=12))
def test_paired_is_the_diagonal(rows):
    both = np.sort(np.array(rows).reshape(-1, 2, 2), axis=2)
    assert np.array_equal(paired_tiou(both[:, 0], both[:, 1]), np.diag(tiou(both[:, 0], both[:, 1])))


def test_known_values():
    a = np.array([[0, 10], [5, 5], [20, 30]])
    b = np.array([[5, 15], [10, 20], [0, 10]])
    assert np.allclose(tiou(a, b), [[1 / 3, 0, 1], [0, 0, 0], [0, 0, 0]])
    assert tiou(np.zeros((0, 2)), b).shape == (0, 3)


def test_import_needs_neither_numba_nor_torch():
    code = "import sys, tad.ops.iou; print(sorted({'numba', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
