"""RoI pooling against the golden values, a loop, and its invariants."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tad.ops.roi import roi_align, roi_max_pool
from tests.references.roi import loop_align, loop_max


@st.composite
def videos(draw):
    """Padded features of up to three videos (padding holds garbage), their lengths, rois, and whose they are."""
    count = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    lengths = rng.integers(1, 20, count)
    features = rng.normal(size=(count, lengths.max(), 3))
    for v, length in enumerate(lengths):
        features[v, length:] = 1e6
    rois = rng.integers(0, 10, 1)[0]
    start = rng.uniform(-10, 25, rois)
    spans = np.stack([start, start + rng.uniform(0, 30, rois)], 1)
    whose = rng.integers(0, count, rois)
    return torch.tensor(features), torch.tensor(lengths), torch.tensor(spans), torch.tensor(whose)


def test_golden(golden):
    data = golden("pser")["roi_align"]
    t = torch.arange(data["T"], dtype=torch.float64)
    features = torch.stack([t, (t - 4.5) ** 2], dim=1)
    rois = torch.tensor(data["rois_snippets"], dtype=torch.float64)
    found = roi_align(features, rois, data["bins"]).numpy()
    np.testing.assert_allclose(found[:, 0], data["out_ch0"], atol=1e-6)
    np.testing.assert_allclose(found[:, 1], data["out_ch1"], atol=1e-6)
    single = roi_align(features.float(), rois.float(), data["bins"]).numpy()
    np.testing.assert_allclose(single, found, atol=2e-6)


@settings(deadline=None, max_examples=40)
@given(videos(), st.integers(1, 9))
def test_align_equals_a_loop_on_each_video_alone(data, bins):
    features, lengths, rois, whose = data
    found = roi_align(features, rois, bins, whose, lengths)
    assert found.shape == (len(rois), 3, bins)
    for roi, v, value in zip(rois.tolist(), whose.tolist(), found, strict=True):
        expected = loop_align(features[v, : lengths[v]], *roi, bins)
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)


@settings(deadline=None, max_examples=40)
@given(videos(), st.integers(1, 9))
def test_max_equals_a_loop_on_each_video_alone(data, bins):
    features, lengths, rois, whose = data
    found = roi_max_pool(features, rois, bins, whose, lengths)
    assert found.shape == (len(rois), 3, bins)
    for roi, v, value in zip(rois.tolist(), whose.tolist(), found, strict=True):
        torch.testing.assert_close(value, loop_max(features[v, : lengths[v]], *roi, bins))


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 50), st.floats(0, 1), st.floats(0, 1), st.integers(1, 12))
def test_a_ramp_gives_the_bin_centres(rows, a, b, bins):
    start, end = sorted((a * (rows - 1), b * (rows - 1)))
    if end - start < 1:
        start = min(start, rows - 2)
        end = start + 1
    ramp = torch.arange(rows, dtype=torch.float64)[:, None]
    found = roi_align(ramp, torch.tensor([[start, end]], dtype=torch.float64), bins)[0, 0]
    width = (end - start) / bins
    expected = start + (torch.arange(bins, dtype=torch.float64) + 0.5) * width
    torch.testing.assert_close(found, expected, atol=1e-9, rtol=0)


def test_half_a_snippet_between_edges_and_positions():
    """Edges [2, 5) hold rows 2, 3, 4: read at positions (edges - 1/2) their mean is the roi's."""
    features = torch.zeros(10, 1)
    features[2:5] = torch.tensor([[1.0], [2.0], [3.0]])
    edges = torch.tensor([[2.0, 5.0]])
    assert roi_align(features, edges - 0.5, 3)[0, 0].tolist() == [1, 2, 3]
    assert roi_align(features, edges, 3)[0, 0].tolist() == [1.5, 2.5, 1.5]


@pytest.mark.parametrize("pool", [roi_align, roi_max_pool])
def test_gradients(pool):
    torch.manual_seed(0)
    features = torch.randn(2, 7, 3, dtype=torch.float64, requires_grad=True)
    rois = torch.tensor([[-2.0, 5.3], [1.2, 1.4], [0.0, 6.9], [3.0, 30.0]], dtype=torch.float64)
    whose, lengths = torch.tensor([0, 1, 1, 0]), torch.tensor([7, 4])
    pool(features, rois, 4, whose, lengths).square().sum().backward()
    analytic = features.grad.clone()
    assert analytic.abs().sum() > 0
    assert (analytic[1, 4:] == 0).all()
    step = 1e-6
    with torch.no_grad():
        for v, t, d in np.ndindex(2, 7, 3):
            nudge = torch.zeros_like(features)
            nudge[v, t, d] = step
            up = pool(features + nudge, rois, 4, whose, lengths).square().sum()
            down = pool(features - nudge, rois, 4, whose, lengths).square().sum()
            assert abs((up - down) / (2 * step) - analytic[v, t, d]) < 1e-5


@pytest.mark.parametrize("pool", [roi_align, roi_max_pool])
def test_padding_and_order_do_not_matter(pool):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(9, 4, generator=generator)
    rois = torch.tensor([[0.0, 4.5], [-3.0, 12.0], [8.0, 8.1]])
    alone = pool(features, rois, 5)
    padded = torch.full((2, 20, 4), torch.inf)
    padded[1, :9] = features
    padded[0, :5] = 0
    batch = pool(padded, rois, 5, torch.ones(3, dtype=torch.long), torch.tensor([5, 9]))
    assert torch.equal(alone, batch)
    assert torch.equal(pool(features, rois.flip(0), 5), alone.flip(0))


@pytest.mark.parametrize("pool", [roi_align, roi_max_pool])
def test_no_rois_and_bad_shapes(pool):
    assert pool(torch.zeros(5, 3), torch.zeros(0, 2), 4).shape == (0, 3, 4)
    with pytest.raises(ValueError, match="2 videos need a video index"):
        pool(torch.zeros(2, 5, 3), torch.zeros(1, 2), 4)
    with pytest.raises(ValueError, match="expected features"):
        pool(torch.zeros(5, 3), torch.zeros(1, 3), 4)
    with pytest.raises(ValueError, match="lengths of shape"):
        pool(torch.zeros(2, 5, 3), torch.zeros(1, 2), 4, torch.zeros(1, dtype=torch.long), torch.tensor([5]))
