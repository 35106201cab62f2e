"""The study: storage, identity, and trials that end in their true state whatever becomes of them."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import threading
import time

import optuna
import pytest
from optuna.trial import TrialState

from distributed.engine.engine import Resources
from distributed.run.identity import NONE, Identity
from distributed.tuning import drivers
from distributed.tuning.drivers import DEAD_SECONDS, PREFIX, living, registered
from distributed.tuning.on_ray import Slots, plan, search, slots
from distributed.tuning.search import pruner, sampler
from distributed.tuning.study import best_of, join, open_storage
from distributed.tuning.trials import AGAIN, AS_IT_IS, DRIVER, REASON, Trials, counts
from search_spaces.space import Float, Parameter, Space
from tad.errors import RunError

optuna.logging.set_verbosity(optuna.logging.ERROR)
SPACE = Space((Parameter("x", Float(0.0, 8.0), "for tests", "labels"),))
IDENTITY = {"recipe": "r", "data": "d", "seed": "0"}
DONE = {"round": 2, "finished": True, "seconds": 1.5}


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'study.db'}"


def a_study(url, name="one", directions=("maximize",)):
    study = join(open_storage(url), name, IDENTITY, list(directions))
    study.sampler = optuna.samplers.RandomSampler(seed=len(study.trials))
    return study


def trials_of(study, total=100, driver=None, **more) -> Trials:
    found = Trials(study, SPACE, total, driver or str(Identity.me()), **more)
    found.prepare({"x": 4.0}, [])
    return found


def states(study):
    return [t.state.name for t in study.trials]


# -- how trials end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "died", "state", "reason"),
    [
        ({"value": 0.5, **DONE}, False, "COMPLETE", None),
        ({"value": 0.5, "round": 1, "left": 1}, False, "PRUNED", None),
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
    trials.report(trial.number, {"value": 0.25, "round": 0, "left": 2})
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
        trials.report(trial.number, {"value": value, "round": 0, "left": 2})
        trials.end(trial.number, {"value": value, "cost": 7.0, **DONE})
    assert states(study) == ["COMPLETE", "FAIL"] and study.trials[0].values == [0.5, 7.0]


# -- several drivers, dead ones --------------------------------------------------------------------------------------


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


# -- storage and identity --------------------------------------------------------------------------------------------


def test_another_search_under_the_same_name_is_refused(url):
    """Tune's own adapter joins whatever study has the name."""
    storage = open_storage(url)
    join(storage, "one", IDENTITY, ["maximize"])
    join(storage, "one", IDENTITY, ["maximize"])
    with pytest.raises(RunError, match=r"study one: is another search: its recipe, seed differ.*--study"):
        join(storage, "one", IDENTITY | {"recipe": "other", "seed": "1"}, ["maximize"])
    with pytest.raises(RunError, match="its data differs"):
        join(storage, "one", IDENTITY | {"data": "other"}, ["maximize"])
    with pytest.raises(RunError, match="number of objectives differs"):
        join(storage, "one", IDENTITY, ["maximize", "minimize"])
    optuna.create_study(storage=storage, study_name="foreign").enqueue_trial({"x": 1.0})
    with pytest.raises(RunError, match="not one of `tad tune`"):
        join(storage, "foreign", IDENTITY, ["minimize"])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "not the URL of a database"),
        ("sqlite://", "name a file"),
        ("sqlite:////proc/none/study.db", "cannot be used"),
        ("sqlite:///FOLDER/text.db", "file is not a database"),
        ("sqlite:///FOLDER", "unable to open database file"),
        ("oracle+nothing://ann:secret@127.0.0.1/x", r"ann:\*\*\*@.*(missing|cannot be used)"),
        ("postgresql://ann:secret@127.0.0.1:9/x", r"ann:\*\*\*@.*(package for this kind of database|cannot be used)"),
    ],
)
def test_a_storage_that_cannot_be_used(tmp_path, url, message):
    (tmp_path / "text.db").write_text("not a database, but a text that is long enough to have a header " * 20)
    with pytest.raises(RunError, match=message) as caught:
        open_storage(url.replace("FOLDER", str(tmp_path)))
    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


