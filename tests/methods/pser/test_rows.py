"""Rows by linear discriminants: what teaches, the models by hand, whom they see, and what weak rows cannot do."""

from __future__ import annotations

import numpy as np
import pytest

from tad.data.dataset import Dataset
from tad.data.grid import SnippetGrid
from tad.data.segments import Segments
from tad.errors import DataError
from tad.evaluation.ground_truth import ground_truth
from tad.methods.pser import raters
from tad.methods.pser.apart import Apart, apart
from tad.methods.pser.cross_fitting import CrossFittingConfig, cross_fitted
from tad.methods.pser.rows import DIAGONAL, NOTHING, RowOdds, RowsConfig, best_scale, learn, teaching
from tad.ops.iou import paired_tiou
from tests.support.rounds import round_of
from tests.support.tiny import TinyEngine, tiny_dataset

ROWS = RowsConfig()
WIDE = RowsConfig(inside=0.3, outside=0.6, margin_rows=10.0)
GRID = SnippetGrid(fps=1, stride=1, window=1, length=40)


def around(*rows: tuple[float, float, int, float]) -> Apart:
    start, end, label, time = (np.array(column) for column in zip(*rows, strict=True))
    return Apart(np.stack([start, end], axis=1).astype(float), label, time.astype(float), np.zeros(len(rows), int))


def test_margins_teach_nothing_and_a_point_always_does():
    found = teaching(around((10, 20, 1, 11)), GRID, 2, WIDE)
    assert (found[:4] == 2).all() and (found[26:] == 2).all(), "far from labels it is background"
    assert (found[4:10] == NOTHING).all() and (found[20:26] == NOTHING).all()
    assert (found[[10, 12, 17, 18, 19]] == NOTHING).all() and (found[13:17] == 1).all() and found[11] == 1


def test_of_long_labels_margins_are_no_longer():
    found = teaching(around((0, 40, 0, 20)), GRID, 2, WIDE)
    assert (found[5:35] == 0).all() and (found[:5] == NOTHING).all()


def test_rows_of_two_at_once_teach_nothing():
    found = teaching(around((10, 20, 0, 15), (10, 20, 1, 16)), GRID, 2, WIDE)
    assert (found[13:17] == NOTHING).all() and (found[:4] == 2).all()


@pytest.fixture
def world(tmp_path) -> tuple[Dataset, Segments]:
    """Clear features, and the truth with points in the middle."""
    data = tiny_dataset(tmp_path / "data", videos=12, classes=2, dim=12, difficulty=0.0)
    truth = ground_truth(data, "train")
    return data, truth.replace(point=(truth.start + truth.end) / 2)


def taught(labels: Segments, data: Dataset) -> dict[str, Apart]:
    return {video: apart(rows, data.classes) for video, rows in sorted(labels.by_video().items())}


def test_the_models_by_hand(world):
    data, truth = world
    labels = taught(truth, data)
    models = learn(labels, data, ROWS)
    fold = models.folds[next(iter(labels))]
    others = [v for v in labels if models.folds[v] != fold]
    rows = np.concatenate([np.asarray(data.features(v), dtype=np.float64) for v in others])
    target = np.concatenate([teaching(labels[v], data.grid(v), 2, ROWS) for v in others])
    mean = np.array([rows[target == c].mean(axis=0) for c in range(3)])
    away = np.concatenate([rows[target == c] - mean[c] for c in range(3)])
    covariance = away.T @ away / len(away)
    covariance = (1 - DIAGONAL) * covariance + DIAGONAL * np.diag(np.diag(covariance))
    weight = np.linalg.solve(covariance, mean.T).T
    assert np.allclose(models.weight[fold], weight, rtol=1e-3, atol=1e-3)
    assert np.allclose(models.bias[fold], -0.5 * (weight * mean).sum(axis=1), rtol=1e-3, atol=1e-2)


def test_no_model_sees_the_videos_that_it_judges(world):
    data, truth = world
    labels = taught(truth, data)
    models = learn(labels, data, ROWS)
    video = next(iter(labels))
    wrong = labels[video]._replace(label=1 - labels[video].label, spans=labels[video].spans + 1.0)
    other = learn(labels | {video: wrong}, data, ROWS)
    own = models.folds[video]
    assert len(models.weight) == 7  # six folds, and all of them for other videos
    for fold, (mine, changed) in enumerate(zip(models.weight, other.weight, strict=True)):
        assert np.allclose(mine, changed, rtol=1e-6, atol=1e-6) == (fold == own)


def test_the_scale_is_the_likeliest(world):
    data, truth = world
    labels = taught(truth, data)
    models = learn(labels, data, ROWS)
    scale, entropy = best_scale(models, labels, data, ROWS), []
    for value in (scale / 2, scale, scale * 2):
        entropy.append(0.0)
        for (video, own), fold in zip(labels.items(), models.folds.values(), strict=True):
            logits = value * (data.features(video).astype(np.float64) @ models.weight[fold].T + models.bias[fold])
            target = teaching(own, data.grid(video), 2, ROWS)
            log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            entropy[-1] -= log_p[target != NOTHING, target[target != NOTHING]].sum()
    assert 0 < entropy[1] < min(entropy[0], entropy[2])


