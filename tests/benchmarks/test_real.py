"""The benchmark on real recordings runs by its one command, resumes, and tells what it measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.studies.real.__main__ import main
from tad.data.dataset import Dataset
from tad.evaluation.ground_truth import segments_of
from tests.support.called import called
from tests.support.shared import shared_path
from tests.support.structure import ROOT


def command(*words, **environment):
    return called(main, *words, without=("TAD_SHARED",), **environment)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Results of the linear probe on late points, with a dev part and on the test part."""
    shared = str(shared_path("data", "sbhar").parents[1])
    folder = tmp_path_factory.mktemp("real")
    for part in ("dev", "test"):
        words = ("--out", folder, "--only", "sbhar/late/probe", "--seeds", 0, "--part", part)
        made = command(*words, TAD_SHARED=shared)
        assert made.returncode == 0, made.stderr
        assert "0 results are there, 1 to do; code " in made.stdout
    again = [sys.executable, "-m", "benchmarks.studies.real", *map(str, words)]
    made = subprocess.run(again, cwd=ROOT, env=os.environ | {"TAD_SHARED": shared}, capture_output=True, text=True)
    assert "1 results are there, 0 to do; code " in made.stdout
    return folder


def test_results_say_what_they_are(out):
    dev, test = (json.loads((out / part / "sbhar-late-probe-seed-0.json").read_text()) for part in ("dev", "test"))
    assert (dev["part"], dev["threshold_from"], "reads" in dev) == ("dev", "dev", False)
    assert (test["part"], test["threshold_from"], test["reads"]) == ("test", "dev", 1)
    assert test["threshold"] == dev["threshold"]
    for result in (dev, test):
        values = [result["map"][t] for t in ("0.3", "0.4", "0.5", "0.6", "0.7")]
        assert values == sorted(values, reverse=True)
        assert result["map"]["mean"] == pytest.approx(np.mean(values))
        assert 20 < result["map"]["mean"] < 70  # a probe of real features: neither chance nor a leak


def test_a_recipe_s_stages_are_kept(out):
    words = ("--out", out, "--only", "sbhar/points/proposer", "--seeds", 0)
    shared = str(shared_path("data", "sbhar").parents[1])
    path, results = out / "dev" / "sbhar-points-proposer-seed-0.json", []
    for _ in range(2):
        path.unlink(missing_ok=True)
        made = command(*words, TAD_SHARED=shared)
        assert made.returncode == 0, made.stderr
        results.append(json.loads(path.read_text()))
    assert "snippet/train: already there" in made.stderr
    assert results[0] == results[1]
    assert results[0]["seconds"] > 1
    assert results[0]["map"]["mean"] > 5
    drawn = command("--table", out, "--figure", out / "figure.png")
    assert drawn.returncode == 0, drawn.stderr
    assert (out / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_readings_of_the_test_part_are_counted_whatever_is_removed(out):
    (out / "test" / "sbhar-late-probe-seed-0.json").unlink()
    shared = str(shared_path("data", "sbhar").parents[1])
    made = command("--out", out, "--only", "sbhar/late/probe", "--seeds", 0, "--part", "test", TAD_SHARED=shared)
    assert made.returncode == 0, made.stderr
    assert json.loads((out / "test" / "sbhar-late-probe-seed-0.json").read_text())["reads"] == 2


def test_nobody_is_on_both_sides_of_the_dev_part(out):
    data = Dataset.open(out / "data" / "sbhar-late-dev")
    people = [{video.rpartition("user")[2] for video in data.videos(role)} for role in ("train", "dev")]
    assert (len(people[0]), len(people[1])) == (16, 5)
    assert not people[0] & people[1]
    assert not data.videos("test")


def test_late_points_stay_in_their_actions(out):
    given, late = Dataset.open(shared_path("data", "sbhar")), Dataset.open(out / "data" / "sbhar-late-test")
    shares = []
    for data in (given, late):
        for video in data.videos("train"):
            truth = segments_of(data, [video])
            points = data.points(video)
            inside = (truth.start <= points.time[:, None]) & (points.time[:, None] <= truth.end)
            own = inside & (truth.label_index(data.classes) == points.label[:, None])
            assert own.any(axis=1).all()
            row = own.argmax(axis=1)
            shares.append((points.time - truth.start[row]) / (truth.end - truth.start)[row])
    early, later = (np.concatenate(x) for x in (shares[: len(shares) // 2], shares[len(shares) // 2 :]))
    assert np.median(later) - np.median(early) == pytest.approx(0.2, abs=0.01)


def test_the_table_holds_the_results(out):
    made = command("--table", out)
    assert made.returncode == 0, made.stderr
    result = json.loads((out / "dev" / "sbhar-late-probe-seed-0.json").read_text())
    assert f"| late | `probe` | {result['map']['0.3']:.1f} |" in made.stdout


def test_without_the_recordings_it_says_so(tmp_path):
    made = command("--out", tmp_path, "--only", "shrec22/points/seeds", TAD_SHARED=str(tmp_path))
    assert made.returncode == 1
    assert "no such dataset" in made.stderr
    assert "TAD_SHARED" in made.stderr
    assert not list(tmp_path.iterdir())


def test_a_pattern_that_matches_nothing_is_an_error(tmp_path):
    made = command("--out", tmp_path, "--only", "shrec22/points/nothing")
    assert made.returncode == 1
    assert "matches no row" in made.stderr


def test_list_prints_the_rows():
    rows = command("--list", "--only", "shrec22/full/*").stdout.split()
    assert rows == ["shrec22/full/probe", "shrec22/full/full"]
