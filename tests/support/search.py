"""A small search over the merge options of PseR: in this process, or as a command."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
from optuna.trial import TrialState

from distributed.tuning.search import Options
from distributed.tuning.study import open_storage
from distributed.tuning.trial import stages_of
from search_spaces.space import Float, Parameter, Space
from tad.data.dataset import Dataset
from tad.errors import RunError
from tad.recipe.recipe import load_recipe
from tests.support.tiny import RECIPE

MERGE = Space(
    (
        Parameter("labeler.merge.rank_power", Float(0.0, 8.0), "for tests", "labels", method="pser"),
        Parameter("labeler.merge.class_power", Float(0.0, 3.0), "for tests", "labels", method="pser"),
    )
)
ONE_ROUND = load_recipe(RECIPE, ["rounds=1"])
SPACE_FILE = """
from search_spaces.space import Float, Parameter
SPACE = [
    Parameter("labeler.merge.rank_power", Float(0.0, 8.0), "for tests", "labels", method="pser"),
    Parameter("labeler.merge.class_power", Float(0.0, 3.0), "for tests", "labels", method="pser"),
]
"""


def options(folder: Path, **more) -> Options:
    """A search in this process; STORE and STUDY below `folder`."""
    return Options(
        **{"name": "s", "out": folder / "study", "trials": 5, "store": str(folder / "store"), "local": True} | more
    )


def study_of(folder: Path, name: str = "s") -> optuna.Study:
    storage = open_storage(f"sqlite:///{folder / 'study' / 'study.db'}")
    return optuna.load_study(study_name=name, storage=storage)


def computed(study_folder: Path) -> Counter:
    """How often each artifact was made, over all trials."""
    uses = [use for folder in sorted((study_folder / "trials").iterdir()) for use in stages_of(folder)]
    return Counter(f"{use.name} {use.fingerprint}" for use in uses if use.made)


def values_of(study: optuna.Study) -> list[tuple]:
    return [(t.state.name, t.values, t.params) for t in study.trials]


def command(data: Dataset, folder: Path, trials: int, *more: str) -> list[str]:
    (folder / "space.py").write_text(SPACE_FILE)
    given = ["tune", RECIPE, "--space", folder / "space.py", "--data", data.root, "--trials", trials]
    given += ["--set", "rounds=1"]
    given += ["--objective", "dev-quality", "--study", "s", "--out", folder / "study", "--store", folder / "store"]
    return [sys.executable, "-m", "tad", *map(str, given), "--tracking", "none", *more]


def wait_until(condition, process: subprocess.Popen, seconds: float = 200) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, ValueError, LookupError, RunError):  # not there yet
            pass
        assert process.poll() is None, f"the search ended too early: {process.communicate()}"
        time.sleep(0.1)
    raise AssertionError("it never came so far")


def complete(folder: Path) -> int:
    database = folder / "study" / "study.db"
    return sum(t.state == TrialState.COMPLETE for t in study_of(folder).trials) if database.is_file() else 0