def stage(data: Dataset, folder, labels: Segments) -> Segments:
    engine = TinyEngine(data, 0, folder)
    given = engine.adopt(labels, "labels")
    return cross_fitted(round_of(engine, proposals=given), CrossFittingConfig(), given, given).segments.segments()


@pytest.fixture
def credulous(monkeypatch):
    """Rows are believed whatever they say, so that a test sees what they do."""
    monkeypatch.setattr(raters, "MORE", np.inf)
    monkeypatch.setattr(raters, "SHRUNK", np.inf)


def mean_tiou(labels: Segments, truth: Segments) -> float:
    mine, own = (
        {(v, t): s for v, t, s in zip(x.video_ids, x.point.tolist(), x.spans, strict=True)} for x in (labels, truth)
    )
    assert mine.keys() == own.keys()
    return float(paired_tiou(np.array(list(mine.values())), np.array([own[key] for key in mine])).mean())


@pytest.mark.parametrize("factor", [0.6, 1.7])
def test_clear_rows_mend_wrong_lengths(world, tmp_path, factor, credulous):
    data, truth = world
    half = (truth.end - truth.start) / 2 * factor
    given = truth.replace(start=np.maximum(truth.point - half, 0.0), end=truth.point + half)
    assert mean_tiou(stage(data, tmp_path, given), truth) > mean_tiou(given, truth) + 0.1


def test_rows_that_say_nothing_leave_the_first_labels(world, tmp_path, credulous):
    data, truth = world
    for video in data.videos("train"):
        np.save(data.root / "features" / f"{video}.npy", np.ones_like(data.features(video)))
    assert mean_tiou(stage(Dataset.open(data.root), tmp_path, truth), truth) > 0.85


def test_a_class_that_no_other_fold_shows_keeps_its_labels(world, tmp_path, credulous):
    data, truth = world
    video, other = np.array(truth.video_ids), np.array(truth.labels) == data.classes[1]
    own = sorted(set(video[other]))[0]
    alone = truth.filter(~other | (video == own))
    models = learn(taught(alone, data), data, ROWS)
    assert [bool(k) for k in models.known[:, 1]] == [fold != models.folds[own] for fold in range(7)]
    found = stage(data, tmp_path, alone)
    rare = found.filter(np.array(found.labels) == data.classes[1])
    assert mean_tiou(rare, truth.filter(other & (video == own))) > 0.75


def test_probabilities_sum_to_one_also_of_videos_outside_the_folds(world, tmp_path):
    data, truth = world
    engine = TinyEngine(data, 0, tmp_path)
    videos = data.videos("train")
    some = engine.adopt(truth.filter(np.array([v != videos[0] for v in truth.video_ids])), "labels")
    odds = engine.map(RowOdds(ROWS), {"taught": some})
    for video in videos:
        p = np.exp(odds.array("log_p", video))
        assert p.shape == (len(data.features(video)), 3) and np.allclose(p.sum(axis=1), 1, atol=1e-4)
    own = truth.filter(np.array([v == videos[0] for v in truth.video_ids]))
    grid = data.grid(videos[0])
    for (start, end), name in zip(own.spans, own.labels, strict=True):
        shown = odds.array("log_p", videos[0])[int(grid.row((start + end) / 2))].argmax()
        assert shown == data.classes.index(name), "clear features of a video that taught nothing"


def test_without_labels_there_is_nothing_to_learn(world, tmp_path):
    engine = TinyEngine(world[0], 0, tmp_path)
    with pytest.raises(DataError, match="no training video has a label to refine"):
        engine.map(RowOdds(ROWS), {"taught": engine.adopt(Segments.empty(), "none")})


def test_a_value_that_is_not_finite_is_named(world, tmp_path):
    data, truth = world
    video = data.videos("train")[3]
    rows = data.features(video).copy()
    rows[5, 2] = np.inf
    np.save(data.root / "features" / f"{video}.npy", rows)
    data = Dataset.open(data.root)
    engine = TinyEngine(data, 0, tmp_path)
    with pytest.raises(DataError, match=f"{video}.npy: row 5 holds a value that is not finite"):
        engine.map(RowOdds(ROWS), {"taught": engine.adopt(truth, "labels")})


def test_without_background_every_class_is_as_likely(world, tmp_path):
    data, truth = world
    engine = TinyEngine(data, 0, tmp_path)
    ends = np.array([data.duration(v) for v in truth.video_ids])
    everything = truth.replace(start=np.zeros(len(ends)), end=ends)
    odds = engine.map(RowOdds(RowsConfig(inside=0, outside=0)), {"taught": engine.adopt(everything, "labels")})
    for video in set(truth.video_ids):
        p = np.exp(odds.array("log_p", video))
        assert np.allclose(p.sum(axis=1), 1, atol=1e-4) and np.allclose(p, 1 / 3, atol=1e-4)