def test_a_killed_writer_leaves_a_study_that_can_be_read_and_written(url):
    """kill -9 while it writes; the storage is one file, and no line of it can be torn."""
    code = (
        "import sys\n"
        "from tests.distributed.tuning.test_study import *\n"
        "trials = trials_of(a_study(sys.argv[1]))\n"
        "while trial := trials.ask():\n"
        "    trials.end(trial.number, {'value': 1.0, **DONE}); print(trial.number, flush=True)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, url], stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if int(line) == 5:
            break
    process.send_signal(signal.SIGKILL)
    process.wait()
    study = a_study(url)
    trials = trials_of(study, total=len(study.trials) + 3)
    assert not study.get_trials(states=(TrialState.RUNNING,))
    while trial := trials.ask():
        trials.end(trial.number, {"value": 1.0, **DONE})
    assert states(study)[:6] == ["COMPLETE"] * 6
    assert sum(map(counts, study.trials)) == trials.total


def test_the_sampler_goes_on_from_all_trials_and_does_not_repeat_its_start(url):
    for _ in range(3):
        study = a_study(url)
        study.sampler = sampler("tpe", 0 + len(study.trials))
        trials = trials_of(study, total=len(study.trials) + 4)
        while trial := trials.ask():
            trials.end(trial.number, {"value": 1.0, **DONE})
    found = [t.params["x"] for t in study.trials]
    assert len(found) == len(set(found)) == 12


def test_warm_start_takes_the_best_parameters_within_the_ranges(url):
    study = a_study(url, "earlier")
    trials = trials_of(study)
    for value in (0.3, 0.9, math.nan, 0.5):
        trials.end(trials.ask().number, {"value": value, **DONE})
    x = [t.params["x"] for t in study.trials]
    storage = open_storage(url)
    assert best_of(storage, "earlier", SPACE, most=2) == [{"x": x[1]}, {"x": x[3]}]
    low, high = sorted((x[1], x[3]))
    narrow = Space((Parameter("x", Float(low - 1e-6, (low + high) / 2), "", "labels"),))
    assert {"x": high} not in best_of(storage, "earlier", narrow)
    with pytest.raises(RunError, match="none of its finished trials has a parameter of this space"):
        best_of(storage, "earlier", Space((Parameter("y", Float(0.0, 1.0), "", "labels"),)))
    with pytest.raises(RunError, match="no such study; in the storage: earlier"):
        best_of(storage, "else", SPACE)


# -- Ray Tune --------------------------------------------------------------------------------------------------------


def test_tune_keeps_no_state_of_the_searcher_and_unpickles_none(url, tmp_path):
    from distributed.tuning.searcher import StudySearcher

    searcher = StudySearcher(trials_of(a_study(url)), 1, lambda trial: {})
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
        tune.report({"value": 0.1, "round": 0, "left": 2})
        with open(config["flag"], "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    else:
        for number in (0, 1, 2):
            tune.report({"value": 0.1 * (8 - fate), "round": number, "left": 2 - number})
        tune.report({"value": 0.1 * (8 - fate), **last})


@pytest.mark.ray
def test_every_fate_of_a_trial_under_real_ray_tune(url, tmp_path):
    """Stopped by ASHA, failed, not a number, killed always, killed once: the study tells the truth of each."""
    study = a_study(url)
    study.pruner = pruner("asha")
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
        study.pruner = pruner(name)
        trials = trials_of(study)
        trial = trials.ask()
        stops = [trials.report(trial.number, {"value": value, "round": n, "left": 2 - n}) for n in (0, 1, 2)]
        assert stops == [False, name != "none" and value == 0.1, False], "after the first round; the last saves nothing"
        trials.end(trial.number, {"value": value, "round": 1, "left": 1} if any(stops) else {"value": value, **DONE})
    assert states(study) == ["COMPLETE"] * 5 + ["COMPLETE" if name == "none" else "PRUNED", "COMPLETE"]


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
