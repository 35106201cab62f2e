"""GauFuse's labeler and retrained detector: gates, temperatures, schedule, whole runs from the classes of videos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.methods.gaufuse.detector import RskpDetector
from tad.methods.gaufuse.labeler import GaufuseLabeler
from tad.methods.gaufuse.proposer import RskpProposer
from tad.methods.gaufuse.retraining import (
    Retrain,
    RetrainConfig,
    Retraining,
    RetrainTask,
    Schedule,
    TargetConfig,
    Targets,
    epoch_of,
)
from tad.ops.fusion import gaussian_fusion
from tad.recipe.recipe import load_recipe
from tad.stages import Context, one_worker
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, tiny_dataset

SMALL = [
    "rounds=3",
    "proposer.training.epochs=4",
    "detector.schedule.epochs=[2]",
    "detector.schedule.label_epochs=[2,1,0]",
    "stop.score_drop=1",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Videos of which only the classes are known."""
    folder = tmp_path_factory.mktemp("gaufuse") / "data"
    whole = tiny_dataset(folder, videos=6, classes=3, dim=12)
    rows = [f"{v},{whole.classes[c]}" for v in whole.videos("train") for c in whole.video_classes(v)]
    (folder / "points.csv").unlink()
    (folder / "labels.csv").write_text("video_id,label\n" + "\n".join(rows) + "\n")
    return Dataset.open(folder)


@pytest.fixture(scope="module")
def engine(data, tmp_path_factory):
    return TinyEngine(data, 0, tmp_path_factory.mktemp("engine"))


@pytest.fixture(scope="module")
def made(engine):
    """The proposer's model, scores of the training videos and candidates."""
    proposer = RskpProposer(training={"epochs": 4})
    now = round_of(engine)
    model = proposer.train(now)
    return model, proposer.score(now, model), proposer.propose(now, model, suppressed=False)


# -- labeler ----------------------------------------------------------------------------------------------------


def rows_of(data: Dataset, length: float = 4.0) -> Segments:
    """Two overlapping candidates of every class in every training video, the first one better; and one below zero."""
    rows = [
        (v, s, s + length, c, q)
        for v in data.videos("train")
        for c in data.classes
        for s, q in ((1.0, 0.5), (2.0, 0.3), (9.0, -0.1))
    ]
    return Segments.of(*zip(*rows, strict=True))


def test_only_given_classes_are_labelled(engine, data):
    now = round_of(engine, proposals=engine.adopt(rows_of(data), "proposals"))
    found = GaufuseLabeler().label(now).segments.segments()
    want = {(v, data.classes[c]) for v in data.videos("train") for c in data.video_classes(v)}
    assert {(r["video_id"], r["label"]) for r in found.rows()} == want and len(found) == len(want)
    assert set(found.codes("source")[1]) == {"gaufuse/fuse@0"}
    released = GaufuseLabeler(gate={"classes": "all", "min_score": None}).label(now).segments.segments()
    assert len(released) == 2 * len(data.classes) * len(data.videos("train"))


def test_a_share_of_the_best_of_the_class_in_the_video_is_wanted(engine, data):
    first, rest = data.videos("train")[0], data.videos("train")[1:]
    label = data.classes[data.video_classes(first)[0]]
    scores = {first: (0.8, 0.5, 0.3), **dict.fromkeys(rest, (0.2, 0.1, 0.09))}
    rows = [(v, 9.0 * i, 9.0 * i + 4, label, q) for v, own in scores.items() for i, q in enumerate(own)]
    now = round_of(engine, proposals=engine.adopt(Segments.of(*zip(*rows, strict=True)), "proposals"))
    for share, kept in ((0.0, [0.3, 0.5, 0.8]), (0.5, [0.5, 0.8]), (1.0, [0.8])):
        found = GaufuseLabeler(gate={"share": share}).label(now).segments.segments().by_video()
        assert np.sort(found[first].score).tolist() == pytest.approx(kept)
        if share == 1:
            assert all(len(found[v]) == 1 for v in rest if v in found)


