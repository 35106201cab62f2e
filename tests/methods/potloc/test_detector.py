"""The detector `potloc`: items, losses, workers, and training and detecting through the engine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing
from pydantic import ValidationError
from torch.nn.parallel import DistributedDataParallel

from distributed.engine.loop import Worker, fit
from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, DataError, RunError
from tad.methods.potloc.detector import (
    Curves,
    PotlocDecoding,
    PotlocDetect,
    PotlocDetection,
    PotlocDetector,
    blend,
    pool,
)
from tad.methods.potloc.training import PotlocTask, PotlocTrain, PotlocTraining, window_losses
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Batch, Context, one_worker
from tests.support.plain import as_artifact, invent
from tests.support.tiny import TinyEngine, tiny_dataset
from tests.support.workers import two_workers

SMALL = {"width": 16, "heads": 2, "window": 5, "drop_path": 0.0, "upsample": 1, "prior": 0.01}
"""Without what draws by worker; a row for each snippet."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return tiny_dataset(tmp_path_factory.mktemp("potloc") / "data", videos=6, classes=3, dim=8)


def windows_around_points(data: Dataset, half: float = 1.5) -> Segments:
    """Pseudo-labels without a look at boundaries."""
    parts = []
    for video in data.videos("train"):
        points = data.points(video)
        start, end = np.maximum(points.time - half, 0), np.minimum(points.time + half, data.duration(video))
        parts.append(Segments.of(video, start, end, [data.classes[c] for c in points.label], 0.5, points.time))
    return Segments.concat(parts)


def context(data: Dataset, labels: Segments, folder: Path) -> Context:
    return Context(data, {"labels": as_artifact(labels, folder)}, data.videos("train"), 0)


def opened(data: Dataset, labels: Segments, folder: Path, **options: object) -> PotlocTask:
    torch.manual_seed(0)
    return PotlocTrain(PotlocTraining(**(SMALL | options))).open(context(data, labels, folder))


@pytest.fixture
def task(data: Dataset, tmp_path: Path) -> PotlocTask:
    return opened(data, windows_around_points(data), tmp_path / "labels")


def batch_of(task: PotlocTask, videos: list[int]) -> Batch:
    return task.collate([task.item(i, np.random.default_rng([5, i])) for i in videos])


# -- items -----------------------------------------------------------------------------------------------------------


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


# -- losses ----------------------------------------------------------------------------------------------------------


def test_a_batch_is_the_mean_of_its_windows(task: PotlocTask) -> None:
    """So padding to the longest window changes no term, and neither do the other windows."""
    whole = task.loss(task.module, batch_of(task, [0, 1, 2, 3]), one_worker)
    single = [task.loss(task.module, batch_of(task, [i]), one_worker) for i in range(4)]
    assert set(whole) == {"loss", "video", "action", "background"}
    for name, value in whole.items():
        assert float(value.detach()) == pytest.approx(np.mean([float(s[name].detach()) for s in single]), rel=1e-5)
        assert float(value.detach()) > 0
    total = whole["video"] + 0.5 * whole["action"] + whole["background"]
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
    task = opened(bare, labels, tmp_path / "labels", seeds=seeds)
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


# -- training ----------------------------------------------------------------------------------------------------------


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


