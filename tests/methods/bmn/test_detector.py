"""The detector `bmn`: decoding, what is refused, and training and detecting through the engine."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from distributed.run.session import Options, self_train
from tad.data.dataset import Dataset
from tad.data.labels import FullLabels
from tad.data.segments import Segments
from tad.errors import ConfigError, RunError
from tad.methods.bmn.detector import BmnDecoding, BmnDetection, BmnDetector, DetectStage, candidates, means, of_window
from tad.methods.bmn.model import Bmn, BmnOutputs
from tad.methods.bmn.options import BmnTraining
from tad.methods.bmn.targets import windows
from tad.ops.iou import tiou
from tad.recipe.recipe import load_recipe
from tad.stages import Artifact, Context
from tests.support.bmn import SMALL, curves_of, scores_of, task
from tests.support.plain import as_artifact
from tests.support.rounds import round_of, taught
from tests.support.tiny import TinyEngine, tiny_dataset


class Answers(Bmn):
    """A network that says what it is told."""

    def __init__(self, start: np.ndarray, end: np.ndarray, maps: np.ndarray) -> None:
        super().__init__(1, 8, 4, width=8, samples=2)
        self.out = BmnOutputs(*(torch.from_numpy(x)[None].double().logit() for x in (start, end, maps)))

    def forward(self, features: torch.Tensor, mask: torch.Tensor) -> BmnOutputs:
        return self.out


def test_proposals_lie_between_candidates_and_score_by_the_maps():
    rng = np.random.default_rng(0)
    start, end = np.full(8, 0.01), np.full(8, 0.01)
    start[[2, 4]], end[[3, 6]] = (0.9, 0.5), (0.8, 0.1)
    start[:], end[:] = start - np.arange(8) * 1e-4, end + np.arange(8) * 1e-4  # no plateaus
    maps = rng.uniform(0.1, 0.9, (2, 4, 8))
    (window,) = windows(8, 8, "windows", 1)

    def proposals(**options: object) -> dict[tuple[int, int], float]:
        net = Answers(start, end, maps)
        spans, scores = of_window(net, torch.zeros(8, 1), window, 4, BmnDecoding(**options))
        assert (np.diff(scores) <= 0).all()
        edges = np.round(window.to_bins(spans)).astype(int)
        return {(int(a), int(b)): float(s) for (a, b), s in zip(edges, scores, strict=True)}

    got = proposals()
    # Starts 0, 2, 4, ends 3, 6, 7 (peaks, and the first and the last bin), at most 4 bins long.
    assert set(got) == {(0, 4), (2, 4), (4, 7), (4, 8)}
    assert got[2, 4] == pytest.approx(maps[0, 1, 2] * maps[1, 1, 2])
    boundaries = proposals(boundaries=True)
    assert boundaries[2, 4] == pytest.approx(got[2, 4] * start[2] * end[3])
    assert set(proposals(top_k=1)) == {max(got, key=got.get)}
    # A video that ends at bin 5 has its last end there.
    short = window._replace(bins=5)
    spans, _ = of_window(Answers(start, end, maps), torch.zeros(8, 1), short, 4, BmnDecoding())
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

    both, one = found(video_power=1.0), found(video_power=1.0, classes=1)
    assert set(both.labels) == {"jump", "throw"} and set(one.labels) == {"throw"} and len(both) == 2 * len(one)
    throws = both.filter(np.array(both.labels) == "throw")
    jumps = both.filter(np.array(both.labels) == "jump")
    assert np.array_equal(throws.spans, one.spans) and np.array_equal(throws.score, one.score)
    assert np.array_equal(jumps.spans, throws.spans) and jumps.score == pytest.approx(throws.score / 4)
    assert (np.diff(both.score) <= 0).all() and (both.end <= data.duration("v0")).all()
    curves_of(data, inputs["scores"], 0.5)
    half = found(video_power=1.0)
    assert np.array_equal(half.spans, both.spans) and half.score == pytest.approx(both.score / 2)
    assert found(snippets=False).score == pytest.approx(both.score), "the video's score tells the class, as published"
    by_rows = found()  # its rows alone tell the class
    assert set(by_rows.labels) == {"jump", "throw"} and len(by_rows) == len(both)
    throws = by_rows.filter(np.array(by_rows.labels) == "throw")
    jumps = by_rows.filter(np.array(by_rows.labels) == "jump")
    assert np.allclose(np.sort(jumps.score), np.sort(throws.score))
    known = replace(data, full_by_id={"v0": FullLabels(np.array([[1.0, 9.0]]), np.zeros(1, np.int64))})
    assert set(found(known).labels) == {"jump"}
    assert set(found(known, train_classes="predicted").labels) == {"jump", "throw"}


def test_means_of_curves_between_edges():
    curves = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 8.0]])
    edges = np.array([[0.0, 3.0], [0.5, 1.5], [1.0, 2.25], [2.9, 9.0], [-1.0, 1.0], [7.0, 9.0]])
    want = [[3, 8 / 3], [2, 0], [4.25 / 1.25, 2 / 1.25], [5, 8], [1, 0], [0, 0]]
    assert means(curves, edges) == pytest.approx(np.array(want))


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(plain, tmp_path):
    data, labels = plain
    with pytest.raises(ValidationError, match="durations must not exceed length, got 9 and 8"):
        BmnTraining(length=8, durations=9)
    with pytest.raises(ConfigError, match="durations 200 exceed the derived length 128"):
        task(data, labels, tmp_path, length=None, durations=200)
    engine = TinyEngine(data, 0, tmp_path / "engine")
    with pytest.raises(RunError, match="detector bmn reads the proposer's scores for the classes, and the proposer"):
        BmnDetector().detect(round_of(engine, "test"), Artifact("m", tmp_path))
    with pytest.raises(ConfigError, match=r"detector\.decode\.classifier: unknown key"):
        load_recipe("apl-bmn", ["detector.decode.classifier=scores.json"])


# -- end to end ------------------------------------------------------------------------------------------------------


def test_it_learns_what_is_plain(plain, tmp_path):
    torch.set_num_threads(1)
    data, labels = plain
    network = {"fit": "resize", "length": 48, "width": 32, "samples": 16}
    detector = BmnDetector(training={**network, "epochs": 40, "batch_size": 3, "lr": 3e-3})
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


def test_the_same_seed_gives_the_same_detections(plain, tmp_path):
    data, labels = plain
    lesson, scores = taught(as_artifact(labels, tmp_path / "labels")), scores_of(data, tmp_path / "scores", np.ones(2))
    detector = BmnDetector(training={**SMALL, "epochs": 2, "batch_size": 4, "ema_decay": 0.5})
    states, found = [], []
    for seed, name in ((0, "first"), (0, "second"), (1, "third")):
        now = round_of(TinyEngine(data, seed=seed, folder=tmp_path / name), scores=scores)
        model = detector.train(now, lesson)
        states.append(model.model()["state"])
        found.append(detector.detect(now, model).segments())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    assert not all(torch.equal(value, states[2][key]) for key, value in states[0].items())
    assert found[0].digest() == found[1].digest() != found[2].digest()
