"""The labeler `pser-weak`: PseR without points."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from tad.data.dataset import Dataset
from tad.errors import RunError
from tad.methods.pser.weak import PserWeakLabeler
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine

QUICK = SnippetProposer(training=TrainingConfig(epochs=4, batch_size=4, lr=1e-2))


def test_it_refines_in_bags_alone():
    assert PserWeakLabeler().pser.refine == "bag"
    assert PserWeakLabeler.model_validate({"pser": {"heads": {"epochs": 2}}}).pser.refine == "bag"
    with pytest.raises(ValidationError, match="pser-weak has no points and refines in bags alone"):
        PserWeakLabeler.model_validate({"pser": {"refine": "cross-fitted"}})


def test_pser_weak_refines_fused_candidates_of_given_classes(by_type: dict[str, Dataset], tmp_path: Path) -> None:
    data = by_type["classes"]
    engine = TinyEngine(data, 0, tmp_path)
    bare = round_of(engine)
    model = QUICK.train(bare)
    given = {
        "candidates": QUICK.propose(bare, model, suppressed=False),
        "embedding": QUICK.embed(bare, model),
        "scores": QUICK.score(bare, model),
    }
    labeler = PserWeakLabeler.model_validate({"pser": {"heads": {"epochs": 2}}})
    fused = labeler.fusion.label(round_of(engine, candidates=given["candidates"])).segments.segments()
    found = labeler.label(round_of(engine, **given)).segments.segments()
    assert len(found) == len(fused) > 0 and np.isnan(found.point).all()
    for video, rows in found.by_video().items():
        assert sorted(rows.score) == sorted(fused.by_video()[video].score)
        assert set(rows.label_index(data.classes)) <= set(data.video_classes(video))
    assert found.codes("source")[1] == ["pser/refine@0"]
    assert not np.allclose(np.sort(found.start), np.sort(fused.start), atol=1e-3), "they are refined"
    with pytest.raises(RunError, match="training videos only"):
        labeler.label(round_of(engine, "dev", **given))
