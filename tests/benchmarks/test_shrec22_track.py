"""The measures of the SHREC 2022 track give what is published for the systems whose detections it released."""

from __future__ import annotations

import pytest

from benchmarks.references.shrec22_track import PUBLISHED, Gesture, f1, measures, read_sequences, sequences_of
from tad.data.dataset import Dataset
from tad.evaluation.ground_truth import ground_truth
from tests.support.shared import shared_path

OFFICIAL = ("data", "shrec22", "official")


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_system_has_its_published_measures(name):
    truth = read_sequences(shared_path(*OFFICIAL, "test_annotations_fixed.txt"))
    found = read_sequences(shared_path(*OFFICIAL, "participants_results", f"{name.replace(' ', '_')}.txt"))
    reached, published = measures(found, truth), PUBLISHED[name]
    assert reached[:3] == pytest.approx(published[:3], abs=5e-4)
    assert reached.f1 == pytest.approx(published.f1, abs=5e-4)


def test_annotations_in_seconds_become_the_published_frames():
    data = Dataset.open(shared_path("data", "shrec22"))
    made = sequences_of(ground_truth(data, "test"), data.videos("test"))
    assert made == read_sequences(shared_path(*OFFICIAL, "test_annotations_fixed.txt"))


TRUTH = {"a": [Gesture("OK", 100, 140), Gesture("OK", 200, 240)], "b": [Gesture("V", 50, 90)]}


@pytest.mark.parametrize(
    ("rows", "rate", "false"),
    [
        ([Gesture("OK", 100, 140)], 0.5, 0.0),  # one of two
        ([Gesture("OK", 100, 120)], 0.5, 0.0),  # half of it is enough
        ([Gesture("OK", 100, 119)], 0.0, 0.0),  # less counts neither way
        ([Gesture("OK", 90, 170)], 0.5, 0.0),  # twice as long is allowed
        ([Gesture("OK", 90, 171)], 0.0, 0.5),  # longer is false
        ([Gesture("OK", 100, 140), Gesture("OK", 100, 140)], 0.5, 0.5),  # a second one is false
        ([Gesture("OK", 150, 190)], 0.0, 0.5),  # none there
        ([Gesture("V", 100, 140)], 0.0, 0.0),  # false, but of the other class, below
    ],
)
def test_what_counts_as_found_and_as_false(rows, rate, false):
    reached = measures({"a": rows}, TRUTH)
    other = 1.0 if rows[0].label == "V" else 0.0
    assert (2 * reached.detection_rate, 2 * reached.false_positives) == (rate, false + other)


def test_f1_gives_each_gesture_to_one_detection():
    found = {"a": [Gesture("OK", 100, 140), Gesture("OK", 101, 140)], "b": [Gesture("V", 50, 70)]}
    assert f1(found, TRUTH, 0.5) == pytest.approx(2 * 2 / 6)
    assert f1(found, TRUTH, 0.6) == pytest.approx(2 * 1 / 6)
