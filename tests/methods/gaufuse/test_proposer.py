"""The proposer `rskp`: losses, memory in training with one and two workers, candidates, the published behaviour."""

from __future__ import annotations

import copy
import itertools
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
from tad.errors import ConfigError, DataError, RunError
from tad.methods.gaufuse.candidates import RskpCandidates, rskp_candidates, scored_runs
from tad.methods.gaufuse.proposer import RskpProposer, load
from tad.methods.gaufuse.training import RskpTask, RskpTrain, RskpTraining, attention_loss, snippet_loss, video_loss
from tad.recipe.recipe import load_recipe
from tad.stages import Context, one_worker
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.workers import two_workers

SMALL = {"epochs": 4, "batch_size": 4, "dropout": 0.0, "memory_epochs": 2, "prototypes": 6}
"""Without dropout, whose masks depend on the worker."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("rskp") / "data", videos=8, classes=3, dim=16)


def context(data: Dataset) -> Context:
    return Context(data, {}, data.videos("train"), 0)


def stage(**changes: object) -> RskpTrain:
    config = RskpTraining.model_validate(SMALL | changes)
    return RskpTrain(config)


def task(data: Dataset, **changes: object) -> RskpTask:
    torch.manual_seed(0)
    one = stage(**changes).open(context(data))
    one.optimiser(one.module, 2 * one.budget.epochs)
    return one


def step(one: RskpTask, videos: list[int]) -> dict[str, torch.Tensor]:
    batch = one.collate([one.item(i, np.random.default_rng(0)) for i in videos])
    return one.loss(one.module, batch, one_worker)


# -- losses -----------------------------------------------------------------------------------------------------


def test_a_video_of_two_classes_shares_its_cross_entropy() -> None:
    logits = torch.randn(1, 4)
    log_p = torch.log_softmax(logits, 1)[0]
    found = video_loss(logits, torch.tensor([[1.0, 0.0, 1.0, 1.0]]))
    torch.testing.assert_close(found[0], -(log_p[0] + log_p[2] + log_p[3]) / 3)


def test_attention_contrasts_its_ends_and_counts_each_video_s_own_length() -> None:
    attention = torch.zeros(2, 24)
    attention[0, :17] = torch.linspace(0.1, 0.9, 17)
    attention[1, :5] = torch.tensor([0.3, 0.8, 0.2, 0.5, 0.4])
    mask = torch.arange(24)[None] < torch.tensor([[17], [5]])
    found = attention_loss(attention, mask, 8)
    torch.testing.assert_close(found, torch.tensor([0.125 - 0.875, 0.2 - 0.8]))


def test_snippet_labels_are_nearly_hard_fixed_and_without_padding() -> None:
    logits = torch.zeros(1, 3, 2, requires_grad=True)
    target = torch.tensor([[[5.0, 0.0], [0.0, 5.0], [9.0, 9.0]]], requires_grad=True)
    loss = snippet_loss(logits, target, torch.tensor([[True, True, False]]), 0.2)
    torch.testing.assert_close(loss, torch.tensor([np.log(2.0)], dtype=torch.float32))
    loss.sum().backward()
    assert target.grad is None and logits.grad is not None
    torch.testing.assert_close(logits.grad[0], torch.tensor([[-1.25, 1.25], [1.25, -1.25], [0.0, 0.0]]))


def test_companions_in_a_batch_do_not_change_a_video_s_terms(data: Dataset) -> None:
    one = task(data)
    items = [one.item(i, np.random.default_rng(0)) for i in range(len(one))]
    assert len({len(item["features"]) for item in items}) > 1
    batch = one.collate(items)
    one.first_memory(one.module, torch.device("cpu"))
    together = one.terms(one.module(batch["features"], batch["mask"], batch["classes"]), batch)
    for i, item in enumerate(items):
        batch = one.collate([item])
        alone = one.terms(one.module(batch["features"], batch["mask"], batch["classes"]), batch)
        for name, term in alone.items():
            torch.testing.assert_close(together[name][i], term[0], atol=1e-5, rtol=1e-4)


# -- memory -----------------------------------------------------------------------------------------------------


def test_the_memory_opens_after_its_epochs_with_every_class_by_itself(data: Dataset) -> None:
    one = task(data)
    core = one.module
    for number in range(6):
        values = step(one, list(range(len(one))))
        values["loss"].backward()  # changes in place must not disturb the graph
        assert bool((core.memory_scores >= 0).any()) == (number >= 4), number  # two epochs of two steps each
    present = sorted({int(c) for v in data.videos("train") for c in data.video_classes(v)})
    assert (core.memory_scores[present] > 0).all()
    for a, b in itertools.pairwise(present):
        assert not torch.equal(core.memory[a], core.memory[b])
    assert one.weights(1)["snippet"] == 1.0 and one.weights(2)["snippet"] == 0.5


def test_the_first_memory_is_made_in_eval_mode(data: Dataset) -> None:
    one = task(data, dropout=0.6)
    one.first_memory(one.module, torch.device("cpu"))
    first = one.module.memory.clone()
    assert one.module.training
    one.module.forget()
    one.first_memory(one.module, torch.device("cpu"))
    assert torch.equal(one.module.memory, first)
    best = -1.0
    for index in range(len(one)):
        item = one.item(index, np.random.default_rng(0))
        if item["classes"][1]:
            with torch.no_grad():
                scores = one.module.eval()(item["features"][None], torch.ones(1, len(item["features"])).bool())
            best = max(best, float(scores.prototype_scores[0, :, 1].max()))
    assert float(one.module.memory_scores[1, 0]) == pytest.approx(best, abs=1e-6)


def test_a_class_without_a_video_leaves_its_slots_empty(data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "data")
    path = tmp_path / "data" / "points.csv"
    gone = data.classes[2]
    path.write_text("".join(x for x in path.read_text().splitlines(keepends=True) if f",{gone}," not in x))
    one = task(Dataset.open(tmp_path / "data"), memory_epochs=0)
    for _ in range(2):
        one.module.zero_grad()
        step(one, list(range(len(one))))["loss"].backward()
    assert not one.module.memory[2].any() and (one.module.memory_scores[2] == -1).all()
    assert all(torch.isfinite(p.grad).all() for p in one.module.parameters())


def test_the_released_fault_knows_one_class(data: Dataset) -> None:
    one = task(data, memory_first_class=True, memory_epochs=0)
    batch = one.collate([one.item(i, np.random.default_rng(0)) for i in range(3)])
    assert one.memory_classes(batch).tolist() == [[True, False, False]] * 3
    step(one, [0, 1, 2])
    before = one.module.memory.clone()
    one.module.memory_scores[:, -1] = 0.0
    step(one, [0, 1, 2])
    assert not torch.equal(one.module.memory[0], before[0]) and torch.equal(one.module.memory[1:], before[1:])


def _worker(rank: int, data: Dataset, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank, 2, torch.device("cpu"), DistributedDataParallel)
    torch.save(fit(stage(), context(data), worker, None, lambda *_: None), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_hold_the_same_memory_and_learn_what_one_learns(data: Dataset, tmp_path: Path) -> None:
    alone = fit(stage(), context(data), Worker(), None, lambda *_: None)
    two_workers(_worker, data, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert alone["module"]["memory"].any() and int(alone["module"]["steps"]) == 4 * 2
    for name in ("memory", "memory_scores", "steps"):
        assert torch.equal(first["module"][name], second["module"][name])
        torch.testing.assert_close(first["module"][name], alone["module"][name], atol=1e-4, rtol=1e-3)
    for epoch, (a, b) in enumerate(zip(alone["history"], first["history"], strict=True)):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5), epoch


@pytest.mark.parametrize("done", [1, 2, 3])  # before the memory opens, as it does, and after
def test_training_goes_on_from_a_checkpoint(data: Dataset, done: int) -> None:
    states: list[dict] = []
    one = stage(dropout=0.5, lr_drop=3)
    whole = fit(one, context(data), Worker(), None, lambda state, *_: states.append(copy.deepcopy(state)))
    resumed = fit(one, context(data), Worker(), states[done - 1], lambda *_: None)
    for name, value in whole["module"].items():
        assert torch.equal(value, resumed["module"][name]), name


# -- the proposer -----------------------------------------------------------------------------------------------


def test_it_learns_the_classes_and_proposes(data: Dataset, tmp_path: Path) -> None:
    now = round_of(TinyEngine(data, 0, tmp_path))
    proposer = RskpProposer(training=RskpTraining(epochs=30, lr=3e-3, dropout=0.2))
    model = proposer.train(now)
    history = json.loads((model.path / "history.json").read_text())["epochs"]
    assert history[-1]["foreground"] < 0.3 * history[0]["foreground"]
    scores = proposer.score(now, model)
    for video in data.videos("train"):
        known = data.video_classes(video)
        best = np.argsort(-scores.array("video", video))[: len(known)]
        assert set(best) == set(known), video
        assert (scores.array("background", video) <= 1).all()
    proposals = proposer.propose(now, model).segments()
    every = proposer.propose(now, model, suppressed=False).segments()
    assert len(every) > len(proposals) > 0
    assert set(proposals.codes("source")[1]) == {"rskp/propose@0"}


def test_scoring_is_done_in_eval_mode_and_mixes_by_role(data: Dataset, tmp_path: Path) -> None:
    engine = TinyEngine(data, 0, tmp_path)
    proposer = RskpProposer(training=RskpTraining(epochs=2), scoring={"snippet_share": 1.0, "label_share": 0.0})
    model = proposer.train(round_of(engine))
    out = load(Context(data, {"model": model}, [], 0))(data.videos("train")[0])
    own, walk = (head.attention[..., None] * head.logits.softmax(-1) for head in (out.own, out.walk))
    torch.testing.assert_close(out.snippets(1.0), own)
    torch.testing.assert_close(out.snippets(0.0), out.own.attention[..., None] * out.walk.logits.softmax(-1))
    assert not torch.allclose(own, walk)
    for role, share in (("train", 0.0), ("test", 1.0)):
        video = data.videos(role)[0]
        out = load(Context(data, {"model": model}, [], 0))(video)
        cas = proposer.score(round_of(engine, role), model).array("cas", video)
        np.testing.assert_allclose(cas, out.snippets(share)[0, :, :-1], atol=1e-6)


def test_videos_without_a_class_are_left_out(data: Dataset, tmp_path: Path) -> None:
    shutil.copytree(data.root, tmp_path / "data")
    path, gone = tmp_path / "data" / "points.csv", data.videos("train")[0]
    path.write_text("".join(x for x in path.read_text().splitlines(keepends=True) if not x.startswith(f"{gone},")))
    one = task(Dataset.open(tmp_path / "data"))
    assert gone not in one.videos and one.settings["skipped_videos"] == 1
    path.unlink()
    with pytest.raises(DataError, match=r"none of the 8 training videos has a class; .* labels\.csv"):
        task(Dataset.open(tmp_path / "data"))


def test_training_goes_on_from_given_weights_with_an_empty_memory(data: Dataset, tmp_path: Path) -> None:
    model = RskpProposer(training=RskpTraining(epochs=2, width=12)).train(round_of(TinyEngine(data, 0, tmp_path)))
    given = Context(data, {"model": model}, data.videos("train"), 0)
    one = RskpTask(RskpTraining(dropout=0.1), given, epochs=3, lr=1e-6, memory_epochs=0)
    assert one.settings["architecture"]["width"] == 12 and one.module.dropout.p == 0.1
    torch.testing.assert_close(one.module.centres.detach(), model.model()["state"]["centres"])
    assert not one.module.memory.any() and int(one.module.steps) == 0
    other = tiny_dataset(tmp_path / "other", videos=4, classes=3, dim=8)
    with pytest.raises(RunError, match=r"trained with dim = 16, but .* has 8"):
        wrong = Context(other, {"model": model}, other.videos("train"), 0)
        RskpTask(RskpTraining(), wrong, epochs=1, lr=None, memory_epochs=0)


# -- candidates -------------------------------------------------------------------------------------------------


def test_released_candidates_match_the_golden_vectors(golden) -> None:
    case = golden("gaufuse")["proposals"]
    config = RskpCandidates(
        thresholds=case["thresholds"],
        context=case["alpha"],
        exponent=case["beta"],
        min_length=case["min_len"],
        released_edges=True,
        widen=0.0,
        fusion={"weight": "inner"},
    )
    curve = np.array(case["cas"])
    found = scored_runs(curve, config)
    rows = np.column_stack([found.spans, found.contrast, found.inner])
    np.testing.assert_allclose(rows, case["expected_rows"], atol=1e-9)
    fused = rskp_candidates(curve[:, None], np.ones(1), np.array([0]), config)
    np.testing.assert_allclose(np.column_stack([fused.spans, fused.scores]), case["fused_T0p2"], atol=1e-6)


def test_mended_edges_are_those_of_the_run() -> None:
    curve = np.array([0.0, 0.1, 0.9, 0.9, 0.9, 0.3, 0.0, 0.0, 0.0, 0.5, 0.7])
    found = scored_runs(curve, RskpCandidates(thresholds=[0.4], context=0.5, exponent=1.0, widen=0.25))
    assert found.spans.tolist() == [[1.75, 5.25], [8.75, 11]]  # not beyond the video's end
    np.testing.assert_allclose(found.inner, [0.9, 0.6])
    np.testing.assert_allclose(found.contrast, [0.9 - (0.0 + 0.1 + 0.3 + 0.0) / 4, 0.6 - 0.0])
    assert scored_runs(curve, RskpCandidates(thresholds=[0.4], min_length=3, widen=0.0)).spans.tolist() == [[2, 5]]
    assert scored_runs(curve, RskpCandidates(thresholds=[0.9])).spans.size == 0  # strictly above


@pytest.mark.parametrize("released", [False, True])
def test_contrasts_are_those_of_plain_loops(released: bool) -> None:
    rng = np.random.default_rng(0)
    config = RskpCandidates(thresholds=[0.1, 0.3, 0.5], context=0.3, released_edges=released, widen=0.0)
    for _ in range(20):
        curve = rng.random(60) ** 2
        rows = len(curve)
        for (start, end), contrast, inner in zip(*scored_runs(curve, config), strict=True):
            a, b = int(start), int(end) - released
            reach = 0.3 * (b - a) ** 0.9
            if released:
                inside = [curve[min(t, rows - 1)] for t in range(a, min(b + 1, rows))]
                outside = [*range(max(0, int(a - reach)), a), *range(b + 1, min(rows - 1, int(b + reach + 1)))]
            else:
                inside, margin = curve[a:b], int(np.ceil(reach))
                outside = [t for t in (*range(a - margin, a), *range(b, b + margin)) if 0 <= t < rows]
            outer = np.mean([curve[t] for t in outside]) if outside else 0.0
            assert inner == pytest.approx(np.mean(inside)) and contrast == pytest.approx(np.mean(inside) - outer)


def test_suppression_counts_a_run_once_and_fusion_as_often_as_thresholds_yield_it() -> None:
    curve = np.zeros((30, 2))
    curve[5:12, 0], curve[20:24, 0], curve[8:10, 1] = 0.5, 0.2, 0.4
    many = {"thresholds": [0.1, 0.15, 0.3], "widen": 0.0}

    def of(nms: str, known: tuple[int, ...] = (0, 1)) -> list[tuple[float, float, int]]:
        config = RskpCandidates(**many, suppression=nms)
        found = rskp_candidates(curve, np.array([0.9, 0.1]), np.array(known, dtype=np.int64), config)
        return [(float(s), float(e), int(c)) for (s, e), c in zip(found.spans, found.labels, strict=True)]

    assert len(of("none")) == 3 + 2 + 3
    for nms in ("soft", "hard", "gaufuse"):
        assert of(nms) == [(5, 12, 0), (8, 10, 1), (20, 24, 0)]
    assert of("hard", ()) == [(5, 12, 0), (20, 24, 0)]  # the other class is below its threshold


def test_a_video_of_no_class_has_its_best_class_or_nothing() -> None:
    curve, video = np.zeros((9, 2)), np.array([0.1, 0.12])
    curve[2:6] = 0.5
    none = np.zeros(0, dtype=np.int64)
    assert rskp_candidates(curve, video, none, RskpCandidates()).labels.tolist() == [1]
    for nms in ("none", "soft", "hard", "gaufuse"):
        assert not len(rskp_candidates(curve, video, none, RskpCandidates(best_class=False, suppression=nms)).labels)


def test_faithful_sets_every_published_option() -> None:
    proposer = RskpProposer(faithful=True)
    training, candidates = proposer.training, proposer.candidates
    assert (training.epochs, training.memory_epochs, training.lr_drop, training.ema_decay) == (200, 101, 80, None)
    assert training.memory_first_class and candidates.released_edges and not candidates.best_class
    assert candidates.fusion.weight == "inner" and len(candidates.thresholds) == 20
    assert (candidates.thresholds[0], candidates.thresholds[-1]) == (0.001, 0.039)
    with pytest.raises(ConfigError, match=r"faithful: true sets candidates\.released_edges to True, found False"):
        load_recipe(
            "pser", ["proposer.method=rskp", "proposer.faithful=true", "proposer.candidates.released_edges=false"]
        )
