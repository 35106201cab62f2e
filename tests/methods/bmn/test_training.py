"""Training of the detector `bmn`: items, shares of workers, derived settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.methods.bmn.targets import windows
from tad.ops.iou import tiou
from tad.stages import one_worker
from tests.support.bmn import batch_of, task


@pytest.mark.parametrize(
    "options", [{}, {"upsample": 2, "length": 64, "durations": 64}, {"fit": "resize", "length": 64, "durations": 64}]
)
def test_what_is_taught_decodes_to_the_labels_in_seconds(options, plain, tmp_path):
    data, labels = plain
    opened = task(data, labels, tmp_path, **options)
    found = {v: np.zeros((0, 2)) for v in data.videos("train")}
    for index, (video, number) in enumerate(opened.items):
        item = opened.item(index, np.random.default_rng(0))
        snippets = len(data.features(video))
        window = windows(snippets, item.features.shape[0], opened.settings["fit"], opened.settings["upsample"])[number]
        best = opened.cells.spans[item.tiou > 0.8]
        found[video] = np.concatenate([found[video], data.grid(video).from_position(window.from_bins(best))])
        assert item.features.shape == (opened.settings["length"], 8) and item.bins <= len(item.features)
        assert item.positive.any() and (item.tiou[item.positive] > 0.5).all()
    bin_s = 0.64 * max(1.0, 90 / 64)
    for video, rows in labels.by_video().items():
        near = np.abs(rows.spans[:, None] - found[video][None]).max(-1).min(1)
        assert (near < bin_s).mean() > 0.6  # windows may cut some, and the longest do not fit


def test_windows_without_a_label_teach_only_where_all_is_background(plain, tmp_path):
    data, labels = plain
    labels = labels.filter(np.array(labels.video_ids) != "v1")
    assert {v for v, _ in task(data, labels, tmp_path).items} == {"v0", "v2", "v3", "v4", "v5"}
    data = replace(data, full_by_id={"v1": FullLabels(np.zeros((0, 2)), np.zeros(0, np.int64))})
    opened = task(data, labels, tmp_path)
    empty = [i for i, (v, _) in enumerate(opened.items) if v == "v1"]
    assert len(empty) == len(windows(len(data.features("v1")), 32, "windows", 1))
    batch = batch_of(opened, empty)
    assert not batch["positive"].any() and not batch["start"].any()
    losses = opened.loss(opened.module, batch, one_worker)
    assert losses["regression"] == 0 and torch.isfinite(losses["loss"]) and losses["loss"] > 0


def test_ignored_zones_teach_nothing(plain, tmp_path):
    data, labels = plain
    mine = labels.filter(np.array(labels.video_ids) == "v0")
    start = mine.end.max() + 2.0
    zone = Segments.of("v0", start, start + 6.4, "jump")
    alone = task(data, labels, tmp_path, fit="resize", length=64)
    opened = task(data, labels, tmp_path, zone, fit="resize", length=64)
    assert opened.items == alone.items
    index = [v for v, _ in opened.items].index("v0")
    with_, without = (t.item(index, np.random.default_rng(0)) for t in (opened, alone))
    assert np.array_equal(with_.tiou, without.tiou) and np.array_equal(with_.positive, without.positive)
    assert without.bins_known.all() and without.cells_known.all()
    (window,) = windows(len(data.features("v0")), 64, "resize", 1)
    span = window.to_bins(data.grid("v0").to_position(zone.spans))
    overlap = tiou(opened.cells.spans, span)[:, 0]
    assert not with_.cells_known[overlap > 0.6].any() and with_.cells_known[overlap < 0.3].all()
    assert with_.cells_known[with_.positive].all()
    assert 4 <= (~with_.bins_known).sum() <= 8


@pytest.mark.parametrize("split", [([0, 1], [2, 3]), ([0], [1, 2, 3])])
def test_workers_shares_add_up_to_the_whole(split, plain, tmp_path):
    data, labels = plain
    whole = task(data, labels, tmp_path)
    totals: list[torch.Tensor] = []
    value = whole.loss(whole.module, batch_of(whole, [0, 1, 2, 3]), lambda x: totals.append(x) or x)
    value["loss"].backward()
    parts = [task(data, labels, tmp_path) for _ in split]
    summed = 0.0
    for part, items in zip(parts, split, strict=True):
        answers = iter(totals)
        share = part.loss(part.module, batch_of(part, items), lambda _, answers=answers: next(answers))
        share["loss"].backward()
        summed += float(share["loss"].detach())
    assert summed == pytest.approx(float(value["loss"].detach()), rel=1e-5)
    for p, a, b in zip(*(t.module.parameters() for t in (whole, *parts)), strict=True):
        assert torch.allclose(p.grad, a.grad + b.grad, atol=1e-6)


def test_the_loss_is_the_weighted_sum_of_its_terms(plain, tmp_path):
    opened = task(*plain, tmp_path)
    found = {k: float(v.detach()) for k, v in opened.loss(opened.module, batch_of(opened, [0, 1]), one_worker).items()}
    parts = found["start"] + found["end"] + found["classification"] + 5 * found["regression"]
    assert found["loss"] == pytest.approx(parts) and len(found) == 5


def test_the_base_decays_most_and_the_rate_falls_once(plain, tmp_path):
    opened = task(*plain, tmp_path, lr=0.5)
    optimiser, schedule = opened.optimiser(opened.module, 10)
    base, others = optimiser.param_groups
    assert (base["weight_decay"], others["weight_decay"]) == (1e-3, 1e-4)
    assert {id(p) for p in base["params"]} == {id(p) for p in opened.module.base.parameters()}
    assert len(base["params"]) + len(others["params"]) == len(list(opened.module.parameters()))
    rates = []
    for _ in range(10):
        rates.append(base["lr"])
        optimiser.step()
        schedule.step()
    assert rates == pytest.approx([0.5] * 7 + [0.05] * 3)


def test_settings_follow_the_data(plain, tmp_path):
    data, labels = plain
    free = {"fit": None, "length": None, "durations": None, "upsample": None, "width": None}
    got = task(data, labels, tmp_path, **free).settings
    # Labels of some 10 of 50 to 90 snippets cover more than 16 of 128 bins.
    assert (got["fit"], got["length"], got["durations"], got["upsample"]) == ("resize", 128, 128, 1)
    assert (got["width"], got["classes"]) == (32, ["jump", "throw"])
    short = labels.replace(end=labels.start + 3 * 0.64)
    got = task(data, short, tmp_path, **free).settings
    assert (got["fit"], got["length"], got["durations"], got["upsample"]) == ("windows", 128, 64, 4)
    path = data.root / "dataset.yaml"
    manifest = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(manifest | {"grid": {"length": 40, "dim": 8, "dtype": "float16"}}))
    got = task(Dataset.open(data.root), short, tmp_path, **free).settings
    assert (got["fit"], got["length"], got["durations"]) == ("resize", 40, 40)
