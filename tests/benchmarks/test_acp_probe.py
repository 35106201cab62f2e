"""The linear probes of APL's pre-training: rows of dev videos, named by their true classes."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.studies.papers.acp_probe import INPUT, probed, represented
from tad.methods.apl.contrastive_pyramid import Encoder
from tests.support.shared import shared_path


def test_the_probe_of_input_features_knows_most_rows(tmp_path, monkeypatch):
    monkeypatch.setenv("TAD_SHARED", str(shared_path("data", "sbhar").parents[1]))
    accuracy, recall = probed("sbhar", 0, tmp_path, INPUT)
    assert 50 < recall < accuracy < 95  # transitions are short and rare: recall of classes is below the share of rows


def test_a_row_is_represented_by_the_levels_at_its_place():
    torch.manual_seed(0)
    encoder = Encoder(dim=4, width=8, heads=2, levels=3, window=5, drop_path=0.0).eval()
    features = np.random.default_rng(0).normal(size=(40, 4)).astype(np.float32)
    changed = features.copy()
    changed[30:] += 1
    seen, after = represented(features, encoder, 2), represented(changed, encoder, 2)
    assert seen.shape == (40, 24)
    moved = (seen != after).any(dim=1).numpy()
    assert moved[30:].all() and not moved[:10].any()
