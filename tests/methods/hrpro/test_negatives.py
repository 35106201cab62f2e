"""Segments of mined background, drawn as negatives."""

from __future__ import annotations

import numpy as np
import torch

from tad.methods.hrpro.negatives import Negatives, NegativesConfig
from tad.methods.snippet.mining import mine
from tad.ops.grouping import runs
from tad.stages import Context


def test_negatives_are_seconds_within_the_mined_background(context):
    data, candidates = context.data, context.inputs["candidates"].segments().by_video()
    draw = Negatives(NegativesConfig(share=0.7, background_threshold=0.6)).open(context)
    drawn = 0
    for video in context.videos:
        found, grid = draw(video), data.grid(video)
        assert len(found) <= int(0.7 * len(candidates[video]))
        drawn += len(found)
        background = torch.from_numpy(np.array(context.inputs["scores"].array("background", video)))[None]
        rows = torch.zeros(1, grid.length, 1, dtype=torch.bool)
        rows[0, grid.row(data.points(video).time)] = True
        mined = mine(background, rows, torch.ones(1, grid.length, dtype=torch.bool), 0.0, 0.6).background[0]
        allowed = grid.from_edge(runs(mined.numpy()).astype(float))
        for start, end in found.spans:
            assert ((allowed[:, 0] <= start + 1e-9) & (end <= allowed[:, 1] + 1e-9)).any()
        assert (found.score == 0).all()
    assert drawn > 10


def test_negatives_depend_on_seed_and_video_only(context):
    stage = Negatives(NegativesConfig())
    forwards, backwards = stage.open(context), stage.open(context)
    first = {v: forwards(v).spans.tolist() for v in context.videos}
    assert first == {v: backwards(v).spans.tolist() for v in reversed(context.videos)}
    other = stage.open(Context(context.data, context.inputs, context.videos, 1))
    assert first != {v: other(v).spans.tolist() for v in context.videos}


def test_no_negatives_for_a_share_of_zero(context):
    draw = Negatives(NegativesConfig(share=0.0)).open(context)
    assert not any(len(draw(video)) for video in context.videos)
