"""Trials under Ray Tune: what it may keep, every fate of a trial, its schedulers, plans that cannot run."""

from __future__ import annotations

import math
import os
import signal
import threading

import pytest

from distributed.engine.engine import Resources
from distributed.tuning.drivers import registered
from distributed.tuning.on_ray import Slots, plan, search, slots
from distributed.tuning.search import pruner
from distributed.tuning.trials import REASON, Trials
from tad.errors import RunError
from tests.support.study import DONE, SPACE, a_study, states, trials_of


def test_tune_keeps_no_state_of_the_searcher_and_unpickles_none(url, tmp_path):
    from ray import cloudpickle

    from distributed.tuning.searcher import StudyScheduler, StudySearcher

    trials, record = trials_of(a_study(url)), threading.Lock()
    trials.began = lambda trial: record.release()  # as the record of a tracked search, it cannot be pickled
    searcher = StudySearcher(trials, 1, lambda trial: {})
    for made in (searcher, StudyScheduler(trials)):
        assert vars(cloudpickle.loads(cloudpickle.dumps(made))) == {}
    searcher.save_to_dir(str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()
    for call in (searcher.save, searcher.restore):
        with pytest.raises(RunError, match="by Ray Tune"):
            call(str(tmp_path / "state.pkl"))


def toy_trial(config):
    """Its fate is in its value; x = 4 is the recipe itself."""
    from ray import tune

    fate = round(config["values"]["x"]) if config["values"] else 4
    last = {"round": 2, "finished": True}
    if fate == 1:
        tune.report({"value": math.nan, **last})
    elif fate == 2:
        tune.report({"value": None, **last})
    elif fate == 3:
        tune.report({"value": None, "round": 0, "failed": "ValueError: as it should"})
    elif fate == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    elif fate == 6 and not os.path.exists(config["flag"]):
        tune.report({"value": 0.1, "step": 0, "left": 2})
        with open(config["flag"], "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        for number in (0, 1, 2):
            tune.report({"value": 0.1 * (8 - fate), "step": number, "left": 2 - number})
        tune.report({"value": 0.1 * (8 - fate), **last})


@pytest.mark.ray
def test_every_fate_of_a_trial_under_real_ray_tune(url, tmp_path):
    """Stopped by ASHA, failed, not a number, killed always, killed once: the study tells the truth of each."""
    study = a_study(url)
    study.pruner = pruner("asha", 2)
    fates = [1.0, 2.0, 3.0, 5.0, 6.0, 0.0, 7.0, 8.0]
    with registered(study) as me, slots(1, 0.0, 1) as found:
        trials = Trials(study, SPACE, 9, me)
        trials.prepare({"x": 4.0}, [{"x": fate} for fate in fates])
        assert [t.state.name for t in study.trials] == ["WAITING"] * 9

        def trial(config):
            toy_trial(config | {"flag": str(tmp_path / "flag")})

        assert search(trial, trials, found, lambda number: None, tmp_path / "scratch")
    ended = {round(t.params["x"]): t for t in study.trials}
    fates = {"COMPLETE": (0, 4, 6), "FAIL": (1, 2, 3, 5), "PRUNED": (7, 8)}
    assert {name: tuple(sorted(f for f, t in ended.items() if t.state.name == name)) for name in fates} == fates
    assert ended[0].value == pytest.approx(0.8) and ended[0].intermediate_values == pytest.approx(
        {0: 0.8, 1: 0.8, 2: 0.8}
    )
    assert ended[7].intermediate_values == pytest.approx({0: 0.1, 1: 0.1}), "stopped after its first round"
    reasons = {fate: ended[fate].user_attrs[REASON] for fate in (1, 2, 3, 5)}
    assert reasons[1] == "the score is nan" and reasons[2] == "the score is None"
    assert reasons[3] == "ValueError: as it should" and "process died" in reasons[5]
    assert trials.running == {} and not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("name", ["asha", "median", "none"])
def test_what_is_behind_is_stopped_also_after_a_restart_and_the_recipe_never(url, name):
    """Each trial by a driver of its own: the pruner knows those before."""
    for value in (0.0, 0.5, 0.6, 0.7, 0.8, 0.1, 0.9):
        study = a_study(url)
        study.pruner = pruner(name, 2)
        trials = trials_of(study)
        trial = trials.ask()
        stops = [trials.report(trial.number, {"value": value, "step": n, "left": 2 - n}) for n in (0, 1, 2)]
        assert stops == [False, name != "none" and value == 0.1, False], "after the first round; the last saves nothing"
        trials.end(trial.number, {"value": value, "step": 1, "left": 1} if any(stops) else {"value": value, **DONE})
    assert states(study) == ["COMPLETE"] * 5 + ["COMPLETE" if name == "none" else "PRUNED", "COMPLETE"]


def test_hyperband_stops_some_of_those_that_are_behind(url):
    study = a_study(url)
    study.pruner = pruner("hyperband", 5)
    trials = trials_of(study, total=24)
    for number in range(24):
        trial, steps = trials.ask(), iter(range(1, 6))
        value = 1 / (number + 1)
        while not trials.report(trial.number, {"value": value, "step": (step := next(steps)), "left": int(step < 5)}):
            if step == 5:
                break
        ended = {"value": value, **DONE} if step == 5 else {"value": value, "step": step, "left": 1}
        trials.end(trial.number, ended)
    found = states(study)
    assert found[0] == "COMPLETE" and 4 <= found.count("PRUNED") < 23


def test_a_plan_that_can_never_run_is_refused():
    two = {"CPU": 2.0}
    assert plan(two, None, None, None) == Slots(Resources(), 0.0, 2)
    assert plan({"CPU": 9.0}, 2, None, None) == Slots(Resources(True, 2, 0.0, 2), 0.0, 4)
    eight = {"CPU": 64.0, "GPU": 8.0}
    assert plan(eight, None, None, None) == Slots(Resources(), 1.0, 8)
    assert plan(eight, None, 0.25, None) == Slots(Resources(), 0.25, 32)
    assert plan(eight, None, 0.4, None).concurrency == 16, "a share does not reach over two GPUs"
    assert plan(eight, None, 2.0, None) == Slots(Resources(True, 2, 1.0, 2), 2.0, 4)
    assert plan(eight, None, 0.0, 3) == Slots(Resources(), 0.0, 3)
    for arguments, message in [
        ((two, 3, None, None), "--workers 3: every trial needs 3 CPUs; the cluster has 2"),
        ((two, None, 1.0, None), "--gpus-per-trial 1: the cluster has 0 GPUs"),
        ((eight, 1, 2.0, None), "a worker uses one GPU at most"),
        ((two, 2, None, 2), "--concurrency 2: 1 trials fit, each with 2 CPUs; the cluster has 2 CPUs"),
        ((eight, None, 1.0, 9), "--concurrency 9: 8 trials fit, each with 1 CPU and 1 GPUs"),
    ]:
        with pytest.raises(RunError, match=message):
            plan(*arguments)
