"""Training of the detector `bmn`: items, shares of workers, the contrast, derived settings."""

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
from tad.ops.contrast import anchors
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
        best = opened.cells.spans[item.quality[0] > 0.8]
        found[video] = np.concatenate([found[video], data.grid(video).from_position(window.from_bins(best))])
        assert item.features.shape == (opened.settings["length"], 8) and item.bins <= len(item.features)
        assert item.positive.any() and (item.quality[0][item.positive] > 0.5).all()
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
    assert not batch["positive"].any() and not batch["start"].any() and batch["full"].all()
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
    assert np.array_equal(with_.quality, without.quality) and np.array_equal(with_.positive, without.positive)
    assert without.bins_known.all() and without.cells_known.all()
    (window,) = windows(len(data.features("v0")), 64, "resize", 1)
    span = window.to_bins(data.grid("v0").to_position(zone.spans))
    overlap = tiou(opened.cells.spans, span)[:, 0]
    assert not with_.cells_known[overlap > 0.6].any() and with_.cells_known[overlap < 0.3].all()
    assert with_.cells_known[with_.positive].all()
    assert 4 <= (~with_.bins_known).sum() <= 8


@pytest.mark.parametrize(
    "options", [{}, {"quality": True, "unlabelled_weight": 2.0}, {"unlabelled_weight": 2.0, "contrast_weight": 0.3}]
)
@pytest.mark.parametrize("split", [([0, 1], [2, 3]), ([0], [1, 2, 3])])
def test_workers_shares_add_up_to_the_whole(split, options, plain, tmp_path):
    data, labels = plain
    data = replace(data, full_by_id={"v0": FullLabels(np.array([[1.0, 9.0]]), np.zeros(1, np.int64))})
    whole = task(data, labels, tmp_path, **options)
    totals: list[torch.Tensor] = []
    value = whole.loss(whole.module, batch_of(whole, [0, 1, 2, 3]), lambda x: totals.append(x) or x)
    value["loss"].backward()
    parts = [task(data, labels, tmp_path, **options) for _ in split]
    summed = 0.0
    for part, items in zip(parts, split, strict=True):
        answers = iter(totals)
        share = part.loss(part.module, batch_of(part, items), lambda _, answers=answers: next(answers))
        share["loss"].backward()
        summed += float(share["loss"].detach())
    assert summed == pytest.approx(float(value["loss"].detach()), rel=1e-5)
    for p, a, b in zip(*(t.module.parameters() for t in (whole, *parts)), strict=True):
        assert torch.allclose(p.grad, a.grad + b.grad, atol=1e-6)


def test_unlabelled_videos_weigh_what_they_are_told(plain, tmp_path):
    data, labels = plain
    data = replace(data, full_by_id={"v0": FullLabels(np.array([[1.0, 9.0]]), np.zeros(1, np.int64))})

    def losses(items, **options):
        opened = task(data, labels, tmp_path, **options)
        items = [i for i, (v, _) in enumerate(opened.items) if v in items]
        return {
            k: float(v.detach()) for k, v in opened.loss(opened.module, batch_of(opened, items), one_worker).items()
        }

    given, others, both = ["v0"], ["v1", "v2"], ["v0", "v1", "v2"]
    assert losses(both, unlabelled_weight=0.0) == pytest.approx(losses(given))
    assert losses(others, unlabelled_weight=0.0)["loss"] == 0
    want = {k: losses(given)[k] + 2 * v for k, v in losses(others).items()}
    assert losses(both, unlabelled_weight=2.0) == pytest.approx(want, rel=1e-5)
    plainly = losses(both)
    parts = plainly["start"] + plainly["end"] + plainly["classification"] + 5 * plainly["regression"]
    assert plainly["loss"] == pytest.approx(parts) and "distance" not in plainly
    quality = losses(both, quality=True)
    parts = sum(quality[k] for k in ("start", "end", "classification")) + 5 * quality["regression"]
    assert quality["loss"] == pytest.approx(parts + 0.1 * quality["distance"])