def test_it_learns_what_is_plain(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    data, labels = invent(tmp_path / "plain")
    artifact = as_artifact(labels, tmp_path / "labels")
    detector = PotlocDetector(training=SMALL | {"epochs": 60, "batch_size": 2, "lr": 5e-3, "window": 9, "width": 32})
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(engine, artifact)
    detections = detector.detect(engine, model, "train").segments()
    found = 0
    for video, truth in labels.by_video().items():
        mine = detections.filter(np.array(detections.video_ids) == video)
        best = mine.take(np.arange(min(len(mine), len(truth) + 1)))
        overlap = tiou(truth.spans, best.spans)
        overlap[np.array(truth.labels)[:, None] != np.array(best.labels)[None]] = 0
        found += int((overlap.max(1, initial=0) >= 0.4).sum())
    assert found / len(labels) > 0.8
    assert max(len(rows) for rows in detections.by_video().values()) <= 200


def test_the_convolutional_ablation_trains_and_detects(data: Dataset, tmp_path: Path) -> None:
    detector = PotlocDetector(training=SMALL | {"epochs": 2, "levels": 1, "stem": 0, "radius": None})
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(engine, as_artifact(windows_around_points(data), tmp_path / "labels"))
    assert not [name for name in model.model()["state"] if name.startswith(("stem", "branch"))]
    assert len(detector.detect(engine, model, "test").segments())


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


# -- detections --------------------------------------------------------------------------------------------------------


def pulse(rows: int, first: int, last: int, classes: int = 2) -> Curves:
    """A level whose class 1 and actionness are high on rows first..last."""
    cas, actionness = np.full((rows, classes), 0.01), np.full(rows, 0.01)
    cas[first : last + 1, 1] = actionness[first : last + 1] = 0.9
    return Curves(cas, actionness, np.array([0.1, 0.8]))


NONE = Curves(np.zeros((32, 2)), np.zeros(32), np.array([0.1, 0.8]))


@pytest.mark.parametrize(("depth", "rows"), [(0, 32), (1, 16), (2, 8)])
def test_a_run_of_a_level_covers_its_rows_on_the_finest(depth: int, rows: int) -> None:
    config = PotlocDecoding(cas_thresholds=[0.45], actionness_thresholds=[0.45], scale=4, margin=0.25)
    levels = [NONE] * depth + [pulse(rows, 2, 4)]
    places, score, label = pool(levels, np.zeros(0, np.int64), config)
    stride = 2**depth
    # Row i lies at i * stride; its cell reaches half a stride to either side. Interpolated at half the height.
    assert places == pytest.approx(np.array([[1.5, 4.5]]) * stride, abs=stride / 4 + 1e-9)
    assert label.tolist() == [1] and score[0] > 0.5
    published = config.model_copy(update={"centred": False})
    places, _, _ = pool(levels, np.zeros(0, np.int64), published)
    # There it begins at its row, an edge: half a snippet before the position.
    assert places[:, 0] + 0.5 == pytest.approx([1.5 * stride], abs=stride / 4 + 1e-9)
    assert places[:, 1] + 0.5 == pytest.approx([4.5 * stride], abs=stride / 2 + 1e-9)


def test_which_classes_are_looked_for() -> None:
    config = PotlocDecoding(cas_thresholds=[0.005], actionness_thresholds=[0.5], class_threshold=0.5)
    first = Curves(np.full((8, 3), 0.2), np.full(8, 0.2), np.array([0.7, 0.2, 0.3]))
    second = Curves(np.full((4, 3), 0.2), np.full(4, 0.2), np.array([0.1, 0.2, 0.9]))

    def classes(prior: list[float] | None = None, known: tuple[int, ...] = (), **options: object) -> list[list[int]]:
        """On each level; a run of the first level is 8 long, of the second 8 after scaling but starts elsewhere."""
        changed = config.model_copy(update=options)
        levels = [first, second]
        if prior is not None:
            levels = blend(levels, Curves(first.cas, first.actionness, np.array(prior)), changed, 1)
        places, _, label = pool(levels, np.array(known, np.int64), changed)
        finest = places[:, 0] == -0.5
        return [sorted(set(label[finest].tolist())), sorted(set(label[~finest].tolist()))]

    assert classes() == [[2], [2]]  # means .4, .2, .6
    assert classes(by_level=True) == [[0], [2]]
    assert classes(known=(1,)) == [[1], [1]]
    assert classes([0.9, 0.9, 0.1], video_power=0.5) == [[0], [0]]
    assert classes([0.9, 0.9, 0.1], video_power=0.0) == [[2], [2]]


def test_curves_of_the_proposer_are_blended_at_the_same_places() -> None:
    ramp = np.arange(8.0)[:, None] * [0.1, 0.05]
    proposer = Curves(ramp, ramp[:, 0], np.array([0.4, 0.9]))
    rows = [15, 8, 4]  # two rows a snippet, strides 1, 2 and 4
    levels = [Curves(np.ones((n, 2)), np.zeros(n), np.array([0.9, 0.1])) for n in rows]
    for depth, level in enumerate(blend(levels, proposer, PotlocDecoding(curve_share=0.25, video_power=0.5), 2)):
        at = np.minimum(np.arange(rows[depth]) * 2**depth / 2, 7)
        np.testing.assert_allclose(level.cas, 0.75 + 0.25 * at[:, None] * [0.1, 0.05])
        np.testing.assert_allclose(level.actionness, 0.25 * at * 0.1)
        np.testing.assert_allclose(level.video, [0.6, 0.3])
    alone = blend(levels, proposer, PotlocDecoding(curve_share=0.0, video_power=0.0), 2)
    assert all(np.array_equal(x, y) for a, b in zip(alone, levels, strict=True) for x, y in zip(a, b, strict=True))


def model_of(task: PotlocTask, folder: Path) -> Artifact:
    folder.mkdir()
    torch.save({"state": task.module.state_dict(), "settings": task.settings}, folder / "model.pt")
    return Artifact("m", folder)


def test_detection_of_any_length(data: Dataset, tmp_path: Path) -> None:
    task = opened(data, windows_around_points(data), tmp_path / "labels", levels=4)
    model = model_of(task, tmp_path / "model")
    config = PotlocDetection(decode=PotlocDecoding(min_score=None, max_detections=7))
    name = data.videos("train")[0]
    for rows in (1, 2, 61, 3000):
        folder = tmp_path / str(rows) / "features"
        folder.mkdir(parents=True)
        values = np.random.default_rng(0).normal(size=(rows, 8))
        np.save(folder / f"{name}.npy", values.astype(np.float32))
        entry = data.videos_by_id[name]._replace(duration=rows * 0.64)
        sized = Dataset(folder.parent, data.manifest, {name: entry}, {})
        found = PotlocDetect(config).open(Context(sized, {"model": model}, [name], 0, source="d"))(name)
        assert 0 < len(found) <= 7 and set(found.labels) <= set(data.classes)
        assert (found.start >= 0).all() and (found.end <= entry.duration).all()
        assert (np.diff(found.score) <= 0).all()


def test_published_suppression_adds_a_second(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tad.methods.potloc.detector as detecting

    spans = np.array([[10.0, 10.4], [10.7, 11.1], [20.0, 24.0], [24.5, 28.5]])
    grid = data.grid(data.videos("train")[0])

    def pooled(*_: object) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return grid.to_position(spans), np.array([0.9, 0.8, 0.7, -0.1]), np.zeros(4, np.int64)

    monkeypatch.setattr(detecting, "pool", pooled)
    task = opened(data, windows_around_points(data), tmp_path / "labels")
    given = Context(data, {"model": model_of(task, tmp_path / "model")}, [], 0, source="d")
    name = data.videos("train")[0]
    faithful = PotlocDetector(faithful=True)
    lower = faithful.postprocess.model_copy(update={"iou_threshold": 0.3})
    found = PotlocDetect(PotlocDetection(decode=faithful.decode, postprocess=lower)).open(given)(name)
    # .4 s each and .3 s apart: (1 - .3) / (.4 + .4 + 1 + .3) = 1/3.
    assert found.start == pytest.approx([10.0, 20.0, 24.5]) and found.end == pytest.approx([10.4, 24.0, 28.5])
    assert found.score == pytest.approx([0.9, 0.7, -0.1])
    soft = PotlocDetect(PotlocDetection()).open(given)(name)
    assert soft.start == pytest.approx([10.0, 10.7, 20.0])  # none overlap; below the least score is dropped


def test_refined_rows_come_back_to_seconds(data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tad.methods.potloc.detector as detecting

    name, spans = data.videos("train")[0], np.array([[10.0, 12.0], [20.0, 24.0]])
    rows = 2 * data.grid(name).to_position(spans)
    monkeypatch.setattr(detecting, "pool", lambda *_: (rows, np.array([0.9, 0.8]), np.zeros(2, np.int64)))
    task = opened(data, windows_around_points(data), tmp_path / "labels", upsample=2)
    given = Context(data, {"model": model_of(task, tmp_path / "model")}, [], 0, source="d")
    assert PotlocDetect(PotlocDetection()).open(given)(name).spans == pytest.approx(spans)


def test_training_videos_keep_their_given_classes(data: Dataset, tmp_path: Path) -> None:
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    detector = PotlocDetector(training=SMALL | {"epochs": 1}, decode={"min_score": None})
    model = detector.train(engine, as_artifact(windows_around_points(data), tmp_path / "labels"))
    for video, found in detector.detect(engine, model, "train").segments().by_video().items():
        assert set(found.label_index(data.classes)) == set(data.video_classes(video))
    for found in detector.detect(engine, model, "test").segments().by_video().values():
        assert len(set(found.labels)) == 1  # nothing is sure yet: the best class alone


def test_a_model_of_other_data_is_refused(data: Dataset, tmp_path: Path) -> None:
    model = model_of(opened(data, windows_around_points(data), tmp_path / "labels"), tmp_path / "model")
    other = tiny_dataset(tmp_path / "wide", videos=3, classes=3, dim=12)
    with pytest.raises(RunError, match=r"trained on features of width 8, but .* has 12"):
        PotlocDetect(PotlocDetection()).open(Context(other, {"model": model}, [], 0))
    more = tiny_dataset(tmp_path / "more", videos=3, classes=4, dim=8)
    with pytest.raises(RunError, match="trained on the classes"):
        PotlocDetect(PotlocDetection()).open(Context(more, {"model": model}, [], 0))


def test_faithful_sets_the_published_options() -> None:
    detector = PotlocDetector(faithful=True, training={"epochs": 5})
    training, decode = detector.training, detector.decode
    assert (training.window, training.levels, training.width, training.max_length) == (12, 3, 512, 768)
    assert training.rounded and training.seeds == "published" and training.epochs == 5
    assert (decode.class_threshold, decode.cas_thresholds, decode.margin) == (0.7, [0.4], 0.1)
    assert len(decode.actionness_thresholds) == 34 and decode.actionness_thresholds[-1] == 0.925
    assert decode.by_level and not decode.video_factor and decode.video_power == decode.curve_share == 0
    assert decode.max_detections is None
    suppression = detector.postprocess
    assert (suppression.method, suppression.iou_threshold, suppression.stretch) == ("nms", 0.45, 1.0)
    with pytest.raises(ConfigError, match=r"faithful: true sets decode\.margin to 0\.1, found 0\.2"):
        load_recipe("potloc-released", ["detector.decode.margin=0.2"])
