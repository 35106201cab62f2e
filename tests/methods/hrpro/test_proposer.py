"""The proposer `hrpro`: its memory in training, with one and two workers, and the published behaviour."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from torch.nn.parallel import DistributedDataParallel

from distributed.engine.loop import Worker, fit
from tad.data.dataset import Dataset
from tad.errors import ConfigError
from tad.methods.hrpro.proposer import HrproProposer, HrproTask, HrproTrain, HrproTraining, attention_heads
from tad.recipe.recipe import load_recipe
from tad.stages import Context, one_worker
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.workers import two_workers

SMALL = {"epochs": 3, "heads": 2, "feedforward": 16, "batch_size": 4, "block_dropout": 0.0, "dropout": 0.0}
"""Without dropout, whose masks depend on the worker."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("hrpro") / "data", videos=8, classes=3, dim=16)


def context(data: Dataset) -> Context:
    return Context(data, {}, data.videos("train"), 0)


def task(data: Dataset, **changes: object) -> HrproTask:
    torch.manual_seed(0)
    return HrproTask(HrproTraining.model_validate(SMALL | changes), context(data))


def step(task: HrproTask, videos: list[int]) -> dict[str, torch.Tensor]:
    batch = task.collate([task.item(i, np.random.default_rng(0)) for i in videos])
    return task.loss(task.module, batch, one_worker)


def test_the_first_memory_is_the_mean_embedding_of_the_points(data: Dataset) -> None:
    """HR-Pro eq. 2, written out: eval mode, memory zero, all points of the class alike."""
    one = task(data, dropout=0.7, block_dropout=0.3)
    sums, counts = torch.zeros(3, 16), torch.zeros(3)
    one.module.eval()
    with torch.no_grad():
        for i in range(len(one)):
            features, labels = one.item(i, np.random.default_rng(0))[:2]
            embedding = one.module(features[None], torch.ones(1, len(features), dtype=torch.bool)).embedding[0]
            for row, label in labels.nonzero().tolist():
                sums[label] += embedding[row]
                counts[label] += 1
    one.module.train()
    memory = one.first_memory(one.module, torch.device("cpu"))
    torch.testing.assert_close(memory, sums / counts[:, None])
    assert one.module.training and memory.std(0).max() > 0


def test_the_memory_learns_after_the_loss_and_only_classes_of_the_batch(data: Dataset) -> None:
    one = task(data)
    values = step(one, [0])
    assert set(values) == {"loss", "video", "point", "background", "contrast"}
    values["loss"].backward()  # the update in place must not disturb the graph
    present = data.video_classes(one.videos[0])
    assert set(np.flatnonzero(one.module.seen.numpy())) == set(present)


def test_a_class_without_points_has_a_prototype_of_zeros_and_all_stays_finite(data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "data")
    path = tmp_path / "data" / "points.csv"
    gone = data.classes[2]
    path.write_text("".join(x for x in path.read_text().splitlines(keepends=True) if f",{gone}," not in x))
    one = task(Dataset.open(tmp_path / "data"))
    step(one, list(range(len(one))))["loss"].backward()
    assert not one.module.memory[2].any()
    assert all(torch.isfinite(p.grad).all() for p in one.module.parameters() if p.grad is not None)


def _worker(rank: int, data: Dataset, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank, 2, torch.device("cpu"), DistributedDataParallel)
    state = fit(HrproTrain(HrproTraining.model_validate(SMALL)), context(data), worker, None, lambda *_: None)
    torch.save(state, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_hold_the_same_memory_and_learn_what_one_learns(data: Dataset, tmp_path: Path) -> None:
    alone = fit(HrproTrain(HrproTraining.model_validate(SMALL)), context(data), Worker(), None, lambda *_: None)
    two_workers(_worker, data, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name in ("memory", "seen"):
        assert torch.equal(first["module"][name], second["module"][name])
        torch.testing.assert_close(first["module"][name], alone["module"][name], atol=1e-5, rtol=1e-5)
    for epoch, (a, b) in enumerate(zip(alone["history"], first["history"], strict=True)):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-5), epoch
    assert float(alone["module"]["seen"].sum()) == 3 * sum(len(data.video_classes(v)) for v in data.videos("train"))


def test_training_goes_on_from_a_checkpoint_with_its_memory(data: Dataset) -> None:
    states: list[dict] = []
    stage = HrproTrain(HrproTraining.model_validate(SMALL | {"dropout": 0.5}))
    whole = fit(stage, context(data), Worker(), None, lambda state, *_: states.append(copy.deepcopy(state)))
    resumed = fit(stage, context(data), Worker(), states[0], lambda *_: None)
    for name, value in whole["module"].items():
        assert torch.equal(value, resumed["module"][name]), name


def test_it_learns_and_proposes(data: Dataset, tmp_path: Path) -> None:
    round = round_of(TinyEngine(data, 0, tmp_path))
    proposer = HrproProposer(training=HrproTraining(epochs=25, lr=5e-3, heads=2))
    model = proposer.train(round)
    history = json.loads((model.path / "history.json").read_text())["epochs"]
    assert history[-1]["point"] < 0.9 * history[0]["point"]
    proposals = proposer.propose(round, model).segments()
    every = proposer.propose(round, model, suppressed=False).segments()
    assert len(every) > len(proposals) > 0


def test_faithful_sets_every_published_option() -> None:
    proposer = HrproProposer(faithful=True)
    training, candidates = proposer.training, proposer.candidates
    assert training.scrambled and training.double_projection and training.attention_dropout == 0.1
    assert (training.video_weight, training.ema_decay, training.warm_memory) == (0.0, None, False)
    assert candidates.repeats and candidates.stretch == 1 and not candidates.symmetric
    assert candidates.cas_thresholds[-1] == 0.225 and not candidates.relative
    assert len(candidates.cas_thresholds) == 10 and len(candidates.actionness_thresholds) == 9
    with pytest.raises(ConfigError, match=r"faithful: true sets training\.scrambled to True, found False"):
        load_recipe("hrpro", ["proposer.faithful=true", "proposer.training.scrambled=false"])


def test_heads_follow_from_the_width_of_the_features() -> None:
    assert [attention_heads(width) for width in (2048, 96, 301, 100, 13)] == [8, 8, 7, 5, 1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"width": 8}, "width 8 differs from the features' 16"), ({"heads": 3}, "3 attention heads do not divide")],
)
def test_widths_that_do_not_fit_are_named(data: Dataset, changes, message) -> None:
    with pytest.raises(ConfigError, match=message):
        task(data, **changes)
