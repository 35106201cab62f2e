"""The training loop: deterministic, resumable to the bit, clear when it cannot go on."""

from __future__ import annotations

import contextlib
import threading
import time

import numpy as np
import pytest
import torch

from distributed.engine.loop import OtherTraining, Worker, _finite, _Losses, batches, final_model, fit
from distributed.engine.read_ahead import AHEAD, ReadAhead
from distributed.engine.store import Store
from tad.errors import RunError
from tad.methods.snippet.training import SnippetTrain, TrainingConfig
from tad.stages import Context
from tests.support.tiny import tiny_dataset
from tests.support.toy import ToyConfig, ToyFit, ToyTask
from tests.support.workers import two_workers


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("loop") / "data", videos=10)


def train(data, config, resume=None, stop_after=None, seed=0):
    states = []

    def report(state, epochs, metrics):
        states.append(torch.load(_saved(state), weights_only=True))
        if stop_after is not None and len(states) == stop_after:
            raise KeyboardInterrupt

    context = Context(data, {}, data.videos("train"), seed)
    with contextlib.suppress(KeyboardInterrupt):
        fit(ToyFit(config), context, Worker(), resume, report)
    return states[-1]


def _saved(state):
    import io

    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_same_seed_same_weights_and_resume_is_bit_exact(data, decay):
    config = ToyConfig(ema_decay=decay)
    whole, again = train(data, config), train(data, config)
    assert same(whole["module"], again["module"]) and whole["history"] == again["history"]
    half = train(data, config, stop_after=3)
    resumed = train(data, config, resume=half)
    assert same(whole["module"], resumed["module"]) and whole["history"] == resumed["history"]
    assert same(final_model(whole)["state"], final_model(resumed)["state"])
    assert not same(whole["module"], train(data, config, seed=1)["module"])


def test_reading_ahead_changes_nothing(data):
    context = Context(data, {}, data.videos("train"), 0)
    stage = SnippetTrain(TrainingConfig(epochs=3, batch_size=4))  # its items are crops and its network has dropout
    one, ahead = (fit(stage, context, Worker(readers=n), None, lambda *_: None) for n in (0, 3))
    assert same(one["module"], ahead["module"]) and one["history"] == ahead["history"]


def test_what_is_made_ahead_comes_in_order_and_errors_as_they_are():
    started = []

    def make(key):
        started.append(key)
        time.sleep(0.02 if key % 3 == 0 else 0)
        if key == 7:
            raise RunError("seven")
        return 10 * key

    made = ReadAhead(make, range(20), 2)
    assert [made[i] for i in range(7)] == [0, 10, 20, 30, 40, 50, 60]
    with pytest.raises(RunError, match="seven"):
        made[7]
    made.close()
    assert max(started) < 7 + 2 * AHEAD, "no more than it may hold"
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_loss_falls_and_every_value_is_logged(data):
    history = train(data, ToyConfig(epochs=40))["history"]
    assert set(history[0]) == {"loss", "bias"}
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


def test_average_is_between_start_and_end(data):
    last, averaged = train(data, ToyConfig()), train(data, ToyConfig(ema_decay=0.9))
    assert same(last["module"], averaged["module"])  # averaging does not disturb training
    assert not same(averaged["module"], averaged["average"])


def test_batches_cover_the_epoch_and_drop_the_incomplete_one():
    found = batches(10, 4, seed=0, name="x", epoch=0)
    assert [len(b) for b in found] == [4, 4]
    assert len(set(np.concatenate(found))) == 8
    assert [len(b) for b in batches(3, 4, 0, "x", 0)] == [3]
    assert not np.array_equal(batches(10, 10, 0, "x", 0)[0], batches(10, 10, 0, "x", 1)[0])


def test_a_loss_that_is_not_finite_stops_with_its_place(data):
    with pytest.raises(RunError, match=r"toy/fit: loss is (nan|inf) in epoch \d+, step \d+; lower the learning rate"):
        train(data, ToyConfig(lr=1e30, epochs=50))


def failing_at(step, problem, lr):
    """A task whose loss raises in this step, as NumPy's code may do on what an earlier step left."""

    class Task(ToyTask):
        steps = 0

        def loss(self, module, batch, total):
            self.steps += 1
            if self.steps == step:
                raise problem
            return super().loss(module, batch, total)

    class Fit(ToyFit):
        def open(self, context):
            return Task(self.config, context)

    return Fit(ToyConfig(lr=lr, epochs=50, batch_size=1))


