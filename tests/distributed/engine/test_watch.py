"""A training is looked at on its way: with the model so far, no trace of it in the store, and no change to the end."""

from __future__ import annotations

import os

import pytest
import torch

from distributed.engine.loop import Worker, final_model, fit
from tad.stages import Context
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.toy import ToyConfig, ToyFit

STAGE = ToyFit(ToyConfig(epochs=5, ema_decay=0.9))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("watch") / "data", videos=6)


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_model_of_each_epoch_is_there_for_a_moment(data, tmp_path):
    models = []
    context = Context(data, {}, data.videos("train"), 0)
    fit(STAGE, context, Worker(), None, lambda state, *_: models.append(final_model(_copied(state))["state"]))
    engine, told = TinyEngine(data, 0, tmp_path), []

    def watch(stage, epoch, epochs, so_far):
        assert stage is STAGE and epochs == 5
        with so_far() as model:
            assert same(model.model()["state"], models[epoch - 1])
            assert engine.store.find(model.fingerprint) is not None
        told.append((epoch, model.fingerprint))

    engine.watch = watch
    made = engine.fit(STAGE)
    assert [epoch for epoch, _ in told] == [1, 2, 3, 4, 5] and same(made.model()["state"], models[-1])
    assert len({key for _, key in told} | {made.fingerprint}) == 6
    left = [name for name in os.listdir(engine.store.root) if not name.startswith(".")]
    assert all(name.startswith(made.fingerprint) for name in left)
    assert made.fingerprint == TinyEngine(data, 0, tmp_path / "other").fit(STAGE).fingerprint


def test_what_it_raises_ends_the_training_which_goes_on_from_there(data, tmp_path):
    class Enough(BaseException):
        pass

    def watch(stage, epoch, epochs, so_far):
        if epoch == 2:
            raise Enough

    engine = TinyEngine(data, 0, tmp_path)
    engine.watch = watch
    with pytest.raises(Enough):
        engine.fit(STAGE)
    assert '"stage-failed"' in engine.record.path.read_text() and '"KILLED"' in engine.record.path.read_text()
    later = TinyEngine(data, 0, tmp_path)
    before = later.record.path.read_text().count('"kind": "epoch"')
    ended = later.fit(STAGE)
    assert before == 2 and later.record.path.read_text().count('"kind": "epoch"') == 5, "three epochs were left"
    whole = TinyEngine(data, 0, tmp_path / "whole").fit(STAGE)
    assert same(ended.model()["state"], whole.model()["state"])


def _copied(state):
    return state | {k: {n: v.clone() for n, v in state[k].items()} for k in ("module", "average")}
