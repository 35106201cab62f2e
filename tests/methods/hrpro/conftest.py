"""What the detector `hrpro-instance` reads: made once for the tests of this folder."""

from __future__ import annotations

import pytest

from tad.methods.hrpro.labeler import HrproLabeler
from tad.methods.hrpro.negatives import Negatives, NegativesConfig
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import TrainingConfig
from tad.stages import Context
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset


@pytest.fixture(scope="package")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("instance") / "data", videos=6, classes=2, dim=12)


@pytest.fixture(scope="package")
def engine(data, tmp_path_factory):
    return TinyEngine(data, 0, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="package")
def inputs(engine):
    """The proposer's scores and candidates of both roles, and the reliable proposals."""
    proposer = SnippetProposer(training=TrainingConfig(epochs=8))
    model = proposer.train(round_of(engine))
    scores = {role: proposer.score(round_of(engine, role), model) for role in ("train", "test")}
    candidates = {role: proposer.propose(round_of(engine, role), model, suppressed=False) for role in scores}
    return scores, candidates, HrproLabeler().label(round_of(engine, proposals=candidates["train"])).segments


@pytest.fixture(scope="package")
def context(engine, inputs):
    scores, candidates, labels = inputs
    negatives = engine.map(Negatives(NegativesConfig()), {"scores": scores["train"], "candidates": candidates["train"]})
    found = {"labels": labels, "candidates": candidates["train"], "negatives": negatives, "scores": scores["train"]}
    return Context(engine.data, found, engine.data.videos("train"), 0, "test@0")