def test_of_rival_classes_at_one_place_the_better_one_stays(data, tmp_path):
    engine = TinyEngine(data, 0, tmp_path)
    video = data.videos("train")[0]
    a, b = data.classes[:2]
    # b's first is beaten by a's first, so it does not beat a's second; a's third stands beside b's at a lower tIoU.
    rows = [(0.0, 4.0, a, 0.9), (0.5, 4.5, b, 0.6), (2.0, 5.0, a, 0.5), (20.0, 24.0, a, 0.3), (23.0, 28.0, b, 0.4)]
    found = [(video, start, end, label, score) for start, end, label, score in rows]
    now = round_of(engine, proposals=engine.adopt(Segments.of(*zip(*found, strict=True)), "proposals"))
    gate = {"classes": "all", "rivals": 0.3}
    labels = GaufuseLabeler(gate=gate, fusion={"overlap_threshold": 0.9}).label(now).segments.segments()
    kept = sorted(zip(labels.start.tolist(), labels.labels, strict=True))
    assert kept == [(0.0, a), (2.0, a), (20.0, a), (23.0, b)]


def test_the_round_chooses_the_temperature(data, tmp_path):
    engine, spans, q = TinyEngine(data, 0, tmp_path), np.array([[1.0, 5.0], [2.0, 6.0]]), np.array([0.5, 0.3])
    adopted = engine.adopt(rows_of(data), "proposals")
    for number, temperature in ((1, 1.0), (2, 0.1), (5, 0.1)):
        now = round_of(engine, number=number, proposals=adopted)
        found = GaufuseLabeler(temperatures=[1.0, 0.1]).label(now).segments.segments()
        fused = gaussian_fusion(spans, q, q, np.zeros(2, int), temperature=temperature)
        np.testing.assert_allclose(found.spans, np.repeat(fused.spans, len(found), 0), atol=1e-9)
        np.testing.assert_allclose(found.score, fused.scores[0], atol=1e-6)
    seeds = GaufuseLabeler().seeds(now).segments()
    assert set(map(tuple, seeds.spans.tolist())) == {(1.0, 5.0)} and len(seeds) == len(found)


def test_inner_means_come_from_the_scores(engine, data, made):
    """The weights of fusion are means of the class's curve, so of two members the one on higher values wins."""
    _, scores, candidates = made
    inner = GaufuseLabeler(fusion={"weight": "inner"}, temperatures=[1e-7])
    now = round_of(engine, candidates=candidates, scores=scores)
    found = inner.label(now).segments.segments()
    every = candidates.segments().by_video()
    for video, rows in found.by_video().items():
        cas = scores.array("cas", video)
        grid = data.grid(video, len(cas))
        own = {(r["label"], round(r["start"], 4), round(r["end"], 4)) for r in every[video].rows()}
        for row in rows.rows():
            assert (row["label"], round(row["start"], 4), round(row["end"], 4)) in own
            first, last = np.rint(grid.to_edge(np.array([row["start"], row["end"]]))).astype(int)
            value = cas[first:last, data.classes.index(row["label"])].mean()
            inside = [
                cas[slice(*np.rint(grid.to_edge(np.array([r["start"], r["end"]]))).astype(int)), :][
                    :, data.classes.index(row["label"])
                ].mean()
                for r in every[video].rows()
                if r["label"] == row["label"] and row["start"] <= r["start"] and r["end"] <= row["end"]
            ]
            assert value >= max(inside) - 1e-6
    with pytest.raises(RunError, match=r"fusion\.weight: inner needs the snippet scores"):
        inner.label(round_of(engine, candidates=candidates))
    assert len(GaufuseLabeler(gate={"class_threshold": 1.0}).label(now).segments.segments()) == 0


# -- schedule ---------------------------------------------------------------------------------------------------


def test_the_published_schedule(golden):
    """From the base's last epoch on; the base's own are the proposer's."""
    detector, starts = RskpDetector(faithful=True), [200, 230, 245, 260, 275, 300]
    schedule = detector.schedule
    temperatures = GaufuseLabeler(faithful=True).temperatures
    seen = set()
    for row in golden("gaufuse")["schedule_zero_based_epochs"]:
        if row["epoch"] < 200:
            continue
        number = sum(row["epoch"] >= start for start in starts)
        now = epoch_of(schedule, number, row["epoch"] - starts[number - 1])
        assert number == row["round"] and temperatures[number - 1] == row["fusion_T"]
        assert now.lr == row["lr"]
        training = detector.training
        snippet_weight = training.snippet_weight_memory if now.settled else training.snippet_weight
        assert snippet_weight == row["spl_weight"]
        gain, sign, _ = row["label"].partition("*")
        expected = (0.0, float(gain)) if sign else (float(row["label"] != "none"), 0.0)
        assert (now.labels, now.change) == pytest.approx([w * row["pl_weight"] for w in expected], rel=1e-6)
        seen.add(row["label"])
    assert {"none", "L_1", "2.0*(L_3-L_2)", "2.0*(L_6-L_5)", "2.15*(L_6-L_5)"} <= seen
    proposer = load_recipe("gaufuse-released").proposer.training
    assert (proposer.epochs, proposer.lr, proposer.lr_drop, proposer.memory_epochs) == (200, 5e-5, 80, 101)


