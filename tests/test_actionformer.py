"""The detector `actionformer`: targets, windows, loss, and training and detecting through the engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.detectors.actionformer import ActionFormerDetector, DetectStage, TrainStage
from tad.detectors.actionformer_targets import Pyramid, assign, decode, pyramid, random_crop
from tad.detectors.actionformer_training import Batch, DetectorTask, Training
from tad.errors import ConfigError, DataError
from tad.ops.iou import tiou
from tad.stage import Artifact, Context, one_worker
from tests.tiny import TinyEngine

SMALL = {"width": 32, "window": 9, "drop_path": 0.0, "input_dropout": 0.0}


# -- a dataset whose classes are plain to see ----------------------------------------------------------------------


def invent(folder: Path, videos: int = 6, seed: int = 0) -> tuple[Dataset, Segments]:
    """Videos with one to three segments of two classes, each class a direction of its own in 8 channels."""
    rng = np.random.default_rng(seed)
    (folder / "features").mkdir(parents=True)
    grid = {"fps": 25, "stride": 16, "window": 16, "dim": 8, "dtype": "float16"}
    names, database, truth = ["jump", "throw"], {}, []
    for index in range(videos):
        rows, at = int(rng.integers(50, 90)), 3.0
        features = rng.normal(0, 0.2, (rows, 8))
        for _ in range(int(rng.integers(1, 4))):
            start = at + rng.uniform(1, 6)
            at = start + rng.uniform(4, 20)
            if at > rows - 2:
                break
            label = int(rng.integers(2))
            cover = np.clip(np.minimum(np.arange(1, rows + 1), at) - np.maximum(np.arange(rows), start), 0, 1)
            features[:, label] += 2 * cover
            truth.append((f"v{index}", start * 0.64, at * 0.64, names[label]))
        database[f"v{index}"] = {"subset": "train", "duration": rows * 0.64, "fps": 25, "annotations": []}
        np.save(folder / "features" / f"v{index}.npy", features.astype(np.float16))
    manifest = {"name": "plain", "classes": names, "subsets": {"train": "train"}, "grid": grid}
    (folder / "dataset.yaml").write_text(yaml.safe_dump(manifest))
    (folder / "annotations.json").write_text(json.dumps({"database": database}))
    video, start, end, label = zip(*truth, strict=True)
    return Dataset.open(folder), Segments.of(video, start, end, label, score=rng.uniform(0.2, 0.9, len(truth)))


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    return invent(tmp_path / "plain")


def as_artifact(labels: Segments, folder: Path) -> Artifact:
    folder.mkdir(exist_ok=True)
    labels.to_parquet(folder / "segments.parquet")
    return Artifact("labels", folder)


def task(data: Dataset, labels: Segments, folder: Path, **options: object) -> DetectorTask:
    context = Context(data, {"labels": as_artifact(labels, folder / "labels")}, data.videos("train"), seed=0)
    torch.manual_seed(0)
    return TrainStage(Training(**(SMALL | options))).open(context)


def batch_of(opened: DetectorTask, videos: list[int]) -> Batch:
    return opened.collate([opened.item(i, np.random.default_rng([7, i])) for i in videos])


# -- targets -------------------------------------------------------------------------------------------------------


def assign_by_loop(points: Pyramid, spans: list[tuple[float, float]], labels: list[int], radius: float) -> list[object]:
    answers: list[object] = []
    for t, stride, (low, high) in zip(
        points.position.tolist(), points.stride.tolist(), points.reach.tolist(), strict=True
    ):
        found = []
        for (s, e), label in zip(spans, labels, strict=True):
            c = (s + e) / 2
            if max(s, c - radius * stride) < t < min(e, c + radius * stride) and low <= max(t - s, e - t) <= high:
                found.append((e - s, label, (t - s) / stride, (e - t) / stride))
        if not found:
            answers.append(None)
            continue
        shortest = min(f[0] for f in found)
        tied = [f for f in found if f[0] <= shortest + 1e-3]
        answers.append((sorted({f[1] for f in tied}), tied[0][2:]))
    return answers


quarters = st.integers(-4, 140).map(lambda n: n / 4)


@settings(deadline=None, max_examples=80)
@given(
    st.lists(st.tuples(quarters, st.integers(1, 120).map(lambda n: n / 4), st.integers(0, 2)), max_size=6),
    st.integers(1, 4),
    st.sampled_from([0.75, 1.5, 3.0]),
)
def test_assignment_is_that_of_a_plain_loop(drawn: list[tuple[float, float, int]], levels: int, radius: float) -> None:
    points = pyramid(32, levels)
    spans, labels = [(s, s + n) for s, n, _ in drawn], [label for _, _, label in drawn]
    weights = torch.linspace(0.1, 0.9, len(drawn))
    targets = assign(points, torch.tensor(spans).reshape(-1, 2), torch.tensor(labels).long(), weights, 3, radius)
    for i, answer in enumerate(assign_by_loop(points, spans, labels, radius)):
        classes = targets.classes[i].nonzero()[:, 0].tolist()
        if answer is None:
            assert classes == [] and targets.offsets[i].tolist() == [0, 0] and targets.weights[i] == 1
        else:
            assert (classes, tuple(targets.offsets[i].tolist())) == (answer[0], pytest.approx(answer[1]))


def test_ties_share_classes_and_the_shorter_wins() -> None:
    points = pyramid(16, 1)
    spans = torch.tensor([[1.0, 11.0], [3.0, 9.0], [3.0, 9.0005]], dtype=torch.float64)
    targets = assign(points, spans, torch.tensor([0, 1, 2]), torch.tensor([0.1, 0.2, 0.3]), 3, radius=4.0)
    assert targets.classes[6].tolist() == [False, True, True]
    assert targets.weights[6] == pytest.approx(0.2)
    assert targets.classes[3].tolist() == [True, False, False]  # outside the short ones
    assert targets.offsets[6].tolist() == [3, 3]


def test_ranges_are_closed_and_the_last_is_open() -> None:
    points = pyramid(64, 3)
    assert points.sizes == [64, 32, 16]
    assert points.reach[[0, 64, 96]].tolist() == [[0, 4], [4, 8], [8, torch.inf]]
    # A segment of length 8 around row 8 is in reach of levels 0 and 1 both: 4 is the end of one, the start of the next.
    targets = assign(points, torch.tensor([[4.0, 12.0]]), torch.tensor([0]), torch.ones(1), 1, radius=0.5)
    assert targets.classes[:, 0].nonzero()[:, 0].tolist() == [8, 64 + 4]


@settings(deadline=None, max_examples=100)
@given(st.floats(0.0, 50), st.floats(1.01, 300), st.integers(1, 6))
def test_targets_decode_to_their_segment(start: float, length: float, levels: int) -> None:
    points = pyramid(512, levels)
    span = torch.tensor([[start, start + length]], dtype=torch.float64)
    targets = assign(points, span, torch.tensor([0]), torch.ones(1), 1, radius=1.5)
    positive = targets.classes[:, 0]
    found = decode(points, targets.offsets)[positive]
    assert len(found) > 0
    assert torch.allclose(found, span.expand_as(found), atol=1e-4)


# -- windows -------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(-2, 290), st.floats(0.1, 90)), max_size=5),
    st.integers(1, 120),
    st.integers(0, 999),
)
def test_windows_hold_what_they_say(length: int, drawn: list[tuple[float, float]], longest: int, seed: int) -> None:
    spans = np.array([(s, s + n) for s, n in drawn], dtype=np.float64).reshape(-1, 2)
    crop = random_crop(length, spans, longest, 0.5, np.random.default_rng(seed))
    assert crop.start >= 0 and crop.start + crop.size <= length
    assert crop.size == longest if length > longest else round(0.9 * length) <= crop.size <= length
    low, high = crop.start - 0.5, crop.start + crop.size - 0.5
    for (start, end), kept, cut in zip(spans, crop.kept, crop.spans, strict=True):
        inside = np.clip([start, end], low, high)
        assert cut + crop.start == pytest.approx(inside)
        assert kept == (inside[1] - inside[0] >= 0.5 * (end - start))


def test_windows_look_for_a_segment() -> None:
    rng = np.random.default_rng(0)
    kept = [random_crop(1000, np.array([[700.0, 710.0]]), 50, 0.5, rng).kept.any() for _ in range(50)]
    assert np.mean(kept) > 0.95  # a single draw would keep it in one of twenty
    assert not random_crop(100, np.array([[400.0, 410.0]]), 50, 0.5, rng).kept.any()


def test_items_read_the_window_and_keep_videos_without_labels(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    opened = task(data, labels.filter(np.array(labels.video_ids) != "v1"), tmp_path)
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
        opened = task(data, labels.replace(score=scores), tmp_path, score_weight=score_weight)
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


# -- what is derived, and what is refused ---------------------------------------------------------------------------


def test_settings_follow_the_data(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    data, labels = plain
    opened = task(data, labels, tmp_path, width=None, epochs=40, batch_size=3)
    got = opened.settings
    assert (got["dim"], got["width"], got["levels"], got["classes"]) == (8, 32, 3, ["jump", "throw"])
    assert got["max_length"] % 4 == 0 and 50 <= got["max_length"] <= 92
    assert got["ema_decay"] == opened.ema_decay == pytest.approx(1 - 10 / 80)
    long = Segments.concat([labels, Segments.of("v0", 0.0, 40.0, "jump")])  # 62.5 snippets: half needs 4 * 2 ** 3
    assert task(data, long, tmp_path).settings["levels"] == 4
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
    detector = ActionFormerDetector(**SMALL, epochs=30, batch_size=3, lr=3e-3)
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(engine, artifact)
    detections = detector.detect(engine, model, "train").segments()

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
    detector = ActionFormerDetector(width=16, epochs=3, decode={"min_score": 0.0, "max_detections": 20})
    states, found = [], []
    for seed, name in ((0, "first"), (0, "second"), (1, "third")):
        engine = TinyEngine(data, seed=seed, folder=tmp_path / name)
        model = detector.train(engine, artifact)
        states.append(model.model()["state"])
        found.append(detector.detect(engine, model, "train").segments())
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
    detect_all = ActionFormerDetector().decode.model_copy(update={"min_score": 0.0, "max_detections": 7, "top_k": 50})
    for rows in (1, 2, 61, 20_000):
        np.save(data.feature_path("v0"), np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float16))
        entry = data.videos_by_id["v0"]._replace(duration=rows * 0.64)
        sized = Dataset(data.root, data.manifest, {"v0": entry}, {})
        stage = DetectStage(detect_all)
        detect = stage.open(Context(sized, {"model": Artifact("m", model)}, ["v0"], 0, source="detect/1"))
        found = detect("v0")
        assert len(found) == 7 or rows < 3
        assert (found.end <= rows * 0.64).all()
        assert (np.diff(found.score) <= 0).all()
        assert set(found.table.column("source").to_pylist()) <= {"detect/1"}
