"""The detector `actionformer`: items, loss, derived settings, and training and detecting through the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError
from tad.methods.actionformer.detector import ActionFormerDetector, Detection, DetectStage
from tad.methods.actionformer.options import Training
from tad.methods.actionformer.targets import decode, pyramid
from tad.methods.common.windows import read_ignored
from tad.ops.iou import tiou
from tad.stages import Artifact, Context, one_worker
from tests.support.plain import SMALL, as_artifact, batch_of, inputs_of, task
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

# -- items -----------------------------------------------------------------------------------------------------------


def test_items_read_the_window_and_keep_videos_without_labels(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    labels = labels.filter(np.array(labels.video_ids) != "v1")
    assert task(data, labels, tmp_path).videos == ["v0", "v2", "v3", "v4", "v5"]  # nothing is known of v1
    data = replace(data, full_by_id={"v1": FullLabels(np.zeros((0, 2)), np.zeros(0, np.int64))})
    opened = task(data, labels, tmp_path)
    assert len(opened) == 6
    empty = opened.item(1, np.random.default_rng(0))
    assert len(empty.labels.spans) == 0 and empty.features.dtype == np.float32
    item = opened.item(0, np.random.default_rng(3))
    whole = data.features("v0").astype(np.float32)
    starts = [i for i in range(len(whole)) if np.array_equal(whole[i : i + len(item.features)], item.features)]
    assert len(starts) == 1
    mine = labels.filter(np.array(labels.video_ids) == "v0")
    seconds = data.grid("v0").from_position(item.labels.spans + starts[0])
    assert tiou(seconds, mine.spans).max(1) == pytest.approx(1, abs=0.2)
    again = opened.item(0, np.random.default_rng(3))
    assert np.array_equal(again.features, item.features)
    batch = batch_of(opened, [1])
    assert not batch["classes"].any()
    assert torch.isfinite(opened.loss(opened.module, batch, one_worker)["loss"])


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_what_is_trained_on_decodes_to_the_labels_in_seconds(
    factor: int, plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    data, labels = plain
    opened = task(data, labels, tmp_path, upsample=factor, max_length=4096)
    mine = labels.filter(np.array(labels.video_ids) == "v0")
    whole = np.array(data.features("v0"), dtype=np.float32)
    item = opened.item(0, np.random.default_rng(3))
    rows = (len(item.features) - 1) // factor + 1
    start = next(i for i in range(len(whole)) if np.array_equal(whole[i : i + rows], item.features[::factor]))
    batch = opened.collate([item])
    found = decode(pyramid(len(batch["features"]), opened.levels), batch["offsets"])[batch["classes"].any(1)]
    seconds = data.grid("v0").from_position(found.numpy() / factor + start)
    inner = (mine.start > 0.64 * (start + 1)) & (mine.end < 0.64 * (start + rows - 1))  # not cut by the window
    assert inner.any()
    assert tiou(mine.spans[inner], seconds).max(1) == pytest.approx(1, abs=1e-4)


def test_labels_lie_right_on_features_that_were_resized_in_time(
    plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    data, labels = plain
    path = data.root / "dataset.yaml"
    manifest = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(manifest | {"grid": {"length": 40, "dim": 8, "dtype": "float16"}}))
    for video in data.videos("train"):
        np.save(data.feature_path(video), np.array(data.features(video))[:40])
    resized = Dataset.open(data.root)
    opened = task(resized, labels, tmp_path)
    first = labels.filter(np.array(labels.video_ids) == "v0")
    want = first.spans / resized.duration("v0") * 40 - 0.5
    assert opened.labels["v0"].spans == pytest.approx(want)


@pytest.mark.parametrize("factor", [1, 2])
def test_detections_are_in_seconds_whatever_the_rows(
    factor: int, plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    """A network that answers every point with one segment of its own: position +- 1.5 strides."""
    data, labels = plain
    opened = task(data, labels, tmp_path, upsample=factor, levels=1)
    with torch.no_grad():
        opened.module.offset_head.weight.zero_()
        opened.module.offset_head.bias.fill_(1.5)
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save({"state": opened.module.state_dict(), "settings": opened.settings}, folder / "model.pt")
    every = Detection.model_validate({"decode": {"min_score": 0.0, "max_detections": 5000}})
    found = DetectStage(every).open(Context(data, {"model": Artifact("m", folder)}, [], 0, source="d"))("v0")
    grid, rows = data.grid("v0"), (len(data.features("v0")) - 1) * factor + 1
    at = np.arange(rows)[:, None] / factor + np.array([-1.5, 1.5]) / factor
    expected = np.clip(grid.from_position(at), 0, data.duration("v0"))
    assert len(found) == 2 * rows  # every point in both classes
    assert tiou(expected, found.spans).max(1) == pytest.approx(1, abs=1e-4)
    assert tiou(expected, found.spans).max(0) == pytest.approx(1, abs=1e-4)


# -- loss ----------------------------------------------------------------------------------------------------------


def test_targets_of_a_batch_lie_at_the_points_of_the_network(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    opened = task(*plain, tmp_path)
    items = [opened.item(i, np.random.default_rng(i)) for i in (0, 1, 2)]
    batch = opened.collate(items)
    points = pyramid(len(batch["features"]), opened.levels)
    found = decode(points, batch["offsets"])[batch["classes"].any(1)].unique(dim=0).round(decimals=3)
    first = [int((batch["video"] == i).nonzero()[0, 0]) for i in range(3)]
    real = np.concatenate([item.labels.spans + at for item, at in zip(items, first, strict=True)])
    assert tiou(found.unique(dim=0).numpy(), real).max(0) == pytest.approx(1, abs=1e-3)
    assert tiou(found.unique(dim=0).numpy(), real).max(1) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("split", [([0, 1], [2, 3]), ([0], [1, 2, 3])])
def test_workers_shares_add_up_to_the_whole(
    split: tuple[list[int], list[int]], plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    whole = task(*plain, tmp_path)
    value = whole.loss(whole.module, batch_of(whole, [0, 1, 2, 3]), one_worker)
    value["loss"].backward()
    parts = [task(*plain, tmp_path) for _ in split]
    batches = [batch_of(part, videos) for part, videos in zip(parts, split, strict=True)]
    loss = 0.0
    for part, batch in zip(parts, batches, strict=True):
        shares = part.loss(part.module, batch, lambda _: value["positives"])
        shares["loss"].backward()
        loss += float(shares["loss"].detach())
        assert part.module.normaliser == whole.module.normaliser != 100
    assert loss == pytest.approx(float(value["loss"].detach()), rel=1e-5)
    for p, a, b in zip(*(t.module.parameters() for t in (whole, *parts)), strict=True):
        assert p.grad is not None and a.grad is not None and b.grad is not None
        assert torch.allclose(p.grad, a.grad + b.grad, atol=1e-5)


def test_scores_weigh_only_when_asked_and_only_positives(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain

    def losses(scores: float, score_weight: float) -> dict[str, float]:
        opened = task(data, labels.replace(score=scores), tmp_path, label_score_weight=score_weight)
        values = opened.loss(opened.module, batch_of(opened, [0, 1, 2]), one_worker)
        return {name: float(value.detach()) for name, value in values.items()}

    plainly = losses(0.3, 0.0)
    assert losses(1.0, 1.0) == plainly
    half = losses(0.5, 1.0)
    assert half["regression"] == pytest.approx(plainly["regression"] / 2)
    assert half["positives"] == plainly["positives"]
    none = losses(0.0, 1.0)
    assert none["regression"] == 0
    assert 0 < none["classification"] < half["classification"] < plainly["classification"]
    assert losses(0.0, 0.5)["regression"] == pytest.approx(half["regression"])


def test_only_matrices_decay_and_the_rate_climbs_then_falls(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    opened = task(*plain, tmp_path, lr=1e-3)
    optimiser, schedule = opened.optimiser(opened.module, 70)
    decayed, others = optimiser.param_groups
    assert decayed["weight_decay"] == 0.05 and others["weight_decay"] == 0
    names = {id(p): name for name, p in opened.module.named_parameters()}
    free = {names[id(p)] for p in others["params"]}
    assert {"scales", "stem.0.gain_mlp", "stem.0.norm_mlp.weight", "class_head.bias"} <= free
    assert {names[id(p)] for p in decayed["params"]} == {n for n in names.values() if n not in free}
    assert all(n.endswith(("weight", "taps")) for n in names.values() if n not in free)
    rates = []
    for _ in range(70):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    assert np.argmax(rates) == 10 and max(rates) == 1e-3
    assert 0 < rates[0] < 1.1e-4 and rates[-1] < 2e-6


def test_points_in_ignored_stretches_teach_nothing(plain: tuple[Dataset, Segments], tmp_path: Path):
    data, labels = plain
    labels = labels.filter(np.array(labels.video_ids) != "v5")
    grid = data.grid("v2")
    start, end = (float(grid.from_position(np.float64(p))) for p in (10.0, 20.0))
    zone = Segments.of("v2", start, end, "jump", 0.4)
    zones = Segments.concat([zone, zone.replace(video_id=["v5"])])
    opened = task(data, labels, tmp_path, zones, max_length=4096)
    without = task(data, labels, tmp_path, max_length=4096)
    assert opened.videos == without.videos == ["v0", "v1", "v2", "v3", "v4"]  # of v5 nothing is known
    assert opened.settings == without.settings
    context = Context(data, inputs_of(labels, zones, tmp_path), data.videos("train"), 0)
    assert read_ignored(context)["v2"] == pytest.approx(np.array([[10.0, 20.0]]))

    batches = [batch_of(t, [1, 2]) for t in (opened, without)]
    spared = (batches[0]["weights"] == 0).nonzero()[:, 0]
    assert len(spared) and not batches[1]["classes"][spared].any() and (batches[1]["weights"][spared] == 1).all()
    crop = opened.item(2, np.random.default_rng([7, 2]))
    position = pyramid(len(batches[0]["features"]), opened.levels).position[spared]
    first = int((batches[0]["video"] == 1).nonzero()[0, 0])
    assert ((position - first >= crop.ignored[0, 0]) & (position - first <= crop.ignored[0, 1])).all()
    assert crop.ignored[0, 1] - crop.ignored[0, 0] == pytest.approx(10)

    found = opened.loss(opened.module, batches[0], one_worker)
    grad = torch.autograd.grad(found["classification"], opened.module.class_head.bias, retain_graph=True)[0]
    other = without.loss(without.module, batches[1], one_worker)
    assert float(found["classification"].detach()) < float(other["classification"].detach())
    assert float(found["regression"].detach()) == float(other["regression"].detach())
    more = torch.autograd.grad(other["classification"], without.module.class_head.bias)[0]
    assert (grad < more).all()  # less pushes the classes down


# -- what is derived, and what is refused ---------------------------------------------------------------------------


def test_settings_follow_the_data(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    opened = task(data, labels, tmp_path, width=None, epochs=40, batch_size=3)
    got = opened.settings
    assert (got["dim"], got["width"], got["levels"], got["classes"]) == (8, 32, 3, ["jump", "throw"])
    assert got["max_length"] % 4 == 0 and 50 <= got["max_length"] <= 92
    assert got["ema_decay"] == opened.budget.ema_decay == pytest.approx(1 - 10 / 80)
    long = Segments.concat([labels, Segments.of("v0", 0.0, 40.0, "jump")])  # 62.5 snippets: half needs 4 * 2 ** 3
    assert task(data, long, tmp_path).settings["levels"] == 4
    assert got["upsample"] == 1  # given; null follows the median length
    short = labels.replace(end=labels.start + 15.9 * 0.64)
    assert [
        task(data, rows, tmp_path, upsample=None).settings["upsample"]
        for rows in (short, short.replace(end=short.start + 16.1 * 0.64))
    ] == [2, 1]
    assert task(data, long, tmp_path, upsample=3).settings["levels"] == 6  # 187.5 rows
    given_ = task(data, long, tmp_path, levels=2, max_length=33, lr=0.5, ema_decay=0.5).settings
    assert [given_[k] for k in ("levels", "max_length", "lr", "ema_decay")] == [2, 34, 0.5, 0.5]


def test_bad_options_and_labels_are_named(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    with pytest.raises(ValidationError, match="window must be odd, got 8"):
        Training(window=8)
    with pytest.raises(ValidationError, match="heads must divide the width"):
        Training(width=32, heads=5)
    with pytest.raises(ConfigError, match="5 heads do not divide the derived width 32"):
        task(data, labels, tmp_path, width=None, heads=5)
    odd = labels.replace(label=["swim"] * len(labels), video_id=["v9", *labels.video_ids[1:]])
    with pytest.raises(DataError, match=r"(?s)segments\.parquet: 2 problems.*class 'swim'.*video 'v9'"):
        task(data, odd, tmp_path)
    with pytest.raises(DataError, match="none of the 6 training videos has a pseudo-label"):
        task(data, Segments.empty(), tmp_path)


# -- end to end ----------------------------------------------------------------------------------------------------


def test_it_learns_what_is_plain(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, labels = plain
    artifact = as_artifact(labels, tmp_path / "labels")
    detector = ActionFormerDetector(training={**SMALL, "epochs": 30, "batch_size": 3, "lr": 3e-3})
    now = round_of(TinyEngine(data, seed=0, folder=tmp_path / "engine"))
    model = detector.train(now, taught(artifact))
    detections = detector.detect(now, model).segments()

    found = 0
    for video, truth in labels.by_video().items():
        mine = detections.filter(np.array(detections.video_ids) == video)
        best = mine.take(np.arange(min(len(mine), len(truth) + 1)))
        overlap = tiou(truth.spans, best.spans)
        overlap[np.array(truth.labels)[:, None] != np.array(best.labels)[None]] = 0
        found += int((overlap.max(1, initial=0) >= 0.5).sum())
    assert found / len(labels) > 0.9

    duration = np.array([data.duration(v) for v in detections.video_ids])
    assert (detections.start >= 0).all() and (detections.end <= duration).all()
    assert max(len(rows) for rows in detections.by_video().values()) <= 200


def test_the_same_seed_gives_the_same_detections(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    artifact = as_artifact(labels, tmp_path / "labels")
    every = {"min_score": 0.0, "max_detections": 20}
    detector = ActionFormerDetector(training={"width": 16, "epochs": 3}, decode=every)
    states, found = [], []
    for seed, name in ((0, "first"), (0, "second"), (1, "third")):
        now = round_of(TinyEngine(data, seed=seed, folder=tmp_path / name))
        model = detector.train(now, taught(artifact))
        states.append(model.model()["state"])
        found.append(detector.detect(now, model).segments())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not all(torch.equal(value, states[2][key]) for key, value in states[0].items())
    assert len(found[0]) == 120 and found[0].labels == found[1].labels
    assert np.array_equal(found[0].spans, found[1].spans) and np.array_equal(found[0].score, found[1].score)


def test_detection_of_any_length(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    opened = task(data, labels, tmp_path)
    model = tmp_path / "model"
    model.mkdir()
    torch.save({"state": opened.module.state_dict(), "settings": opened.settings}, model / "model.pt")
    config = Detection.model_validate({"decode": {"min_score": 0.0, "max_detections": 7, "top_k": 50}})
    for rows in (1, 2, 61, 20_000):
        np.save(data.feature_path("v0"), np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float16))
        entry = data.videos_by_id["v0"]._replace(duration=rows * 0.64)
        sized = Dataset(data.root, data.manifest, {"v0": entry}, {})
        stage = DetectStage(config)
        detect = stage.open(Context(sized, {"model": Artifact("m", model)}, ["v0"], 0, source="detect/1"))
        found = detect("v0")
        assert len(found) == 7 or rows < 3
        assert (found.end <= rows * 0.64).all()
        assert (np.diff(found.score) <= 0).all()
        assert set(found.table.column("source").to_pylist()) <= {"detect/1"}
