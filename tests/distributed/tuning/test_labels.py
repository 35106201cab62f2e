"""Searching a labeler's options over proposals from a file: no features, no training, and a gain that counts or not.

The dataset has no feature files, and its test videos' annotations are absurd: nothing here reads either.
"""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from distributed.tuning.search import tune
from distributed.tuning.summary import Summary, gain_error
from search_spaces.load import load
from tad.cli import tad
from tad.data.dataset import Dataset
from tad.data.segments import Segments
from tad.errors import DataError, RunError
from tad.evaluation.ground_truth import ground_truth
from tad.evaluation.quality_by_point import Quality, label_quality
from tad.prepare.split import split_holdout
from tad.recipe.methods import registered
from tad.recipe.recipe import Recipe, load_recipe
from tad.recipe.rounds import Rounds
from tests.support.search import computed, options, study_of, values_of
from tests.support.tiny import TinyEngine, tiny_dataset

LABELS = load("labels")


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> Path:
    """data: 5 of 12 training videos became dev videos; proposals.json: of all videos, too long and somewhere near."""
    folder = tmp_path_factory.mktemp("labels")
    source = tiny_dataset(folder / "source", videos=12, classes=3, dim=8)
    parts = [blurred(source, role) for role in ("train", "test")]
    Segments.concat(parts).to_json_file(folder / "proposals.json")
    split_holdout(source, 0.4, None, 0, folder / "data")
    for name in ("data", "source"):
        shutil.rmtree(folder / name / "features")
    document = json.loads((folder / "data" / "annotations.json").read_text())
    for entry in document["database"].values():
        if entry["subset"] == "test":
            entry["annotations"] = [{"label": "absurd", "segment": ["absurd", -1]}]
    (folder / "data" / "annotations.json").write_text(json.dumps(document))
    return folder


def blurred(data: Dataset, role) -> Segments:
    """Every instance, longer than it is, and as many wrong segments."""
    rng, truth = np.random.default_rng(0), ground_truth(data, role)
    length = (truth.end - truth.start)[:, None]
    spans = truth.spans + rng.normal(0, 0.15, (len(truth), 2)) * length + [0, 0.8] * length
    both = np.clip(np.concatenate([spans, spans + rng.uniform(-4, 4, (len(truth), 1))]), 0, None)
    both[:, 1] = np.maximum(both[:, 1], both[:, 0] + 0.1)
    score = np.concatenate([rng.uniform(0.3, 1, len(truth)), rng.uniform(0, 0.7, len(truth))])
    return Segments.of([*truth.video_ids] * 2, both[:, 0], both[:, 1], [*truth.labels] * 2, score)


def recipe_of(world: Path, method: str, *more: str, proposals: Path | str = "proposals.json") -> Recipe:
    file = [f"proposer.path={world / proposals}", f"labeler.method={method}", "rounds=1", *more]
    return load_recipe("seeds", ["proposer.method=file", *file])


def search(world: Path, folder: Path, method: str = "points", seed: int = 0, **more) -> Summary:
    recipe = more.pop("recipe", None) or recipe_of(world, method)
    return tune(recipe, LABELS, Dataset.open(world / "data"), "dev-quality", seed, options(folder, **more))


def dev_quality(folder: Path, trial: int, data: Dataset) -> Quality:
    path = folder / "study" / "trials" / f"{trial:04d}" / "round-1" / "labels-dev.parquet"
    return label_quality(Segments.from_parquet(path), data, "dev")


def test_trials_label_and_train_nothing(world, tmp_path):
    found = search(world, tmp_path, trials=6)
    assert found.states == {"COMPLETE": 6} and found.best.values[0] >= found.recipe.values[0] > 0.2
    made = computed(tmp_path / "study")
    assert {key.split(" ")[0] for key in made} == {"file/propose", "points/label"} and set(made.values()) == {1}
    data = Dataset.open(world / "data")
    before, after = (dev_quality(tmp_path, trial.number, data) for trial in (found.recipe, found.best))
    assert after.tiou.mean() == pytest.approx(found.best.values[0]) and set(after.video) == set(data.videos("dev"))
    assert found.error == gain_error(before, after)
    row = json.loads((tmp_path / "study" / "trials" / "0000" / "rounds.json").read_text())[1]
    assert row["model"] is None and row["quality"]["mean_tiou"] > 0.2, "the other videos are measured, too"


@pytest.mark.parametrize("method", sorted(registered("labeler").keys() - {"apl", "point-snippets", "pser-weak"}))
def test_every_labeler_that_says_so_needs_no_features(world, tmp_path, method):
    recipe, data = recipe_of(world, method), Dataset.open(world / "data")
    assert recipe.views(data) == [data] and recipe.views(data, detector=False) == []
    rounds = Rounds(recipe, TinyEngine(data, 0, tmp_path))
    for role in ("train", "dev"):
        assert len(rounds.labels(1, role).segments.segments()) > 0 or method == "full", "no video has full labels"


def test_more_trials_go_on_and_another_search_is_refused(world, tmp_path):
    search(world, tmp_path, trials=2)
    before = values_of(study_of(tmp_path))
    search(world, tmp_path, trials=3)
    assert values_of(study_of(tmp_path))[:2] == before and len(values_of(study_of(tmp_path))) == 3
    search(world, tmp_path / "again", trials=3)
    assert values_of(study_of(tmp_path / "again")) == values_of(study_of(tmp_path)), "the same search finds the same"
    shutil.copy(world / "proposals.json", tmp_path / "proposals.json")
    search(world, tmp_path, recipe=recipe_of(world, "points", proposals=tmp_path / "proposals.json"), trials=3)
    rows = Segments.from_file(world / "proposals.json")
    rows.filter(rows.score > 0.5).to_json_file(world / "fewer.json")
    for recipe, seed, differs in (
        (recipe_of(world, "points", proposals="fewer.json"), 0, "proposals differs"),
        (recipe_of(world, "potloc"), 0, "recipe, space differ"),
        (recipe_of(world, "points"), 1, "seed differs"),
    ):
        with pytest.raises(RunError, match=f"is another search: its {differs}"):
            search(world, tmp_path, recipe=recipe, seed=seed)


