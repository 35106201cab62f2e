"""Training with bfloat16 matrix products: every method can, weights stay float32, and its artifacts are others."""

from __future__ import annotations

from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from distributed.engine.engine import Resources
from distributed.engine.loop import Worker, fit
from distributed.engine.precision import MixedPrecision, float32
from tad.methods.pser.labeler import PserLabeler
from tad.methods.pser.seed_labeler import SeedLabeler
from tad.stages import Context, unwrap
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyTask
from tests.support.trainings import DETECTORS, PROPOSERS, proposed_round


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("precision") / "data", videos=6, classes=2, dim=8)


def engine_of(data, folder, precision):
    return TinyEngine(data, 0, folder, Resources(precision=precision))


@pytest.fixture(scope="module")
def engine(data, tmp_path_factory):
    return engine_of(data, tmp_path_factory.mktemp("bf16"), "bf16")


@pytest.fixture(scope="module")
def proposed(engine):
    return proposed_round(engine)


@pytest.fixture
def products(monkeypatch):
    """The number formats of all linear maps' products."""
    seen, linear = set(), nn.Linear.forward

    def watched(self, x):
        found = linear(self, x)
        seen.add(found.dtype)
        return found

    monkeypatch.setattr(nn.Linear, "forward", watched)
    return seen


def once(role):
    """The same with a small learning rate and one epoch."""
    return type(role)(training=role.training.model_dump() | {"lr": 1e-3, "epochs": 1})


def trained(artifact):
    saved = torch.load(artifact.path / "model.pt", weights_only=True)["state"]
    kinds = {value.dtype for value in saved.values() if value.is_floating_point()}
    return kinds == {torch.float32} and all(value.isfinite().all() for value in saved.values())


@pytest.mark.parametrize("proposer", [PROPOSERS[0], *PROPOSERS[2:]], ids=lambda p: p.method)
def test_a_proposer(engine, proposer):
    assert trained(once(proposer).train(round_of(engine)))


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda d: d.method)
def test_a_detector(proposed, detector):
    assert trained(once(detector).train(proposed, SeedLabeler().label(proposed)))


def test_a_labeler(proposed):
    PserLabeler(refine="bag", heads={"epochs": 1}).label(proposed)


def test_products_are_bfloat16_and_losses_float32(data, products):
    class Task(ToyTask):
        def loss(self, module, batch, total):
            values = super().loss(module, batch, total)
            assert unwrap(module) is self.module and values["loss"].dtype == torch.float32
            return values

    class Fit(ToyFit):
        def open(self, context):
            return Task(self.config, context)

    context = Context(data, {}, data.videos("train"), 0)
    whole = fit(Fit(ToyConfig()), context, Worker(), None, lambda *_: None)
    assert products == {torch.float32}
    products.clear()
    half = fit(Fit(ToyConfig()), context, Worker(precision="bf16"), None, lambda *_: None)
    assert products == {torch.bfloat16}
    assert list(half["module"]) == list(whole["module"]), "a checkpoint fits either"
    for key, value in whole["module"].items():
        assert half["module"][key].dtype == torch.float32
        torch.testing.assert_close(half["module"][key], value, rtol=0.05, atol=0.02)
        assert not torch.equal(half["module"][key], value)


def test_other_precision_other_artifacts_and_float32_as_ever(data, tmp_path):
    stage = ToyFit(ToyConfig(epochs=1))
    fp32, bf16 = engine_of(data, tmp_path, "fp32"), engine_of(data, tmp_path, "bf16")
    one, other = fp32.fit(stage), bf16.fit(stage)
    assert one.fingerprint != other.fingerprint
    assert TinyEngine(data, 0, tmp_path).fit(stage).fingerprint == one.fingerprint


def test_outputs_of_any_form_are_float32_and_what_holds_them_stays():
    pair = namedtuple("pair", "scores rows")
    low, rows = torch.ones(2, dtype=torch.bfloat16), torch.arange(2)
    found = float32(pair(low, (rows, [low, None], {"a": low})))
    assert type(found) is pair and found.scores.dtype == torch.float32
    inner, lists, named = found.rows
    assert inner is rows and lists[0].dtype == torch.float32 and lists[1] is None and named["a"].dtype == torch.float32


def test_the_network_is_found_below_several_workers():
    torch.distributed.init_process_group("gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)
    try:
        core = nn.Linear(2, 1)
        module = DistributedDataParallel(MixedPrecision(core))
        assert unwrap(module) is core
        module(torch.ones(1, 2)).sum().backward()
        assert core.weight.grad.dtype == torch.float32
    finally:
        del module  # the process group must outlive it: gloo's threads and the interpreter's lock can block each other
        torch.distributed.destroy_process_group()