def test_lists_are_of_rounds_and_the_last_entry_goes_on():
    schedule = Schedule(
        epochs=[3, 2], lr=[1e-3, 1e-4], label_epochs=[3, 1, 0], gains=[1.5], weight=1.0, growth=2.0, weight_limit=50.0
    )
    found = [[epoch_of(schedule, k, e) for e in range(n)] for k, n in ((1, 3), (2, 2), (3, 2), (4, 2))]
    assert [[(x.labels, x.change) for x in row] for row in found] == [
        [(1, 0), (2, 0), (4, 0)],
        [(8, 0), (0, 24)],
        [(0, 48), (0, 75)],
        [(0, 75), (0, 75)],
    ]
    assert [row[0].lr for row in found] == [1e-3, 1e-4, 1e-4, 1e-4]


# -- targets and training ---------------------------------------------------------------------------------------


def labels_of(engine, shift: float = 0.0, name: str = "labels"):
    rows = [
        (v, 1.0 + shift, 6.0 + shift, engine.data.classes[c], 0.4)
        for v in engine.data.videos("train")
        for c in engine.data.video_classes(v)
    ]
    return engine.adopt(Segments.of(*zip(*rows, strict=True)), name)


def test_targets_lie_where_the_labels_are(engine, data):
    targets = engine.map(Targets(TargetConfig()), {"labels": labels_of(engine)})
    for video in data.videos("train"):
        array = targets.array("targets", video)
        grid = data.grid(video, len(data.features(video)))
        assert array.shape == (grid.length, len(data.classes)) and array.dtype == np.float32
        first, last = np.rint(grid.to_edge(np.array([1.0, 6.0]))).astype(int)
        own = np.isin(np.arange(array.shape[1]), data.video_classes(video))
        np.testing.assert_allclose(array[first:last, own], 0.4, atol=1e-4)
        assert array[:, ~own].max(initial=0) == 0 and np.delete(array, np.s_[first:last], 0).max() < 1e-4


def task(engine, made, number: int, old: float, new: float, **more: object) -> RetrainTask:
    inputs = {"model": made[0]}
    for name, shift in (("targets", new), ("previous", old)):
        inputs[name] = engine.map(Targets(TargetConfig()), {"labels": labels_of(engine, shift, name)})
    schedule = Schedule(epochs=[2], label_epochs=[2, 0], weight=10.0, growth=1.0)
    training = Retraining.model_validate({"dropout": 0.0, "first_memory": False, **more})
    config = RetrainConfig(training=training, schedule=schedule, round=number)
    one = Retrain(config).open(Context(engine.data, inputs, engine.data.videos("train"), 0))
    one.optimiser(one.module, 2)
    return one


def loss_of(one: RetrainTask) -> dict[str, torch.Tensor]:
    batch = one.collate([one.item(i, np.random.default_rng(0)) for i in range(len(one))])
    return one.loss(one.module, batch, one_worker)


def test_unchanged_targets_leave_the_base_loss(engine, made):
    """Loss and gradients are those of the proposer's terms."""
    same, base = task(engine, made, 2, 0.0, 0.0), task(engine, made, 2, 0.0, 0.0)
    base.schedule = Schedule(weight=0.0)
    values, other = loss_of(same), loss_of(base)
    assert values["loss"].item() == other["loss"].item() and values["change"].item() == 0
    values["loss"].backward(), other["loss"].backward()
    for a, b in zip(same.module.parameters(), base.module.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=0, atol=0)


@pytest.mark.parametrize("bounded", [True, False])
def test_steps_follow_the_change(engine, made, bounded):
    """With the loss on the change alone, steps lower it."""
    weights = dict.fromkeys(("foreground_weight", "whole_weight", "attention_weight", "snippet_weight_memory"), 0.0)
    one = task(engine, made, 2, 0.0, 5.0, bounded=bounded, **weights)
    optimiser, losses = torch.optim.SGD(one.module.parameters(), lr=1e-5), []
    for _ in range(5):
        values = loss_of(one)
        assert values["loss"].item() == pytest.approx(20 * values["change"].item(), rel=1e-5)  # weight 10, gain 2
        losses.append(values["loss"].item())
        optimiser.zero_grad()
        values["loss"].backward()
        optimiser.step()
    assert losses == sorted(losses, reverse=True) and losses[-1] < losses[0]


