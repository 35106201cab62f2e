"""The instance model: pooling against the published rule, and what its heads see."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import tad.methods.hrpro.detector_model as modelling
from tad.methods.hrpro.detector_model import InstanceModel, framed
from tests.references.roi import loop_align


def instance_model(dim=6, seed=0, **more):
    torch.manual_seed(seed)
    return InstanceModel(dim, **more).eval()


def some_videos(lengths=(30, 11, 47), counts=(4, 2, 5), dim=6, seed=0):
    """Features of videos, proposals as edges (from before the start to beyond the end) and which video each is of."""
    rng = np.random.default_rng(seed)
    features = [torch.from_numpy(rng.normal(size=(n, dim)).astype(np.float32)) for n in lengths]
    video = np.repeat(np.arange(len(lengths)), counts)
    start = rng.uniform(-2, np.array(lengths)[video])
    edges = np.stack([start, start + rng.exponential(12, len(video)) + 0.05], axis=1)
    return features, torch.from_numpy(edges), torch.from_numpy(video)


def published_pool(rows, edges, bins=12, extension=0.25):
    """Zeros around the features, pixel centres, RoI align, then the largest bin of each part; one video."""
    width = edges[:, 1] - edges[:, 0]
    pad = math.ceil(float(width.max()) * extension) + 3  # 3, not 1: here proposals may leave the video
    zeros = torch.zeros(pad, rows.shape[1])
    padded = torch.cat([zeros, rows, zeros])
    parts = []
    for (start, end), w in zip(edges.tolist(), width.tolist(), strict=True):
        shift = pad - 0.5
        pooled = loop_align(padded, start - w * extension + shift, end + w * extension + shift, bins)
        parts.append(torch.stack([pooled[:, :2].amax(1), pooled[:, 2:10].amax(1), pooled[:, 10:].amax(1)]))
    return torch.stack(parts, dim=1)


@pytest.mark.parametrize("chunk", [3, 1024])
def test_pooling_is_the_published_rule(monkeypatch, chunk):
    monkeypatch.setattr(modelling, "CHUNK", chunk)
    features, edges, video = some_videos()
    inside = torch.tensor([[0.0, 30.0], [0.0, 0.3], [29.2, 30.0], [-1.9, 40.0]], dtype=torch.float64)
    edges, video = torch.cat([edges, inside]), torch.cat([video, torch.zeros(4, dtype=torch.long)])
    found = instance_model().pool(*framed(features), edges - 0.5, video)
    assert len(found) == 3
    for v, rows in enumerate(features):
        expected = published_pool(rows, edges[video == v])
        for part, want in zip(found, expected, strict=True):
            torch.testing.assert_close(part[video == v], want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("bins", "extension", "outside"), [(12, 0.25, 2), (24, 0.25, 4), (8, 0.5, 2), (3, 0.5, 1)])
def test_the_outside_bins_cover_the_extensions(bins, extension, outside):
    assert instance_model(bins=bins, extension=extension).outside == outside


def test_videos_in_a_batch_do_not_see_each_other():
    model, (features, edges, video) = instance_model(), some_videos()
    together = model(*framed(features), edges, video)
    for v, rows in enumerate(features):
        mine = video == v
        alone = model(*framed([rows]), edges[mine], torch.zeros_like(video[mine]))
        for one, other in zip(together, alone, strict=True):
            torch.testing.assert_close(one[mine], other, atol=1e-5, rtol=1e-5)


def test_refinement_moves_each_boundary_by_a_share_of_the_length():
    model, (features, edges, video) = instance_model(), some_videos()
    with torch.no_grad():
        for head, offset in ((model.start, -0.1), (model.end, 0.3)):
            for parameter in head[-1].parameters():
                parameter.zero_()
            head[-1].bias.fill_(offset)
    refined = model(*framed(features), edges, video).refined
    width = edges[:, 1] - edges[:, 0]
    expected = torch.stack([edges[:, 0] - 0.1 * width, edges[:, 1] + 0.3 * width], dim=1)
    torch.testing.assert_close(refined, expected, atol=1e-6, rtol=1e-6)


def test_only_the_scores_see_both_sides():
    """The start reads what lies before the proposal, the end what lies after it; neither reads the inside."""
    rows = torch.rand(40, 6)
    spans, whose = torch.tensor([[12.0, 20.0]], dtype=torch.float64), torch.zeros(1, dtype=torch.long)
    model = instance_model()

    def ask(changed):
        return [x.item() for part in model(*framed([changed]), spans, whose) for x in part.reshape(-1)]

    q, start, end = ask(rows)
    for region, same in (((0, 12), "end"), ((21, 40), "start"), ((14, 19), "both")):
        other = rows.clone()
        other[slice(*region)] += 3
        q2, start2, end2 = ask(other)
        assert q2 != q
        assert (start2 == start) == (same in ("start", "both")) and (end2 == end) == (same in ("end", "both"))
