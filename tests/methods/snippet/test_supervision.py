"""What labels of each kind teach the snippet models."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.errors import DataError
from tad.methods.hrpro.proposer import HrproTask, HrproTraining
from tad.methods.snippet.mining import mine
from tad.methods.snippet.model import usual_ratio
from tad.methods.snippet.proposer import SnippetProposer
from tad.methods.snippet.training import SnippetTask, TrainingConfig, action_rows, labelled_rows
from tad.stages import Context, one_worker
from tests.support.rounds import round_of
from tests.support.supervision import of_kind
from tests.support.tiny import TinyEngine


def opened(data: Dataset, **options: object) -> SnippetTask:
    torch.manual_seed(0)
    return SnippetTask(TrainingConfig.model_validate(options), Context(data, {}, data.videos("train"), 0))


def batch_of(task: SnippetTask, videos: list[str]) -> dict[str, torch.Tensor]:
    return task.collate([task.item(task.videos.index(v), np.random.default_rng(0)) for v in videos])


def test_rows_of_an_action_are_those_whose_centre_it_holds_and_at_least_one() -> None:
    grid = SnippetGrid(fps=1, stride=1, window=1, length=10)  # row i is [i, i + 1), centre i + .5
    spans = np.array([[2.5, 5.5], [2.6, 5.4], [7.1, 7.2], [0.0, 10.0], [9.8, 9.9]])
    rows = [(s.start, s.stop) for s in action_rows(spans, grid)]
    assert rows == [(2, 5), (3, 5), (7, 8), (0, 10), (9, 10)]


def test_full_labels_say_of_every_row_what_it_is_and_points_are_mined_around(by_type: dict[str, Dataset]) -> None:
    data = by_type["mixed"]
    task = opened(data)
    assert task.settings["labels"] == {"full": 2, "points": 2, "classes": 2, "none": 2}
    assert set(task.videos) == {v for v in data.videos("train") if data.supervision(v) != "none"}
    assert (task.settings["videos"], task.settings["skipped_videos"]) == (6, 2)
    videos = [of_kind(data, kind)[0] for kind in ("full", "points", "classes")]
    batch = batch_of(task, videos)
    background = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(0)) * batch["mask"]
    rows = labelled_rows(background, batch, task.config)
    mined = mine(background, batch["points"], batch["mask"])
    length = len(data.features(videos[0]))
    truth = data.full_labels(videos[0])
    assert truth is not None and len(truth.label)
    positions = data.grid(videos[0]).from_position(np.arange(length, dtype=np.float64))
    inside = (positions[:, None] >= truth.spans[:, 0]) & (positions[:, None] < truth.spans[:, 1])
    for label in range(3):
        held = inside[:, truth.label == label].any(1)
        assert rows.action[0, :length, label].numpy()[held].all()
        assert rows.action[0, :length, label].sum() <= held.sum() + (truth.label == label).sum()
    assert torch.equal(rows.background[0, :length], ~rows.action[0, :length].any(-1))
    assert not rows.background[0, length:].any() and not rows.action[0, length:].any()
    assert torch.equal(rows.action[1], mined.action[1]) and torch.equal(rows.background[1], mined.background[1])
    assert not rows.action[2].any() and not rows.background[2].any()


def test_the_search_for_segments_finds_the_full_labels(by_type: dict[str, Dataset]) -> None:
    """LACP's terms look at the most complete segments that agree with all known rows: here all rows are known."""
    data = by_type["mixed"]
    task = opened(data, score_contrast_weight=1.0, feature_contrast_weight=1.0)
    kinds = [of_kind(data, kind)[0] for kind in ("full", "points", "classes")]
    batch = batch_of(task, kinds)
    found = task.segments(task.module, batch)  # type: ignore[arg-type]
    for label in data.video_classes(kinds[0]):
        mine_ = found.span[(found.video == 0) & (found.label == int(label)) & found.action]
        covered = torch.zeros(batch["mask"].shape[1], dtype=torch.bool)
        for first, last in mine_.tolist():
            covered[first:last] = True
        assert torch.equal(covered, batch["points"][0, :, int(label)])
    assert not (found.video == 2).any()
    values = task.loss(task.module, batch, one_worker)
    values["loss"].backward()
    assert torch.isfinite(values["loss"]) and values["score"] > 0


