"""Detector `apl-bmn`: the third map and its losses, two kinds of windows, the contrast, a whole run."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from distributed.run.session import Options, self_train
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.methods.apl.bmn import AplBmn, AplBmnDetector
from tad.methods.apl.bmn_losses import FLOOR, distance_loss, distances, joint_score, soft_class_loss
from tad.methods.apl.contrast import anchors
from tad.methods.bmn.sampling import valid_cells
from tad.methods.bmn.targets import windows
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import one_worker
from tests.support.apl import bmn_task as task
from tests.support.bmn import batch_of, scores_of
from tests.support.plain import as_artifact, invent, label_fully
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine

TRUE = torch.ones(1, 1, dtype=torch.bool)


# -- the third map ---------------------------------------------------------------------------------------------------


def test_the_distance_of_a_cell_is_to_its_best_label():
    cells = valid_cells(8, 8)
    at = {(int(d), int(j)): i for i, (d, j) in enumerate(zip(*cells, strict=True))}
    found = distances(cells, np.array([[2.0, 4.0], [5.0, 8.0]]))
    assert found[at[1, 2]] == 0
    # [3, 6]: 1/4 of [2, 6] with the first label, 1/5 of [3, 8] with the second; centres 3 and 4.5 in a hull of 4.
    assert found[at[2, 3]] == pytest.approx((1.5 / 4) ** 2)
    assert found[at[1, 0]] == 0  # nothing overlaps
    assert not distances(cells, np.zeros((0, 2))).any()


def test_quality_losses_by_hand():
    maps = torch.tensor([[[0.0, 2.0], [1.0, -1.0], [-1.0, 1.0]]], requires_grad=True)
    targets = torch.tensor([[[0.95, 0.2], [0.05, 0.1]]])
    positive = torch.tensor([[True, False]])
    valid = TRUE.expand(1, 2)
    p = torch.sigmoid(torch.tensor(1.0)).item()
    first = 0.5 * (p - (1 - p))
    second = torch.sigmoid(torch.tensor(2.0)).item() * FLOOR  # 1 - p is below p: the floor
    want = (0.9 - first) ** 2 * -(0.9 * math.log(first) + 0.1 * math.log(1 - first)) / 2
    want += second**2 * -math.log(1 - second) / 2
    loss = soft_class_loss(maps, *targets.unbind(1), positive, valid, one_worker)
    assert float(loss.detach()) == pytest.approx(want, rel=1e-4)
    loss.backward()
    assert torch.isfinite(maps.grad).all() and maps.grad[0, 0, 0] != 0
    # No slope where the score is the soft label.
    exact = torch.tensor([[[1.2], [0.8], [-3.0]]], requires_grad=True)
    score = (exact[:, 0].sigmoid() * joint_score(exact[:, 1].sigmoid(), exact[:, 2].sigmoid())).detach()
    soft_class_loss(exact, score, 0 * score, TRUE, TRUE, one_worker).backward()
    assert exact.grad.abs().max() < 1e-6
    # Finite at the ends of the scale.
    wild = torch.tensor([[[80.0, -80.0], [-80.0, 80.0], [80.0, -80.0]]], requires_grad=True)
    extreme = soft_class_loss(wild, *targets.unbind(1), positive, valid, one_worker)
    extreme.backward()
    assert torch.isfinite(extreme) and torch.isfinite(wild.grad).all()
    logits = torch.tensor([[0.0, 3.0]])
    assert float(distance_loss(logits, targets[:, 1], positive, one_worker)) == pytest.approx(math.log(2))
    assert float(distance_loss(logits, targets[:, 1], ~valid, one_worker)) == 0


def test_the_third_map_starts_low_and_scores_are_joint():
    torch.manual_seed(0)
    net = AplBmn(True, dim=5, length=12, durations=12, width=8, samples=4).eval()
    mask, bins = torch.arange(12)[None] < 9, torch.arange(12)[None]
    x = torch.randn(1, 12, 5)
    other = torch.where(mask[..., None], x, torch.randn(1, 12, 5))
    (one, frames), (two, again) = net(x, mask, bins), net(other, mask, bins)
    assert all(torch.equal(a, b) for a, b in zip((*one, frames), (*two, again), strict=True))
    assert not frames[0, 9:].any()
    maps = net(torch.zeros(1, 12, 5), mask).maps.sigmoid()
    assert maps.shape == (1, 3, 12, 12)
    assert (maps[:, 1] - maps[:, 2] > 0).all()
    torch.testing.assert_close(net.score(maps[0]), maps[0, 0] * (maps[0, 1] - maps[0, 2]).clamp(min=FLOOR))
    assert torch.equal(net.score(maps[0, :2]), maps[0, 0] * maps[0, 1])


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options", [{"quality": True, "unlabelled_weight": 2.0}, {"unlabelled_weight": 2.0, "contrast_weight": 0.3}]
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
    assert "distance" not in losses(both)
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


# -- end to end ------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_plain_with_joint_scores(plain, tmp_path):
    torch.set_num_threads(1)
    data, labels = plain
    network = {"fit": "resize", "length": 48, "width": 32, "samples": 16}
    detector = AplBmnDetector(training={**network, "epochs": 40, "batch_size": 3, "lr": 3e-3, "quality": True})
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    now = round_of(engine, scores=scores_of(data, tmp_path / "scores", np.array([0.6, 0.4])))
    model = detector.train(now, taught(as_artifact(labels, tmp_path / "labels")))
    found = detector.detect(now, model).segments().by_video()
    hits = 0
    for video, truth in labels.by_video().items():
        one = found[video].filter(np.array(found[video].labels) == "jump")
        best = one.take(np.arange(min(len(one), len(truth))))
        hits += int((tiou(truth.spans, best.spans).max(1, initial=0) >= 0.6).sum())
        assert (found[video].end <= data.duration(video)).all()
    assert hits / len(labels) > 0.8


def test_few_labelled_videos_teach_the_others(tmp_path):
    data, truth = invent(tmp_path / "plain", videos=8)
    data = label_fully(data, truth, ("v0", "v1", "v2", "v3", "v4"))
    small = ["length=32", "width=16", "samples=8", "epochs=2", "batch_size=4"]
    recipe = load_recipe(
        "apl-bmn",
        [
            "proposer.training.epochs=10",
            "labeler.icd.training.steps=20",
            "labeler.ignore=true",
            "labeler.selection.d1=0.0",
            "labeler.selection.min_pos=1",
            "rounds=2",
            "stop.change=1.0",
            "stop.score_drop=1.0",
            "detector.pretrain.epochs=1",
            *(f"detector.training.{o}" for o in small),
        ],
    )
    self_train("apl-bmn", recipe, data, Options(tmp_path / "run", tmp_path / "store", local=True))
    for number in (1, 2):
        labels = Segments.from_parquet(tmp_path / "run" / f"round-{number}/labels.parquet")
        kinds = {source.rpartition("@")[0] for source in labels.codes("source")[1]}
        assert {"given", "apl/label"} <= kinds
        assert set(labels.codes("video_id")[1]) == set(data.videos("train"))
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    fitted = [event["name"] for event in events if event["kind"] == "stage" and event["name"].startswith("bmn/")]
    assert [name for name in fitted if name != "bmn/detect"] == ["bmn/pretrain", "bmn/train", "bmn/train"]