def test_it_starts_from_the_last_model_and_needs_one(engine, made):
    detector = RskpDetector(schedule={"epochs": [1], "lr": [1e-9]}, training={"ema_decay": None})
    labels = taught(labels_of(engine))
    trained = detector.train(round_of(engine, number=1, model=made[0]), labels).model()["state"]
    for key, value in made[0].model()["state"].items():
        if not key.startswith(("memory", "steps")):
            torch.testing.assert_close(trained[key], value, rtol=0, atol=1e-6)
    with pytest.raises(RunError, match="learns how labels changed in round 2, which has none before"):
        RskpDetector(schedule={"label_epochs": [2, 0]}).train(round_of(engine, number=2, model=made[0]), labels)
    with pytest.raises(ConfigError, match="the proposer is snippet; use proposer rskp, or another detector"):
        load_recipe("demo", ["detector.method=rskp"])


# -- whole runs -------------------------------------------------------------------------------------------------


def run(data: Dataset, folder: Path, *overrides: str) -> list[dict]:
    recipe = load_recipe("gaufuse-small", [*SMALL, *overrides])
    self_train("gaufuse-small", recipe, data, Options(folder / "run", folder / "store", local=True))
    return json.loads((folder / "run" / "rounds.json").read_text())


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(data, folder)


def test_three_rounds_from_classes_alone(finished, data):
    folder, rows = finished
    assert [row["round"] for row in rows] == [0, 1, 2, 3]
    assert len({row["model"] for row in rows}) == 4 and all(row["test_map"] for row in rows)
    for number in (1, 2, 3):
        labels = Segments.from_parquet(folder / "run" / f"round-{number}" / "labels.parquet")
        assert set(labels.codes("source")[1]) == {f"gaufuse/fuse@{number}"}
        found = Segments.from_parquet(folder / "run" / f"round-{number}" / "detections-test.parquet")
        assert set(found.codes("source")[1]) == {f"rskp/propose@{number}"}
    events = [json.loads(x) for x in (folder / "run" / "events.jsonl").read_text().splitlines()]
    fits = [e for e in events if e["kind"] == "stage" and e["name"] == "rskp/retrain"]
    assert len(fits) == 3
    store = Path(json.loads((folder / "run" / "run.json").read_text())["store"])
    history = [json.loads((store / row["model"] / "history.json").read_text())["epochs"] for row in rows[1:]]
    assert ["change" in epochs[0] for epochs in history] == [False, True, True]
    assert any(abs(x["change"]) > 0 for epochs in history[1:] for x in epochs)


def test_a_run_stopped_between_rounds_goes_on_to_the_same_end(finished, data, tmp_path):
    """Another engine trains what is missing, in a store where one round is done."""
    _, rows = finished
    first = run(data, tmp_path, "rounds=1")
    recipe = load_recipe("gaufuse-small", SMALL)
    self_train("gaufuse-small", recipe, data, Options(tmp_path / "more", tmp_path / "store", local=True))
    again = json.loads((tmp_path / "more" / "rounds.json").read_text())
    assert [r["model"] for r in again] == [r["model"] for r in rows] and first[1]["model"] == rows[1]["model"]
    assert [r["test_map"] for r in again] == [r["test_map"] for r in rows]
    events = [json.loads(x) for x in (tmp_path / "more" / "events.jsonl").read_text().splitlines()]
    assert sum(e["kind"] == "stage" and e["name"] == "rskp/retrain" for e in events) == 2


def test_faithful_rounds_run(data, tmp_path):
    recipe = load_recipe("gaufuse-released", [*SMALL, "proposer.training.memory_epochs=2", "rounds=2"])
    self_train("released", recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1, 2]


def test_recipes_of_the_package_say_the_same_of_proposer_and_detector():
    """The detector scores and proposes by its own options, which are to be the proposer's."""
    for name in ("gaufuse", "gaufuse-small", "gaufuse-anet", "gaufuse-released"):
        recipe = load_recipe(name)
        assert recipe.detector.scoring == recipe.proposer.scoring, name
        assert recipe.detector.candidates == recipe.proposer.candidates, name
        assert recipe.select in ("classes", "dev-map") and yaml.safe_dump(recipe.model_dump(mode="json"))
