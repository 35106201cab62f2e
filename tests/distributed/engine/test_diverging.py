"""A training that diverges ends with the loop's words, whatever the method; no loss raises before the loop looks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy

from tad.errors import RunError
from tad.methods.actionformer.options import Training
from tad.methods.apl.contrastive import ContrastiveConfig
from tad.methods.apl.contrastive_bmn import pretrain as pretrain_base
from tad.methods.apl.contrastive_pyramid import pretrain
from tad.methods.bmn.options import BmnTraining
from tad.methods.pser.labeler import PserLabeler
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.ops.losses import probability_entropy
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.trainings import DETECTORS, MUCH, PROPOSERS, proposed_round

SAID = (
    r"stage {}/\w+: (loss is (nan|inf|-inf) in epoch \d+, step \d+|weights are not finite after epoch \d+); "
    "lower the learning rate"
)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverging")
    return TinyEngine(tiny_dataset(folder / "data", videos=12, classes=2, dim=8), 0, folder)


@pytest.fixture(scope="module")
def proposed(engine):
    return proposed_round(engine)


@pytest.mark.parametrize("proposer", PROPOSERS, ids=lambda p: p.method)
def test_a_proposer(engine, proposer):
    with pytest.raises(RunError, match=SAID.format(r"[\w-]+")):
        proposer.train(round_of(engine))


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.method)
def test_a_detector(proposed, detector):
    labels = SeedLabeler().label(proposed)
    with pytest.raises(RunError, match=SAID.format(r"[\w-]+")):
        detector.train(proposed, labels)


def test_the_heads_of_pser(proposed):
    with pytest.raises(RunError, match=SAID.format("pser")):
        PserLabeler(refine="bag", heads={"lr": MUCH, "epochs": 3}).label(proposed)


def test_a_pretraining(engine):
    with pytest.raises(RunError, match=SAID.format("contrastive")):
        pretrain(round_of(engine), ContrastiveConfig(enabled=True, epochs=3), Training(lr=MUCH))
    options = {"lr": MUCH, "length": 32, "samples": 8}
    with pytest.raises(RunError, match=SAID.format(r"[\w-]+")):
        pretrain_base(round_of(engine), ContrastiveConfig(enabled=True, epochs=3), BmnTraining(**options))


def test_the_entropy_is_torchs_to_the_bit_and_nan_where_there_is_no_probability():
    rng = np.random.default_rng(0)
    p = torch.tensor(np.concatenate([rng.random(1000), [0, 1, 1e-30, 1 - 1e-7]]), dtype=torch.float32)
    y = torch.tensor(rng.random(1004), dtype=torch.float32).round()
    ours, theirs = p.clone().requires_grad_(), p.clone().requires_grad_()
    found, wanted = probability_entropy(ours, y), binary_cross_entropy(theirs, y, reduction="none")
    found.mean().backward()
    wanted.mean().backward()
    assert torch.equal(found, wanted) and torch.equal(ours.grad, theirs.grad)
    bad = torch.tensor([torch.nan, torch.inf, -torch.inf, 1.5, -0.1])
    assert probability_entropy(bad, torch.ones(5)).isnan().all()
    assert np.signbit(found.detach().numpy()).tolist() == np.signbit(wanted.detach().numpy()).tolist()
