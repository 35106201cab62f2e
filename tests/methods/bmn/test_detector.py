"""The detector `bmn`: items, shares, derived settings, decoding, and training and detecting through the engine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from pydantic import ValidationError

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.methods.bmn.detector import BmnDecoding, BmnDetection, BmnDetector, DetectStage, candidates, means, of_window
from tad.methods.bmn.model import BmnOutputs
from tad.methods.bmn.options import BmnTraining
from tad.methods.bmn.targets import windows
from tad.methods.bmn.training import BmnTask, TrainStage
from tad.ops.contrast import anchors
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Batch, Context, one_worker
from tests.methods.apl.test_icd import label_fully
from tests.support.plain import as_artifact, inputs_of, invent
from tests.support.tiny import TinyEngine, tiny_dataset

SMALL = {"fit": "windows", "length": 32, "durations": 32, "upsample": 1, "width": 16, "samples": 8}


@pytest.fixture
def plain(tmp_path: Path) -> tuple[Dataset, Segments]:
    return invent(tmp_path / "plain")


def task(data: Dataset, labels: Segments, folder: Path, ignored: Segments | None = None, **options: object) -> BmnTask:
    context = Context(data, inputs_of(labels, ignored, folder), data.videos("train"), seed=0)
    torch.manual_seed(0)
    return TrainStage(BmnTraining(**(SMALL | options))).open(context)


def batch_of(opened: BmnTask, items: list[int]) -> Batch:
    return opened.collate([opened.item(i, np.random.default_rng([7, i])) for i in items])


def curves_of(data: Dataset, artifact: Artifact, level: float) -> None:
    """Class scores of snippets that are the same everywhere, beside the video scores."""
    (artifact.path / "cas").mkdir(exist_ok=True)
    for name in data.videos("train"):
        rows = len(data.features(name))
        np.save(artifact.path / "cas" / f"{name}.npy", np.full((rows, len(data.classes)), level, dtype=np.float32))


def scores_of(data: Dataset, folder: Path, video: np.ndarray | dict[str, np.ndarray]) -> Artifact:
    (folder / "video").mkdir(parents=True, exist_ok=True)
    for name in data.videos_by_id:
        value = video[name] if isinstance(video, dict) else video
        np.save(folder / "video" / f"{name}.npy", np.asarray(value, dtype=np.float32))
    artifact = Artifact("scores", folder)
    curves_of(data, artifact, 1.0)
    return artifact


# -- items -----------------------------------------------------------------------------------------------------------


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


# -- loss ------------------------------------------------------------------------------------------------------------


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


# -- decoding --------------------------------------------------------------------------------------------------------


class Answers(torch.nn.Module):
    """A network that says what it is told."""

    def __init__(self, start: np.ndarray, end: np.ndarray, maps: np.ndarray) -> None:
        super().__init__()
        self.out = BmnOutputs(*(torch.from_numpy(x)[None].double().logit() for x in (start, end, maps)))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> BmnOutputs:
        return self.out


def test_proposals_lie_between_candidates_and_score_by_the_maps():
    rng = np.random.default_rng(0)
    start, end = np.full(8, 0.01), np.full(8, 0.01)
    start[[2, 4]], end[[3, 6]] = (0.9, 0.5), (0.8, 0.1)
    start[:], end[:] = start - np.arange(8) * 1e-4, end + np.arange(8) * 1e-4  # no plateaus
    maps = rng.uniform(0.1, 0.9, (3, 4, 8))
    (window,) = windows(8, 8, "windows", 1)

    def proposals(count: int, **options: object) -> dict[tuple[int, int], float]:
        net = Answers(start, end, maps[:count])
        spans, scores = of_window(net, torch.zeros(8, 1), window, 4, BmnDecoding(**options))
        assert (np.diff(scores) <= 0).all()
        edges = np.round(window.to_bins(spans)).astype(int)
        return {(int(a), int(b)): float(s) for (a, b), s in zip(edges, scores, strict=True)}

    got = proposals(2)
    # Starts 0, 2, 4, ends 3, 6, 7 (peaks, and the first and the last bin), at most 4 bins long.
    assert set(got) == {(0, 4), (2, 4), (4, 7), (4, 8)}
    assert got[2, 4] == pytest.approx(maps[0, 1, 2] * maps[1, 1, 2])
    boundaries = proposals(2, boundaries=True)
    assert boundaries[2, 4] == pytest.approx(got[2, 4] * start[2] * end[3])
    quality = proposals(3)
    for (a, b), score in quality.items():
        cell = (b - a - 1, a)
        assert score == pytest.approx(maps[0][cell] * max(maps[1][cell] - maps[2][cell], 1e-4))
    assert set(proposals(2, top_k=1)) == {max(got, key=got.get)}
    # A video that ends at bin 5 has its last end there.
    short = window._replace(bins=5)
    spans, _ = of_window(Answers(start, end, maps[:2]), torch.zeros(8, 1), short, 4, BmnDecoding())
    assert spans.max() == 4.5 and {(4, 5)} <= {tuple(x) for x in np.round(spans + 0.5).astype(int).tolist()}


def test_candidates():
    assert candidates(np.array([0.1, 0.3, 0.3, 0.9, 0.5, 0.2, 0.3]), 0.5).tolist() == [
        False,
        True,
        False,
        True,
        True,
        False,
        True,
    ]
    assert candidates(np.array([0.2, 0.2, 0.1]), 1.0).tolist() == [True, True, False]


def test_classes_come_from_the_scores_or_the_given_labels(plain, tmp_path):
    data, labels = plain
    opened = task(data, labels, tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save({"state": opened.module.state_dict(), "settings": opened.settings}, folder / "model.pt")
    inputs = {"model": Artifact("m", folder), "scores": scores_of(data, tmp_path / "scores", np.array([0.2, 0.8]))}

    def found(data: Dataset = data, **options: object) -> Segments:
        stage = DetectStage(BmnDetection(decode=BmnDecoding(min_score=None, max_detections=100_000, **options)))
        return stage.open(Context(data, inputs, [], 0, source="bmn/detect@1"))("v0")

    both, one = found(), found(classes=1)
    assert set(both.labels) == {"jump", "throw"} and set(one.labels) == {"throw"} and len(both) == 2 * len(one)
    throws = both.filter(np.array(both.labels) == "throw")
    jumps = both.filter(np.array(both.labels) == "jump")
    assert np.array_equal(throws.spans, one.spans) and np.array_equal(throws.score, one.score)
    assert np.array_equal(jumps.spans, throws.spans) and jumps.score == pytest.approx(throws.score / 4)
    assert (np.diff(both.score) <= 0).all() and (both.end <= data.duration("v0")).all()
    curves_of(data, inputs["scores"], 0.5)
    half = found()
    assert np.array_equal(half.spans, both.spans) and half.score == pytest.approx(both.score / 2)
    assert found(snippets=False).score == pytest.approx(both.score)
    known = replace(data, full_by_id={"v0": FullLabels(np.array([[1.0, 9.0]]), np.zeros(1, np.int64))})
    assert set(found(known).labels) == {"jump"}
    assert set(found(known, train_classes="predicted").labels) == {"jump", "throw"}


def test_means_of_curves_between_edges():
    curves = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 8.0]])
    edges = np.array([[0.0, 3.0], [0.5, 1.5], [1.0, 2.25], [2.9, 9.0], [-1.0, 1.0], [7.0, 9.0]])
    want = [[3, 8 / 3], [2, 0], [4.25 / 1.25, 2 / 1.25], [5, 8], [1, 0], [0, 0]]
    assert means(curves, edges) == pytest.approx(np.array(want))


# -- what is derived, and what is refused ----------------------------------------------------------------------------


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


def test_what_cannot_be_is_refused(plain, tmp_path):
    data, labels = plain
    with pytest.raises(ValidationError, match="durations must not exceed length, got 9 and 8"):
        BmnTraining(length=8, durations=9)
    with pytest.raises(ConfigError, match="durations 200 exceed the derived length 128"):
        task(data, labels, tmp_path, length=None, durations=200)
    engine = TinyEngine(data, 0, tmp_path / "engine")
    with pytest.raises(RunError, match="finds no classes itself; give it the proposer's scores"):
        BmnDetector().detect(engine, Artifact("m", tmp_path), "test")
    with pytest.raises(ConfigError, match=r"detector\.decode\.classifier: unknown key"):
        load_recipe("apl-bmn", ["detector.decode.classifier=scores.json"])


# -- end to end ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"quality": True}])
def test_it_learns_what_is_plain(options, plain, tmp_path):
    torch.set_num_threads(1)
    data, labels = plain
    network = {"fit": "resize", "length": 48, "width": 32, "samples": 16}
    detector = BmnDetector(training={**network, "epochs": 40, "batch_size": 3, "lr": 3e-3, **options})
    engine = TinyEngine(data, seed=0, folder=tmp_path / "engine")
    model = detector.train(engine, as_artifact(labels, tmp_path / "labels"))
    scores = scores_of(data, tmp_path / "scores", np.array([0.6, 0.4]))
    found = detector.detect(engine, model, "train", scores).segments().by_video()
    hits = 0
    for video, truth in labels.by_video().items():
        one = found[video].filter(np.array(found[video].labels) == "jump")
        best = one.take(np.arange(min(len(one), len(truth))))
        hits += int((tiou(truth.spans, best.spans).max(1, initial=0) >= 0.6).sum())
        assert (found[video].end <= data.duration(video)).all()
    assert hits / len(labels) > 0.8


def test_pseudo_labels_of_any_labeler(tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=6, classes=2, dim=12)
    small = ["length=32", "width=16", "samples=8", "epochs=2", "batch_size=4"]
    recipe = load_recipe(
        "pser",
        [
            "proposer.training.epochs=3",
            "labeler.heads.epochs=1",
            "detector.method=bmn",
            "rounds=1",
            *(f"detector.training.{option}" for option in small),
        ],
    )
    options = Options(tmp_path / "run", tmp_path / "store", local=True)
    self_train("pser-bmn", recipe, data, options)
    rows = json.loads((tmp_path / "run" / "rounds.json").read_text())
    assert [row["round"] for row in rows] == [0, 1]
    found = Segments.from_parquet(tmp_path / "run" / "round-1/detections-test.parquet")
    assert set(found.codes("source")[1]) == {"bmn/detect@1"}
    assert max(len(rows) for rows in found.by_video().values()) <= 200


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


def test_the_same_seed_gives_the_same_detections(plain, tmp_path):
    data, labels = plain
    artifact, scores = as_artifact(labels, tmp_path / "labels"), scores_of(data, tmp_path / "scores", np.ones(2))
    detector = BmnDetector(training={**SMALL, "epochs": 2, "batch_size": 4, "ema_decay": 0.5})
    states, found = [], []
    for seed, name in ((0, "first"), (0, "second"), (1, "third")):
        engine = TinyEngine(data, seed=seed, folder=tmp_path / name)
        model = detector.train(engine, artifact)
        states.append(model.model()["state"])
        found.append(detector.detect(engine, model, "train", scores).segments())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not all(torch.equal(value, states[2][key]) for key, value in states[0].items())
    assert found[0].digest() == found[1].digest() != found[2].digest()
