"""Trials end in their true state whatever becomes of them and of the drivers that run them."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time

import pytest
from optuna.trial import TrialState

from distributed.run.identity import NONE, Identity
from distributed.tuning import drivers
from distributed.tuning.drivers import DEAD_SECONDS, PREFIX, living, registered
from distributed.tuning.study import open_storage
from distributed.tuning.trials import AGAIN, AS_IT_IS, DRIVER, REASON, counts
from tests.support.study import DONE, a_study, states, trials_of


@pytest.mark.parametrize(
    ("report", "died", "state", "reason"),
    [
        ({"value": 0.5, **DONE}, False, "COMPLETE", None),
        ({"value": 0.5, "step": 1, "left": 1}, False, "PRUNED", None),
        ({"value": math.nan, **DONE}, False, "FAIL", "the score is nan"),
        ({"value": math.inf, **DONE}, False, "FAIL", "the score is inf"),
        ({"value": None, **DONE}, False, "FAIL", "the score is None"),
        ({"value": None, "round": 0, "failed": "RunError: loss is nan"}, False, "FAIL", "RunError: loss is nan"),
        (None, True, "FAIL", "process died"),
    ],
)
def test_a_trial_ends_in_its_true_state(url, report, died, state, reason):
    """Tune's own adapter ends a stopped trial as complete, and leaves one without a number running for ever."""
    study = a_study(url)
    trials = trials_of(study)
    trials.end(trials.ask().number, {"value": 0.1, **DONE})
    trial = trials.ask()
    trials.report(trial.number, {"value": 0.25, "step": 0, "left": 2})
    if state == "PRUNED":
        trials.report(trial.number, report)
    trials.end(trial.number, report, died)
    _, ended = a_study(url).trials
    assert ended.state.name == state and counts(ended)
    assert reason is None or reason in ended.user_attrs[REASON]
    assert ended.values == ([0.5] if state in ("COMPLETE", "PRUNED") else None)
    assert ended.intermediate_values == ({0: 0.25, 1: 0.5} if state == "PRUNED" else {0: 0.25})
    assert trials.running == {}


def test_a_stopped_trial_without_a_report_is_given_back_and_tried_again(url):
    study = a_study(url)
    trials = trials_of(study, total=2)
    trials.end(trials.ask().number, {"value": 0.1, **DONE})
    first = trials.ask()
    trials.end(first.number, None)
    again = trials.ask()
    assert study.trials[first.number].user_attrs[AGAIN] and again.params == first.params
    trials.end(again.number, {"value": 0.2, **DONE})
    assert trials.ask() is None and sum(map(counts, study.trials)) == 2


def test_the_recipe_as_it_is_comes_first_and_once(url):
    study = a_study(url)
    with registered(study):
        for _ in range(2):
            trials_of(study)
        trial = trials_of(study).ask()
        assert trial.number == 0 and trial.user_attrs[AS_IT_IS] and trial.params == {"x": 4.0}
        trials_of(study)
    assert [bool(t.user_attrs.get(AS_IT_IS)) for t in study.trials] == [True]


def test_a_recipe_that_fails_ends_the_search_and_is_tried_again_by_the_next(url):
    study = a_study(url)
    trials = trials_of(study)
    trials.end(trials.ask().number, {"value": None, "round": 0, "failed": "DataError: no features"})
    assert trials.ask() is None and trials.broken == "DataError: no features"
    again = trials_of(study).ask()
    assert again.number == 1 and again.user_attrs[AS_IT_IS]


def test_two_numbers_for_each_trial(url):
    study = a_study(url, directions=("maximize", "minimize"))
    trials = trials_of(study)
    for value in (0.5, math.nan):
        trial = trials.ask()
        trials.report(trial.number, {"value": value, "step": 0, "left": 2})
        trials.end(trial.number, {"value": value, "cost": 7.0, **DONE})
    assert states(study) == ["COMPLETE", "FAIL"] and study.trials[0].values == [0.5, 7.0]


def leave_running(study, driver):
    trial = study.ask()
    trial.set_user_attr(DRIVER, driver)
    trial.suggest_float("x", 0.0, 8.0)
    return trial


