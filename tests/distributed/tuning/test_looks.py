"""Trials that are stopped inside a detector's training: by its score so far, with a checkpoint to go on from."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from optuna.trial import TrialState

from distributed.engine.engine import Resources
from distributed.run.selftrain import LOOKS
from distributed.tuning.search import tune
from distributed.tuning.trial import Stopped, Work, evaluate
from search_spaces.space import Float, Parameter, Space
from tad.recipe.recipe import changed, load_recipe
from tests.support.search import options, study_of
from tests.support.tiny import RECIPE, tiny_dataset

KEY = "detector.training.lr"
RATES = Space((Parameter(KEY, Float(1e-7, 1e-3, log=True), "for tests", "detector", method="actionformer"),))
SHORT = load_recipe(
    RECIPE,
    [
        "rounds=1",
        "labeler.method=pser-seed",
        "proposer.training.epochs=3",
        "detector.training.epochs=5",
        f"{KEY}=0.001",
    ],
)


def rate(trial):
    (value,) = trial.params.values()
    return value


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny_dataset(tmp_path_factory.mktemp("looks") / "data", videos=6, classes=2, dim=12, dev=3)


def work_of(data, folder, looks, select="dev-map"):
    return Work(
        changed(SHORT, {"select": select}), data.root, str(folder / "store"), folder / "t", 0, Resources(), looks=looks
    )


@pytest.mark.parametrize("select", ["dev-map", "points"])
def test_a_trial_tells_how_it_does_after_each_fifth_and_its_score_stays(data, tmp_path, select):
    told = []
    last = evaluate(work_of(data, tmp_path / "a", True, select), 0, None, told.append)
    assert [report["step"] for report in told] == list(range(1, LOOKS + 1))
    assert all(report["left"] for report in told[:-1]) and told[-1]["left"] == 0 and "failed" not in last
    values = [report["value"] for report in told]
    assert all(isinstance(value, float) for value in values) and len(set(values)) > 1, values
    assert 0 < last["looked"] < last["seconds"] and last["value"] == values[-1]
    plain = evaluate(work_of(data, tmp_path / "b", False, select), 0, None, told.append)
    assert [report["step"] for report in told[LOOKS:]] == [LOOKS] and plain["looked"] == 0
    assert plain["value"] == last["value"], "looks change nothing"


def test_a_stopped_training_goes_on_to_the_score_that_it_would_have_had(data, tmp_path):
    def stop(report):
        if report["step"] == 2:
            raise Stopped

    with pytest.raises(Stopped):
        evaluate(work_of(data, tmp_path / "a", True), 0, None, stop)
    events = tmp_path / "a" / "t" / "0001" / "events.jsonl"
    goes_on = evaluate(work_of(data, tmp_path / "a", False), 1, None, lambda report: None)
    rows = [json.loads(line) for line in events.read_text().splitlines()]
    assert [r["epoch"] for r in rows if r["kind"] == "epoch" and r["name"] == "actionformer/train"] == [2, 3, 4]
    whole = evaluate(work_of(data, tmp_path / "b", False), 0, None, lambda report: None)
    assert goes_on["value"] == whole["value"]


def test_a_search_stops_what_is_behind_inside_its_only_round(data, tmp_path, capsys):
    search = options(tmp_path, scheduler="asha", trials=4, sampler="random")
    tune(SHORT, RATES, data, "dev-map", 0, search)
    trials = study_of(tmp_path).trials
    pruned = [t for t in trials if t.state == TrialState.PRUNED]
    best = study_of(tmp_path).best_trial
    assert pruned and max(rate(t) for t in pruned) < rate(best)
    assert all(max(t.intermediate_values) < LOOKS and t.user_attrs["looked"] > 0 for t in pruned)
    assert all(max(t.intermediate_values) == LOOKS for t in trials if t.state == TrialState.COMPLETE)
    # The same search, in which the best of the stopped ones comes to its end after all.
    tune(SHORT, RATES, data, "dev-map", 0, replace(search, resume_best=1))
    last, stopped = study_of(tmp_path).trials[-1], max(pruned, key=lambda t: (t.values[0], -t.number))
    assert last.state == TrialState.COMPLETE and last.params == stopped.params
    lines = (tmp_path / "study" / "trials" / f"{last.number:04d}" / "events.jsonl").read_text().splitlines()
    epochs = [e["epoch"] for e in map(json.loads, lines) if e["kind"] == "epoch" and e["name"] == "actionformer/train"]
    assert epochs == list(range(max(stopped.intermediate_values), LOOKS)), "it goes on where it was stopped"
    assert "4 of 4 trials, and 1 that went on with stopped ones: " in capsys.readouterr().out