def test_potloc_tries_its_rules(world, tmp_path):
    found = search(world, tmp_path, "potloc", trials=8)
    trials = study_of(tmp_path).trials
    assert {t.params["labeler.rule"] for t in trials} == {"midpoints", "released", "paper"}
    assert found.best.values[0] == max(t.values[0] for t in trials)
    assert len({t.values[0] for t in trials}) == 3


def test_a_gain_has_the_error_of_a_bootstrap_over_videos():
    rng = np.random.default_rng(0)
    video = np.repeat([f"v{i}" for i in range(12)], rng.integers(1, 6, 12))
    truth = np.tile([0.0, 1.0], (len(video), 1))

    def quality(tiou: np.ndarray, rows: slice = slice(None)) -> Quality:
        pseudo = np.stack([np.zeros(len(tiou)), tiou], axis=1)
        return Quality(video[rows], video[rows], truth[rows], pseudo[rows], 0, 0, 0, 0, (0, 0, 0))

    before = rng.uniform(0.2, 0.8, len(video))
    after = np.clip(before + rng.normal(0.05, 0.1, 12)[np.unique(video, return_inverse=True)[1]], 0.01, 1)
    by_video = [(after - before)[video == v] for v in np.unique(video)]
    total, count = np.array([g.sum() for g in by_video]), np.array([len(g) for g in by_video])
    drawn = rng.integers(0, 12, (20000, 12))
    spread = np.std(total[drawn].sum(1) / count[drawn].sum(1))
    assert gain_error(quality(before), quality(after)) == pytest.approx(spread, rel=0.15)
    assert gain_error(quality(before), quality(before)) == 0
    one = slice(0, int(count[0]))
    assert gain_error(quality(before, one), quality(after, one)) == np.inf


@pytest.mark.parametrize(
    ("gain", "error", "clear"),
    [(0.02, 0.009, True), (0.02, 0.011, False), (0.0, 0.0, False), (0.1, np.inf, False), (0.02, None, None)],
)
def test_what_is_chosen(gain, error, clear):
    def trial(value: float) -> FrozenTrial:
        return create_trial(state=TrialState.COMPLETE, value=value)

    found = Summary(trial(0.5), trial(0.5 + gain), [], [], {"COMPLETE": 2}, {}, error)
    assert found.clear is clear and found.chosen is (found.recipe if clear is False else found.best)


@pytest.mark.parametrize(("trials", "errors"), [(2, 1.96), (6, 2.58), (101, 3.48)])
def test_the_more_trials_the_more_a_gain_has_to_be(trials, errors):
    """Under no effect, the best of that many normal draws passes in 2.5 % of searches at most."""
    found = Summary(None, None, [], [], {"COMPLETE": trials, "FAIL": 50}, {})
    assert found.errors == pytest.approx(errors, abs=0.005)
    best = np.random.default_rng(0).standard_normal((4000, trials - 1)).max(axis=1)
    assert 0.015 < (best > found.errors).mean() < 0.035


def test_the_command_says_what_counts_and_how_to_label(world, tmp_path, monkeypatch, capsys):
    """The command that it prints gives labels of the quality that the chosen trial had."""
    monkeypatch.chdir(tmp_path)
    given = ["tune", "seeds", "--set", "rounds=1", "--set", "proposer.method=file", "--space", "labels", "--local"]
    given += ["--set", f"proposer.path={world / 'proposals.json'}", "--set", "labeler.method=potloc"]
    given += ["--set", "labeler.rule=paper", "--trials", "5", "--objective", "dev-quality", "--out", "study"]
    tad.main([*given, "--data", str(world / "data")], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    rows = {line[:18].strip(): line[18:].split() for line in lines if line[:1] != " "}
    gain, error = float(rows["gain:"][0]), float(rows["gain:"][2].rstrip(","))
    verdict = next(line for line in lines if "standard errors on" in line)
    taken = gain > 2.5 * error  # of five trials
    assert "from 2.5 standard errors on" in verdict
    assert ("the best trial is taken" if taken else "the recipe stays as it is") in verdict
    assert not [line for line in lines if "tad run" in line], "without features no detector can be trained"
    trial = int(rows["best:" if taken else "recipe as it is:"][-1].rstrip(")"))
    command = shlex.split(lines[-1])
    assert command[:3] == ["tad", "label", "potloc"]
    tad.main([*command[1:], "--local"], standalone_mode=False)
    made = label_quality(Segments.from_file(tmp_path / "labels.json"), Dataset.open(world / "data")).to_json()
    row = json.loads((tmp_path / "study" / "trials" / f"{trial:04d}" / "rounds.json").read_text())[1]
    assert made["mean_tiou"] == pytest.approx(row["quality"]["mean_tiou"], abs=1e-3)


def test_a_run_of_the_proposals_alone_needs_no_features(world, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = ["run", "seeds", "--data", str(world / "source"), "--set", "proposer.method=file", "--local"]
    given += ["--set", f"proposer.path={world / 'proposals.json'}", "--out", "run"]
    with pytest.raises(DataError, match="the features of 18 of 18 videos cannot be used"):
        tad.main([*given, "--rounds", "1"], standalone_mode=False)
    tad.main([*given, "--rounds", "0"], standalone_mode=False)
    assert json.loads((tmp_path / "run" / "rounds.json").read_text())[0]["test_map"]["average"] > 0.2