def test_trials_of_dead_drivers_are_given_back_and_those_of_living_ones_left_alone(url, monkeypatch):
    monkeypatch.setattr(drivers, "WATCH_SECONDS", 0)
    study = a_study(url)
    trials_of(study)
    study.ask()
    gone = subprocess.Popen([sys.executable, "-c", "pass"])
    gone.wait()
    me, now = Identity.me(), time.time()
    there = me._replace(space="4026539999")  # a container of this machine, with the same host name
    known = {
        str(me._replace(pid=gone.pid)): (now, False),
        str(me._replace(born=me.born - 1)): (now, False),  # the number is another process's by now
        str(there._replace(pid=gone.pid)): (now - 5, True),
        str(there._replace(pid=gone.pid + 1)): (now - DEAD_SECONDS - 5, False),
        str(me._replace(boot="another")): (now - 5, True),
        "vm 7 1764387000.25": (now - 5, True),  # as earlier versions named drivers
        str(me): (now - 10 * DEAD_SECONDS, True),  # the clock was set; the process is there
    }
    left = {}
    for name, (beat, _) in known.items():
        study.set_user_attr(PREFIX + name, beat)
        left[name] = leave_running(study, name)
    trials_of(study)
    for name, (_, lives) in known.items():
        trial = study.trials[left[name].number]
        assert (trial.state == TrialState.RUNNING) == lives, name
        assert lives or (trial.user_attrs[REASON], counts(trial)) == ("driver died", False)
    # The dead ones' parameters wait once each; the recipe, asked for above by no known driver, is still young.
    waiting = [t for t in study.trials if t.state == TrialState.WAITING]
    assert [t.system_attrs["fixed_params"] for t in waiting] == [
        left[name].params for name, (_, lives) in known.items() if not lives
    ]


@pytest.mark.parametrize("step", [-3600, 3600])
def test_a_driver_elsewhere_whose_clock_was_set_is_known_by_its_next_beat(url, monkeypatch, capsys, step):
    study = a_study(url)
    me, beat = Identity.me(), time.time() + step
    beats, silent = (str(me._replace(space=space, host="far")) for space in ("1", "2"))
    for name in (beats, silent):
        study.set_user_attr(PREFIX + name, beat)
    watched = []

    def watch(seconds):
        watched.append(seconds)
        a_study(url).set_user_attr(PREFIX + beats, beat + 10)

    monkeypatch.setattr(time, "sleep", watch)
    assert living(study) == {beats}
    assert watched == [drivers.WATCH_SECONDS] and "for a heartbeat of other drivers of this study (far)" in (
        capsys.readouterr().err
    )
    assert study.user_attrs[PREFIX + silent] == 0  # nobody watches it again
    study.set_user_attr(PREFIX + silent, time.time())
    assert silent in living(study)  # it had only been asleep


def test_a_driver_registers_and_leaves_in_order(url):
    study = a_study(url)
    with registered(study) as me:
        assert living(study) == {me}
        assert Identity.parse(me) == Identity.me()
    assert living(study) == set()


def test_several_drivers_share_one_study_up_to_the_total(url):
    """Two at once, each with a connection of its own: together exactly the trials that were asked for."""
    open_storage(url)
    ends = []

    def drive(name):
        trials = trials_of(a_study(url), total=15, driver=name)
        while (trial := trials.ask()) is not None:
            trials.end(trial.number, {"value": trial.params["x"], **DONE})
            ends.append(name)

    names = [str(Identity.me()), str(Identity("another", NONE, NONE, 1, 1))]
    for name in names:
        a_study(url).set_user_attr(PREFIX + name, time.time())
    threads = [threading.Thread(target=drive, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    study = a_study(url)
    counted = [t for t in study.trials if counts(t)]
    assert len(counted) == 15 == len(ends) and {t.state.name for t in counted} == {"COMPLETE"}
    assert sum(bool(t.user_attrs.get(AS_IT_IS)) for t in counted) == 1
    assert not study.get_trials(states=(TrialState.RUNNING,))


def test_no_trial_is_asked_for_after_the_time(url):
    assert trials_of(a_study(url), until=time.time() - 1).ask() is None
