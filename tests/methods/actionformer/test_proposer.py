"""The proposer `actionformer`: trained on fully labelled videos alone, its curves, candidates and proposals."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.methods.actionformer.detector import Detection, Detector, DetectStage, Reading, TrainStage
from tad.methods.actionformer.proposer import ActionFormerProposer, GivenLabels, LabelledTrain, curves
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Context, unwrap
from tests.support.plain import SMALL, as_artifact, invent
from tests.support.rounds import GivenRound, round_of
from tests.support.tiny import TinyEngine

Run = tuple[GivenRound, Artifact, Artifact]
LABELLED = ("v0", "v1", "v2", "v3", "v4")
PROPOSER = ActionFormerProposer.model_validate(
    {"training": SMALL | {"upsample": 2, "epochs": 40, "lr": 3e-3, "ema_decay": 0.9}}
)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Segments]:
    """Five fully labelled videos, one with a point, two with nothing; and where all actions are."""
    data, truth = invent(tmp_path_factory.mktemp("plain") / "data", videos=8)
    with (data.root / "full_labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["video_id", "label", "start", "end"])
        for row in zip(truth.video_ids, truth.labels, truth.start, truth.end, strict=True):
            if row[0] in LABELLED:
                writer.writerow(row)
    (data.root / "points.csv").write_text("video_id,label,time\nv5,jump,4.0\n")
    return Dataset.open(data.root), truth


@pytest.fixture(scope="module")
def run(plain: tuple[Dataset, Segments], tmp_path_factory: pytest.TempPathFactory) -> Run:
    now = round_of(TinyEngine(plain[0], 0, tmp_path_factory.mktemp("engine")))
    model = PROPOSER.train(now)
    return now, model, PROPOSER.score(now, model)


def test_it_trains_on_fully_labelled_videos_alone(plain: tuple[Dataset, Segments], tmp_path: Path) -> None:
    """The detector itself takes a video whose points led to no pseudo-label for background; here nobody looked."""
    data, truth = plain
    given = truth.filter(np.isin(truth.video_ids, LABELLED))
    context = Context(data, {"labels": as_artifact(given, tmp_path / "labels")}, data.videos("train"), 0)
    assert tuple(LabelledTrain(PROPOSER.training).open(context).videos) == LABELLED
    assert tuple(TrainStage(PROPOSER.training).open(context).videos) == (*LABELLED, "v5")


def test_its_labels_are_the_given_ones(run: Run, plain: tuple[Dataset, Segments]) -> None:
    now, _, _ = run
    _, truth = plain
    labels = now.map(GivenLabels()).segments()
    assert set(labels.video_ids) == set(LABELLED) and labels.codes("source")[1] == ["given@0"]
    want = truth.filter(np.isin(truth.video_ids, LABELLED))
    assert np.array_equal(np.sort(labels.start), np.sort(want.start)) and (labels.score == 1).all()


def test_it_finds_actions_in_videos_without_labels(run: Run, plain: tuple[Dataset, Segments]) -> None:
    now, model, _ = run
    data, truth = plain
    found = PROPOSER.propose(now, model).segments().by_video()
    for video, actions in truth.by_video().items():
        best = found[video].filter(found[video].score >= np.sort(found[video].score)[-len(actions)])
        overlap = tiou(actions.spans, best.spans) * (
            actions.label_index(data.classes)[:, None] == best.label_index(data.classes)[None]
        )
        assert overlap.max(1).min() > (0.6 if video in LABELLED else 0.4), video


def test_curves_and_candidates_are_of_the_same_answers(run: Run, plain: tuple[Dataset, Segments]) -> None:
    _, model, scores = run
    data, truth = plain
    detector = Detector.open(Reading(), Context(data, {"model": model}, [], 0))
    for video in data.videos("train"):
        features = np.array(data.features(video), dtype=np.float32)
        answers = detector.answers(features)
        parts = {k: scores.array(k, video) for k in ("cas", "background", "video", "spans", "scores", "labels")}
        assert parts["cas"].shape == (len(features), 2) and parts["background"].shape == (len(features),)
        assert np.array_equal(parts["background"], 1 - parts["cas"].max(1))
        assert np.array_equal(parts["video"], answers.scores.max(0))
        assert parts["scores"].max() == pytest.approx(parts["video"].max())
        assert all(parts[k].dtype == np.float32 for k in ("cas", "background", "video", "spans", "scores"))
        rows = data.grid(video).from_position(np.arange(len(features), dtype=np.float64))
        mine = truth.filter(np.array(truth.video_ids) == video)
        inside = ((rows[:, None] >= mine.start) & (rows[:, None] <= mine.end)).any(1)
        assert parts["background"][inside].mean() < parts["background"][~inside].mean() - 0.1


def test_proposals_are_the_detector_s_detections(run: Run) -> None:
    now, model, scores = run
    found = PROPOSER.propose(now, model).segments().by_video()
    detect = DetectStage(Detection()).open(Context(now.data, {"model": model}, [], 0))
    every = PROPOSER.propose(now, model, suppressed=False).segments().by_video()
    for video in now.data.videos("train"):
        want = detect(video)
        assert np.allclose(found[video].spans, want.spans, atol=1e-3)
        assert np.allclose(found[video].score, want.score) and found[video].labels == want.labels
        assert len(want) <= 200 < len(every[video]) == len(scores.array("scores", video))
        kept = scores.array("scores", video)
        assert np.allclose(every[video].score, kept) and kept.min() > 0.001


def test_embedding_is_the_finest_level(run: Run) -> None:
    now, model, _ = run
    embedding = PROPOSER.embed(now, model)
    saved = model.model()["settings"]
    detector = Detector.open(Reading(), Context(now.data, {"model": model}, [], 0))
    for video in now.data.videos("train")[:2]:
        features = np.array(now.data.features(video), dtype=np.float32)
        padded, of_video = detector.rows(features)
        with torch.inference_mode():
            levels = unwrap(detector.module).encode(padded, of_video)
        finest = levels.rows[levels.point][levels.level == 0][: 2 * len(features) - 1]
        got = embedding.array("embedding", video)
        assert got.shape == (len(features), saved["width"]) and got.dtype == np.float16
        assert np.allclose(got, finest[::2].numpy(), atol=1e-2)


def test_a_row_is_scored_by_the_nearest_point_of_each_level() -> None:
    """Points of level 0 at 0, 1, .. 7, of level 1 at 0, 2, 4, 6, of level 2 at 0, 4."""
    points = np.zeros((14, 1))
    points[5], points[8 + 1], points[12 + 1] = 0.9, 0.5, 0.2
    assert curves(points, [8, 4, 2])[:, 0].tolist() == [0, 0.5, 0.5, 0.2, 0.2, 0.9, 0.2, 0.2]
    points[8 + 3] = 0.4
    assert curves(points, [8, 4, 2])[:, 0].tolist() == [0, 0.5, 0.5, 0.2, 0.2, 0.9, 0.4, 0.4]


def test_steps_give_few_videos_as_much_training_as_many() -> None:
    """At 10 % of THUMOS14 35 epochs are 350 steps; the paper does not say how long the labelled phase is."""
    of = ActionFormerProposer.model_validate({"training": {"steps": 3500, "batch_size": 2, "lr": 1e-3}}).training.of
    assert [of(n).epochs for n in (20, 80, 200, 1)] == [350, 88, 35, 3500] and of(20).lr == 1e-3
    assert ActionFormerProposer().training.of(20).epochs is None  # derived from the data


def test_datasets_without_boundaries_are_refused_and_unused_labels_named(
    plain: tuple[Dataset, Segments], tmp_path: Path
) -> None:
    data, _ = plain
    recipe = load_recipe("pser", ["proposer.method=actionformer", "rounds=0", "select=classes"])
    assert recipe.problems(data) == []
    assert "1 of 8 training videos have points or classes, which teach proposer actionformer nothing" in " ".join(
        recipe.warnings(data)
    )
    other, _ = invent(tmp_path / "bare", videos=3)
    (other.root / "points.csv").write_text("video_id,label,time\nv1,jump,4.0\n")
    (problem,) = recipe.problems(Dataset.open(other.root))
    assert "none of the 3 training videos has full labels" in problem and "tad split --labelled" in problem
