"""Training of the detector `potloc`: items, losses, workers, derived settings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn.parallel import DistributedDataParallel

from distributed.engine.loop import Worker, fit
from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError
from tad.methods.potloc.options import PotlocTraining
from tad.methods.potloc.training import PotlocTask, PotlocTrain, window_losses
from tad.stages import Artifact, Context, one_worker
from tests.support.plain import invent
from tests.support.potloc import SMALL, batch_of, context, opened, windows_around_points
from tests.support.workers import two_workers


@pytest.fixture
def task(data: Dataset, tmp_path: Path) -> PotlocTask:
    return opened(data, windows_around_points(data), tmp_path / "labels")


def test_an_item_is_a_window_with_its_targets(task: PotlocTask) -> None:
    item = task.item(0, np.random.default_rng(1))
    whole = np.array(task.data.features(task.videos[0]), dtype=np.float32)
    starts = [i for i in range(len(whole)) if np.array_equal(whole[i : i + len(item.features)], item.features)]
    assert len(starts) == 1 and item.features.dtype == np.float32
    points = task.data.points(task.videos[0])
    rows = task.data.grid(task.videos[0]).row(points.time) - starts[0]
    inside = (rows >= 0) & (rows < len(item.features))
    assert set(np.flatnonzero(item.present)) == set(points.label[inside]) != set()
    assert item.targets[0, rows[inside], points.label[inside]].all()
    again = task.item(0, np.random.default_rng(1))
    assert np.array_equal(again.features, item.features) and torch.equal(again.targets, item.targets)


def test_given_points_say_which_classes_are_present_whatever_the_labels(data: Dataset, tmp_path: Path) -> None:
    labels = windows_around_points(data)
    noisy = labels.replace(label=[data.classes[0]] * len(labels), point=np.full(len(labels), np.nan))
    task = opened(data, noisy, tmp_path / "noisy", max_length=10_000)
    for index, video in enumerate(task.videos):
        item = task.item(index, np.random.default_rng(0))
        assert set(np.flatnonzero(item.present)) <= set(data.video_classes(video))
        assert not item.targets[..., 1:].any()


def test_a_video_without_given_points_has_those_of_its_labels(tmp_path: Path) -> None:
    data, labels = invent(tmp_path / "plain")  # no points.csv
    task = opened(data, labels, tmp_path / "labels")
    for index, video in enumerate(task.videos):
        mine = labels.filter(np.array(labels.video_ids) == video)
        item = task.item(index, np.random.default_rng(0))
        assert set(np.flatnonzero(item.present)) <= set(mine.label_index(data.classes))
        assert item.present.any()


def test_refined_rows_and_their_targets(data: Dataset, tmp_path: Path) -> None:
    labels = windows_around_points(data)
    once, twice = (
        opened(data, labels, tmp_path / str(n), upsample=n, levels=1, radius=None, max_length=999) for n in (1, 2)
    )
    assert opened(data, labels, tmp_path / "derived", upsample=None).settings["upsample"] == 2  # labels of 3 s
    for index, video in enumerate(once.videos):
        a, b = (task.item(index, np.random.default_rng(3)) for task in (once, twice))
        assert np.array_equal(b.features[::2], a.features) and len(b.features) == 2 * len(a.features) - 1
        start = next(i for i in range(999) if np.array_equal(data.features(video)[i : i + len(a.features)], a.features))
        spans = data.grid(video).to_position(labels.filter(np.array(labels.video_ids) == video).spans) - start
        rows = np.arange(len(b.features)) / 2
        inside = ((rows[:, None] > spans[:, 0]) & (rows[:, None] < spans[:, 1])).any(1)
        own = b.targets[0].any(-1).numpy()
        assert (own >= inside).all() and (own != inside).sum() <= len(spans)


@pytest.mark.parametrize("levels", [1, 4])
def test_targets_lie_at_the_rows_of_the_network(levels: int, data: Dataset, tmp_path: Path) -> None:
    """A network that answers each point with its own features: they come out at the place of their row."""
    task = opened(data, windows_around_points(data), tmp_path / "labels", levels=levels)
    items = [task.item(i, np.random.default_rng(i)) for i in range(3)]
    batch = task.collate(items)
    features, video, points, parents = batch["features"], batch["video"], [], []
    for _ in range(levels):
        points.append(features[video >= 0])
        parents.append(video[video >= 0])
        features, video = features[::2], video[::2]
    flat = torch.zeros(batch["mask"].numel(), 8).index_copy(0, batch["place"], torch.cat(points))
    table = flat.view(*batch["mask"].shape, 8)
    for index, item in enumerate(items):
        for level in range(levels):
            rows = torch.from_numpy(item.features[:: 2**level])
            assert torch.equal(table[index, level, : len(rows)], rows)
            assert batch["mask"][index, level].nonzero()[:, 0].tolist() == list(range(len(rows)))
    assert not batch["classes"][~batch["mask"]].any()
    assert len(torch.cat(parents)) == int(batch["mask"].sum())


def test_a_batch_is_the_mean_of_its_windows(task: PotlocTask) -> None:
    """So padding to the longest window changes no term, and neither do the other windows."""
    whole = task.loss(task.module, batch_of(task, [0, 1, 2, 3]), one_worker)
    single = [task.loss(task.module, batch_of(task, [i]), one_worker) for i in range(4)]
    assert set(whole) == {"loss", "video", "action", "background"}
    for name, value in whole.items():
        assert float(value.detach()) == pytest.approx(np.mean([float(s[name].detach()) for s in single]), rel=1e-5)
        assert float(value.detach()) > 0
    total = task.config.video_weight * whole["video"] + 0.5 * whole["action"] + whole["background"]
    assert float(whole["loss"].detach()) == pytest.approx(float(total.detach()), rel=1e-6)


@pytest.mark.parametrize("seeds", ["gaps", "published"])
def test_a_video_without_labels_or_points_has_finite_losses_and_gradients(
    seeds: str, data: Dataset, tmp_path: Path
) -> None:
    labels = windows_around_points(data)
    gone = data.videos("train")[1]
    labels = labels.filter(np.array(labels.video_ids) != gone)
    nothing = FullLabels(np.zeros((0, 2)), np.zeros(0, np.int64))
    points = {v: p for v, p in data.points_by_id.items() if v != gone}
    bare = replace(data, points_by_id=points, full_by_id={gone: nothing})
    task = opened(bare, labels, tmp_path / "labels", background_rows=seeds)
    values = task.loss(task.module, batch_of(task, [1]), one_worker)
    assert values["action"] == 0 and values["background"] == 0
    assert 0 < values["video"] < 1  # every class is absent
    values["loss"].backward()
    assert all(torch.isfinite(p.grad).all() for p in task.module.parameters() if p.grad is not None)
    mixed = task.loss(task.module, batch_of(task, [0, 1, 2]), one_worker)
    assert all(torch.isfinite(value) for value in mixed.values())


def test_terms_written_out() -> None:
    """One window of 3 rows on 2 levels and 2 classes; the second window is padding but for one row."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 2, 3, 3, generator=generator) * 0.8 + 0.1
    mask = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 0, 0], [1, 0, 0]]]).bool()
    scores = scores * mask[..., None]
    target = torch.zeros(2, 2, 3, 2, dtype=torch.bool)
    target[0, 0, 1, 0] = target[0, 1, 0, 0] = target[0, 1, 0, 1] = True
    present = torch.tensor([[True, False], [False, False]])
    batch = {"mask": mask, "classes": target, "present": present}
    terms = window_losses(scores, batch, PotlocTraining(top_ratio=2, **SMALL))

    def entropy(p: torch.Tensor, y: float) -> float:
        return float(-(y * p.log() + (1 - y) * (1 - p).log()))

    s = scores[0]
    # Rows 3 and 2, so the single best row of each level.
    first = (s[0, :3, 0].max() + s[1, :2, 0].max()) / 2
    second = (s[0, :3, 1].mean() + s[1, :2, 1].mean()) / 2
    assert float(terms["video"][0]) == pytest.approx((entropy(first, 1) + entropy(second, 0)) / 2, rel=1e-4)
    assert float(terms["video"][1]) == pytest.approx(
        sum(entropy(scores[1, :, 0, c].mean(), 0) for c in (0, 1)) / 2, rel=1e-4
    )

    def focal(row: torch.Tensor, y: tuple[float, float, float]) -> float:
        p = torch.stack([row[0] * (1 - row[2]), row[1] * (1 - row[2]), row[2]])
        return sum(float((t - q).abs() ** 2) * entropy(q, t) for q, t in zip(p, y, strict=True))

    action = (focal(s[0, 1], (1, 0, 0)) + focal(s[1, 0], (1, 1, 0))) / 2
    assert float(terms["action"][0]) == pytest.approx(action, rel=1e-4)
    # Level 0: gaps {0} and {2}; level 1: gap {1}. Each has a single row, which reaches to the end.
    background = (focal(s[0, 0], (0, 0, 1)) + focal(s[0, 2], (0, 0, 1)) + focal(s[1, 1], (0, 0, 1))) / 3
    assert float(terms["background"][0]) == pytest.approx(background, rel=1e-4)
    assert terms["action"][1] == terms["background"][1] == 0