def test_classes_teach_by_the_video_term_alone(by_type: dict[str, Dataset]) -> None:
    data = by_type["mixed"]
    task = opened(data, dropout=0.0)
    (video, _), core = of_kind(data, "classes"), task.module
    batch = batch_of(task, [video])
    assert batch["present"][0].nonzero()[:, 0].tolist() == data.video_classes(video).tolist()
    values = task.loss(core, batch, one_worker)
    assert values["point"] == 0 and values["background"] == 0 and values["video"] > 0
    optimiser = torch.optim.SGD(core.parameters(), lr=0.5)
    before = core(batch["features"], batch["mask"]).classes
    for _ in range(20):
        optimiser.zero_grad()
        task.loss(core, batch, one_worker)["loss"].backward()
        optimiser.step()
    change = (core(batch["features"], batch["mask"]).classes - before).mean((0, 1)).detach()
    assert (change[~batch["present"][0]] < 0).all()
    assert (change[batch["present"][0]] > change[~batch["present"][0]].max()).all()


def test_points_alone_teach_as_ever(whole: Dataset) -> None:
    """What mixed labels add is the identity where all videos have points."""
    task = opened(whole)
    batch = batch_of(task, task.videos)
    background = torch.rand(batch["mask"].shape, generator=torch.Generator().manual_seed(1)) * batch["mask"]
    for mine_, rows in zip(
        mine(background, batch["points"], batch["mask"]), labelled_rows(background, batch, task.config), strict=True
    ):
        assert torch.equal(mine_, rows)
    assert torch.equal(batch["present"], batch["points"].any(1)) and not batch["full"].any()
    assert task.videos == whole.videos("train")


def test_full_labels_teach_which_rows_are_action_better_than_points(
    by_type: dict[str, Dataset], tmp_path: Path
) -> None:
    """How often a class's curve is higher in a row of its actions than in another row of the same video."""

    def order(kind: str) -> float:
        data = by_type[kind]
        engine = TinyEngine(data, 0, tmp_path / kind)
        proposer = SnippetProposer(training=TrainingConfig(epochs=40, batch_size=4, lr=1e-2, dropout=0.3))
        scores = proposer.score(round_of(engine), proposer.train(round_of(engine)))
        shares = []
        for video in data.videos("train"):
            cas, truth = scores.array("cas", video), by_type["full"].full_labels(video)
            assert truth is not None
            held = np.zeros(cas.shape, dtype=bool)
            for rows, label in zip(action_rows(truth.spans, data.grid(video)), truth.label, strict=True):
                held[rows, label] = True
            shares.append((cas[held][:, None] > cas[~held & held.any(0)]).mean())
        return float(np.mean(shares))

    assert order("full") > order("points") + 0.05 > 0.7


def test_hrpro_fills_its_memory_from_full_rows_and_needs_a_weight_to_learn_from_classes(
    by_type: dict[str, Dataset],
) -> None:
    small = {"heads": 2, "feedforward": 16, "dropout": 0.0, "block_dropout": 0.0}

    def task(name: str, **more: object) -> HrproTask:
        data = by_type[name]
        torch.manual_seed(0)
        return HrproTask(HrproTraining.model_validate(small | more), Context(data, {}, data.videos("train"), 0))

    one = task("full")
    memory = one.first_memory(one.module, torch.device("cpu"))
    counts, sums = torch.zeros(3), torch.zeros_like(memory)
    one.module.eval()
    for i in range(len(one)):
        features, rows = one.item(i, np.random.default_rng(0))[:2]
        with torch.no_grad():
            embedding = one.module(features[None], torch.ones(1, len(features), dtype=torch.bool)).embedding[0]
        sums += rows.float().T @ embedding
        counts += rows.sum(0)
    assert counts.sum() > sum(len(one.data.full_labels(v).label) for v in one.videos)
    torch.testing.assert_close(memory, sums / counts.clamp(min=1)[:, None])
    with pytest.raises(
        DataError, match=r"8 of the 8 training videos have classes alone .*video_weight 0.*full and poi"
    ):
        task("classes")
    assert len(task("classes", video_weight=1.0)) == 8
    mixed = task("mixed")
    assert {mixed.data.supervision(v) for v in mixed.videos} == {"full", "points"}
    values = mixed.loss(
        mixed.module, mixed.collate([mixed.item(i, np.random.default_rng(0)) for i in range(4)]), one_worker
    )
    assert all(torch.isfinite(value) for value in values.values()) and values["contrast"] > 0


def test_null_top_ratio_follows_from_the_classes_of_a_video(by_type: dict[str, Dataset]) -> None:
    data = by_type["classes"]
    assert opened(data, top_ratio=None).settings["top_ratio"] == usual_ratio(data, data.videos("train"))
    counts = {"a": [0, 1, 2, 3], "b": [0, 1, 2, 3, 4, 5], "none": []}
    several = SimpleNamespace(video_classes=counts.__getitem__)
    assert usual_ratio(several, list(counts)) == 25  # five a video
    assert usual_ratio(several, ["none"]) == 8