def test_losses_are_checked_together_and_the_first_bad_one_is_told(data, monkeypatch):
    checks, check = [], _Losses.check
    monkeypatch.setattr(_Losses, "check", lambda self: (checks.append(len(self.waiting)), check(self))[1])
    monkeypatch.setattr("distributed.engine.loop.CHECKED", 4)
    train(data, ToyConfig(epochs=1, batch_size=1))
    assert checks == [4, 4, 2]
    with pytest.raises(RunError, match=r"loss is (inf|nan) in epoch 0, step [123];"):
        train(data, ToyConfig(lr=1e25, epochs=50, batch_size=1))


def test_what_a_bad_loss_did_to_a_later_step_does_not_hide_it(data):
    context = Context(data, {}, data.videos("train"), 0)
    with pytest.raises(RunError, match=r"toy/fit: loss is (inf|nan) in epoch 0, step [123]; lower the learning rate"):
        fit(failing_at(6, ValueError("not a number"), 1e25), context, Worker(), None, lambda *_: None)
    with pytest.raises(ValueError, match="of its own"):
        fit(failing_at(6, ValueError("of its own"), 0.01), context, Worker(), None, lambda *_: None)


class BrokenTask(ToyTask):
    """Its loss is finite, but the gradient of its last step is not."""

    def loss(self, module, batch, total):
        values = super().loss(module, batch, total)
        weight = next(module.parameters())
        self.steps = getattr(self, "steps", 0) + 1
        return values if self.steps < 4 else values | {"loss": values["loss"] + torch.sqrt(0 * weight.sum())}


class BrokenFit(ToyFit):
    def open(self, context):
        return BrokenTask(self.config, context)


@pytest.mark.parametrize("decay", [None, 0.9])
def test_weights_of_the_last_step_that_are_not_finite_stop_it_and_are_not_saved(data, decay):
    context, saved = Context(data, {}, data.videos("train"), 0), []
    stage = BrokenFit(ToyConfig(epochs=2, ema_decay=decay))
    with pytest.raises(RunError, match=r"^stage toy/fit: weights are not finite after epoch 1; lower the learning"):
        fit(stage, context, Worker(), None, lambda state, epochs, metrics: saved.append(len(state["history"])))
    assert saved == [1]


def test_more_workers_than_items_is_refused(data):
    with pytest.raises(RunError, match="batches of 4 cannot be split among 8 workers"):
        fit(ToyFit(ToyConfig()), Context(data, {}, data.videos("train"), 0), Worker(world=8), None, lambda *_: None)


def _agree(rank: int, folder: str) -> None:
    import torch.distributed as dist

    from distributed.engine.train import _agreed, _packed, _unpacked

    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank=rank, world=2)
    weights = torch.arange(5.0)

    def fails() -> None:
        raise RunError("the disk is full")

    def only_of_rank_zero() -> object:
        assert rank == 0
        return _packed({"module": {"w": weights}, "history": [{"loss": 0.5}]}, worker)

    state = _unpacked(_agreed(worker, only_of_rank_zero))
    assert state is not None and torch.equal(state["module"]["w"], weights) and state["history"] == [{"loss": 0.5}]
    assert _unpacked(_agreed(worker, lambda: None)) is None
    with pytest.raises(RunError, match="the disk is full"):
        _agreed(worker, fails)
    module = torch.nn.Linear(2, 1)
    assert _finite(module, None) and _finite(module, module)
    if rank == 1:
        module.bias.data.fill_(torch.nan)
    assert not _finite(module, None)  # on both
    dist.destroy_process_group()


def test_what_rank_zero_reads_or_fails_at_reaches_every_rank(tmp_path):
    """A rank that did not hear of it would wait for the others without end."""
    two_workers(_agree, str(tmp_path))


def test_what_another_machine_wrote_is_looked_for_again(tmp_path, monkeypatch):
    partial = Store(tmp_path).partial("0" * 24)
    monkeypatch.setattr("distributed.engine.unfinished.time.sleep", lambda _: None)
    answers = iter([None, None, "there"])
    assert partial.patiently(lambda: next(answers)) == "there"
    monkeypatch.setattr("distributed.engine.unfinished.CACHED_S", 0.0)
    assert partial.patiently(lambda: None) is None


def test_a_checkpoint_of_another_module_or_optimiser_is_refused(data):
    state = train(data, ToyConfig(epochs=2))
    for wrong in ({"module": {"weight": torch.zeros(3, 3)}}, {"optimiser": {}}, {"scheduler": None}, {"history": 3}):
        with pytest.raises(OtherTraining, match="it is not of this training"):
            train(data, ToyConfig(epochs=3), resume=state | wrong)
