"""BMN's windows, targets and losses by hand."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from tad.methods.bmn.losses import balanced, boundary_loss, class_loss, regression_loss
from tad.methods.bmn.sampling import valid_cells
from tad.methods.bmn.targets import boundary_targets, held, positives, proposal_targets, read_window, windows
from tad.methods.common.windows import refine
from tad.stages import one_worker

TRUE = torch.ones(1, 1, dtype=torch.bool)


# -- windows ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("upsample", [1, 2])
def test_windows_cover_every_row_of_a_video_of_any_length(upsample):
    for snippets in range(1, 200):
        found = windows(snippets, 32, "windows", upsample)
        rows = (snippets - 1) * upsample + 1
        seen = np.concatenate([np.arange(w.start, w.start + w.bins) for w in found])
        assert set(seen) == set(range(rows))
        starts = [w.start for w in found]
        assert starts[0] == 0 and all(0 < b - a <= 16 for a, b in pairwise(starts))
        assert len(found) == max(1, 1 + math.ceil((rows - 32) / 16))


@pytest.mark.parametrize("upsample", [1, 2, 3])
def test_windows_read_the_refined_rows(upsample):
    features = np.random.default_rng(0).normal(size=(41, 3)).astype(np.float32)
    fine = refine(features, upsample)
    for window in windows(41, 16, "windows", upsample):
        got = read_window(features, window, 16)
        assert np.array_equal(got[: window.bins], fine[window.start :][: window.bins])
        # Bin k covers the edges [k, k + 1), and its centre is the position of its row.
        at = window.to_bins((window.start + np.arange(window.bins)) / upsample)
        assert at == pytest.approx(np.arange(window.bins) + 0.5)
        assert window.from_bins(at) == pytest.approx((window.start + np.arange(window.bins)) / upsample)
    short = windows(5, 16, "windows", 1)[0]
    assert short.bins == 5 and not read_window(features[:5], short, 16)[5:].any()


@pytest.mark.parametrize(("snippets", "length"), [(40, 10), (10, 40), (7, 16), (1, 8)])
def test_resized_rows_are_the_means_of_what_they_cover(snippets, length):
    """Of a straight line, the mean of a bin is the line at its centre, except within half a row of either end."""
    (window,) = windows(snippets, length, "resize", 1)
    line = np.arange(snippets, dtype=np.float32)[:, None]
    got = read_window(line, window, length)
    centre = window.from_bins(np.arange(length) + 0.5)
    assert got[:, 0] == pytest.approx(np.clip(centre, 0, snippets - 1), abs=0.13)
    assert window.bins == length
    assert window.to_bins(np.array([-0.5, snippets - 0.5])) == pytest.approx([0, length])


def test_windows_hold_what_lies_in_them():
    spans = np.array([[-2.0, 2.0], [-1.0, 3.0], [4.0, 6.0], [9.0, 20.0], [11.0, 12.0]])
    cut, rows = held(spans, 10, 0.75)
    assert rows.tolist() == [1, 2] and cut.tolist() == [[0, 3], [4, 6]]
    assert held(spans, 10, 0.05)[1].tolist() == [0, 1, 2, 3]


# -- targets ---------------------------------------------------------------------------------------------------------


def test_bins_near_a_boundary():
    # 10 belongs to [8.5, 11.5]: half of bins 8 and 11, all of 9 and 10.
    assert boundary_targets(np.array([10.0]), 14)[7:13].tolist() == [0, 0.5, 1, 1, 0.5, 0]
    # 3.2 to [1.7, 4.7]; where two boundaries meet, the larger share counts.
    assert boundary_targets(np.array([3.2, 5.0]), 8) == pytest.approx([0, 0.3, 1, 1, 1, 1, 0.5, 0])
    assert boundary_targets(np.zeros(0), 5).tolist() == [0] * 5


def test_cells_are_measured_against_their_best_label():
    cells = valid_cells(8, 8)
    at = {(int(d), int(j)): i for i, (d, j) in enumerate(zip(*cells, strict=True))}
    targets = proposal_targets(cells, np.array([[2.0, 4.0], [5.0, 8.0]]))
    assert targets[at[1, 2]] == 1
    assert targets[at[2, 5]] == 1
    # [3, 6]: 1/4 of [2, 6] with the first label, 1/5 of [3, 8] with the second.
    assert targets[at[2, 3]] == pytest.approx(1 / 4)
    assert targets[at[1, 0]] == 0
    assert not proposal_targets(cells, np.zeros((0, 2))).any()


def test_a_short_label_between_bins_still_has_a_positive_cell():
    cells, spans = valid_cells(12, 12), np.array([[2.5, 6.5], [7.0, 11.0]])
    overlap = proposal_targets(cells, spans)
    strict = positives(cells, spans, overlap, 0.9, best=False)
    assert cells.spans[strict].tolist() == [[7, 11]]
    eased = positives(cells, spans, overlap, 0.9, best=True)
    assert sorted(cells.spans[eased].tolist()) == [[2, 7], [7, 11]]  # 4/5, before 3.5/4.5
    long = np.array([[0.0, 12.0]])
    few = valid_cells(12, 4)  # the longest proposal has a third of it
    assert not positives(few, long, proposal_targets(few, long), 0.9, best=True).any()
    assert not positives(cells, np.zeros((0, 2)), np.zeros(len(overlap)), 0.9, best=True).any()


# -- losses ----------------------------------------------------------------------------------------------------------


def test_balanced_weights():
    positive = torch.tensor([[True, False, False, False, True]])
    valid = torch.tensor([[True, True, True, True, False]])
    assert balanced(positive, valid, one_worker).tolist()[0] == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6, 0])
    # The published form: n / (2 n+) and n / (2 n-) in a mean over n.
    assert balanced(~valid, valid, one_worker).tolist()[0] == [0.25] * 4 + [0]  # one side: a plain mean
    assert not balanced(positive, ~TRUE.expand(1, 5), one_worker).any()


def test_boundary_and_class_loss_by_hand():
    logits = torch.tensor([[0.0, 1.0, -1.0]])
    targets = torch.tensor([[0.51, 0.5, 0.0]])
    want = math.log(2) / 2 + (math.log1p(math.e) + math.log1p(math.exp(-1))) / 4
    valid = TRUE.expand(1, 3)
    assert float(boundary_loss(logits, targets, valid, one_worker)) == pytest.approx(want)
    assert float(class_loss(logits, targets > 0.5, valid, one_worker)) == pytest.approx(want)
    assert float(boundary_loss(logits, targets, ~valid, one_worker)) == 0


def test_regression_takes_as_many_cells_of_each_kind():
    tiou = torch.tensor([[0.8, 0.71, 0.7, 0.5, 0.4, 0.31, 0.3, 0.0]])
    logits = torch.zeros_like(tiou)
    valid = TRUE.expand_as(tiou)
    # 2 high, 4 middle (share 1/2), 2 low (share 1).
    draw = torch.tensor([[0.99, 0.99, 0.4, 0.6, 0.49, 0.5, 0.99, 0.99]])
    kept = torch.tensor([0.8, 0.71, 0.7, 0.4, 0.3, 0.0])
    want = (0.5 - kept).square().mean()
    assert float(regression_loss(logits, tiou, valid, draw, one_worker)) == pytest.approx(float(want))
    # More high cells than middle ones: the share is cut to 1, and cells outside their class are not drawn.
    tiou = torch.tensor([[0.9, 0.9, 0.9, 0.5, 0.1]])
    valid = torch.tensor([[True, True, True, True, False]])
    want = (3 * 0.4**2 + 0) / 4
    draw = torch.full((1, 5), 0.999)
    assert float(regression_loss(torch.zeros(1, 5), tiou, valid, draw, one_worker)) == pytest.approx(want)
    # No high cell: nothing to balance with, and no loss.
    assert float(regression_loss(torch.zeros(1, 5), tiou / 2, valid, draw, one_worker)) == 0