def _worker(rank: int, data: Dataset, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    worker = Worker(rank, 2, torch.device("cpu"), DistributedDataParallel)
    stage = PotlocTrain(PotlocTraining(epochs=3, batch_size=4, lr=1e-2, **SMALL))
    state = fit(
        stage,
        Context(data, {"labels": Artifact("labels", folder / "labels")}, data.videos("train"), 0),
        worker,
        None,
        lambda *_: None,
    )
    torch.save(state, folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_workers_learn_what_one_learns(data: Dataset, tmp_path: Path) -> None:
    given = context(data, windows_around_points(data), tmp_path / "labels")
    stage = PotlocTrain(PotlocTraining(epochs=3, batch_size=4, lr=1e-2, **SMALL))
    alone = fit(stage, given, Worker(), None, lambda *_: None)
    two_workers(_worker, data, tmp_path)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    for name, value in alone["average"].items():
        assert torch.equal(first["average"][name], second["average"][name]), name
        torch.testing.assert_close(first["average"][name], value, atol=2e-4, rtol=0)
    for epoch, (a, b) in enumerate(zip(alone["history"], first["history"], strict=True)):
        assert a == pytest.approx(b, rel=1e-3, abs=1e-5), epoch


def test_settings_follow_the_data_and_bad_input_is_named(data: Dataset, tmp_path: Path) -> None:
    labels = windows_around_points(data)
    got = opened(data, labels, tmp_path / "a", width=None, epochs=40, batch_size=2).settings
    assert got["architecture"]["width"] == 32 and got["classes"] == data.classes
    assert got["ema_decay"] == pytest.approx(1 - 10 / 120)
    given = opened(data, labels, tmp_path / "b", max_length=33, lr=0.5, ema_decay=0.25).settings
    assert (given["max_length"], given["lr"], given["ema_decay"]) == (33, 0.5, 0.25)
    with pytest.raises(ValidationError, match="heads must divide the width, got 5 heads and width 16"):
        PotlocTraining(width=16, heads=5)
    with pytest.raises(ConfigError, match="potloc: 5 heads do not divide the derived width 32"):
        opened(data, labels, tmp_path / "c", width=None, heads=5)
    with pytest.raises(DataError, match="none of the 6 training videos has a pseudo-label"):
        opened(data, Segments.empty(), tmp_path / "d")
