"""What the best recipe may cost, and stopped trials that go on to their end."""

from __future__ import annotations

import numpy as np
import pytest
from optuna.trial import TrialState

from distributed.tuning.limits import NO_LIMITS, Limits, Memory
from distributed.tuning.search import sampler, tune
from distributed.tuning.summary import unbeaten
from distributed.tuning.trials import GOES_ON
from tad.errors import RunError
from tests.support.search import MERGE, ONE_ROUND, options, study_of
from tests.support.study import DONE, a_study, trials_of


def ended(url, value, **costs):
    """A finished trial of a study of its own."""
    study = a_study(url)
    trials = trials_of(study)
    trials.end(trials.ask().number, {"value": value, **DONE, **costs})
    return study.trials[-1]


def test_a_trial_is_compared_with_each_limit(url):
    trial = ended(url, 0.5, cost=30.0, memory=1.5)
    assert Limits(seconds=60, memory=1).excess(trial) == pytest.approx([-0.5, 0.5])
    assert Limits(seconds=30).kept(trial) and not Limits(memory=1).kept(trial)
    assert NO_LIMITS.kept(trial) and not NO_LIMITS and Limits(seconds=1)
    assert str(Limits(60, 1.5)) == "60 s and 1.5 GiB"


def test_a_trial_without_a_cost_keeps_no_limit(url):
    assert Limits(seconds=9).excess(ended(url, 0.5)) == [1.0]


def late_shares(url, name, total, limits):
    """Of the last third of the suggestions of x in 0 to 8, more of which is better and costs as many seconds: the share
    about up to 2."""
    study = a_study(url, f"{name} {limits}")
    trials = trials_of(study, total)
    trials.sampler = lambda before: sampler(name, before, limits)
    tried = []
    while (trial := trials.ask()) is not None:
        tried.append(trial.params["x"])
        trials.end(trial.number, {"value": tried[-1], **DONE, "cost": tried[-1]})
    return np.mean([x <= 2.05 for x in tried[-total // 3 :]])


@pytest.mark.parametrize(("name", "total"), [("tpe", 30), ("gp", 14)])
def test_samplers_learn_what_is_beyond_a_limit(url, name, total):
    assert late_shares(url, name, total, Limits(seconds=2)) > 0.3 + late_shares(url, name, total, NO_LIMITS)


def test_the_best_recipe_keeps_the_limits_and_the_end_says_how_many_do(finished, data, tmp_path, capsys):
    trials = study_of(finished).trials
    assert all(t.user_attrs["memory"] > 0.1 for t in trials)
    costs = sorted(t.user_attrs["cost"] for t in trials)
    half = Limits(seconds=(costs[1] + costs[2]) / 2)
    with pytest.raises(RunError, match="its objective differs"):
        tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(finished, limits=half))
    more = {"store": str(finished / "store"), "limits": half}
    summary = tune(ONE_ROUND, MERGE, data, "dev-quality", 0, options(tmp_path, **more))
    assert summary.best is not None and summary.best.user_attrs["cost"] <= half.seconds and summary.within < 5
    assert f"at most {half}:  {summary.within} of 5 finished trials" in capsys.readouterr().out
    none = options(tmp_path, name="u", out=tmp_path / "u", **more | {"limits": Limits(memory=1e-6)})
    summary = tune(ONE_ROUND, MERGE, data, "dev-quality", 0, none)
    assert summary.best is None and summary.within == 0 and not (tmp_path / "u" / "best.yaml").exists()


def test_of_two_objectives_those_that_no_other_beats(url):
    study = a_study(url, directions=["maximize", "minimize"])
    trials = trials_of(study)
    for value, cost in ((0.5, 2.0), (0.5, 1.0), (0.7, 3.0), (0.6, 3.0)):
        trials.end(trials.ask().number, {"value": value, **DONE, "cost": cost})
    found = [t.number for t in unbeaten(study.trials)]
    assert found == [1, 2] == [t.number for t in study.best_trials]


def test_memory_is_what_was_held_since():
    first = np.ones(40_000_000)
    assert Memory().peak() > first.nbytes / 2**30
    del first
    later = Memory()
    before = later.peak()
    held = np.ones(40_000_000)
    assert later.peak() - before == pytest.approx(held.nbytes / 2**30, rel=0.2)


def stopped(trials, value):
    """A trial that the scheduler stops after its first step."""
    number = trials.ask().number
    report = {"value": value, "step": 1, "left": 1}
    trials.report(number, report)
    return trials.end(number, report)


def test_the_best_of_the_stopped_trials_go_on_beside_those_that_were_asked_for(url):
    study = a_study(url)
    trials = trials_of(study, total=4)
    trials.end(trials.ask().number, {"value": 0.1, **DONE})
    low, high, middle = (stopped(trials, value) for value in (0.2, 0.9, 0.5))
    assert trials.ask() is None
    assert trials.resume(2) == 2 and trials.resume(2) == 1, "each once"
    for expected in (high, middle, low):
        trial = trials.ask()
        assert trial.params == expected.params and trial.user_attrs[GOES_ON] == expected.number
        assert not trials.report(trial.number, {"value": 0.0, "step": 1, "left": 1}), "it is not stopped again"
        trials.end(trial.number, {"value": 0.8, **DONE})
    assert trials.ask() is None
    assert [t.state for t in study.trials[4:]] == [TrialState.COMPLETE] * 3
    trials.total = 5
    assert GOES_ON not in trials.ask().user_attrs


def test_one_that_goes_on_and_is_given_back_goes_on_later(url):
    trials = trials_of(a_study(url), total=2)
    trials.end(trials.ask().number, {"value": 0.1, **DONE})
    first = stopped(trials, 0.2)
    trials.resume(1)
    trials.ask()
    trials.give_back("interrupted")
    again = trials.ask()
    assert again.user_attrs[GOES_ON] == first.number and again.params == first.params
