"""The study: its storage, its identity, where it goes on, and what a warm start takes from it."""

from __future__ import annotations

import math
import signal
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from distributed.tuning.search import MOST_GP, chosen_sampler, sampler
from distributed.tuning.study import best_of, join, keep_precision, open_storage
from distributed.tuning.trials import counts
from search_spaces.space import Float, Parameter, Space
from tad.errors import RunError
from tests.support.search import options
from tests.support.study import DONE, IDENTITY, SPACE, a_study, states, trials_of


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


def test_trials_of_two_precisions_are_not_compared(url):
    study = join(open_storage(url), "s", {"recipe": "x"}, ["maximize"])
    keep_precision(study, "bf16")
    keep_precision(study, "bf16")
    with pytest.raises(RunError, match="study s: its trials have precision bf16; give --precision bf16"):
        keep_precision(study, "fp32")
    older = join(open_storage(url), "older", {"recipe": "x"}, ["maximize"])
    older.tell(older.ask(), 0.5)  # before there was another precision
    keep_precision(older, "fp32")
    assert older.user_attrs["precision"] == "fp32"


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
        "from tests.support.study import *\n"
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


@pytest.mark.parametrize(
    ("more", "name"),
    [
        ({}, "gp"),
        ({"trials": MOST_GP, "cost": True}, "gp"),
        ({"trials": MOST_GP + 1}, "tpe"),
        ({"scheduler": "median"}, "tpe"),
        ({"sampler": "random"}, "random"),
    ],
)
def test_auto_takes_the_sampler_that_suits_the_search(tmp_path, more, name):
    assert chosen_sampler(options(tmp_path, **more)) == name