@pytest.mark.parametrize("options", [{}, {"fit": "resize", "length": 64, "durations": 64}, {"length": 200}])
def test_frames_of_the_contrast_have_the_labels_of_their_seconds(options, plain, tmp_path):
    data, labels = plain
    first = labels.by_video()["v0"]
    after = first.end.max() + 1.0
    zone = Segments.of("v0", after, after + 3.2, "jump")
    opened = task(data, labels, tmp_path, zone, contrast_weight=0.1, contrast_frames=20, **options)
    seen, ignored = set(), 0
    for index, (video, number) in enumerate(opened.items):
        item, rows = opened.item(index, np.random.default_rng(index)), labels.by_video()[video]
        kept = item.frame_labels >= 0
        assert len(item.frames) == 20 and (item.frames < item.bins).all()
        window = windows(len(data.features(video)), len(item.features), opened.settings["fit"], 1)[number]
        time = data.grid(video).from_position(window.from_bins(item.frames + 0.5))
        inside = (rows.start <= time[:, None]) & (time[:, None] <= rows.end)
        want = [{data.classes.index(rows.labels[i]) + 1 for i in np.flatnonzero(row)} or {0} for row in inside]
        assert all(int(found) in of for found, of, k in zip(item.frame_labels, want, kept, strict=True) if k)
        left_out = (video == "v0") & ~inside.any(1) & (time >= after) & (time <= after + 3.2)
        assert (kept == ~left_out).all()
        seen |= set(item.frame_labels.tolist())
        ignored += left_out.sum()
    assert seen == {-1, 0, *range(1, 1 + len(data.classes))} and ignored


def test_the_contrast_of_each_half_is_weighted_as_the_half(plain, tmp_path):
    data, labels = plain
    full = {v: FullLabels(np.zeros((0, 2)), np.zeros(0, np.int64)) for v in ("v0", "v1")}
    options = {"unlabelled_weight": 3.0, "contrast_weight": 0.5, "contrast_frames": 24}
    opened = task(replace(data, full_by_id=full), labels, tmp_path, **options)
    items = [i for i, (v, _) in enumerate(opened.items) if v in ("v0", "v1", "v2", "v3")]
    batch = batch_of(opened, items)
    found = opened.loss(opened.module, batch, one_worker)
    base = {}
    opened.module.start.register_forward_pre_hook(lambda _, inputs: base.update(x=inputs[0]))
    opened.module(batch["features"], batch["mask"])
    z = torch.stack([x[:, rows].T for x, rows in zip(base["x"], batch["frames"], strict=True)])

    def mean(rows: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
        loss, valid = anchors(rows, names)
        return loss.sum() / valid.sum().clamp(min=1)

    def both(part: torch.Tensor) -> torch.Tensor:
        names, rows = batch["frame_labels"][part], z[part]
        pairs = [(r, n.clamp(max=1)) for r, n in zip(rows, names, strict=True) if len(n.clamp(max=1).unique()) == 2]
        coarse = torch.stack([mean(*pair) for pair in pairs]).mean()
        return coarse + mean(rows.flatten(0, 1), names.flatten())

    expected = both(batch["full"]) + 3 * both(~batch["full"])
    torch.testing.assert_close(found["contrast"], expected)
    plainly = task(replace(data, full_by_id=full), labels, tmp_path, unlabelled_weight=3.0)
    without = plainly.loss(opened.module, batch, one_worker)
    assert "contrast" not in without
    torch.testing.assert_close(found["loss"], without["loss"] + 0.5 * expected)
    gradient = torch.autograd.grad(found["contrast"], opened.module.base[0].weight)[0]
    assert gradient.abs().sum() > 0
    alone = task(replace(data, full_by_id=full), labels, tmp_path, contrast_unlabelled=False, **options)
    batch = batch_of(alone, items)
    assert (batch["frame_labels"][~batch["full"]] == -1).all() and (batch["frame_labels"][batch["full"]] >= 0).all()


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
    # Labels of some 10 of 50 to 90 snippets cover more than 8 of 128 bins.
    assert (got["fit"], got["length"], got["durations"], got["upsample"]) == ("resize", 128, 128, 1)
    assert (got["lr"], got["width"], got["classes"]) == (1e-3, 32, ["jump", "throw"])
    short = labels.replace(end=labels.start + 3 * 0.64)
    got = task(data, short, tmp_path, **free).settings
    assert (got["fit"], got["length"], got["durations"], got["upsample"]) == ("windows", 128, 64, 4)
    assert got["lr"] == 1e-4
    path = data.root / "dataset.yaml"
    manifest = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(manifest | {"grid": {"length": 40, "dim": 8, "dtype": "float16"}}))
    got = task(Dataset.open(data.root), short, tmp_path, **free).settings
    assert (got["fit"], got["length"], got["durations"]) == ("resize", 40, 40)
