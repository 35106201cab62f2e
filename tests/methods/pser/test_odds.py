"""How far sums of log odds are believed: errors that neighbouring rows share, errors that they do not, and no sense."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from tad.evaluation.ground_truth import ground_truth
from tad.methods.pser.odds import SMALLEST, WINDOW, slope
from tad.methods.pser.teaching import RowsConfig, Teaching
from tests.support.tiny import tiny_dataset


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("odds") / "data", videos=40, classes=1, dim=4)


def teaching_of(data):
    truth = ground_truth(data, "train")
    labels = truth.replace(point=truth.spans.mean(1)).by_video()
    return Teaching(RowsConfig(inside=0.0, outside=0.0), data, labels, labels)


def log_odds(data, teaching, noise):
    """Calibrated log odds of each row alone: where a score is normal with deviation 1 about +-1, twice the score."""
    found = {}
    for video in teaching.labels:
        rows = len(data.features(video))
        target, _ = teaching(video, rows)
        gain = 2 * (np.where(target[:, 0] > 0, 1.0, -1.0) + noise(rows))
        found[video] = np.stack([gain - np.logaddexp(0, gain), -np.logaddexp(0, gain)], axis=1)
    return SimpleNamespace(array=lambda name, video: found[video])


def test_log_odds_with_errors_of_their_own_are_believed(data):
    rng, teaching = np.random.default_rng(0), teaching_of(data)
    odds = log_odds(data, teaching, lambda rows: rng.normal(size=rows))
    assert slope(odds, teaching) > 0.75


def test_log_odds_whose_errors_neighbours_share_count_once(data):
    rng, teaching = np.random.default_rng(0), teaching_of(data)
    odds = log_odds(data, teaching, lambda rows: np.repeat(rng.normal(size=rows), 40)[:rows])
    assert slope(odds, teaching) == pytest.approx(1 / WINDOW, abs=0.12)


def test_log_odds_that_say_nothing_or_the_contrary_hardly_count(data):
    rng, teaching = np.random.default_rng(0), teaching_of(data)
    odds = log_odds(data, teaching, lambda rows: rng.normal(scale=50, size=rows))
    assert slope(odds, teaching) < 0.02
    true = log_odds(data, teaching, lambda rows: rng.normal(size=rows))
    turned = SimpleNamespace(array=lambda name, video: true.array(name, video)[:, ::-1])
    assert slope(turned, teaching) == SMALLEST


def test_without_labels_or_without_background_log_odds_stay(data):
    teaching = replace(teaching_of(data), labels={})
    assert slope(log_odds(data, teaching, np.zeros), teaching) == 1.0
