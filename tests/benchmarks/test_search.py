"""The confidence interval of the search benchmark: a jackknife over groups of test videos."""

import numpy as np
import pytest

from benchmarks.studies.real.search import GROUPS, Judged, interval, without_groups
from tad.evaluation.ground_truth import ground_truth
from tests.support.tiny import tiny_dataset


def test_interval_of_a_mean_is_that_of_the_textbook():
    """Where mAP is a mean over groups, the jackknife's error is their deviation over the root of their number."""
    value = np.random.default_rng(0).normal(5.0, 2.0, GROUPS)
    left = [(value.sum() - value) / (GROUPS - 1)]
    before = Judged([0.5], [0.0], [[0.0] * GROUPS])
    gain, half = interval(before, Judged([0.5], [value.mean()], [list(x) for x in left]))
    assert gain == pytest.approx(value.mean())
    assert half == pytest.approx(1.96 * value.std(ddof=1) / np.sqrt(GROUPS))


def test_a_gain_that_all_videos_share_has_no_width():
    before, after = ([float(x)] * GROUPS for x in (80, 83))
    gain, half = interval(Judged([0.5], [80.0], [before]), Judged([0.5], [83.0], [after]))
    assert gain == pytest.approx(3.0) and half == pytest.approx(0.0)


def test_a_group_that_is_left_out_takes_its_mistakes_along(tmp_path):
    data = tiny_dataset(tmp_path / "data", videos=2 * GROUPS)
    videos = data.videos("test")
    truth = ground_truth(data, "test")
    perfect = truth.replace(score=np.ones(len(truth)))
    assert without_groups(perfect, data) == pytest.approx([100.0] * GROUPS)
    missed = perfect.filter(np.array([video != videos[3] for video in perfect.video_ids]))
    values = without_groups(missed, data)
    assert values[3] == pytest.approx(100.0)
    assert max(values[:3] + values[4:]) < 100
